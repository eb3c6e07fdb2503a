"""multi-model-proxy: one OpenAI-compatible endpoint in front of every provider, with every request metered.

`from proxy import MultiModelAPI, SyncMultiModelAPI, APISettings, MultiModelError` is the Python client. Its modules are
loaded when one of these names is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.client import APISettings as APISettings
    from proxy.client import MultiModelAPI as MultiModelAPI
    from proxy.client import MultiModelError as MultiModelError
    from proxy.client import SyncMultiModelAPI as SyncMultiModelAPI

__version__ = "0.1.0"

_CLIENT = ("APISettings", "MultiModelAPI", "MultiModelError", "SyncMultiModelAPI")


def __getattr__(name: str) -> Any:
    if name not in _CLIENT:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # lazy: every command imports this package

    return getattr(import_module("proxy.client"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_CLIENT})
