"""Orchestrates: builds the stores in the usage database other than the ledger. A part of `wiring`."""

from __future__ import annotations

import random

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from proxy.config import Config
from proxy.pipeline.call_text import StoredTexts
from proxy.pipeline.experiments import LiveExperiments
from proxy.pipeline.idempotency import Replays
from proxy.pipeline.off_loop import OffLoop
from proxy.pipeline.reasoning_state import ReasoningState
from proxy.pipeline.stored_prompts import StoredPrompts
from proxy.server.notify import Alerts
from proxy.server.upkeep import Upkeep
from proxy.storage.alerts import AlertRows
from proxy.storage.call_texts import CallTexts
from proxy.storage.experiments import ExperimentStore, in_use
from proxy.storage.kept_answers import KeptAnswers
from proxy.storage.prompts import PromptStore
from proxy.storage.reasoning_states import ReasoningStates
from proxy.storage.retention import KeptDays, Retention
from proxy.storage.sqlite import SqliteStore, sqlite_path


class SideStores(Struct, frozen=True):
    """The stores in the usage database other than the ledger, its clean-up, and the threads for large bodies."""

    vault: ReasoningState
    replays: Replays
    texts: StoredTexts
    off_loop: OffLoop
    upkeep: Upkeep
    alerts: Alerts
    prompts: StoredPrompts
    experiments: LiveExperiments


def build_side_stores(config: Config, store: SqliteStore, log: FilteringBoundLogger) -> SideStores:
    """The stores of reasoning between requests, if configured, and of answers for repeats. Opens nothing."""
    path, off_loop = sqlite_path(config.storage.url), OffLoop()
    kept, where = config.storage, config.storage.reasoning_state
    states = None if where == "off" else ReasoningStates(path if where == "store" else None, config.vault_key)
    answers = KeptAnswers(path, lambda: store.owner, config.vault_key)
    days = KeptDays(kept.keep_days, kept.keep_errors_days or kept.keep_days, kept.keep_text_days)
    upkeep = Upkeep(Retention(path, days), log)
    texts = StoredTexts(CallTexts(path, config.vault_key), log.warning)
    replays = Replays(answers, off_loop, log.warning, refuses=kept.when_down == "refuse")
    alerts = Alerts(AlertRows(path), log)
    most = int(config.server.max_body_mb * 1024 * 1024)
    prompts = StoredPrompts(PromptStore(path, in_use=in_use), off_loop, log.warning, most)
    experiments = prompts.experiments = LiveExperiments(ExperimentStore(path), prompts, log.warning, random.random)
    vault = ReasoningState(states, log.warning)
    return SideStores(vault, replays, texts, off_loop, upkeep, alerts, prompts, experiments)
