"""Translates: token counts and a row of pricing.yaml into nano-USD. Integers only: no float ever meets a sum of money.

A price in USD per 1M tokens is `usd * 1_000_000` pico-USD per token, whole for every price with up to six decimals.
`Rates` holds them. An unknown price makes the cost None, never zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import astuple, replace

from proxy.metering.pricing import ModelPrice, Pricing, ServicePrice, Tier
from proxy.schema.records import NANO_PER_USD, Cost, Tokens

_PICO_PER_TOKEN = 1_000_000  # per USD per 1M tokens
_PICO_PER_NANO = 1_000
_MILLION = 1_000_000
_PER_TOKEN = Tier.__struct_fields__[1:]  # the names of the prices
_WHOLE = (1, 1)  # the factor of a standard service
_DATED = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|20\d{6})$")  # gpt-4o-2024-08-06, claude-3-opus-20240229


class Rate(Struct, frozen=True):
    """Pico-USD per token of each part; None: unknown. `cache_write_1h`: for entries kept for an hour."""

    input: int | None
    cache_read: int | None
    cache_write: int | None
    cache_write_1h: int | None
    output: int | None
    audio: int | None = None
    cache_read_audio: int | None = None
    output_audio: int | None = None
    image: int | None = None
    output_image: int | None = None


class Dearest(Struct, frozen=True):
    """The most that a token of input, of audio input and of output may cost in prompts above so many tokens, in
    nano-USD.
    """

    above: int
    input: int | None
    audio: int | None
    output: int | None


class Rates(Struct, frozen=True):
    """One row of pricing.yaml in integers, built once when it is read: the basis of costs and bounds.

    `tiers`: rates above so many input tokens, from the lowest on; `dearest`: the same as bounds. `factor` multiplies
    the cost of tokens: a numerator and a denominator. Fees are nano-USD; `searches_known` is False if a search has
    an unknown price. `price` is the row, `others` caches the rates under other terms.
    """

    base: Rate
    tiers: tuple[tuple[int, Rate], ...]
    dearest: tuple[Dearest, ...]
    per_request_nano: int
    per_search_nano: int
    max_searches: int | None
    searches_known: bool
    max_extra_nano: int | None
    price: ModelPrice
    is_free: bool = False
    factor: tuple[int, int] = _WHOLE
    others: dict[tuple[str, ...], Rates] = {}

    @classmethod
    def of(cls, price: ModelPrice) -> Rates:
        """The rates of the standard service."""
        return cls._of(price, price, _WHOLE)

    @classmethod
    def _of(cls, price: ModelPrice, own: ModelPrice | ServicePrice, factor: tuple[int, int]) -> Rates:
        tiers = sorted(own.tiers, key=lambda tier: tier.above_input_tokens)
        costs_nothing = _costs_nothing(price)
        base, above = _rate(own, None), [(tier.above_input_tokens, _rate(own, tier)) for tier in tiers]
        if own is not price and price.tiers and not tiers:
            above = [(min(tier.above_input_tokens for tier in price.tiers), _UNKNOWN)]
        return cls(
            base=base,
            tiers=tuple(above),
            dearest=tuple(_dearest([(-1, base), *above], factor)),
            per_request_nano=_nano(price.per_request),
            per_search_nano=_nano(price.per_search),
            max_searches=price.max_searches,
            searches_known=price.per_search is not None or costs_nothing,
            max_extra_nano=None if price.max_extra_usd is None else _nano(price.max_extra_usd),
            price=price,
            is_free=costs_nothing and not price.per_search,
            factor=factor,
            others={},
        )

    def under(self, terms: tuple[str, ...]) -> Rates | None:
        """The rates of another service; None: one of the terms has no price. A free model is free on all terms."""
        if not terms or self.is_free:
            return self
        if (known := self.others.get(terms)) is not None:
            return known
        own: ModelPrice | ServicePrice = self.price
        factor = _WHOLE
        for term in terms:
            change = self.price.service_tiers.get(term)
            if change is None or (isinstance(change, ServicePrice) and own is not self.price):
                return None
            if isinstance(change, ServicePrice):
                own = change
            else:
                factor = factor[0] * round(change * _MILLION), factor[1] * _MILLION
        rates = self.others[terms] = Rates._of(self.price, own, factor)
        return rates

    def rate(self, tokens: Tokens) -> Rate:
        """The rate for each part in a request of this size."""
        return self.above(tokens.prompt)

    def above(self, prompt_tokens: int) -> Rate:
        """The rate for a prompt of this size: the highest tier it exceeds applies to all its tokens."""
        found = self.base
        for above, tier in self.tiers:
            if prompt_tokens > above:
                found = tier
        return found

    def cost(self, tokens: Tokens) -> Cost | None:
        """The cost of `tokens`; each part is rounded once, half up.

        None: a part with an unknown price was used, or searches if only tokens have a price, or terms without a price.
        """
        if tokens.searches and not self.searches_known:
            return None
        if tokens.terms:
            rates = self.under(tokens.terms)
            return None if rates is None else rates.cost(replace(tokens, terms=()))
        each = self.rate(tokens) if self.tiers else self.base
        input_nano: int | None
        if tokens.has_media and not self.is_free:
            input_nano, read_nano, output_nano = self._media_parts(each, tokens)
        else:
            input_nano = self._part(each.input, tokens.input)
            read_nano = self._part(each.cache_read, tokens.cache_read) if tokens.cache_read else 0
            output_nano = self._part(each.output, tokens.output)
        write_nano: int | None = 0
        if tokens.cache_write:
            hour = min(tokens.cache_write_1h, tokens.cache_write)
            write_nano = self._parts((each.cache_write, tokens.cache_write - hour), (each.cache_write_1h, hour))
        if input_nano is None or read_nano is None or write_nano is None or output_nano is None:
            return None
        requests, searches = self.per_request_nano, self.per_search_nano * tokens.searches
        total = input_nano + read_nano + write_nano + output_nano + requests + searches
        return Cost(total, input_nano, read_nano, write_nano, output_nano, requests, searches)

    def _media_parts(self, each: Rate, tokens: Tokens) -> tuple[int | None, int | None, int | None]:
        """The cost of input, cache reads and output, of which some are audio or images."""
        heard, seen, again = tokens.input_audio, tokens.input_image, tokens.cache_read_audio
        spoken, painted = tokens.output_audio, tokens.output_image
        made = (each.output_audio, spoken), (each.output_image, painted)
        image = each.input if each.image is None else each.image
        return (
            self._parts((each.input, tokens.input - heard - seen), (each.audio, heard), (image, seen)),
            self._parts((each.cache_read, tokens.cache_read - again), (each.cache_read_audio, again)),
            self._parts((each.output, tokens.output - spoken - painted), *made),
        )

    def _part(self, pico: int | None, tokens: int) -> int | None:
        """The rate times the tokens, rounded; None if it is unknown and was used."""
        if pico is None:
            return None if tokens else 0
        if self.factor is _WHOLE:
            return (pico * tokens + _PICO_PER_NANO // 2) // _PICO_PER_NANO
        return self._parts((pico, tokens))

    def _parts(self, *used: tuple[int | None, int]) -> int | None:
        """The sum of rates times tokens, rounded once; None if a used rate is unknown."""
        sum_pico = 0
        for pico, tokens in used:
            if tokens and pico is None:
                return None
            sum_pico += (pico or 0) * tokens
        times, divided = self.factor
        return (2 * sum_pico * times + divided * _PICO_PER_NANO) // (2 * divided * _PICO_PER_NANO)

    def upper_bound(
        self, input_tokens: int, output_tokens: int, audio_tokens: int = 0, *, may_search: bool = True
    ) -> int | None:
        """Nano-USD that no usage within these counts exceeds, whatever is cached, for however long, in any size tier.
        `audio_tokens`: audio input, in addition to the other input.

        None: a price that may apply is unknown, or searches cost money and neither `max_searches` nor `max_extra_usd`
        limits them.
        """
        if may_search and self.per_search_nano and self.max_searches is None and self.max_extra_nano is None:
            return None
        found = self.dearest[0]
        if len(self.dearest) > 1:
            for dearest in self.dearest:
                if dearest.above < input_tokens + audio_tokens:
                    found = dearest
        each_input, each_output = found.input, found.output
        if (each_input is None and input_tokens) or (each_output is None and output_tokens):
            return None
        used = (each_input or 0) * input_tokens + (each_output or 0) * output_tokens
        if audio_tokens:
            if found.audio is None:
                return None
            used += found.audio * audio_tokens
        searches = self.max_searches or 0 if may_search else 0
        return used + self.per_request_nano + self.per_search_nano * searches


def rate(price: ModelPrice, tokens: Tokens) -> Rate:
    """The rate of a row that is used once."""
    return Rates.of(price).rate(tokens)


def cost(price: ModelPrice | None, tokens: Tokens) -> Cost | None:
    """The cost by a row that is used once; None: unknown."""
    return None if price is None else Rates.of(price).cost(tokens)


def upper_bound(price: ModelPrice | None, input_tokens_bound: int, output_tokens_bound: int) -> int | None:
    """The bound by a row that is used once; None: there is none."""
    return None if price is None else Rates.of(price).upper_bound(input_tokens_bound, output_tokens_bound)


def trusted(cost: Cost | None, reported_nano: int, bound_nano: int | None) -> Cost:
    """The vendor's own figure in place of ours, at most the bound. Our parts are scaled to it; without any, it is a fee
    of the request.
    """
    total = reported_nano if bound_nano is None else min(reported_nano, bound_nano)
    if cost is None or not cost.total:
        return Cost(total, requests=total)
    scaled = Cost(total, *(part * total // cost.total for part in astuple(cost)[1:]))
    return replace(scaled, output=scaled.output + total - sum(astuple(scaled)[1:]))


def added(one: Cost, other: Cost) -> Cost:
    """The sum, part by part."""
    return Cost(*(a + b for a, b in zip(astuple(one), astuple(other), strict=True)))


def find_row(pricing: Pricing, name: str) -> ModelPrice | None:
    """The model's own row: the same name, or the name without its date."""
    models = pricing.models
    return models[name] if name in models else models.get(_DATED.sub("", name))


