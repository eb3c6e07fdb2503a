"""Translates: a client's request into the request of one seat of a panel."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proxy.ensembles.base import Member
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.schema.hints import Hints

_VARIED = (0.7, 1.0, 0.4, 0.9)  # temperatures for further seats of one model, so that their answers differ


def whole_request(request: ChatRequest) -> ChatRequest:
    """The question for one whole answer. Routing hints and a vendor's own body stay with the call.

    Raises BadRequest for features that only that body can express.
    """
    for where, what in ({} if request.native is None else request.native.only_here).items():
        raise BadRequest(f"{where}: an ensemble has no {what}.", param=where, code="unsupported_parameter")
    gone = ("stream", "stream_options", "n")
    fields = {name: value for name, value in request.fields.items() if name not in gone}
    hints = Hints(strict=request.hints.strict, no_fallback=request.hints.no_fallback)
    return replace(request, stream=False, include_usage=False, n=1, native=None, hints=hints, fields=fields)


def streamed_request(request: ChatRequest) -> ChatRequest:
    """The same question for a streamed answer."""
    request = whole_request(request)
    return replace(request, stream=True, fields={**request.fields, "stream": True})


def with_parameters(request: ChatRequest, member: Member) -> ChatRequest:
    """The request with the member's own parameters. Its `max_tokens` never raises the request's."""
    own: dict[str, Any] = {
        name: value
        for name in ("temperature", "top_p", "seed", "reasoning_effort")
        if (value := getattr(member, name)) is not None
    }
    if own:
        request = replace(request, fields={**request.fields, **own})
    return request if member.max_tokens is None else request.capped(member.max_tokens)[0]


def varied(request: ChatRequest, member: Member, seats_before: int) -> ChatRequest:
    """The request of a further seat of the same model, with a seed and a temperature of its own if none is given."""
    if not seats_before:
        return request
    fields = dict(request.fields)
    seed = fields.get("seed")
    if member.seed is None:
        fields["seed"] = (seed if isinstance(seed, int) else 0) + seats_before
    if fields.get("temperature") is None:
        fields["temperature"] = _VARIED[(seats_before - 1) % len(_VARIED)]
    return replace(request, fields=fields)
