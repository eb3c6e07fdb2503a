"""Orchestrates: one small call to a provider, through the normal pipeline, so it is metered too."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager, nullcontext

from msgspec import Struct
from msgspec.structs import replace

from proxy.schema.errors import ProxyError
from proxy.schema.json import decode_object, encode
from proxy.schema.records import Caller
from proxy.server.api.answers import new_id
from proxy.server.formats.chat import CHAT
from proxy.server.runtime import Runtime

# Room for reasoning models: with a smaller limit, some vendors answer with an error instead of a short answer.
_MAX_TOKENS = 256
_LOCAL_MAX_TOKENS = 16  # the embedded model does not reason, and every token takes time
_ROLES = ("fast", "default", "reasoning")


class Ping(Struct, frozen=True):
    """`error`: the code and message of the failure, None if the model answered; or the keys, of several, that the
    vendor refused. `cost_usd`: None if unpriced.
    """

    ok: bool
    model: str | None
    latency_ms: int | None = None
    cost_usd: float | None = None
    error: str | None = None


async def ping(
    runtime: Runtime,
    provider: str,
    caller: Caller,
    deadline_ms: int | None = None,
    place: AbstractContextManager[object] | None = None,
) -> Ping:
    """One call with each key: parallel calls use different ones. `deadline_ms`: of each call.

    `place`: entered for each call of a server that serves others too; raises ProxyError where it is full.
    """
    keys, place = runtime.upstreams[provider].keys, place or nullcontext()
    if keys is None or len(keys.keys) == 1:
        return await _ping(runtime, provider, caller, deadline_ms, place)
    pings = await asyncio.gather(*(_ping(runtime, provider, caller, deadline_ms, place) for _ in keys.keys))
    best, resting = next((ping for ping in pings if ping.ok), pings[0]), keys.resting()
    if not best.ok or not resting:
        return best
    return replace(best, error=f"refused: {', '.join(f'{name} ({why})' for name, why in resting.items())}")


async def _ping(
    runtime: Runtime, provider: str, caller: Caller, deadline_ms: int | None, place: AbstractContextManager[object]
) -> Ping:
    model = _small_model(runtime, provider)
    if model is None:
        return Ping(False, None, error=f"no known model; set providers.{provider}.models.default")
    name = f"{provider}/{model}"
    messages = [{"role": "user", "content": "Say: ok"}]
    is_local = runtime.config.providers[provider].local_model is not None
    most = _LOCAL_MAX_TOKENS if is_local else _MAX_TOKENS
    limit = {} if deadline_ms is None else {"routing": {"deadline_ms": deadline_ms}}
    body = encode({"model": name, "messages": messages, "max_completion_tokens": most, **limit})
    started = time.perf_counter()
    try:
        with place:
            call, route = await runtime.pipeline.admit(new_id(), caller, body, CHAT)
            answer = decode_object(await runtime.pipeline.start(call, route, CHAT).output.read())
    except ProxyError as error:
        return Ping(False, name, error=f"{error.code}: {error.message}" if error.code else error.message)
    latency_ms = round((time.perf_counter() - started) * 1000)
    return Ping(True, name, latency_ms, answer["usage"].get("cost"))


def _small_model(runtime: Runtime, provider: str) -> str | None:
    """The model of its first role (`fast` first), else the first configured one, else the first its server lists."""
    roles = runtime.config.providers[provider].models
    known = (*(roles[role] for role in _ROLES if role in roles), *runtime.names.listed.get(provider, ()))
    return next(iter((*known, *runtime.names.found.get(provider, ()))), None)