def find_price(pricing: Pricing, name: str) -> ModelPrice | None:
    """The row for `provider/model`: its own, or the longest `prefix/*`."""
    models = pricing.models
    if (own := find_row(pricing, name)) is not None:
        return own
    prefix = name
    while "/" in prefix:
        prefix = prefix.rpartition("/")[0]
        if f"{prefix}/*" in models:
            return models[f"{prefix}/*"]
    return None


def _rate(price: ModelPrice | ServicePrice, tier: Tier | None) -> Rate:
    """The rate of a row, or of one of its tiers, which replaces what it names. A missing cache price is the input
    price; a missing price of one-hour writes is that of other writes. Input images cost as text unless they have a
    price; audio and output images need one.
    """
    changed = tier or Tier(0)
    usual = _first(changed.input, price.input)
    read, write = _first(changed.cached_input, price.cached_input), _first(changed.cache_write, price.cache_write)
    write = _first(write, usual)
    audio = _first(changed.audio_input, price.audio_input)
    return Rate(
        input=_pico(usual),
        cache_read=_pico(_first(read, usual)),
        cache_write=_pico(write),
        cache_write_1h=_pico(_first(_first(changed.cache_write_1h, price.cache_write_1h), write)),
        output=_pico(_first(changed.output, price.output)),
        audio=_pico(audio),
        cache_read_audio=_pico(_first(_first(changed.cached_audio_input, price.cached_audio_input), audio)),
        output_audio=_pico(_first(changed.audio_output, price.audio_output)),
        image=_pico(_first(changed.image_input, price.image_input)),
        output_image=_pico(_first(changed.image_output, price.image_output)),
    )


