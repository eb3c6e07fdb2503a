"""Translates: Anthropic's usage into OpenAI's, and that into tokens in normal form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from msgspec.structs import astuple, replace

from proxy.providers.base.answers import count, mapping, objects, tokens_of, whole
from proxy.schema.chat import Usage
from proxy.schema.records import Tokens

_COUNTED = ("message", "fallback_message")  # passes of the model that the vendor's counts are the sum of


def merged(usage: dict[str, Any], newer: object) -> dict[str, Any]:
    """Usage grows over a stream. Counts are cumulative, so the newest non-null value of each counts."""
    given = newer if isinstance(newer, dict) else {}
    return usage | {name: value for name, value in given.items() if value is not None}


def usage_of(raw: dict[str, Any]) -> Usage | None:
    """Usage in OpenAI's form, None unless the vendor counted both input and output. OpenAI's `prompt_tokens` include
    cache reads and writes, the vendor's `input_tokens` do not. Counts without a place in OpenAI's form keep the
    vendor's names.
    """
    fresh, output = whole(raw.get("input_tokens")), whole(raw.get("output_tokens"))
    if fresh is None or output is None:
        return None
    read, written = count(raw.get("cache_read_input_tokens")), count(raw.get("cache_creation_input_tokens"))
    prompt = fresh + read + written
    details = {"cached_tokens": read, "cache_write_tokens": written}
    hour = min(count(mapping(raw.get("cache_creation")).get("ephemeral_1h_input_tokens")), written)
    if hour:
        details["cache_write_1h_tokens"] = hour
    thought = count(mapping(raw.get("output_tokens_details")).get("thinking_tokens"))
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": min(thought, output)},
    }
    used = {name: uses for name, uses in mapping(raw.get("server_tool_use")).items() if count(uses)}
    usage |= {"server_tool_use": used} if used else {}
    passes = objects(raw.get("iterations"))
    beside = any(each.get("type") not in _COUNTED for each in passes)
    return cast(Usage, usage | ({"iterations": passes} if beside else {}))


def billed_tokens(usage: Usage) -> Tokens:
    """Billed tokens in normal form, with searches and with what the vendor leaves out of its counts: summarizing the
    conversation (`compaction`), and models that this one asked (`advisor_message`).
    """
    given = cast("dict[str, Any]", usage)
    used, others = _tokens(given), []
    for each in objects(given.get("iterations")):
        counted, model = usage_of(each), each.get("model")
        if counted is None:
            continue
        if each.get("type") == "compaction":
            used = _added(used, _tokens(counted))
        elif each.get("type") == "advisor_message" and isinstance(model, str):
            others.append((model, _tokens(counted)))
    return replace(used, others=tuple(others))


def _added(one: Tokens, other: Tokens) -> Tokens:
    return Tokens(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))


def _tokens(given: Mapping[str, Any]) -> Tokens:
    return tokens_of(given, mapping(given.get("server_tool_use")).get("web_search_requests"))
