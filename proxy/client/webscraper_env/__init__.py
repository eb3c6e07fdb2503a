"""Values: the Python client under the name that older programs import it by. The wheel has it at its top level."""

from __future__ import annotations

from proxy.client import APISettings, MultiModelAPI, MultiModelError, SyncMultiModelAPI

__all__ = ["APISettings", "MultiModelAPI", "MultiModelError", "SyncMultiModelAPI"]