_UNKNOWN = Rate(None, None, None, None, None)


def _costs_nothing(price: ModelPrice) -> bool:
    """True if the tokens and the request are free: no part of them has a price above 0, in any tier or service."""
    if not (price.input == price.output == 0) or price.per_request:
        return False
    services = [each for each in price.service_tiers.values() if isinstance(each, ServicePrice)]
    rows = [price, *price.tiers, *services, *(tier for each in services for tier in each.tiers)]
    return not any(getattr(row, name) for row in rows for name in _PER_TOKEN)


def _first(changed: float | None, usual: float | None) -> float | None:
    return usual if changed is None else changed


def _pico(usd: float | None) -> int | None:
    return None if usd is None else round(usd * _PICO_PER_TOKEN)


def _dearest(rates: list[tuple[int, Rate]], factor: tuple[int, int]) -> Iterator[Dearest]:
    """Rates are rounded up to whole nano-USD, so that parts rounded one by one stay below. A higher tier's bound covers
    the lower ones: it is not known yet which one will apply. Speech and images count if they have a price: a model
    without one generates neither.
    """
    inputs: list[int | None] = []
    outputs: list[int | None] = []
    audio: list[int | None] = []
    for above, rate in rates:
        inputs += (rate.input, rate.cache_read, rate.cache_write, rate.cache_write_1h)
        inputs += [rate.image] if rate.image is not None else []
        audio += (rate.audio, rate.cache_read_audio)
        outputs.append(rate.output)
        outputs += [made for made in (rate.output_audio, rate.output_image) if made is not None]
        yield Dearest(above, *(_most(parts, factor) for parts in (inputs, audio, outputs)))


def _most(rates: list[int | None], factor: tuple[int, int]) -> int | None:
    times, divided = factor
    known = [-(-pico * times // (divided * _PICO_PER_NANO)) for pico in rates if pico is not None]
    return max(known) if len(known) == len(rates) else None


def _nano(usd: float | None) -> int:
    return round((usd or 0) * NANO_PER_USD)
