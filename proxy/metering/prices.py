"""Translates: token counts and a row of pricing.yaml into nano-USD. Integers only: no float ever meets a sum of money.

A price in USD per 1M tokens is `usd * 1_000_000` pico-USD per token, whole for every price with up to six decimals.
`Rates` holds them. An unknown price makes the cost None, never zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

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


class Rates(Struct, frozen=True):
    """One row of pricing.yaml in integers, made once when it is read: what costs and bounds are computed from.

    `tiers`: rates above so many input tokens, from the lowest on; `dearest`: the most that a token of input and of
    output may cost above so many, in nano-USD. Fees are nano-USD; `searches_known` is False where a search has a price
    that nobody knows.
    """

    base: Rate
    tiers: tuple[tuple[int, Rate], ...]
    dearest: tuple[tuple[int, int | None, int | None], ...]
    per_request_nano: int
    per_search_nano: int
    max_searches: int | None
    searches_known: bool

    @classmethod
    def of(cls, price: ModelPrice) -> Rates:
        tiers = sorted(price.tiers, key=lambda tier: tier.above_input_tokens)
        is_free = price.input == price.output == 0 and not price.per_request
        base, above = _rate(price, None), [(tier.above_input_tokens, _rate(price, tier)) for tier in tiers]
        return cls(
            base=base,
            tiers=tuple(above),
            dearest=tuple(_dearest([(-1, base), *above])),
            per_request_nano=_nano(price.per_request),
            per_search_nano=_nano(price.per_search),
            max_searches=price.max_searches,
            searches_known=price.per_search is not None or is_free,
        )

    def rate(self, tokens: Tokens) -> Rate:
        """What a token of each part costs in a request of this size."""
        return self.above(tokens.prompt)

    def above(self, prompt_tokens: int) -> Rate:
        """The rate for a prompt of this size: the highest tier it exceeds applies to all its tokens."""
        found = self.base
        for above, tier in self.tiers:
            if prompt_tokens > above:
                found = tier
        return found

    def cost(self, tokens: Tokens) -> Cost | None:
        """What `tokens` cost; each part is rounded once, half up.

        None: a part was used whose price is not known, or searches where only tokens have a price.
        """
        if tokens.searches and not self.searches_known:
            return None
        each = self.rate(tokens) if self.tiers else self.base
        hour = min(tokens.cache_write_1h, tokens.cache_write)
        input_nano = _part(each.input, tokens.input)
        read_nano = _part(each.cache_read, tokens.cache_read)
        write_nano = _part(each.cache_write, tokens.cache_write - hour, each.cache_write_1h, hour)
        output_nano = _part(each.output, tokens.output)
        if input_nano is None or read_nano is None or write_nano is None or output_nano is None:
            return None
        requests, searches = self.per_request_nano, self.per_search_nano * tokens.searches
        total = input_nano + read_nano + write_nano + output_nano + requests + searches
        return Cost(total, input_nano, read_nano, write_nano, output_nano, requests, searches)

    def upper_bound(self, input_tokens: int, output_tokens: int) -> int | None:
        """Nano-USD that no usage within these counts exceeds, whatever is cached, for however long, in any tier.

        None: a price that may apply is not known, or searches cost money and `max_searches` does not limit them.
        """
        if self.per_search_nano and self.max_searches is None:
            return None
        each_input = each_output = None
        for above, input_nano, output_nano in self.dearest:
            if above < input_tokens:
                each_input, each_output = input_nano, output_nano
        if (each_input is None and input_tokens) or (each_output is None and output_tokens):
            return None
        used = (each_input or 0) * input_tokens + (each_output or 0) * output_tokens
        return used + self.per_request_nano + self.per_search_nano * (self.max_searches or 0)


def rate(price: ModelPrice, tokens: Tokens) -> Rate:
    """The rate of a row that is used once."""
    return Rates.of(price).rate(tokens)


def cost(price: ModelPrice | None, tokens: Tokens) -> Cost | None:
    """The cost by a row that is used once; None: it is not known."""
    return None if price is None else Rates.of(price).cost(tokens)


def upper_bound(price: ModelPrice | None, input_tokens_bound: int, output_tokens_bound: int) -> int | None:
    """The bound by a row that is used once; None: there is none."""
    return None if price is None else Rates.of(price).upper_bound(input_tokens_bound, output_tokens_bound)


def added(one: Cost, other: Cost) -> Cost:
    """Part by part."""
    return Cost(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))


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
    """A tier changes what it names. A cache price given nowhere is the input price; an hour's, that of other writes."""
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


def _first(changed: float | None, usual: float | None) -> float | None:
    return usual if changed is None else changed


def _pico(usd: float | None) -> int | None:
    return None if usd is None else round(usd * _PICO_PER_TOKEN)


def _part(pico: int | None, tokens: int, other_pico: int | None = 0, others: int = 0) -> int | None:
    """The sum of rates times tokens; None where a rate is not known that was used."""
    if (tokens and pico is None) or (others and other_pico is None):
        return None
    sum_pico = (pico or 0) * tokens + (other_pico or 0) * others
    return (sum_pico + _PICO_PER_NANO // 2) // _PICO_PER_NANO


def _dearest(rates: list[tuple[int, Rate]]) -> Iterator[tuple[int, int | None, int | None]]:
    """Rates are rounded up to whole nano-USD, so that parts rounded one by one stay below. A higher tier's bound covers
    the lower ones: nobody knows yet which of them will count.
    """
    inputs: list[int | None] = []
    outputs: list[int | None] = []
    for above, rate in rates:
        inputs += (rate.input, rate.cache_read, rate.cache_write, rate.cache_write_1h)
        outputs.append(rate.output)
        yield above, _most(inputs), _most(outputs)


def _most(rates: list[int | None]) -> int | None:
    known = [-(-pico // _PICO_PER_NANO) for pico in rates if pico is not None]
    return max(known) if len(known) == len(rates) else None


def _nano(usd: float | None) -> int:
    return round((usd or 0) * NANO_PER_USD)
