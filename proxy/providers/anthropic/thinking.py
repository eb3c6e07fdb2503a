"""Translates: `reasoning_effort` into the vendor's `thinking` and `output_config.effort`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.errors import BadRequest
from proxy.providers.anthropic.models import EFFORTS, Traits
from proxy.providers.content import Fields

MIN_BUDGET = 1024
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 8192, "max": 16_384}  # tokens


class Thinking(Struct):
    """`config`: the request's `thinking`, None: not sent. `effort`: of `output_config`. `is_on`: the model will think,
    asked or not.
    """

    config: dict[str, Any] | None = None
    effort: str | None = None
    is_on: bool = False

    @property
    def has_budget(self) -> bool:
        """The older, manual kind: it fixes the temperature, forces no tools, and wants its thoughts back."""
        return self.config is not None and self.config.get("type") == "enabled"


def thinking_of(fields: Fields, traits: Traits, limit: int) -> Thinking:
    """The vendor's own `thinking` stands above the effort. `limit`: the most tokens of the answer, thinking included.

    Raises BadRequest for a word that is no effort.
    """
    native, effort = fields.take("thinking"), fields.take("reasoning_effort")
    if native is not None and not isinstance(native, dict):
        raise BadRequest("thinking: expected an object, such as {type: adaptive}.", param="thinking")
    if native is not None:
        if effort is not None:
            fields.drop("reasoning_effort")
        return Thinking(native, is_on=native.get("type") != "disabled")
    if effort is None:
        return Thinking(is_on=traits.thinks_unasked)
    if not isinstance(effort, str) or effort not in EFFORTS:
        message = f"Unknown reasoning_effort {str(effort)[:64]!r}. Known: {', '.join(EFFORTS)}."
        raise BadRequest(message, param="reasoning_effort")
    if effort == "none":
        return _off(fields, traits)
    if traits.thinking == "adaptive":
        # Left to itself the vendor shows no thoughts.
        return Thinking({"type": "adaptive", "display": "summarized"}, _level(effort, traits, fields), True)
    if traits.thinking == "none":
        fields.drop("reasoning_effort")
        return Thinking()
    fields.adapt("reasoning_effort")
    if limit <= MIN_BUDGET:
        return Thinking()  # no budget is small enough
    budget = min(_BUDGETS[effort], max(MIN_BUDGET, limit // 2))
    return Thinking({"type": "enabled", "budget_tokens": budget}, is_on=True)


def _off(fields: Fields, traits: Traits) -> Thinking:
    if not traits.thinks_unasked:
        return Thinking()
    if traits.off == "disabled":
        return Thinking({"type": "disabled"})
    fields.adapt("reasoning_effort")
    config = {"type": traits.off} if traits.off is not None else None
    return Thinking(config, traits.efforts[0], True)


def _level(effort: str, traits: Traits, fields: Fields) -> str:
    """The nearest level that the model has: the next above, else its highest."""
    if effort in traits.efforts:
        return effort
    fields.adapt("reasoning_effort")
    above = [level for level in EFFORTS[EFFORTS.index(effort) :] if level in traits.efforts]
    return above[0] if above else traits.efforts[-1]
