"""Translates: a usage object in OpenAI's shape, read tolerantly: servers differ in names, positions and types."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from math import isfinite
from typing import Annotated, Any, cast

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import replace

from proxy.providers.base.answers import mapping, objects
from proxy.schema.records import MAX_TOKENS, NANO_PER_USD, Tokens
from proxy.schema.usage import UNSAID, Service, Usage, UsageReport, count, counted, disjoint, is_absurd, with_media

# Names of counts, in the object itself or in its `..._details`: cached tokens, for example, at Together, Mistral and
# DeepSeek, and under Anthropic's names at gateways. Of several spellings the largest counts. `promptTokens` and
# `Prompt_Tokens` are the same names.
_SPELLINGS = {
    "prompt": (
        *("prompt_tokens", "input_tokens", "prompt_token_count", "input_token_count", "num_input_tokens"),
        *("prompt_eval_count", "prompt_n"),
    ),
    "output": (
        *("completion_tokens", "output_tokens", "candidates_token_count", "output_token_count", "num_output_tokens"),
        *("generated_tokens", "eval_count", "predicted_n"),
    ),
    "total": ("total_tokens", "total_token_count"),
    "read": (
        *("cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens"),
        *("cache_read_tokens", "cached_input_tokens", "cached_content_token_count", "cache_n"),
    ),
    "written": (
        *("cache_write_tokens", "cache_creation_tokens", "cached_creation_tokens", "cache_creation_input_tokens"),
        "cache_write_input_tokens",
    ),
    "written_1h": ("cache_write_1h_tokens", "ephemeral_1h_input_tokens"),
    "reasoning": ("reasoning_tokens", "thinking_tokens", "thoughts_token_count"),
    "searches": ("num_search_queries",),  # Perplexity's older API also shows it
}
_COUNTS = {name.replace("_", ""): part for part, names in _SPELLINGS.items() for name in names}
_DETAILS = {
    **dict.fromkeys(("prompttokensdetails", "inputtokensdetails"), "prompt_tokens_details"),
    **dict.fromkeys(("completiontokensdetails", "outputtokensdetails"), "completion_tokens_details"),
}
_SERVED = ("service_tier", "speed", "inference_geo")  # Mistral; Anthropic's, passed on by gateways
# Units per USD: our own figure, OpenRouter and Perplexity, DeepInfra, xAI.
_COSTS = {"provider_cost": 1, "cost": 1, "estimated_cost": 1, "cost_in_usd_ticks": 10**10}
_MAX_COST_USD = 1_000_000
_CACHE_WRITES = ("cache_creation", "cache_creation_token_details")  # by retention: Anthropic, LiteLLM
_BESIDE = frozenset(
    {
        *("cache_read_input_tokens", "cache_creation_input_tokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
        "cache_n",
    }
)
_NAMES = ("usage", "usage_metadata", "token_usage", "usageMetadata", "tokenUsage", "Usage")  # of a usage object
_AROUND = ("x_groq", "message", "response", "result", "metadata", "meta", "data")  # objects that it may be in
_TIMED = ("prompt_n", "predicted_n", "cache_n")  # llama.cpp, in `timings`
_FLAT = ("prompt_eval_count", "eval_count")  # Ollama, in the answer itself
_ELSEWHERE = frozenset({*_NAMES[1:], *_AROUND, *_FLAT, "timings"})
_INSIDE = {name: part for name, part in _COUNTS.items() if part in ("read", "written", "written_1h", "reasoning")}
# Fields of OpenAI's usage, and the cost that the vendor reports.
SHOWN = ("prompt_tokens", "completion_tokens", "total_tokens", *dict.fromkeys(_DETAILS.values()), "provider_cost")
_SHOWN_INSIDE = (  # fields of OpenAI's details
    ("read", "prompt_tokens_details", "cached_tokens"),
    ("written", "prompt_tokens_details", "cache_write_tokens"),
    ("reasoning", "completion_tokens_details", "reasoning_tokens"),
)


_Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]


class _PromptDetails(Struct, frozen=True, forbid_unknown_fields=True):
    cached_tokens: _Count = 0
    cache_write_tokens: _Count = 0
    audio_tokens: _Count = 0
    image_tokens: _Count = 0
    text_tokens: _Count = 0


class _OutputDetails(Struct, frozen=True, forbid_unknown_fields=True):
    reasoning_tokens: _Count = 0
    audio_tokens: _Count = 0
    image_tokens: _Count = 0
    text_tokens: _Count = 0
    accepted_prediction_tokens: _Count = 0
    rejected_prediction_tokens: _Count = 0


class _Plain(Struct, frozen=True, forbid_unknown_fields=True):
    """Usage exactly as OpenAI writes it; any other is read by `_read_odd`."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _PromptDetails = _PromptDetails()
    completion_tokens_details: _OutputDetails = _OutputDetails()


