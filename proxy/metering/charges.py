"""Translates: a call, or an attempt of it, into the budget windows that it counts against. Pure, given a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from zoneinfo import ZoneInfo

from msgspec import Struct

from proxy.metering.budgets import HARD_FACTOR, BudgetConfig, BudgetLimits
from proxy.metering.windows import WINDOWS, window_at
from proxy.schema.records import NANO_PER_USD, NO_LABELS, Charge, Labels

_MAX_CACHED = 4096  # names of sessions and tags come from clients


class Limit(Struct, frozen=True):
    """One limit of one scope. `soft_nano` None: calls are not downgraded."""

    kind: str
    hard_nano: int
    soft_nano: int | None
    downgrade_to: str | None


class Budgets:
    """The limits of one configuration.

    `models_of` gives the `provider/model` names that a name under `per_model` stands for.
    """

    def __init__(self, config: BudgetConfig | None, models_of: Callable[[str], Iterable[str]]) -> None:
        self.config = config = config or BudgetConfig()
        self._zone = ZoneInfo(config.timezone)
        self._all = _limits(config, config)
        self._keys = _scopes(config, config.per_key)
        self._providers = _scopes(config, config.per_provider)
        self._tags = _scopes(config, config.per_tag)
        self._sessions = _limits(config, config.per_session or BudgetLimits())
        models: dict[str, tuple[tuple[str, Limit], ...]] = {}
        for name, limits in _scopes(config, config.per_model).items():
            for model in models_of(name):
                models[model] = (*models.get(model, ()), *((f"model {name} {limit.kind}", limit) for limit in limits))
        self._models = models
        self._of_calls = bool(self._all or self._keys or self._tags or self._sessions)
        self._of_attempts = bool(self._providers or self._models)
        self._cached: dict[object, tuple[int, tuple[Charge, ...]]] = {}

    @property
    def is_empty(self) -> bool:
        return not (self._of_calls or self._of_attempts)

    def of_call(self, key: str | None, labels: Labels, now_ns: int) -> tuple[Charge, ...]:
        """The overall windows, and those of the key, the tags and the session."""
        if not self._of_calls:
            return ()
        return self._charges((key, labels.tags, labels.session), now_ns, lambda: self._call_limits(key, labels))

    def of_attempt(self, provider: str, model: str, now_ns: int) -> tuple[Charge, ...]:
        """The windows of the provider and of the model (`provider/model`)."""
        if not self._of_attempts:
            return ()
        return self._charges(model, now_ns, lambda: self._attempt_limits(provider, model))

    def of_caller(self, key: str | None, *, every: bool, now_ns: int) -> tuple[Charge, ...]:
        """The windows that a caller may see: those of its key, or `every` one except those of sessions."""
        if not every:
            return tuple(each for each in self.of_call(key, NO_LABELS, now_ns) if each.pays)
        return self._charges((key, "every"), now_ns, self._every_limit)

    def _every_limit(self) -> Iterator[tuple[str, Limit, bool]]:
        yield from ((limit.kind, limit, False) for limit in self._all)
        for what, scopes in (("key", self._keys), ("tag", self._tags), ("provider", self._providers)):
            for name, limits in scopes.items():
                yield from ((f"{what} {name} {limit.kind}", limit, what == "key") for limit in limits)
        yield from ((budget, limit, False) for budget, limit in dict(chain(*self._models.values())).items())

    def _charges(
        self, of: object, now_ns: int, limits: Callable[[], Iterator[tuple[str, Limit, bool]]]
    ) -> tuple[Charge, ...]:
        """The windows, cached until the first of them ends."""
        until_ns, charges = self._cached.get(of, (0, ()))
        if now_ns < until_ns:
            return charges
        found: list[Charge] = []
        for budget, limit, pays in limits():
            window = window_at(limit.kind, now_ns, self._zone)
            until_ns = min(until_ns or window.until_ns, window.until_ns) if found else window.until_ns
            found.append(
                Charge(
                    budget,
                    window.start_ns,
                    window.since_ns,
                    limit.hard_nano,
                    limit.soft_nano,
                    pays,
                    window.resets_ns,
                    limit.downgrade_to,
                )
            )
        if len(self._cached) >= _MAX_CACHED:
            self._cached.clear()
        charges = tuple(found)
        self._cached[of] = (until_ns if found else now_ns + NANO_PER_USD, charges)
        return charges

    def _call_limits(self, key: str | None, labels: Labels) -> Iterator[tuple[str, Limit, bool]]:
        yield from ((limit.kind, limit, False) for limit in self._all)
        if key is not None:
            yield from ((f"key {key} {limit.kind}", limit, True) for limit in self._keys.get(key, ()))
        for tag in dict.fromkeys(labels.tags):
            yield from ((f"tag {tag} {limit.kind}", limit, False) for limit in self._tags.get(tag, ()))
        if labels.session is not None:
            owner = "" if key is None else f"{key}/"
            yield from ((f"session {owner}{labels.session} {limit.kind}", limit, False) for limit in self._sessions)

    def _attempt_limits(self, provider: str, model: str) -> Iterator[tuple[str, Limit, bool]]:
        yield from ((f"provider {provider} {limit.kind}", limit, False) for limit in self._providers.get(provider, ()))
        yield from ((budget, limit, False) for budget, limit in self._models.get(model, ()))


def _scopes(config: BudgetConfig, scopes: Mapping[str, BudgetLimits]) -> dict[str, tuple[Limit, ...]]:
    found = {name: _limits(config, limits) for name, limits in scopes.items()}
    return {name: limits for name, limits in found.items() if limits}


def _limits(config: BudgetConfig, limits: BudgetLimits) -> tuple[Limit, ...]:
    downgrades = (limits.when_spent or config.when_spent) == "downgrade"
    downgrade_to = (limits.downgrade_to or config.downgrade_to) if downgrades else None
    found = []
    for kind in WINDOWS:
        usd, hard_usd = getattr(limits, f"{kind}_usd"), getattr(limits, f"hard_{kind}_usd")
        if usd is None:
            continue
        soft_nano = round(usd * NANO_PER_USD)
        if not downgrades:
            found.append(Limit(kind, soft_nano, None, None))
            continue
        hard_nano = round(soft_nano * HARD_FACTOR) if hard_usd is None else round(hard_usd * NANO_PER_USD)
        found.append(Limit(kind, hard_nano, soft_nano, downgrade_to))
    return tuple(found)


NO_BUDGETS = Budgets(None, lambda name: ())
