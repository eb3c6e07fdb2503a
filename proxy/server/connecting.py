"""Orchestrates: connections to providers: their transport and their current address."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from proxy.config import Config
from proxy.config.namespace import endpoint_of
from proxy.providers.base.contract import Provider
from proxy.schema.records import Endpoint, Secret
from proxy.upstream.local_model import LocalModel, RemoteLocalModel
from proxy.upstream.pools import Connect
from proxy.upstream.transports.aiohttp import AiohttpTransport
from proxy.upstream.transports.base import Transport
from proxy.upstream.transports.httpx import HttpxTransport
from proxy.upstream.transports.names import NameLookups
from proxy.upstream.upstream import Origin

LocalModels = Mapping[str, LocalModel | RemoteLocalModel]


def connecting() -> Connect:
    """The connect function of pools, which share one name look-up."""
    resolve = NameLookups()

    def connect(provider: Provider, context: ssl.SSLContext, proxy: Secret | None) -> Transport:
        kind = HttpxTransport if provider.transport == "httpx" else AiohttpTransport
        return kind(context, resolve, None if proxy is None else proxy.reveal())

    return connect


def origin_of(config: Config, name: str, models: LocalModels) -> Origin:
    """The current address of a provider. The embedded model's changes when it restarts."""
    if config.providers[name].local_model is not None and name in models:
        return models[name].endpoint
    endpoint = endpoint_of(config, name)

    async def fixed() -> Endpoint:
        return endpoint

    return fixed
