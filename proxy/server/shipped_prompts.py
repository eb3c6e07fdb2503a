"""Orchestrates: copies the shipped prompts from YAML into the database on a server's first start.

Archived or changed ones stay that way: an id that was ever used is left alone.
"""

from __future__ import annotations

import time
from functools import partial
from importlib.resources import files

from structlog.typing import FilteringBoundLogger

from proxy.config.prompt_file import read_prompts
from proxy.pipeline.stored_prompts import StoredPrompts
from proxy.schema.errors import ProxyError
from proxy.schema.prompts import Brought
from proxy.server.api.prompt_bodies import check_usable
from proxy.storage.prompt_rows import PromptRefused
from proxy.storage.prompts import PromptStore

SHIPPED = ("extraction_v1", "reasoning_v1")
FILE = "shipped.yaml"


def shipped() -> list[Brought]:
    """The prompts in the package."""
    return read_prompts((files("proxy.prompts") / FILE).read_bytes(), FILE, check_usable)


async def bring_shipped(prompts: StoredPrompts, log: FilteringBoundLogger) -> None:
    """Adds those that were never there. Without the database they are missing, but the server runs."""
    try:
        await prompts.read(partial(_bring, prompts.store))
    except (ProxyError, PromptRefused) as error:
        log.warning("shipped_prompts_missing", error=str(error))


def _bring(store: PromptStore) -> None:
    if len(store.heads(SHIPPED)) < len(SHIPPED):
        store.bring(shipped(), time.time_ns(), only_new=True)
