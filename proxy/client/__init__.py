"""Performs I/O: code that talks to a server from outside: the Python client, conformance checks, single questions.

The names of the Python client are loaded when they are first used: the commands that import this package need none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.client.api import AnswerStream as AnswerStream
    from proxy.client.api import MultiModelAPI as MultiModelAPI
    from proxy.client.errors import MultiModelError as MultiModelError
    from proxy.client.settings import APISettings as APISettings
    from proxy.client.sync_api import SyncAnswerStream as SyncAnswerStream
    from proxy.client.sync_api import SyncMultiModelAPI as SyncMultiModelAPI

EXPORTED = {
    "APISettings": "proxy.client.settings",
    "AnswerStream": "proxy.client.api",
    "MultiModelAPI": "proxy.client.api",
    "MultiModelError": "proxy.client.errors",
    "SyncAnswerStream": "proxy.client.sync_api",
    "SyncMultiModelAPI": "proxy.client.sync_api",
}


def __getattr__(name: str) -> Any:
    if name not in EXPORTED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(EXPORTED[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *EXPORTED})
