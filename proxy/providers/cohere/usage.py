"""Translates: Cohere's counts of used and of billed tokens, which are two different numbers."""

from __future__ import annotations

from proxy.providers.base.answers import mapping
from proxy.schema.records import Tokens
from proxy.schema.usage import Usage, UsageReport, count, disjoint, is_absurd


def usage_of(raw: object) -> UsageReport | None:
    """`usage.tokens`, the model's real input and output, is shown; `usage.billed_units` is billed.

    Cohere's prompts carry its own template and, with tools, a long preamble. `tokens` counts them (1,549 in recorded
    traffic), the bill does not (119). So the usage of an answer shows the real counts, which matter for the context
    window, and rows, budgets and cost use the billed ones: price times the parts of a row is its cost, and a hold
    bounded by the bytes of the request covers them. The vendor does not report how many cached tokens were billed, and
    has no price for them: all billed input is `input`. If one of the two lacks a count, the other's is used. None if
    the vendor counted nothing.
    """
    said = mapping(raw)
    real, billed = mapping(said.get("tokens")), mapping(said.get("billed_units"))
    read, wrote = count(real.get("input_tokens")), count(real.get("output_tokens"))
    billed_in, billed_out = count(billed.get("input_tokens")), count(billed.get("output_tokens"))
    searches = count(billed.get("search_units"))
    absurd = is_absurd(*(part.get(name) for part in (real, billed) for name in ("input_tokens", "output_tokens")))
    if not (read or wrote or billed_in or billed_out or searches or absurd):
        return None
    cached, reasoning = said.get("cached_tokens"), real.get("reasoning_tokens")
    given = Tokens(
        input=read or billed_in,
        cache_read=count(cached),
        output=wrote or billed_out,
        reasoning=min(count(reasoning), wrote or billed_out),
    )
    used = disjoint(given)
    shown: Usage = {
        "prompt_tokens": used.prompt,
        "completion_tokens": used.output,
        "total_tokens": used.total,
    }
    if cached is not None:
        shown["prompt_tokens_details"] = {"cached_tokens": used.cache_read}
    if reasoning is not None:
        shown["completion_tokens_details"] = {"reasoning_tokens": used.reasoning}
    output = billed_out if "output_tokens" in billed else used.output  # a bill of zero is a bill
    tokens = Tokens(
        input=billed_in or used.prompt, output=output, reasoning=min(used.reasoning, output), searches=searches
    )
    return UsageReport(shown, tokens, said if absurd else None)


def billed_usage(meta: object) -> UsageReport | None:
    """The usage of embeddings and rankings: `meta.billed_units`, the vendor's only counts."""
    billed = mapping(mapping(meta).get("billed_units"))
    prompt, searches = count(billed.get("input_tokens")), count(billed.get("search_units"))
    if not prompt and not searches:
        return None
    shown: Usage = {"prompt_tokens": prompt, "completion_tokens": 0, "total_tokens": prompt}
    return UsageReport(shown, Tokens(input=prompt, searches=searches))
