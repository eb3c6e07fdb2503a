"""Translates: the fields of a request, taken one by one by a translation into another wire format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from proxy.schema.chat import ChatRequest
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.errors import BadRequest

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # of `reasoning_effort`, in order
LIMITS = ("max_completion_tokens", "max_tokens")  # OpenAI's two names for the output limit
# OpenAI's defaults: leaving out such a value changes nothing, so it is no loss.
NEUTRAL: dict[str, Any] = {
    "temperature": 1,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": 0,
    "n": 1,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "service_tier": "auto",
    "verbosity": "medium",
    "metadata": {},
    "store": False,
    "stop": [],
}
_REFUSED = {
    "functions": "Send `tools` instead; it is deprecated.",
    "function_call": "Send `tool_choice` instead; it is deprecated.",
    "audio": "Leave it out, or name a model that speaks.",
}


class Fields:
    """The fields of a request. Those that are never taken are reported as dropped.

    `defaults` are the provider's `parameters`; the client's fields override them. A field that is null is not set.
    """

    def __init__(self, fields: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        given = {name: value for name, value in fields.items() if value is not None}
        self._left = {name: value for name, value in (defaults or {}).items() if value is not None} | given
        self._sent = frozenset(given)
        self._dropped: dict[str, None] = {}  # an ordered set: clients choose how many names there are
        self._adapted: dict[str, None] = {}

    @property
    def adapted(self) -> list[str]:
        return list(self._adapted)

    def take(self, *names: str) -> Any:
        """Takes all of `names`; returns the first value that is set, or None. The client's value under any of the names
        overrides a default.
        """
        if len(names) == 1:
            return self._left.pop(names[0], None)
        values = [self._left.pop(name, None) for name in sorted(names, key=lambda name: name not in self._sent)]
        return next((value for value in values if value is not None), None)

    def take_all(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of `names` that are set."""
        return {name: value for name in names if (value := self.take(name)) is not None}

    def number(self, *names: str) -> float | None:
        """`take` for a number. Raises BadRequest for anything else."""
        value = self.take(*names)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadRequest(f"{names[0]}: expected a number.", param=names[0])
        return value

    def limit(self, request: ChatRequest) -> int | None:
        """The output limit. The request's own limit overrides a default under either name, because the call's price
        bound follows from it. Raises BadRequest for a default that is not a whole number.
        """
        default = self.take(*LIMITS)
        limit = request.max_tokens if request.max_tokens is not None else default
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise BadRequest("max_tokens: expected a whole number.", param="max_tokens")
        return limit

    def adapt_limit(self, request: ChatRequest) -> None:
        """Reports a lowered output limit under the name that the client used."""
        self.adapt(next((name for name in LIMITS if name in request.fields), "max_tokens"))

    def tier(self, words: Mapping[str, str], *names: str) -> str | None:
        """`service_tier` in the vendor's words; a tier without an equivalent is dropped."""
        tier = self.take("service_tier", *names)
        if isinstance(tier, str) and tier in words:
            return words[tier]
        if tier is not None:
            self.drop("service_tier")
        return None

    def drop(self, name: str) -> None:
        """Reports that the vendor does not support this field, or this value."""
        self._left.pop(name, None)
        self._dropped[name] = None

    def is_dropped(self, name: str) -> bool:
        return name in self._dropped

    def adapt(self, name: str) -> None:
        """Reports that the request carries the field with another value, or by means that may differ in effect."""
        self._adapted[name] = None

    def rest(self) -> list[str]:
        """Drops the remaining fields; returns all dropped ones. Provider defaults are not reported.

        Raises BadRequest for fields that request another kind of answer, which would be useless without them.
        """
        for name, instead in _REFUSED.items():
            if name in self._left:
                message = f"{name} is not supported by this provider. {instead}"
                raise BadRequest(message, param=name, code="unsupported_parameter")
        if self._left.get("modalities") == ["text"]:
            del self._left["modalities"]  # the default, stated explicitly
        elif "modalities" in self._left:
            message = 'This provider answers only in text. Send modalities ["text"], or leave it out.'
            raise BadRequest(message, param="modalities", code="unsupported_parameter")
        for name in list(self._left):
            if name in self._sent:
                self.drop(name)
        return list(self._dropped)


def stop_list(stop: Any) -> list[str]:
    """`stop` as a list of non-empty texts."""
    given = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    return [text for text in given if isinstance(text, str) and text]


def nearest_level(effort: str, levels: tuple[str, ...]) -> str:
    """The level nearest to `effort`, one of LEVELS: the next above, else the highest of `levels`."""
    above = [level for level in LEVELS[LEVELS.index(effort) :] if level in levels]
    return above[0] if above else [level for level in LEVELS if level in levels][-1]


def texts_only(request: EmbeddingsRequest, model: str) -> None:
    """Raises BadRequest for lists of token ids, which only OpenAI's own tokenizers can interpret."""
    if any(not isinstance(each, str) for each in request.inputs):
        message = f"{model} accepts texts, not lists of token ids: only OpenAI's own models can read those."
        raise BadRequest(message, param="input", code="unsupported_content")
