"""Orchestrates: routing without a server: the names, policies and rules of one configuration, without calls or rows."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from proxy.config import Config
from proxy.config.namespace import build_names, catalogues, ensembles_of
from proxy.metering.charges import Budgets
from proxy.metering.price_book import PriceBook
from proxy.metering.standing import Spending
from proxy.pipeline import hints
from proxy.pipeline.admission import NOTHING, Admission, KeyPolicies
from proxy.pipeline.limits import Limits
from proxy.routing.allowed import Views, meaning
from proxy.routing.decide import decide
from proxy.routing.decision import Decision
from proxy.routing.health import NO_STATE
from proxy.routing.named import NAMED
from proxy.routing.names import AUTO_NAMES
from proxy.routing.replay import replay
from proxy.routing.router import Router
from proxy.routing.stored_facts import mentioned, restored
from proxy.schema.records import Caller, PastCall, StoredCaller
from proxy.server.formats.chat import CHAT
from proxy.server.wiring import classifier
from proxy.storage.keys import StoredKey

_DRAWS = 9973  # a prime: the draws of past calls differ, and stay the same from replay to replay
NO_LISTS: Mapping[str, tuple[str, ...]] = {}


class Offline:
    """One configuration. `found`: the model ids that servers list, if they were asked. `keys`: those in the database,
    whose own model lists also apply. `spending`: of its budgets, from the database.
    """

    def __init__(
        self,
        config: Config,
        found: Mapping[str, tuple[str, ...]] = NO_LISTS,
        keys: Sequence[StoredKey] = (),
        spending: Spending = NOTHING,
    ) -> None:
        self.config = config
        self._callers = _callers(keys)
        self._book = PriceBook(config.pricing, catalogues(config))
        names = build_names(config, self._book, found)
        self._views = Views(names, self._book)
        self._policies = KeyPolicies(config.keys, None, Limits(1))
        self._admission = Admission(
            self._policies,
            Router(self._views, self._book, random.random, classifier(), version=config.version),
            Budgets(config.budget, lambda name: meaning(names, name)),
            spending,
            ensembles=ensembles_of(config),
        )

    async def load_prices(self) -> None:
        """Reads the price list, for models without a row in pricing.yaml."""
        await self._book.load()

    def caller(self, name: str | None) -> Caller:
        """The caller with the key of this name."""
        return self._callers.get(name) or Caller(name)

    async def decide(self, body: bytes, caller: Caller) -> Decision:
        """The decision on a chat body. Raises ProxyError as a call would."""
        return await self._admission.decide(caller, hints.applied(CHAT.decode(body), {}), {})

    async def foresee(self, body: bytes, caller: Caller) -> tuple[Decision, dict[str, Any] | None]:
        """The same after the current budgets, and their effect."""
        return await self._admission.foresee(caller, hints.applied(CHAT.decode(body), {}), {}, time.time_ns())

    def decide_again(self, call: PastCall) -> Decision:
        """The decision on a past call, with all deployments in good health. Raises ProxyError if it is refused."""
        facts = restored(call.facts, call.requested_model, call.key_id)
        allowed = self._policies.of(self.caller(call.key_id)).allowed
        draw = call.opened_ns % _DRAWS / _DRAWS
        names = self._views.of(allowed)
        if call.facts is not None and names.router.enabled and names.target_of(call.requested_model) in AUTO_NAMES:
            return decide(names, facts, NO_STATE, draw, self.config.version)
        return Decision(self._views.resolve(call.requested_model, draw, allowed), facts, step=NAMED)


async def plan_change(
    before: Config,
    after: Config,
    calls: Sequence[PastCall],
    found: Mapping[str, tuple[str, ...]] = NO_LISTS,
    keys: Sequence[StoredKey] = (),
) -> dict[str, Any]:
    """`replay` of the calls through two configurations, with the current model lists of `keys`."""
    old, new = Offline(before, found, keys), Offline(after, found, keys)
    for each in (old, new):
        await each.load_prices()
    told = replay(calls, old.decide_again, new.decide_again, time.time_ns())
    return {"from": before.version, "to": after.version, **told, "notes": _notes(before, after)}


def _callers(keys: Sequence[StoredKey]) -> dict[str | None, Caller]:
    """Callers by name. Of several keys with one name the latest counts, a revoked one only if there is no other."""
    latest = sorted(keys, key=lambda key: (key.revoked_ns is None, key.created_ns))
    return {key.name: StoredCaller(key.name, key.role == "admin", key.models) for key in latest}


def _notes(before: Config, after: Config) -> list[str]:
    """Facts missing in rows, because no rule named them when they were written."""
    old, new = mentioned(before.rules), mentioned(after.rules)
    unknown = [f"header {name}" for name, values in new.headers.items() if values - old.headers.get(name, frozenset())]
    unknown += [
        f"metadata {name}" for name, values in new.metadata.items() if values - old.metadata.get(name, frozenset())
    ]
    unknown += [f"tag {name}" for name in sorted(new.tags - old.tags)]
    unknown += [f"text_matches {text}" for text in new.texts if text not in old.texts]
    return [f"The stored calls have no record of {each}: it counts as absent." for each in unknown]
