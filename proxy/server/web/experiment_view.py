"""Translates: an experiment, its results and how they came about into what its page shows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup
from msgspec import Struct

from proxy.prompts.results import Course, Mean, Results, ShownDifference, VariantResult
from proxy.schema.experiments import LOWER_IS_BETTER, Steps, StoredExperiment
from proxy.schema.json import encode
from proxy.schema.records import NANO_PER_USD as NANO
from proxy.server.web.charts import interval, top_of
from proxy.server.web.words import NOTHING, milliseconds, percent, plain, usd

STEPS = 60  # points of a chart
_STATES = {"running": "good", "draft": "quiet", "stopped": "quiet"}


class Variant(Struct, frozen=True):
    """A row of the table. `style`: winner, leader or nothing. `behind`, `costs` and `times`: the leader minus this
    variant; of the last two the value, and the same with its interval.
    """

    name: str
    style: str
    what: str
    figures: VariantResult
    rate: str
    behind: str
    chance: str
    costs: tuple[str, str] | None
    times: tuple[str, str] | None


class Drawing(Struct, frozen=True):
    """How the difference of the leader to one variant became clear. `top`: the value at the upper edge."""

    variant: str
    svg: Markup
    top: str
    bottom: str
    now: str


def state_of(stored: StoredExperiment) -> str:
    """The colour of its status."""
    return _STATES.get(stored.state.status, "quiet")


def variants_of(stored: StoredExperiment, results: Results) -> list[Variant]:
    """In the order of the definition."""
    metric = results["metric"]
    shown = []
    for figures in results["variants"]:
        name = figures["name"]
        style = "winner" if name == results["winner"] else "leader" if name == results["leader"] else ""
        shown.append(
            Variant(
                name=plain(name),
                style=style,
                what=_what(stored, name),
                figures=figures,
                rate=_mean(figures[metric]),  # type: ignore[literal-required]  # one of its four outcomes
                behind=_interval(figures["difference"], _points),
                chance=percent(figures["chance_best"]),
                costs=_both(figures["cost_difference_usd"], usd),
                times=_both(figures["latency_difference_ms"], _signed_ms),
            )
        )
    return shown


def _what(stored: StoredExperiment, name: str) -> str:
    """What a variant varies, in words."""
    spec = stored.experiment.variant(name)
    if spec is None:
        return NOTHING
    said = [f"version {spec.prompt_version}"] if spec.prompt_version is not None else []
    said += [plain(spec.model)] if spec.model else []
    said += [plain(f"{key} {encode(value).decode()}", 60) for key, value in list(spec.parameters.items())[:5]]
    said += [plain(f"ensemble {encode(spec.ensemble).decode()}", 80)] if spec.ensemble else []
    return ", ".join(said) or "nothing: as the request says"


def drawings_of(courses: Sequence[Course]) -> list[Drawing]:
    """One for each variant that is compared with the leader."""
    shown = []
    for course in courses:
        points = [None if each is None else (each["low"], each["value"], each["high"]) for each in course["points"]]
        last = next((each for each in reversed(points) if each is not None), None)
        if last is None:
            continue
        reach = min(1.0, top_of(max(map(abs, last)) * 1.25))  # means are from 0 to 1
        now = f"{_points(last[1])} ({_points(last[0])} to {_points(last[2])})"
        drawn = interval(points, reach)
        shown.append(Drawing(plain(course["variant"]), drawn, _points(reach), _points(-reach), now))
    return shown


def times_of(steps: Steps | None, tz: str) -> list[str]:
    """The times below a chart: beginning, middle and end."""
    if steps is None or not steps.count:
        return []
    ends = [steps.start_ns + steps.width_ns * steps.count * part // 2 for part in range(3)]
    zone = ZoneInfo(tz)
    moments = [datetime.fromtimestamp(at // NANO, UTC).astimezone(zone) for at in ends]
    return [f"{at.day} {at:%b, %H:%M}" for at in moments]


def lead_of(results: Results) -> str:
    """Who is ahead, and why that is no verdict yet."""
    leader, reason = results["leader"], results["reason"]
    said = reason if reason.startswith(f"{leader} leads") else f"{leader} is ahead, with {reason}"
    return plain(said, 600) + "."


def needed_for(stored: StoredExperiment, results: Results) -> str:
    """What the outcomes that are still needed are for."""
    effect = f"{100 * stored.experiment.minimum_effect:g} points"
    if results["winner"] is not None:
        return ""
    is_enough = results["samples_needed"] == 0
    return f"enough to prove {effect}; this is less" if is_enough else f"of each variant, to prove {effect}"


def wins_low(metric: str) -> bool:
    """True where the lowest mean wins."""
    return metric in LOWER_IS_BETTER


def facts_of(shown: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The rules of the experiment, and the moments of its life."""
    names = ("prompt", "label", "assignment", "metric", "outcome_rule", "alpha", "minimum_effect", "minimum_samples")
    moments = ("created_at", "started_at", "stopped_at", "decided_at", "promoted_at", "reverted_at")
    found = [(name.replace("_", " "), plain(shown[name])) for name in names if shown[name] not in (None, "")]
    found += [("floor", plain(shown["floor"]))] if shown["assignment"] == "auto" else []
    found += [("moves the label itself", "yes" if shown["promote"] else "no")]
    times = [(f"{name[:-3]} (UTC)", str(shown[name])[:19].replace("T", " ")) for name in moments if shown[name]]
    return [*found, *times]


def _mean(mean: Mean) -> str:
    return NOTHING if mean["mean"] is None else f"{percent(mean['mean'])} of {mean['count']:,}"


def _interval(found: ShownDifference | None, write: Any) -> str:
    return "" if found is None else f"{write(found['value'])} ({write(found['low'])} to {write(found['high'])})"


def _both(found: ShownDifference | None, write: Any) -> tuple[str, str] | None:
    return None if found is None else (write(found["value"]), _interval(found, write))


def _points(value: float) -> str:
    """A difference of shares, in percentage points."""
    return f"{100 * value:+.1f}" if abs(value) < 0.1 else f"{100 * value:+.0f}"


def _signed_ms(value: float) -> str:
    return ("-" if value < 0 else "+") + milliseconds(abs(value))
