"""Translates: token counts and a row of pricing.yaml into nano-USD. Integers only: no float ever meets a sum of money.

A price in USD per 1M tokens is `usd * 1_000_000` pico-USD per token, whole for every price with up to six decimals. A
price that is not known makes the cost None, never zero.
"""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import astuple

from proxy.metering.pricing import ModelPrice, Pricing, Tier
from proxy.schema.records import NANO_PER_USD, Cost, Tokens

_PICO_PER_TOKEN = 1_000_000  # for each USD per 1M tokens
_PICO_PER_NANO = 1_000
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|20\d{6})$")  # gpt-4o-2024-08-06, claude-3-opus-20240229


class Rate(Struct, frozen=True):
    """Pico-USD per token of each part; None: not known. `cache_write_1h`: of what is kept for an hour."""

    input: int | None
    cache_read: int | None
    cache_write: int | None
    cache_write_1h: int | None
    output: int | None


def rate(price: ModelPrice, tokens: Tokens) -> Rate:
    """What a token of each part costs in a request of this size: the highest tier it exceeds holds for all of them."""
    reached = [tier for tier in price.tiers if tokens.prompt > tier.above_input_tokens]
    return _rate(price, max(reached, key=lambda tier: tier.above_input_tokens, default=None))


def cost(price: ModelPrice | None, tokens: Tokens) -> Cost | None:
    """What `tokens` cost; each part is rounded once, half up.

    None: no price, a part without price that was used, or searches where only tokens have a price.
    """
    if price is None or (tokens.searches and price.per_search is None and not _is_free(price)):
        return None
    each = rate(price, tokens)
    hour = min(tokens.cache_write_1h, tokens.cache_write)
    input_nano = _part((each.input, tokens.input))
    read_nano = _part((each.cache_read, tokens.cache_read))
    write_nano = _part((each.cache_write, tokens.cache_write - hour), (each.cache_write_1h, hour))
    output_nano = _part((each.output, tokens.output))
    if input_nano is None or read_nano is None or write_nano is None or output_nano is None:
        return None
    parts = (input_nano, read_nano, write_nano, output_nano)
    fees = (_nano(price.per_request), _nano(price.per_search) * tokens.searches)
    return Cost(sum(parts) + sum(fees), *parts, *fees)


def added(one: Cost, other: Cost) -> Cost:
    """Part by part."""
    return Cost(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))


def upper_bound(price: ModelPrice | None, input_tokens_bound: int, output_tokens_bound: int) -> int | None:
    """Nano-USD that no usage within the bounds exceeds, whatever is cached, for however long, and whichever tier it
    falls into.

    None: a price that may be needed is not known, or searches cost money and `max_searches` does not limit them.
    """
    if price is None or (price.per_search and price.max_searches is None):
        return None
    tiers = [tier for tier in price.tiers if tier.above_input_tokens < input_tokens_bound]
    rates = [_rate(price, tier) for tier in (None, *tiers)]
    inputs = [part for each in rates for part in (each.input, each.cache_read, each.cache_write, each.cache_write_1h)]
    input_nano = _dearest(inputs, input_tokens_bound)
    output_nano = _dearest([each.output for each in rates], output_tokens_bound)
    if input_nano is None or output_nano is None:
        return None
    return input_nano + output_nano + _nano(price.per_request) + _nano(price.per_search) * (price.max_searches or 0)


def find_price(pricing: Pricing, name: str) -> ModelPrice | None:
    """The row for `provider/model`: the same name, the name without its date, or the longest `prefix/*`."""
    models = pricing.models
    if name in models:
        return models[name]
    undated = _DATED.sub("", name)
    if undated in models:
        return models[undated]
    prefix = name
    while "/" in prefix:
        prefix = prefix.rpartition("/")[0]
        if f"{prefix}/*" in models:
            return models[f"{prefix}/*"]
    return None


def _rate(price: ModelPrice, tier: Tier | None) -> Rate:
    """A tier changes what it names. Cache prices that are not given anywhere are the price of input; an hour's, that of
    any other write.
    """
    changed = tier or Tier(0)
    usual = _first(changed.input, price.input)
    read, write = _first(changed.cached_input, price.cached_input), _first(changed.cache_write, price.cache_write)
    write = _first(write, usual)
    return Rate(
        input=_pico(usual),
        cache_read=_pico(_first(read, usual)),
        cache_write=_pico(write),
        cache_write_1h=_pico(_first(_first(changed.cache_write_1h, price.cache_write_1h), write)),
        output=_pico(_first(changed.output, price.output)),
    )


def _is_free(price: ModelPrice) -> bool:
    return price.input == price.output == 0 and not price.per_request


def _first(changed: float | None, usual: float | None) -> float | None:
    return usual if changed is None else changed


def _pico(usd: float | None) -> int | None:
    return None if usd is None else round(usd * _PICO_PER_TOKEN)


def _part(*used: tuple[int | None, int]) -> int | None:
    """The sum of rates times tokens; None where a rate is not known that was used."""
    sum_pico = 0
    for pico, tokens in used:
        if tokens and pico is None:
            return None
        sum_pico += (pico or 0) * tokens
    return (sum_pico + _PICO_PER_NANO // 2) // _PICO_PER_NANO


def _dearest(rates: list[int | None], tokens: int) -> int | None:
    """Each rate is rounded up to whole nano-USD first, so that parts rounded one by one stay below."""
    if tokens == 0:
        return 0
    known = [pico for pico in rates if pico is not None]
    return tokens * -(-max(known) // _PICO_PER_NANO) if len(known) == len(rates) else None


def _nano(usd: float | None) -> int:
    return round((usd or 0) * NANO_PER_USD)
