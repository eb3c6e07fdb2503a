"""Orchestrates: one small call to each provider, through the same pipeline as every other, metered too."""

from __future__ import annotations

import asyncio
import time

from msgspec import Struct

from proxy.config import Config
from proxy.config.namespace import enabled
from proxy.schema.errors import ProxyError
from proxy.schema.json import decode_object, encode
from proxy.schema.records import Caller
from proxy.server.api.answers import new_id
from proxy.server.formats.chat import CHAT
from proxy.server.log import build_log
from proxy.server.wiring import Runtime, local_models, running

# Room for models that think before they speak: with less, some vendors answer an error instead of a short answer.
_MAX_TOKENS = 256
_LOCAL_MAX_TOKENS = 16  # the embedded one does not think, and takes its time for each token
_ROLES = ("fast", "default", "reasoning")


class Ping(Struct, frozen=True):
    """`error`: what failed, with its code; None where an answer came. `cost_usd` None: its price is not known."""

    ok: bool
    model: str | None
    latency_ms: int | None = None
    cost_usd: float | None = None
    error: str | None = None


def ping_all(config: Config) -> dict[str, Ping]:
    """Provider -> how it answered, for all that are on, at the same time. Raises StoreError."""
    return asyncio.run(_ping_all(config))


async def _ping_all(config: Config) -> dict[str, Ping]:
    async with running(config, local_models(config), build_log("json", quiet=True)) as server:
        runtime = server.runtimes.current
        await runtime.lists.settled()
        names = list(enabled(config))
        pings = await asyncio.gather(*(_ping(runtime, name) for name in names))
        return dict(zip(names, pings, strict=True))


async def _ping(runtime: Runtime, provider: str) -> Ping:
    model = _small_model(runtime, provider)
    if model is None:
        return Ping(False, None, error=f"it lists no model; name one: providers.{provider}.models.default")
    name = f"{provider}/{model}"
    messages = [{"role": "user", "content": "Say: ok"}]
    is_local = runtime.config.providers[provider].local_model is not None
    most = _LOCAL_MAX_TOKENS if is_local else _MAX_TOKENS
    body = encode({"model": name, "messages": messages, "max_completion_tokens": most})
    started = time.perf_counter()
    try:
        call, route = await runtime.pipeline.admit(new_id(), Caller("cli"), body, CHAT)
        answer = decode_object(await runtime.pipeline.complete(call, route, CHAT))
    except ProxyError as error:
        return Ping(False, name, error=f"{error.code}: {error.message}" if error.code else error.message)
    latency_ms = round((time.perf_counter() - started) * 1000)
    return Ping(True, name, latency_ms, answer["usage"].get("cost"))


def _small_model(runtime: Runtime, provider: str) -> str | None:
    """The cheapest that the configuration knows of: a role, else what is listed, else what its server lists."""
    roles = runtime.config.providers[provider].models
    known = (*(roles[role] for role in _ROLES if role in roles), *runtime.names.listed.get(provider, ()))
    return next(iter((*known, *runtime.names.found.get(provider, ()))), None)