def usage_of(body: dict[str, Any]) -> UsageReport | None:
    """The usage of an answer or a chunk: at the top, in a choice (Moonshot) or its message, or in another object, such
    as `x_groq` (Groq). Objects that count something take precedence.
    """
    raw = body.get("usage")
    report = read(raw) if raw else None
    if report is not None and report.billed.total:
        return report
    for place in _places(body):
        for name in _NAMES:
            found = read(place[name]) if place.get(name) else None
            if found is not None and (report is None or found.billed.total):
                return found
    return report


def _places(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that have a usage object, or may have one."""
    places: list[dict[str, Any]] = []
    if not _ELSEWHERE.isdisjoint(body):
        timings = mapping(body.get("timings"))
        places += [body, *(mapping(body.get(name)) for name in _AROUND)]
        places += [{"usage": _picked(body, _FLAT)}, {"usage": _picked(timings, _TIMED)}]
    for choice in objects(body.get("choices")):
        parts = (choice, choice.get("message"), choice.get("delta"))
        places += [each for each in parts if isinstance(each, dict) and "usage" in each]
    return places


def _letters(name: str) -> str:
    return name.replace("_", "").lower()


def _picked(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value[name] for name in names if name in value}


def input_usage_of(raw: object) -> UsageReport | None:
    """The usage of embeddings and rankings, which have no output. `total_tokens` alone counts the prompt."""
    report = read(raw)
    if report is None:
        return None
    prompt = count(mapping(raw).get("prompt_tokens")) or report.billed.prompt or report.shown["total_tokens"]
    shown = {**report.shown, "prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": prompt}
    billed = Tokens(input=prompt, searches=report.billed.searches)
    return replace(report, shown=cast(Usage, shown), billed=billed)


def read(raw: object) -> UsageReport | None:
    """The usage; None unless the object counts something, or tries to. Fields that are not counts stay unchanged."""
    if isinstance(raw, list):
        raw = next(iter(objects(raw)), None)
    if not isinstance(raw, dict):
        return None
    if isinstance(inner := raw.get("usage"), dict):
        raw = {**inner, **{name: value for name, value in raw.items() if name != "usage"}}
    try:
        plain = convert(raw, _Plain)
    except ValidationError:
        return _read_odd(raw)
    return _plain_report(raw, plain) or _read_odd(raw)


def _plain_report(raw: dict[str, Any], said: _Plain) -> UsageReport | None:
    """OpenAI's own object, shown unchanged. None unless it adds up."""
    prompt, output = said.prompt_tokens, said.completion_tokens
    inside, outside = said.prompt_tokens_details, said.completion_tokens_details
    cached, written, reasoning = inside.cached_tokens, inside.cache_write_tokens, outside.reasoning_tokens
    if said.total_tokens != prompt + output or cached + written > prompt or reasoning > output:
        return None
    billed = Tokens(prompt - cached - written, cached, written, output, reasoning)
    if inside.audio_tokens or inside.image_tokens or outside.audio_tokens or outside.image_tokens:
        media = (inside.audio_tokens, inside.image_tokens, 0, outside.audio_tokens, outside.image_tokens)
        billed = _with_media(billed, media)
    return UsageReport(cast(Usage, raw), billed)


def _read_odd(raw: dict[str, Any]) -> UsageReport | None:
    counts: dict[str, int] = {}
    shown: dict[str, Any] = {}
    for name, value in raw.items():
        letters = _letters(name)
        if (part := _COUNTS.get(letters)) is not None:
            _add(counts, part, value)
        elif letters in _DETAILS or name in _CACHE_WRITES:
            if isinstance(value, dict):
                _read_details(value, _DETAILS.get(letters), counts, shown)
        elif name in _COSTS:
            _add_cost(counts, shown, name, value)
        elif not name.endswith("_tokens") or (value := counted(value)) is not None:
            shown[name] = value
    if counts.keys().isdisjoint(("prompt", "output", "total", _ABSURD)):
        return None
    if "searches" in counts:
        shown["num_search_queries"] = counts["searches"]
    return _report(raw, counts, shown)


def _report(raw: dict[str, Any], counts: dict[str, int], shown: dict[str, Any]) -> UsageReport:
    get = counts.get
    prompt, output, total = get("prompt", 0), get("output", 0), get("total", 0)
    cached, written = get("read", 0), get("written", 0)
    if "prompt_tokens" not in raw and total != prompt + output and not _BESIDE.isdisjoint(raw):
        prompt += cached + written  # Anthropic's own object: its `input_tokens` exclude the cache
    heard = shown.get("prompt_tokens_details", _NONE).get("audio_tokens", 0)
    if heard and heard == total - prompt - output:
        prompt += heard  # Mistral counts it only in the total
    billed = disjoint(
        Tokens(
            input=prompt,
            cache_read=cached,
            cache_write=written,
            output=output,
            reasoning=get("reasoning", 0),
            cache_write_1h=get("written_1h", 0),
            searches=get("searches", 0),
        ),
        total,
    )
    billed = _with_media(billed, _media_in(shown))
    sums = {"prompt_tokens": billed.prompt, "completion_tokens": billed.output, "total_tokens": billed.total or total}
    for part, side, name in _SHOWN_INSIDE:
        if part in counts:
            value = billed.reasoning if part == "reasoning" else counts[part]
            shown.setdefault(side, {})[name] = value
    served = UNSAID if raw.keys().isdisjoint(_SERVED) else served_as(raw)
    absurd = raw if _ABSURD in counts else None
    return UsageReport(cast(Usage, {**sums, **shown}), billed, absurd, get("cost_nano"), served)


_NONE: dict[str, Any] = {}
_ABSURD = "absurd"  # an impossible count was among them


def served_as(usage: dict[str, Any]) -> Service:
    """The service that a usage object names, in Anthropic's fields."""
    return Service(*(value if isinstance(value := usage.get(name), str) else None for name in _SERVED))


def _media_in(shown: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Audio and images of the prompt, cached audio, audio and images of the output."""
    inside, outside = shown.get("prompt_tokens_details", _NONE), shown.get("completion_tokens_details", _NONE)
    cached = mapping(inside.get("cached_tokens_details"))
    return (
        *(inside.get("audio_tokens", 0), inside.get("image_tokens", 0), count(cached.get("audio_tokens"))),
        *(outside.get("audio_tokens", 0), outside.get("image_tokens", 0)),
    )


def _with_media(tokens: Tokens, media: tuple[int, int, int, int, int]) -> Tokens:
    if not any(media):
        return tokens
    audio, image, cached, spoken, painted = media
    given = Tokens(
        input_audio=audio, input_image=image, cache_read_audio=cached, output_audio=spoken, output_image=painted
    )
    return with_media(tokens, given)


def _read_details(inside: dict[str, Any], side: str | None, counts: dict[str, int], shown: dict[str, Any]) -> None:
    """Reads counts that have a field of their own, and others, which stay in the details of their side."""
    kept: dict[str, Any] = {}
    for name, value in inside.items():
        part = _INSIDE.get(_letters(name))
        if part is not None:
            _add(counts, part, value)
        elif name in _CACHE_WRITES:
            _add(counts, "written_1h", mapping(value).get("ephemeral_1h_input_tokens"))
        elif not name.endswith("_tokens") or counted(value) is not None:
            kept[name] = counted(value) if name.endswith("_tokens") else value
        elif is_absurd(value):
            counts[_ABSURD] = 1
    if side is not None:
        shown[side] = shown.get(side, {}) | kept


def _add(counts: dict[str, int], part: str, value: object) -> None:
    if type(value) is not int or not 0 <= value <= MAX_TOKENS:
        if is_absurd(value):
            counts[_ABSURD] = 1
        value = counted(value)
        if value is None:
            return
    if value >= counts.get(part, 0):
        counts[part] = value


def _add_cost(counts: dict[str, int], shown: dict[str, Any], name: str, cost: object) -> None:
    """The vendor's own figure, in USD. `usage.cost` itself is the cost by `pricing.yaml`."""
    cost = cost.get("total_cost") if isinstance(cost, dict) else cost
    if isinstance(cost, int | float) and not isinstance(cost, bool) and isfinite(cost):
        per_usd = _COSTS[name]
        if 0 <= cost <= _MAX_COST_USD * per_usd:
            counts["cost_nano"] = nano_of(cost, per_usd)
        shown["provider_cost"] = cost if per_usd == 1 else cost / per_usd
    if name not in ("cost", "provider_cost"):
        shown[name] = cost


def nano_of(cost: float, per_usd: int) -> int:
    """A reported cost in nano-USD, half up. A float counts as the decimal number that it is written as."""
    return int((Decimal(str(cost)) * NANO_PER_USD / per_usd).quantize(Decimal(1), ROUND_HALF_UP))
