"""Translates: the names a configuration uses into problems: unknown, ambiguous, circular or retired.

`proxy.routing.names` resolves names for each request. A name refused here never gets there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from itertools import chain

from msgspec import Struct

from proxy.config.behind import Behind
from proxy.config.ensembles import names_of
from proxy.config.origins import without_effect
from proxy.config.problems import Mark, Path, Problem, Severity, looks_like_key, near, problem, shown
from proxy.config.settings import Config
from proxy.metering.budgets import BudgetConfig, BudgetLimits
from proxy.metering.prices import find_price
from proxy.metering.windows import WINDOWS
from proxy.routing.names import AUTO_NAMES, ROLES
from proxy.routing.panelists import PREFIX
from proxy.routing.settings import Among

SOON = timedelta(days=90)
MAX_HINTS = 20  # each compares a name with all others
_ASKS_ENSEMBLES = ("aliases", "ensembles", "keys")  # sections whose names may be ensembles
_CHOSEN_FROM = ("models", "router", "rules", "tasks")  # sections that define what `auto` chooses from


class Reference(Struct, frozen=True):
    """A use of a model name. `owner` is the name it helps to define, None elsewhere."""

    path: Path
    name: str
    owner: str | None = None


def check(config: Config, today: date) -> list[Problem]:
    """The problems that `proxy check` reports for names: unknown names, models that retire, and origins and hosts that
    no client can have.
    """
    unmatched = [problem_at(config, path, wrong) for path, wrong in without_effect(config.server)]
    return [*name_problems(config), *retirements(config, today), *unmatched]


def name_problems(config: Config) -> list[Problem]:
    """Names that do not exist, are defined twice, or refer back to themselves."""
    behind = Behind(config)
    found = [*_definitions(config, behind)]
    for reference in references(config):
        wrong = _fault_of(reference, config, behind, near if len(found) < MAX_HINTS else _no_hint)
        if wrong:
            found.append(problem_at(config, reference.path, wrong))
    for scope in config.budget.per_provider if config.budget else ():
        if scope not in config.providers:
            hint = near(scope, config.providers)
            found.append(
                problem_at(config, ("budget", "per_provider", scope), f'unknown provider "{shown(scope)}"{hint}')
            )
    return [*found, *_hard_limits(config), *_cycles(config), *_successors(config)]


def retirements(config: Config, today: date) -> list[Problem]:
    """A warning for each name that leads to a model that is retired, or will retire within 90 days of `today`."""
    found = []
    for reference in references(config):
        deployment = deployment_of(reference.name, config)
        price = find_price(config.pricing, deployment) if deployment else None
        day = price and (price.retired or price.retires)
        if not price or not day or date.fromisoformat(day) > today + SOON:
            continue
        left = (date.fromisoformat(day) - today).days
        when = f"was retired on {day}" if left <= 0 or price.retired else f"retires on {day}, in {left} days"
        after = f"; its successor is {price.successor}" if price.successor else ""
        found.append(problem_at(config, reference.path, f"{deployment} {when}{after}", Severity.WARNING))
    return found


def _successors(config: Config) -> Iterator[Problem]:
    """Rows of pricing.yaml whose successor cannot be called. `proxy.config.warnings` handles one merely unlisted."""
    rows = config.pricing.models
    owners = {name.partition("/")[0] for name in rows} | set(config.providers)
    full = {name.partition("/")[2]: name for name in reversed([*rows])}
    for name, row in rows.items():
        owner, _, model = (row.successor or "").partition("/")
        if row.successor is None or row.successor in config.models or row.successor in config.aliases:
            continue
        if not model:
            close = f'; did you mean "{full[owner]}"?' if owner in full else ""
            yield successor_problem(config, name, f"must be provider/model{close}")
        elif owner not in owners:
            yield successor_problem(config, name, f'unknown provider "{shown(owner)}"{near(owner, owners)}')


def successor_problem(config: Config, row: str, message: str, severity: Severity = Severity.ERROR) -> Problem:
    """A problem with the successor of a row of pricing.yaml."""
    path = ("models", row, "successor")
    return problem(config.price_marks.get(path, Mark("pricing.yaml")), path, message, severity)


def _definitions(config: Config, behind: Behind) -> Iterator[Problem]:
    for section, names in (("models", config.models), ("aliases", config.aliases)):
        for name in names:
            path = (section, name)
            if looks_like_key(name):
                yield problem_at(config, path, "this looks like a key; keys do not belong in this file")
            elif name == "auto" or name.startswith(("auto:", "ensemble:")):
                yield problem_at(config, path, "names that start with auto or ensemble are reserved")
            elif not name.strip() or len(name) > 200 or not name.isprintable():
                yield problem_at(config, path, "a name must have 1 to 200 printable characters")
            elif section == "aliases" and name in config.models:
                yield problem_at(config, path, "is already defined under models:")
    for name, entry in config.models.items():
        if entry.use is not None and entry.weighted is not None:
            yield problem_at(config, ("models", name), "has both use and weighted; keep one of them")
        if entry.use is not None and behind.ensemble(entry.use) is not None:
            for key in ("fallback", "context_fallback", "content_fallback"):
                if getattr(entry, key):
                    message = "an ensemble has no fallback; its members have their own"
                    yield problem_at(config, ("models", name, key), message)


def references(config: Config) -> Iterator[Reference]:
    for name, entry in config.models.items():
        path = ("models", name)
        if entry.use is not None:
            written = (*path, "use")
            yield Reference(written if written in config.marks else path, entry.use, name)
        for other in entry.weighted or ():
            yield Reference((*path, "weighted", other), other, name)
        for key in ("fallback", "context_fallback", "content_fallback"):
            for place, other in enumerate(getattr(entry, key)):
                yield Reference((*path, key, str(place)), other, name)
    for name, target in config.aliases.items():
        yield Reference(("aliases", name), target, name)
    if config.router.default_model is not None:
        yield Reference(("router", "default_model"), config.router.default_model)
    for place, other in enumerate(config.router.fallback):
        yield Reference(("router", "fallback", str(place)), other)
    yield from _rule_references(config)
    for name, ensemble in config.ensembles.items():
        for where, other in names_of(ensemble):
            yield Reference(("ensembles", name, *where), other, PREFIX + name)
    for name, provider in config.providers.items():
        for role, model in provider.models.items():
            yield Reference(("providers", name, "models", role), f"{name}/{model}")
    yield from _budget_references(config)
    if config.usage.baseline is not None:
        yield Reference(("usage", "baseline"), config.usage.baseline)
    for name, key_config in config.keys.items():
        for place, other in enumerate(key_config.models or ()):
            if not any(sign in other for sign in "*?["):
                yield Reference(("keys", name, "models", str(place)), other)


def _rule_references(config: Config) -> Iterator[Reference]:
    lists: list[tuple[Path, str | list[str]]] = []
    for place, rule in enumerate(config.rules):
        path: Path = ("rules", str(place), "use")
        if isinstance(rule.use, Among) and rule.use.ensemble is not None:
            yield Reference((*path, "ensemble"), PREFIX + rule.use.ensemble)
            continue
        use = rule.use
        lists.append(((*path, "among"), use.among or []) if isinstance(use, Among) else (path, use))
    lists += [(("tasks", task), names) for task, names in config.tasks.items()]
    for where, names in lists:
        if isinstance(names, str):
            yield Reference(where, names)
        else:
            places = [(*where, str(place)) for place in range(len(names))]
            yield from (Reference(p if p in config.marks else where, n) for p, n in zip(places, names, strict=True))


def _budget_references(config: Config) -> Iterator[Reference]:
    if config.budget is None:
        return
    for path, limits in budget_scopes(config.budget):
        if limits.downgrade_to is not None:
            yield Reference((*path, "downgrade_to"), limits.downgrade_to)
    for name in config.budget.per_model:
        yield Reference(("budget", "per_model", name), name)


def budget_scopes(budget: BudgetConfig) -> Iterator[tuple[Path, BudgetLimits]]:
    """The overall limits, then those of keys, providers, models, tags and sessions, each with its path."""
    yield ("budget",), budget
    for key in ("per_key", "per_provider", "per_model", "per_tag"):
        yield from ((("budget", key, name), limits) for name, limits in getattr(budget, key).items())
    if budget.per_session is not None:
        yield ("budget", "per_session"), budget.per_session


def _hard_limits(config: Config) -> Iterator[Problem]:
    """Hard limits without effect, or lower than their soft limit."""
    for path, limits in budget_scopes(config.budget) if config.budget else ():
        for window in WINDOWS:
            usd, hard_usd = getattr(limits, f"{window}_usd"), getattr(limits, f"hard_{window}_usd")
            if hard_usd is None or (usd is not None and hard_usd >= usd):
                continue
            fault = (
                f"needs {window}_usd beside it" if usd is None else f"must be at least {window}_usd, which is {usd:g}"
            )
            yield problem_at(config, (*path, f"hard_{window}_usd"), fault)


def _fault_of(
    reference: Reference, config: Config, behind: Behind, near: Callable[[str, Iterable[str]], str]
) -> str | None:
    """Why a name does not resolve; None if it does. `near` suggests another."""
    name = reference.name
    if reference.path[0] in _CHOSEN_FROM and (route := behind.route(name)) is not None:
        return f'"{route}" chooses among models, so it cannot be used as one'
    if (ensemble := behind.ensemble(name)) is not None and not _may_ask(reference):
        fix = f"; write use: {{ensemble: {shown(ensemble)}}}" if reference.path[0] == "rules" else ""
        return f'"{shown(name)}" is an ensemble, which cannot be used here{fix}'
    if name in config.models or name in config.aliases or ensemble is not None:
        return None
    if name == "auto" or name.startswith("auto:"):
        return None if name in AUTO_NAMES else f'unknown route "{shown(name)}"{near(name, AUTO_NAMES)}'
    if name.startswith(PREFIX):
        known = [PREFIX + each for each in config.ensembles]
        hint = near(name, known) or (f"; ensembles: {', '.join(known)}" if known else "; there is none")
        return f'unknown ensemble "{shown(name)}"{hint}'
    provider, _, model = name.partition("/")
    if provider in config.providers and model:
        if model in ROLES and model not in config.providers[provider].models:
            return f'providers.{provider}.models has no "{model}"'
        return None
    owners = _owners(name, config)
    if len(owners) == 1:
        return None
    if owners:
        return f'several providers have "{shown(name)}"; write {" or ".join(f"{owner}/{name}" for owner in owners)}'
    if model:
        return f'unknown provider "{shown(provider)}"{near(provider, config.providers)}'
    ensembles = (PREFIX + each for each in config.ensembles)
    hint = near(name, chain(config.models, config.aliases, AUTO_NAMES, ensembles, _listed(config)))
    return f'unknown model "{shown(name)}"{hint or "; use a name under models: or aliases:, or provider/model"}'


def _no_hint(_word: str, _known: Iterable[str]) -> str:
    return ""


def _may_ask(reference: Reference) -> bool:
    """True if an ensemble is allowed here. As the `use` of a model it is; it cannot be a fallback."""
    section, *place = reference.path
    if section == "models":
        return len(place) == 1 or place[1] in ("use", "weighted")
    return section in _ASKS_ENSEMBLES or (section == "rules" and place[-1] == "ensemble")


def deployment_of(name: str, config: Config) -> str | None:
    """`provider/model` if the name stands for one upstream model; None if it stands for other names."""
    if name in config.models or name in config.aliases:
        return None
    provider, _, model = name.partition("/")
    if provider in config.providers and model:
        return f"{provider}/{config.providers[provider].models.get(model, model) if model in ROLES else model}"
    owners = _owners(name, config)
    return f"{owners[0]}/{name}" if len(owners) == 1 else None


def _owners(model: str, config: Config) -> list[str]:
    """The providers that list a bare upstream id and are not switched off."""
    return [
        name
        for name, provider in config.providers.items()
        if provider.enabled and (f"{name}/{model}" in config.pricing.models or model in provider.models.values())
    ]


def _listed(config: Config) -> Iterator[str]:
    """Valid names: `provider/model`, and the bare id unless it could be taken for `provider/model`."""
    rows = [name.partition("/") for name in config.pricing.models]
    ours = [(provider, model) for provider, _, model in rows if provider in config.providers]
    yield from (f"{provider}/{model}" for provider, model in ours)
    yield from (model for _, model in ours if "/" not in model)


def _cycles(config: Config) -> list[Problem]:
    """One problem per cycle: a -> b -> a. Fallbacks count, because they are followed to their ends too, and so do the
    ensembles that rules choose for `auto`.
    """
    edges: dict[str, list[Reference]] = {}
    named = {*config.models, *config.aliases, *(PREFIX + name for name in config.ensembles)}
    for reference in references(config):
        if reference.owner is not None and (reference.name in named or reference.name in AUTO_NAMES):
            edges.setdefault(reference.owner, []).append(reference)
        elif reference.path[0] == "rules" and reference.name in named and reference.name.startswith(PREFIX):
            for name in AUTO_NAMES:
                edges.setdefault(name, []).append(reference)
    found: list[Problem] = []
    done: set[str] = set()
    for start in edges:
        trail = [start]
        places = {start: 0}  # name -> its position in the chain
        walks = [iter(edges[start])] if start not in done else []
        while walks:
            step = next(walks[-1], None)
            if step is None:
                walks.pop()
                done.add(name := trail.pop())
                del places[name]
                continue
            if step.name in places:
                chain = [*trail[places[step.name] :], step.name]
                found.append(
                    problem_at(config, step.path, f"circular reference: {' -> '.join(shown(name) for name in chain)}")
                )
            elif step.name not in done:
                places[step.name] = len(trail)
                trail.append(step.name)
                walks.append(iter(edges.get(step.name, ())))
    return found


def problem_at(config: Config, path: Path, message: str, severity: Severity = Severity.ERROR) -> Problem:
    """A problem at the position of its path, or of the nearest parent path that has a position."""
    for length in range(len(path), 0, -1):
        mark = config.marks.get(path[:length])
        if mark is not None:
            return problem(mark, path, message, severity)
    return problem(Mark("configuration"), path, message, severity)
