"""Translates: what Cohere says it used and what it bills for, which are two different numbers."""

from __future__ import annotations

from typing import Any, cast

from proxy.providers.base.answers import mapping
from proxy.schema.chat import Usage
from proxy.schema.records import Tokens


def usage_of(raw: object) -> Usage | None:
    """OpenAI's usage from `usage.tokens`, what the model really read and wrote, with `billed_units` beside it.

    None where the vendor said neither. Its numbers may be floats.
    """
    if not isinstance(raw, dict):
        return None
    billed = raw.get("billed_units")
    for counts in (raw.get("tokens"), billed):
        prompt, output = _pair(counts)
        if prompt is not None and output is not None:
            break
    else:
        return None
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    cached, reasoning = count(raw.get("cached_tokens")), count(mapping(raw.get("tokens")).get("reasoning_tokens"))
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": min(cached, prompt)}
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": min(reasoning, output)}
    return cast(Usage, usage | billed_units(billed))


def billed_usage(meta: object) -> Usage | None:
    """The usage of embeddings and rankings: `meta.billed_units`, all that the vendor says of them."""
    units = billed_units(meta.get("billed_units") if isinstance(meta, dict) else None)
    if not units:
        return None
    prompt = units["billed_units"].get("input_tokens", 0)
    return cast(Usage, {"prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": prompt} | units)


def billed_units(raw: object) -> dict[str, Any]:
    """`{"billed_units": {...}}` with whole numbers, or nothing."""
    if not isinstance(raw, dict):
        return {}
    units = {name: count(value) for name, value in raw.items()}
    known = {name: value for name, value in units.items() if value is not None}
    return {"billed_units": known} if known else {}


def billed_tokens(usage: Usage) -> Tokens:
    """The tokens that prices are applied to: the billed ones.

    Cohere's prompts carry its own template and, with tools, a long preamble. `tokens` counts them (1,549 in recorded
    traffic), the bill does not (119). So an answer's usage shows the real counts, what fits the context window, and
    rows, budgets and cost are of the billed ones: price times the parts of a row is its cost, the parts sum to the
    total of `billed_units`, and a hold that was bounded by the bytes of the request covers them. How many of the
    cached tokens were billed the vendor does not say, and it has no price for them: all billed input is `input`.
    Without `billed_units` the real counts are all there is, and stand in for them.
    """
    billed = cast("dict[str, Any]", usage).get("billed_units")
    if not isinstance(billed, dict) or not billed:
        billed = {"input_tokens": usage.get("prompt_tokens", 0), "output_tokens": usage.get("completion_tokens", 0)}
    parts = {"input": "input_tokens", "output": "output_tokens", "searches": "search_units"}
    counts = {part: billed.get(name, 0) for part, name in parts.items()}
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0)
    return Tokens(**counts, reasoning=min(thought, counts["output"]))


def count(value: object) -> int | None:
    """A number from the vendor as a count; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 2**53 else None


def _pair(counts: object) -> tuple[int | None, int | None]:
    if not isinstance(counts, dict):
        return None, None
    return count(counts.get("input_tokens")), count(counts.get("output_tokens"))
