"""Translates: `usageMetadata` into OpenAI's usage, and that into the normal form that is billed."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.answers import count, tokens_of
from proxy.providers.google.wire import Modality, UsageMetadata
from proxy.schema.chat import Usage
from proxy.schema.records import Tokens

_PARTS = {"TEXT": "text_tokens", "IMAGE": "image_tokens", "AUDIO": "audio_tokens", "VIDEO": "video_tokens"}


def usage_of(meta: UsageMetadata | None, searches: int) -> Usage | None:
    """None unless both prompt and answer were counted. `searches`: the billed searches of the answer so far."""
    if meta is None or meta.prompt_token_count is None or meta.prompt_token_count < 0:
        return None
    if meta.total_token_count is None and meta.candidates_token_count is None:
        return None
    prompt = count(meta.prompt_token_count) + count(meta.tool_use_prompt_token_count)
    thoughts = count(meta.thoughts_token_count)
    output = _output(meta, prompt, thoughts)
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {
            "cached_tokens": min(count(meta.cached_content_token_count), prompt),
            **_parts(meta.prompt_tokens_details),
        },
        "completion_tokens_details": {
            "reasoning_tokens": min(thoughts, output),
            **_parts(meta.candidates_tokens_details),
        },
    }
    if searches:
        usage["searches"] = searches
    return cast(Usage, usage)


def _output(meta: UsageMetadata, prompt: int, thoughts: int) -> int:
    """Candidates plus thoughts, unless the total shows that candidates include the thoughts. Anything else in the total
    was generated too.
    """
    candidates, total = count(meta.candidates_token_count), count(meta.total_token_count)
    if thoughts <= candidates and total == prompt + candidates:
        return candidates
    return max(candidates + thoughts, total - prompt)


def _parts(details: list[Modality] | None) -> dict[str, int]:
    counted: dict[str, int] = {}
    for detail in details or []:
        name = _PARTS.get(detail.modality)
        if name is not None and detail.token_count:
            counted[name] = counted.get(name, 0) + detail.token_count
    return counted


def normal_form(usage: Usage) -> Tokens:
    """Tokens in normal form. The prompt includes cache reads; cache writes are free."""
    return tokens_of(usage, cast("dict[str, Any]", usage).get("searches"))
