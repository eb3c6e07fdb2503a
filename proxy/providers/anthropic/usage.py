"""Translates: Anthropic's usage into OpenAI's, and that into tokens in normal form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from msgspec.structs import astuple, replace

from proxy.providers.openai.response import objects
from proxy.schema.chat import Usage
from proxy.schema.records import Tokens

_COUNTED = ("message", "fallback_message")  # passes of the model that the vendor's counts are the sum of


def merged(usage: dict[str, Any], newer: object) -> dict[str, Any]:
    """Usage as it grows over a stream: counts are cumulative, so of each the newest that is not null stands."""
    given = newer if isinstance(newer, dict) else {}
    return usage | {name: value for name, value in given.items() if value is not None}


def usage_of(raw: dict[str, Any]) -> Usage | None:
    """OpenAI's `prompt_tokens` include what was read from or written to a cache, the vendor's `input_tokens` do not.

    None where the vendor did not count both sides. What has no place in OpenAI's form stays under the vendor's name.
    """
    if not _is_count(raw.get("input_tokens")) or not _is_count(raw.get("output_tokens")):
        return None
    read, written = _count(raw.get("cache_read_input_tokens")), _count(raw.get("cache_creation_input_tokens"))
    prompt, output = raw["input_tokens"] + read + written, raw["output_tokens"]
    details = {"cached_tokens": read, "cache_write_tokens": written}
    hour = min(_count(_object(raw.get("cache_creation")).get("ephemeral_1h_input_tokens")), written)
    if hour:
        details["cache_write_1h_tokens"] = hour
    thought = _count(_object(raw.get("output_tokens_details")).get("thinking_tokens"))
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": min(thought, output)},
    }
    used = {name: count for name, count in _object(raw.get("server_tool_use")).items() if _count(count)}
    usage |= {"server_tool_use": used} if used else {}
    passes = objects(raw.get("iterations"))
    beside = any(each.get("type") not in _COUNTED for each in passes)
    return cast(Usage, usage | ({"iterations": passes} if beside else {}))


def tokens_of(usage: Usage) -> Tokens:
    """Tokens in normal form as they are billed, with the searches and what the vendor leaves out of its counts: what it
    took to summarize the conversation (`compaction`), and what a model used that this one asked (`advisor_message`).
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
    details, output_details = (_object(given.get(f"{side}_tokens_details")) for side in ("prompt", "completion"))
    prompt, output = _count(given.get("prompt_tokens")), _count(given.get("completion_tokens"))
    read = min(_count(details.get("cached_tokens")), prompt)
    written = min(_count(details.get("cache_write_tokens")), prompt - read)
    return Tokens(
        input=prompt - read - written,
        cache_read=read,
        cache_write=written,
        output=output,
        reasoning=min(_count(output_details.get("reasoning_tokens")), output),
        cache_write_1h=min(_count(details.get("cache_write_1h_tokens")), written),
        searches=_count(_object(given.get("server_tool_use")).get("web_search_requests")),
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _count(value: object) -> int:
    return value if isinstance(value, int) and _is_count(value) else 0
