"""Translates: a route and a request -> Plan: the deployments in order, and an upper bound of the cost.

Pure, and computed before any request is built: the budget decides by the bound, and the request depends on the budget.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from proxy.metering import tokens
from proxy.metering.media import NO_MEDIA, Media, audio_bound, image_bound, media_of
from proxy.metering.service_terms import sent, terms_of
from proxy.providers.base.contract import Provider
from proxy.routing.deployment import Deployment, Route
from proxy.schema.endpoints import AnyRequest
from proxy.schema.usage import UNSAID


class Reading(Struct, frozen=True):
    """The input of a request: a bound of its tokens if all of it were text, and its other media."""

    tokens: int
    media: Media


class Plan(Struct, frozen=True):
    """`bound_nano` is the maximum cost of the call in nano-USD if nothing is billed twice; None: unknown.

    Concurrent attempts add up; among sequential ones only the most expensive counts. A failed attempt that is billed
    anyway is added when the next one is committed.
    """

    route: Route
    bound_nano: int | None


def plan(route: Route, request: AnyRequest) -> Plan:
    """The plan of a call that any deployment of the route may answer."""
    every = (*route.candidates, *route.context_fallback, *route.content_fallback)
    if request.n > 1 and len(questions := request.apart()) > 1:
        return Plan(route, _sum([plan(route, question).bound_nano for question in questions]))
    read = Reading(tokens.input_bound(request), media_of(request))
    bounds = [_bound(request, deployment, read, _seats(request, deployment)) for deployment in every]
    known = [bound for bound in bounds if bound is not None]
    return Plan(route, max(known) if len(known) == len(bounds) else None)


def attempt_bound(request: AnyRequest, deployment: Deployment) -> int | None:
    """An upper bound of one attempt's cost in nano-USD; None if its price or its output limit is unknown, or if nothing
    bounds what the vendor fetches to read, unless the price has a cap for it (`max_extra_usd`).
    """
    return _bound(request, deployment, Reading(tokens.input_bound(request), media_of(request)), 1)


def output_bound(request: AnyRequest, deployment: Deployment) -> int | None:
    """The most tokens that the vendor may write for this request; None if nothing limits them."""
    price = deployment.price
    limit = request.output_limit(None if price is None else price.max_output or price.context)
    return limit and max(limit, deployment.provider.least_output(request, deployment.model) * request.n)


def ask_bound(request: AnyRequest, deployment: Deployment) -> int | None:
    """The same for one ask: all the concurrent requests that its questions and choices need."""
    if request.n > 1 and len(questions := request.apart()) > 1:
        return _sum([ask_bound(question, deployment) for question in questions])
    read = Reading(tokens.input_bound(request), media_of(request))
    return _bound(request, deployment, read, _seats(request, deployment))


def _sum(bounds: list[int | None]) -> int | None:
    known = [bound for bound in bounds if bound is not None]
    return sum(known) if len(known) == len(bounds) else None


def _bound(request: AnyRequest, deployment: Deployment, read: Reading, seats: int) -> int | None:
    price, rates = deployment.price, deployment.rates
    if price is None or rates is None:
        return None
    if rates.is_free:
        return 0
    provider, media = deployment.provider, read.media
    asked = sent(request.fields, provider.parameters)
    if asked is not UNSAID or deployment.region:
        rates = rates.under(terms_of(UNSAID, asked, deployment.region))
    limit = output_bound(request, deployment)
    if rates is None or (limit is None and any(each.output for each in rates.dearest)):
        return None
    if (native := request.native) is not None and native.fetches and provider.takes_native(native):
        media = replace(media, is_fetched=True)
        read = Reading(read.tokens, media)
    fetches = media.is_fetched or deployment.searches
    found = (read.tokens, 0) if media is NO_MEDIA else _with_media(read, provider, deployment.model, price.context)
    if found is None or (fetches and rates.max_extra_nano is None):
        return None
    bound = rates.upper_bound(found[0] * seats, limit or 0, found[1] * seats, may_search=fetches)
    return bound if bound is None or not fetches else bound + (rates.max_extra_nano or 0) * seats


def _with_media(read: Reading, provider: Provider, model: str, context: int | None) -> tuple[int, int] | None:
    """Bounds of input and audio tokens. The context bounds media without a formula; None: it is unknown too."""
    media = read.media
    images = [image_bound(provider.image_rules, model, data) for data in media.images]
    audio = [audio_bound(provider.audio_tokens_per_s, data, form) for data, form in media.audio]
    seen, heard = [each for each in images if each is not None], [each for each in audio if each is not None]
    if media.has_others or len(seen) < len(images) or len(heard) < len(audio):
        return None if context is None else (context, context if audio else 0)
    return max(0, read.tokens - media.size) + media.hidden + sum(seen), sum(heard)


def _seats(request: AnyRequest, deployment: Deployment) -> int:
    """The number of concurrent requests needed for all choices."""
    if request.n == 1:
        return 1
    most = deployment.provider.choices_per_call(request, deployment.model)
    return 1 if most is None else -(-request.n // most)
