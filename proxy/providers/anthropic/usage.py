"""Translates: Anthropic's usage, which grows over a stream, into the report of shown and billed usage."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proxy.providers.base.answers import mapping, objects
from proxy.providers.base.usage import served_as
from proxy.schema.records import Tokens
from proxy.schema.usage import UsageReport, count, counted, is_absurd, shown_of

_PROMPT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation")


def grown(usage: dict[str, Any], newer: object, *, has_begun: bool = False) -> dict[str, Any]:
    """Usage grows over a stream. Counts are cumulative, so the newest of each counts; null and 0 erase none. The three
    parts of the prompt are one count: a message that corrects it may move tokens from one part to another.

    `has_begun`: the answer has only begun, so its output is a placeholder.
    """
    given = {name: value for name, value in mapping(newer).items() if value is not None}
    if has_begun:
        given.pop("output_tokens", None)
    if not any(count(given.get(name)) for name in _PROMPT[:3]):
        for name in _PROMPT:
            given.pop(name, None)
    return usage | {name: _newest(usage.get(name), value) for name, value in given.items()}


def _newest(older: Any, newer: Any) -> Any:
    """The newer value, unless it is 0 or empty; field by field in an object."""
    if isinstance(older, dict) and isinstance(newer, dict):
        return older | {name: _newest(older.get(name), value) for name, value in newer.items()}
    return newer if count(newer) or not older or (counted(newer) is None and newer) else older


def usage_of(raw: dict[str, Any]) -> UsageReport | None:
    """None if the object counts nothing and does not try to.

    Some work is billed outside the vendor's counts: summarizing the conversation (`compaction`), and models that this
    one asked (`advisor_message`).
    """
    tokens, absurd = _tokens(raw), is_absurd(*(raw.get(name) for name in (*_PROMPT[:3], "output_tokens")))
    if tokens == _NOTHING and not absurd:
        return None
    billed, others = tokens, []
    for each in objects(raw.get("iterations")):
        model = each.get("model")
        if each.get("type") == "compaction":
            more = _tokens(each)
            billed = replace(billed, **{name: getattr(billed, name) + getattr(more, name) for name in _COUNTED})
        elif each.get("type") == "advisor_message" and isinstance(model, str) and (asked := _tokens(each)).total:
            others.append((model, asked))
    if others:
        billed = replace(billed, others=tuple(others))
    return UsageReport(shown_of(tokens), billed, raw if absurd else None, service=served_as(raw))


_NOTHING = Tokens()
_COUNTED = ("input", "cache_read", "cache_write", "output", "reasoning", "cache_write_1h", "searches")


def _tokens(raw: dict[str, Any]) -> Tokens:
    """The vendor's `input_tokens` exclude cache reads and writes; OpenAI's prompt includes them."""
    output, written = count(raw.get("output_tokens")), count(raw.get("cache_creation_input_tokens"))
    return Tokens(
        input=count(raw.get("input_tokens")),
        cache_read=count(raw.get("cache_read_input_tokens")),
        cache_write=written,
        output=output,
        reasoning=min(count(mapping(raw.get("output_tokens_details")).get("thinking_tokens")), output),
        cache_write_1h=min(count(mapping(raw.get("cache_creation")).get("ephemeral_1h_input_tokens")), written),
        searches=count(mapping(raw.get("server_tool_use")).get("web_search_requests")),
    )
