"""Translates: an OpenAI chat request into one for `/v2/chat`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxy.providers.base.contract import Built, post_json
from proxy.providers.base.fields import Fields, stop_list
from proxy.providers.base.json_schema import SCHEMA_PATH, Subset, down_level, json_instruction, wanted_schema
from proxy.providers.base.tidy import media_apart, tidied
from proxy.providers.cohere.messages import Turns
from proxy.providers.cohere.models import max_output, reasons
from proxy.providers.cohere.tools import names_of, tool_fields
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest

MAX_STOPS = 5
# The vendor's own parameters, from its SDK; others are renamed below.
_NATIVE = ("documents", "citation_options", "safety_mode", "priority")
# The vendor's fixed behaviour: a client that asks for it loses nothing.
_USUAL: dict[str, Callable[[Any], bool]] = {
    "parallel_tool_calls": lambda value: value is True,
    "service_tier": lambda value: value in ("auto", "default"),
    "store": lambda value: value is False,
}
_THINKING = ("type", "token_budget")
_BUDGETS = {"minimal": 512, "low": 1024, "medium": 4096, "high": 16_384, "xhigh": 32_768, "max": None}  # tokens
# The schema subset for answers (structured outputs, "unsupported schema features"): no lengths, no ranges.
JSON_SUBSET = Subset(
    keywords=frozenset({"properties", "required", "items", "anyOf", "const", "pattern", "format", "title"})
    | {"additionalProperties"},
    declared=True,
    formats=frozenset({"date-time", "date", "time", "uuid"}),
)


def build_chat(request: ChatRequest, model: str, defaults: Mapping[str, Any]) -> Built:
    """The request. Raises BadRequest for content that the model does not support, and for invalid values."""
    request = tidied(request, names_of(request, defaults))
    with_media, request = request, media_apart(request)
    fields = Fields(request.fields, defaults)
    if request is not with_media:
        fields.adapt("messages.content")
    for name in ("model", "messages", "stream", "stream_options", "n"):
        fields.take(name)
    if request.n > 1:
        fields.drop("n")
    options: dict[str, Any] = {}
    _limit(request, model, fields, options)
    stops = _sampling(fields, options)
    options |= tool_fields(fields)
    options |= fields.take_all(_NATIVE)
    _thinking(model, fields, options)
    thinks = reasons(model) and options.get("thinking", {}).get("type") != "disabled"
    turns = Turns(request, model, fields, thinks=thinks)
    instruction = _format(request, fields, options)
    for name, is_usual in _USUAL.items():
        value = fields.take(name)
        if value is not None and not is_usual(value):
            fields.drop(name)
    body = {"model": model, "messages": turns.build(instruction), **options}
    if request.stream:
        body["stream"] = True
    http = post_json("/v2/chat", body, request)
    unchecked = instruction is not None and "response_format" not in options
    return Built(http, fields.rest(), fields.adapted, stops, unchecked)


def _limit(request: ChatRequest, model: str, fields: Fields, options: dict[str, Any]) -> None:
    limit, most = fields.limit(request), max_output(model)
    if limit is None:
        return
    if most is not None and limit > most:
        fields.adapt_limit(request)
        limit = most
    options["max_tokens"] = limit


def _sampling(fields: Fields, options: dict[str, Any]) -> list[str]:
    """Numeric parameters and stop sequences; returns the sequences beyond the vendor's maximum."""
    for name, value in (("temperature", fields.number("temperature")), ("seed", fields.take("seed"))):
        if value is not None:
            options[name] = value
    share = fields.number("top_p", "p")
    if share is not None:
        options["p"] = _within(fields, "top_p", share, 0.01, 0.99)
    most = fields.number("top_k", "k")
    if most is not None:
        options["k"] = int(_within(fields, "top_k", most, 0, 500))
    _penalties(fields, options)
    logprobs = fields.take("logprobs")
    if logprobs is not None and not isinstance(logprobs, bool):
        raise BadRequest("logprobs: expected true or false.", param="logprobs")
    if logprobs:
        options["logprobs"] = True
    if fields.number("top_logprobs"):
        fields.drop("top_logprobs")
    stops = stop_list(fields.take("stop", "stop_sequences"))
    if stops:
        options["stop_sequences"] = stops[:MAX_STOPS]
    return stops[MAX_STOPS:]


