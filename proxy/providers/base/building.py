"""Translates: a request into the vendor's: the client's own bytes, or a translation."""

from __future__ import annotations

from msgspec.structs import replace

from proxy.providers.base.contract import Built, Provider
from proxy.providers.base.tidy import before_tidying
from proxy.schema.chat import ChatRequest
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest


def is_native(provider: Provider, request: AnyRequest) -> bool:
    """True if the client's own bytes go to this provider, because they are in its wire shape."""
    return request.native is not None and provider.takes_native(request.native)


def passes(provider: Provider, request: AnyRequest) -> bool:
    """True if the provider's own bytes are also the answer."""
    return is_native(provider, request) and request.native is not None and request.native.passes


def build(provider: Provider, request: AnyRequest, model: str) -> Built:
    """The vendor's request, for any of our endpoints. Raises BadRequest for content that it cannot carry."""
    if request.native is None:
        return _translated(provider, request, model)
    if provider.takes_native(request.native):
        return provider.build_native(request, request.native, model)
    native = request.native
    for where, what in native.only_here.items():
        raise _lacking(where, what, model)
    if not request.fields.keys().isdisjoint(native.lost):  # what the bill of the native body reads
        kept = {name: value for name, value in request.fields.items() if name not in native.lost}
        request = replace(request, fields=kept)
    built = _translated(provider, request, model)
    for name in native.needed.keys() & built.dropped:
        raise _lacking(*native.needed[name], model)
    return replace(built, dropped=[*built.dropped, *native.lost])


def _lacking(where: str, what: str, model: str) -> BadRequest:
    return BadRequest(f"{where}: the provider of {model} has no {what}.", param=where, code="unsupported_parameter")


def _translated(provider: Provider, request: AnyRequest, model: str) -> Built:
    try:
        return _built(provider, request, model)
    except BadRequest as error:
        if error.param is not None:
            error.rename(request.own_path(before_tidying(error.param, request.fields)))
        raise


def _built(provider: Provider, request: AnyRequest, model: str) -> Built:
    if isinstance(request, ChatRequest):
        if request.unlimited and provider.takes_no_limit is None:
            message = f"max_tokens: expected at least 1: {model} does not support -1. Leave it out to set no limit."
            raise BadRequest(message, param="max_tokens")
        return provider.build_request(request, model)
    if isinstance(request, EmbeddingsRequest):
        return provider.build_embeddings(request, model)
    return provider.build_rerank(request, model)
