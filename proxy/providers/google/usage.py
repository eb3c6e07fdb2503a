"""Translates: `usageMetadata` into the report of shown and billed usage."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.answers import mapping, objects
from proxy.schema.records import Tokens
from proxy.schema.usage import Service, Usage, UsageReport, count, disjoint, is_absurd, with_media

_COUNTS = (
    *("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount"),
    *("cachedContentTokenCount", "toolUsePromptTokenCount"),
)
_PARTS = {"TEXT": "text_tokens", "IMAGE": "image_tokens", "AUDIO": "audio_tokens", "VIDEO": "video_tokens"}


def usage_of(metadata: object, searches: int) -> UsageReport | None:
    """None if the object counts nothing and does not try to; counts of zero are left out. `searches`: the billed ones
    of the answer so far.

    The prompt includes cache reads; cache writes are free. Input from tools counts as read, too.
    """
    meta = mapping(metadata)
    asked, total = count(meta.get("promptTokenCount")), count(meta.get("totalTokenCount"))
    prompt = asked + count(meta.get("toolUsePromptTokenCount")) if asked else 0
    thoughts, candidates = count(meta.get("thoughtsTokenCount")), count(meta.get("candidatesTokenCount"))
    output = _output(candidates, thoughts, prompt, total)
    absurd = is_absurd(*(meta.get(name) for name in _COUNTS))
    if not (prompt or output or searches or total or absurd):
        return None
    cached = count(meta.get("cachedContentTokenCount"))
    given = Tokens(input=prompt, cache_read=cached, output=output, reasoning=min(thoughts, output), searches=searches)
    billed = disjoint(given, total)
    read, written = _parts(meta.get("promptTokensDetails")), _parts(meta.get("candidatesTokensDetails"))
    again, fed = _parts(meta.get("cacheTokensDetails")), _parts(meta.get("toolUsePromptTokensDetails"))
    media = Tokens(
        cache_read=billed.cache_read,
        input_audio=read.get("audio_tokens", 0) + fed.get("audio_tokens", 0),
        input_image=max(0, read.get("image_tokens", 0) + fed.get("image_tokens", 0) - again.get("image_tokens", 0)),
        cache_read_audio=again.get("audio_tokens", 0),
        output_audio=written.get("audio_tokens", 0),
        output_image=written.get("image_tokens", 0),
    )
    if media.has_media:
        billed = with_media(billed, media)
    shown: Usage = {
        "prompt_tokens": billed.prompt,
        "completion_tokens": billed.output,
        "total_tokens": billed.total or total,
        "prompt_tokens_details": {"cached_tokens": billed.cache_read, **read},
        "completion_tokens_details": {
            "reasoning_tokens": billed.reasoning,
            **written,
        },
    }
    tier = meta.get("serviceTier")
    service = Service(tier.lower().removeprefix("service_tier_") if isinstance(tier, str) else None)
    return UsageReport(shown, billed, meta if absurd else None, service=service)


def _output(candidates: int, thoughts: int, prompt: int, total: int) -> int:
    """Candidates plus thoughts, unless the total shows that candidates include the thoughts. The rest of the total
    was also generated.
    """
    if thoughts <= candidates and total == prompt + candidates:
        return candidates
    return max(candidates + thoughts, total - prompt if prompt else 0)


def _parts(details: object) -> dict[str, int]:
    found: dict[str, int] = {}
    for detail in objects(details):
        name, value = _PARTS.get(cast(Any, detail.get("modality"))), count(detail.get("tokenCount"))
        if name is not None and value:
            found[name] = found.get(name, 0) + value
    return found