def _penalties(fields: Fields, options: dict[str, Any]) -> None:
    """Penalties between 0 and 1, and only one of the two: several models refuse both."""
    sent: dict[str, float] = {}
    for name in ("frequency_penalty", "presence_penalty"):
        value = fields.number(name)
        if not value:
            continue
        if any(sent.values()):
            fields.drop(name)
        else:
            sent = {name: _within(fields, name, value, 0, 1)}
    options |= sent


def _thinking(model: str, fields: Fields, options: dict[str, Any]) -> None:
    """`reasoning_effort` as a budget of thinking tokens, less than the limit of the whole answer."""
    native, effort = fields.take("thinking"), fields.take("reasoning_effort")
    if native is not None:
        options |= _native_thinking(native, fields)
        if effort is not None:
            fields.drop("reasoning_effort")
        return
    if effort is None:
        return
    if effort != "none" and (not isinstance(effort, str) or effort not in _BUDGETS):
        known = ", ".join(("none", *_BUDGETS))
        raise BadRequest(f"Unknown reasoning_effort {str(effort)[:64]!r}. Known: {known}.", param="reasoning_effort")
    if not reasons(model):
        if effort != "none":
            fields.drop("reasoning_effort")
        return
    if effort == "none":
        options["thinking"] = {"type": "disabled"}
        return
    fields.adapt("reasoning_effort")
    budget, limit = _BUDGETS[effort], options.get("max_tokens")
    if limit is not None and (budget is None or budget >= limit):
        budget = max(1, limit // 2)
    options["thinking"] = {"type": "enabled"} if budget is None else {"type": "enabled", "token_budget": budget}


def _native_thinking(given: Any, fields: Fields) -> dict[str, Any]:
    """The vendor's own `thinking`, without other vendors' options."""
    if not isinstance(given, dict) or given.get("type") not in ("enabled", "disabled"):
        fields.drop("thinking")
        return {}
    for name in given:
        if name not in _THINKING:
            fields.drop(f"thinking.{name}")
    return {"thinking": {name: given[name] for name in given if name in _THINKING and given[name] is not None}}


def _format(request: ChatRequest, fields: Fields, options: dict[str, Any]) -> str | None:
    """`response_format`, or the instruction that replaces it if the vendor accepts none: with tools, with documents,
    and for a schema that requires nothing.

    Without a schema the vendor's models must be told to write JSON, or they may write white space without end.
    """
    wanted = fields.take("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        message = "response_format: `type` must be one of text, json_object, json_schema."
        raise BadRequest(message, param="response_format.type")
    schema = wanted_schema(wanted) if kind == "json_schema" else wanted.get("json_schema")
    takes_none = "tools" in options or "documents" in options
    if takes_none or (schema is not None and not _is_enforced(schema)):
        fields.adapt("response_format")
        return json_instruction(schema, "tools" in options)
    if schema is None:
        options["response_format"] = {"type": "json_object"}
        if any("json" in text.lower() for text in request.texts()):
            return None
        fields.adapt("response_format")
        return "Answer with a JSON object."
    levelled = down_level(schema, JSON_SUBSET, SCHEMA_PATH)
    if levelled.changes:
        fields.adapt("response_format")
    options["response_format"] = {"type": "json_object", "json_schema": levelled.schema}
    return None


def _is_enforced(schema: Any) -> bool:
    """True if the vendor accepts the schema: of an object that requires at least one of its fields."""
    return isinstance(schema, dict) and schema.get("type") == "object" and bool(schema.get("required"))


def _within(fields: Fields, name: str, value: float, least: float, most: float) -> float:
    """`value` moved into the vendor's range."""
    moved = min(max(value, least), most)
    if moved != value:
        fields.adapt(name)
    return moved
