"""Translates: `reasoning_effort` into the vendor's `thinking` and `output_config.effort`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.providers.anthropic.models import Traits
from proxy.providers.base.fields import LEVELS, Fields, nearest_level
from proxy.schema.errors import BadRequest

MIN_BUDGET = 1024
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16_384}  # tokens
_KINDS = ("enabled", "disabled", "adaptive", "between_tools")
_OPTIONS = ("type", "budget_tokens", "display", "block_binding")


class Thinking(Struct):
    """`config`: the request's `thinking`, None if it is not sent. `effort`: for `output_config`. `is_on`: the model
    will think, by request or by default. `asked`: the field that requested it.
    """

    config: dict[str, Any] | None = None
    effort: str | None = None
    is_on: bool = False
    asked: str = "reasoning_effort"

    @property
    def has_budget(self) -> bool:
        """The older, manual kind of thinking: it fixes the temperature, cannot force tools, and needs its thoughts
        back.
        """
        return self.config is not None and self.config.get("type") == "enabled"


def thinking_of(fields: Fields, traits: Traits, limit: int) -> Thinking:
    """The vendor's own `thinking` takes precedence over the effort. `limit`: the output limit, thinking included.
    Raises BadRequest for an unknown effort.
    """
    native, effort = fields.take("thinking"), fields.take("reasoning_effort")
    if native is not None and not isinstance(native, dict):
        raise BadRequest("thinking: expected an object, such as {type: adaptive}.", param="thinking")
    if native is not None and native.get("type") is None and traits.context is not None:
        fields.drop("thinking")  # only options of other vendors
    elif native is not None:
        found = _native(native, fields, traits, limit)
        found.asked = "thinking"
        if effort is not None:
            fields.drop("reasoning_effort")
        return found
    if effort is None:
        return Thinking(is_on=traits.thinks_unasked)
    if not isinstance(effort, str) or effort not in LEVELS:
        message = f"Unknown reasoning_effort {str(effort)[:64]!r}. Known: {', '.join(LEVELS)}."
        raise BadRequest(message, param="reasoning_effort")
    if effort == "none":
        return _off(fields, traits, "reasoning_effort")
    if traits.thinking == "adaptive":
        # By default the vendor shows no thoughts.
        return Thinking({"type": "adaptive", "display": "summarized"}, _level(effort, traits, fields), True)
    if traits.thinking == "none":
        fields.drop("reasoning_effort")
        return Thinking()
    fields.adapt("reasoning_effort")
    return _budgeted({}, min(_BUDGETS[effort], max(MIN_BUDGET, limit // 2)), limit)


def _native(given: dict[str, Any], fields: Fields, traits: Traits, limit: int) -> Thinking:
    """The vendor's own `thinking`, adjusted to the model: some models refuse a budget, others require one, and some
    cannot turn thinking off. Models of other vendors behind this API get it unchanged.
    """
    kind = given.get("type")
    if traits.context is None:
        return Thinking(given, is_on=kind != "disabled")
    if kind not in _KINDS:
        raise BadRequest(f"thinking: `type` must be one of {', '.join(_KINDS)}.", param="thinking.type")
    for name in given:
        if name not in _OPTIONS:
            fields.drop(f"thinking.{name}"[:96])
    config = {name: value for name, value in given.items() if name in _OPTIONS and value is not None}
    if traits.thinking == "none":
        if kind != "disabled":
            fields.drop("thinking")
        return Thinking()
    if kind == "disabled":
        return _off(fields, traits, "thinking") if traits.thinks_unasked else Thinking({"type": kind})
    if kind == "enabled" and traits.samples:
        return _manual(config, fields, limit)
    if kind == "adaptive" and traits.thinking == "budget":
        fields.adapt("thinking")
        return _manual({**config, "budget_tokens": min(_BUDGETS["medium"], limit // 2)}, fields, limit)
    if kind == "enabled":
        fields.adapt("thinking")
        config.pop("budget_tokens", None)
        config = {"display": "summarized", **config, "type": "adaptive"}
    return Thinking(config, is_on=True)


def _manual(config: dict[str, Any], fields: Fields, limit: int) -> Thinking:
    """A thinking budget that leaves room for the answer."""
    budget = config.get("budget_tokens", _BUDGETS["medium"])
    if isinstance(budget, bool) or not isinstance(budget, int):
        raise BadRequest("thinking.budget_tokens: expected a whole number.", param="thinking.budget_tokens")
    if "budget_tokens" not in config or not MIN_BUDGET <= budget < limit:
        fields.adapt("thinking")
        budget = max(MIN_BUDGET, budget if budget < limit else limit // 2)
    return _budgeted(config, budget, limit)


def _budgeted(config: dict[str, Any], budget: int, limit: int) -> Thinking:
    if limit <= MIN_BUDGET:
        return Thinking()  # no budget is small enough
    return Thinking({**config, "type": "enabled", "budget_tokens": budget}, is_on=True)


def _off(fields: Fields, traits: Traits, asked: str) -> Thinking:
    if not traits.thinks_unasked:
        return Thinking()
    if traits.off == "disabled":
        return Thinking({"type": "disabled"})
    fields.adapt(asked)
    config = {"type": traits.off} if traits.off is not None else None
    return Thinking(config, traits.efforts[0], True)


def _level(effort: str, traits: Traits, fields: Fields) -> str:
    """The nearest level that the model supports: the next above, else its highest."""
    if effort in traits.efforts:
        return effort
    fields.adapt("reasoning_effort")
    return nearest_level(effort, traits.efforts)
