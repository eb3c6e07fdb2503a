"""Translates: the ensembles of one Config into problems: panels that cannot answer, cost too much or ask one model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from msgspec.structs import replace

from proxy.config.namespace import build_names
from proxy.config.problems import Path, Problem, shown
from proxy.config.references import deployment_of, problem_at
from proxy.config.settings import Config
from proxy.ensembles.plan import UNSAID_TOKENS, PanelPlan, Planner
from proxy.metering.price_book import PriceBook
from proxy.routing.deployment import Deployment, Route
from proxy.routing.names import Names
from proxy.routing.panelists import PREFIX
from proxy.routing.settings import Among
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import CostLimit, ProxyError
from proxy.schema.records import NANO_PER_USD

_QUESTION = "x" * 400  # about a hundred tokens


def panel_problems(config: Config) -> Iterator[Problem]:
    """Ensembles whose quorum is larger than their panel."""
    for name, ensemble in config.ensembles.items():
        seats = len(ensemble.panelists()) or ensemble.size
        if ensemble.min_answers is not None and ensemble.min_answers > seats:
            message = f"is {ensemble.min_answers}, and the ensemble has {seats} seats"
            yield problem_at(config, ("ensembles", name, "min_answers"), message)


def panel_warnings(config: Config) -> Iterator[tuple[Path, str]]:
    """The warnings of `proxy check` for ensembles that load."""
    for place, rule in enumerate(config.rules):
        if isinstance(rule.use, Among) and rule.use.ensemble is not None and not config.ensembles_enabled:
            yield ("rules", str(place)), "never used: ensembles.enabled is false, so rules do not choose ensembles"
    names = build_names(config, PriceBook(config.pricing, {}), {})
    for name, ensemble in config.ensembles.items():
        targets = [_target(member.use, config) for member in ensemble.panelists()]
        if twice := sorted({each for each in targets if targets.count(each) > 1}):
            message = f"several seats ask {', '.join(map(shown, twice))}; answers of one model agree too easily"
            yield ("ensembles", name), message
        elif ensemble.counts_a_deployment_once and (only := _only_one(names, targets)):
            yield (
                ("ensembles", name),
                f"its members cannot agree: with the API keys that are set, only {shown(only)} answers for them",
            )
        if ensemble.max_cost_usd is not None and targets:
            with suppress(ProxyError):  # no member can be called; other warnings say why
                yield from _costs(config, names, name, _planned(config, names, name, is_limited=False))


def _costs(config: Config, names: Names, name: str, whole: PanelPlan) -> Iterator[tuple[Path, str]]:
    path = ("ensembles", name, "max_cost_usd")
    bound = whole.bound_nano
    try:
        limited = _planned(config, names, name, is_limited=True)
    except CostLimit as error:
        yield path, f"can never answer: {error.message}"
        return
    if bound is not None and limited.left_out and len(limited.seats) < len(whole.seats):
        yield (
            path,
            f"for an answer of {UNSAID_TOKENS} tokens the members may cost up to ${bound / NANO_PER_USD:.6f}; then "
            f"{len(limited.seats)} of {len(whole.seats)} are asked",
        )


def _planned(config: Config, names: Names, name: str, *, is_limited: bool) -> PanelPlan:
    ensemble = config.ensembles[name]
    if not is_limited:
        ensemble = replace(ensemble, max_cost_usd=None)
    fields = {"messages": [{"role": "user", "content": _QUESTION}], "max_tokens": UNSAID_TOKENS}
    request = ChatRequest(
        model=PREFIX + name, messages=[Message("user", _QUESTION)], max_tokens=UNSAID_TOKENS, fields=fields
    )
    return Planner(config.ensembles, _Lookup(names)).plan(PREFIX + name, ensemble, request)


def _target(name: str, config: Config) -> str:
    """The first target of a member, whether its key is set or not."""
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        entry = config.models.get(name)
        name = config.aliases.get(name, name) if entry is None else entry.use or name
    return deployment_of(name, config) or name


def _only_one(names: Names, targets: Sequence[str]) -> str | None:
    """The one deployment that all members lead to now. Members that cannot be called do not count."""
    found = set()
    for target in targets:
        with suppress(ProxyError):
            found.add(names.resolve(target).candidates[0].name)
    return found.pop() if len(found) == 1 and len(targets) > 1 else None


class _Lookup:
    """The namespace according to the files."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def route(self, name: str, request: ChatRequest) -> Route:
        return self._names.resolve(name)

    def pool(self) -> Sequence[Deployment]:
        return self._names.pool()
