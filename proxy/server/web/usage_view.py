"""Translates: the parameters of the Usage page into queries, and what they find into what the page shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup
from msgspec import Struct

from proxy.schema.errors import BadRequest
from proxy.schema.records import NANO_PER_USD as NANO
from proxy.server.api.periods import iso, period, zone_of
from proxy.server.api.queries import one_of, parameters_of
from proxy.server.web.charts import Bucket, Line, Part, bars, lines, share_bar, ticks, top_of
from proxy.server.web.words import count, milliseconds, plain, query, short, usd

RANGES = {"today": "Today", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}
METRICS = {
    "cost": "Cost",
    "calls": "Calls",
    "tokens": "Tokens",
    "errors": "Failed calls",
    "p95": "p95 latency",
    "first_token": "First token",
}
GROUPS = {
    "model": ("provider", "model"),
    **{name: (name,) for name in ("key", "rule", "task", "provider", "session", "tag")},
}
FORM = {
    "range": "today, 24h, 7d or 30d.",
    "metric": "What the chart shows.",
    "group": "What it tells apart.",
    "since": "Start of another period.",
    "until": "Its end.",
    "tz": "The time zone of days.",
    "baseline": "The model that savings are measured against.",
    "table": "groups, chart or tokens: what a CSV file holds.",
}
TABLES = ("groups", "chart", "tokens")
SERIES = 7  # told apart in the chart; the others are one more
MOST_BUCKETS = 366
_BY_CALL = ("session", "tag")  # read from single calls
_BY_CALL_HOURS = 24
_FIELDS = {"cost": "cost_usd", "calls": "calls", "tokens": "total_tokens", "errors": "errors"}
_TIMES = {"p95": "p95_latency_ms", "first_token": "p50_first_token_ms"}
_DAYS = {"today": 1, "7d": 7, "30d": 30}
_HOUR_NS, _DAY_NS = 3_600 * NANO, 86_400 * NANO
_MOST_LABELS = 8  # of an axis, one for each bar
_HOURS = 3  # days of a period that is drawn by the hour, at most


class Asked(Struct, frozen=True):
    """What one look at the page asks for. `given`: its parameters, for links that change one of them.

    `unit`: hour or day, of one bar. `note`: what the page says about the period.
    """

    range: str
    metric: str
    group: str
    tz: str
    since_ns: int
    until_ns: int
    unit: str
    given: dict[str, str]
    note: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The dimensions that tell the groups apart."""
        return GROUPS[self.group]

    def parameters(self, *groups: str) -> dict[str, str]:
        """The parameters of `GET /v1/usage` for this period."""
        times = {"since": iso(self.since_ns, self.tz) or "", "until": iso(self.until_ns, self.tz) or ""}
        return {**times, "tz": self.tz, "group_by": ",".join(groups)}


def asked_of(items: Iterable[tuple[str, str]], tz: str, now_ns: int) -> Asked:
    """What the parameters ask for; `tz`: the configured zone. Raises BadRequest."""
    given = {name: value for name, value in parameters_of(items, FORM).items() if value}
    for name, known in (("range", RANGES), ("metric", METRICS), ("group", GROUPS)):
        one_of(given, name, tuple(known))
    one_of(given, "table", TABLES)
    tz = zone_of({"tz": given.get("tz") or tz})
    span = given.get("range", "7d")
    since, until = period(given, tz)
    if since is None and until is None:
        since, until = _span(span, tz, now_ns)
    else:
        span = "custom"
        until = now_ns if until is None else until
        since = max(0, until - 7 * _DAY_NS) if since is None else since
        if until <= since:
            raise BadRequest("until: must be later than `since`.", param="until")
    if until - since > MOST_BUCKETS * _DAY_NS:
        raise BadRequest(f"since: the page shows {MOST_BUCKETS} days at most.", param="since")
    group, note = given.get("group", "model"), ""
    if group in _BY_CALL and min(until, now_ns) - since > _BY_CALL_HOURS * _HOUR_NS:
        until = min(until, (now_ns // _HOUR_NS + 1) * _HOUR_NS)
        since = (until - _BY_CALL_HOURS * _HOUR_NS) // _HOUR_NS * _HOUR_NS
        note = f"Each {group} is read from single calls, so the page shows the last {_BY_CALL_HOURS} hours."
    unit = "hour" if until - since <= _HOURS * _DAY_NS else "day"
    return Asked(span, given.get("metric", "cost"), group, tz, since, until, unit, given, note)


def _span(name: str, tz: str, now_ns: int) -> tuple[int, int]:
    """The period of a range: until the hour or the day that has begun ends, from its like a while ago."""
    if name == "24h":
        until = (now_ns // _HOUR_NS + 1) * _HOUR_NS
        return until - 24 * _HOUR_NS, until
    today = datetime.fromtimestamp(now_ns // NANO, ZoneInfo(tz)).replace(hour=0, minute=0, second=0, microsecond=0)
    first, end = today - timedelta(days=_DAYS[name] - 1), today + timedelta(days=1)
    return int(first.timestamp()) * NANO, int(end.timestamp()) * NANO


def buckets_of(asked: Asked) -> Iterator[tuple[str, str, str]]:
    """Of each bar: its key as usage names it, its start and its end as parameters."""
    zone = ZoneInfo(asked.tz)
    if asked.unit == "hour":
        for start in range(asked.since_ns // _HOUR_NS * _HOUR_NS, asked.until_ns, _HOUR_NS):
            yield iso(start, asked.tz) or "", iso(start, asked.tz) or "", iso(start + _HOUR_NS, asked.tz) or ""
        return
    day = datetime.fromtimestamp(asked.since_ns // NANO, zone).date()
    last = datetime.fromtimestamp((asked.until_ns - 1) // NANO, zone).date()
    while day <= last:
        after = day + timedelta(days=1)
        yield day.isoformat(), day.isoformat(), after.isoformat()
        day = after


def label(group: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The name of a group; that of a model has its provider in front."""
    parts = [group[key] for key in keys]
    if all(part is None for part in parts):
        return f"(no {keys[-1]})"
    return plain("/".join(part for part in parts if part is not None))


class Legend(Struct, frozen=True):
    """One series: its class, its name and its value over the whole period."""

    style: str
    name: str
    value: str


class Chart(Struct, frozen=True):
    """The drawing, its axes and its figures as a table."""

    svg: Markup
    ticks: list[str]
    labels: list[str]
    legend: list[Legend]
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    note: str
    starts: str
    ends: str


def chart_of(asked: Asked, points: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]]) -> Chart:
    """The chart of the points by time and group; `groups`: the same without the time."""
    keys, field = GROUPS[asked.group], _TIMES.get(asked.metric) or _FIELDS[asked.metric]
    by = "calls" if asked.metric in _TIMES else field
    ranked = sorted(groups, key=lambda group: -(group[by] or 0))
    names = [label(group, keys) for group in ranked if asked.metric in _TIMES or group[by]]
    shown = names[:SERIES]
    times = list(buckets_of(asked))
    found = {(point[asked.unit], label(point, keys)): point for point in points}
    draw = _lines if asked.metric in _TIMES else _bars
    svg, top, columns, rows = draw(asked, times, shown, len(names) > SERIES, found)
    others = [group for group in ranked if label(group, keys) not in shown]
    legend = [
        Legend(f"s{place}", name, _said(asked.metric, group[field]))
        for place, (name, group) in enumerate((name, _named(ranked, keys, name)) for name in shown)
    ]
    note = ""
    if asked.metric in _TIMES:
        note = f"The {SERIES} with the most calls of {len(names)}." if len(names) > SERIES else ""
    elif len(names) > SERIES:
        rest = sum(group[field] or 0 for group in others)
        legend.append(Legend(f"s{SERIES}", f"{len(names) - SERIES} others", _said(asked.metric, rest)))
    failed = sum(group["errors"] for group in groups)
    if asked.metric == "calls" and failed:
        legend.append(Legend("failed", "failed", count(failed)))
    return Chart(
        svg,
        [_said(asked.metric, value, is_tick=True) for value in ticks(top)],
        _axis([key for key, _, _ in times], asked.unit),
        legend,
        columns,
        rows,
        note,
        " ".join(start for _, start, _ in times),
        " ".join(end for _, _, end in times),
    )


def _named(groups: Sequence[Mapping[str, Any]], keys: Sequence[str], name: str) -> Mapping[str, Any]:
    return next(group for group in groups if label(group, keys) == name)


Found = Mapping[tuple[str, str], Mapping[str, Any]]
Drawn = tuple[Markup, float, list[str], list[tuple[str, list[str]]]]


def _bars(asked: Asked, times: Sequence[tuple[str, str, str]], shown: list[str], has_rest: bool, found: Found) -> Drawn:
    """Stacked by group. In the chart of calls, those that failed are a part of their own."""
    field, splits = _FIELDS[asked.metric], asked.metric == "calls"
    used = "successes" if splits else field
    places = {name: place for place, name in enumerate(shown)}
    sums: dict[str, list[float]] = {key: [0.0] * (SERIES + 2) for key, _, _ in times}
    for (key, name), point in found.items():
        if key in sums:
            sums[key][places.get(name, SERIES)] += point[used] or 0
            sums[key][-1] += point["errors"] if splits else 0
    styles = [*(f"s{place}" for place in range(SERIES + 1)), "failed"]
    drawn, rows = [], []
    for key, since, until in times:
        parts = [Part(style, value) for style, value in zip(styles, sums[key], strict=True) if value > 0]
        bucket = Bucket(_title(asked, key, sums[key], shown), _link(asked, since, until), parts)
        drawn.append(bucket)
        figures = [sums[key][places[name]] for name in shown]
        figures += [sums[key][SERIES]] if has_rest else []
        figures += [sums[key][-1]] if splits else []
        rows.append((moment(key), [_said(asked.metric, value) for value in (*figures, bucket.total)]))
    top = top_of(max((bucket.total for bucket in drawn), default=0))
    columns = [*shown, *(["others"] if has_rest else []), *(["failed"] if splits else []), "all"]
    return bars(drawn, top), top, columns, rows


def _lines(asked: Asked, times: Sequence[tuple[str, str, str]], shown: list[str], _: bool, found: Found) -> Drawn:
    """A line for each group: percentiles of several groups cannot be added."""
    field = _TIMES[asked.metric]
    values = {name: [found.get((key, name), {}).get(field) for key, _, _ in times] for name in shown}
    top = top_of(max((value for line in values.values() for value in line if value is not None), default=0))
    buckets, rows = [], []
    for number, (key, since, until) in enumerate(times):
        figures = [values[name][number] for name in shown]
        said = [f"{name}: {milliseconds(value)}" for name, value in zip(shown, figures, strict=True) if value]
        buckets.append(Bucket("\n".join([moment(key), *said]), _link(asked, since, until), ()))
        rows.append((moment(key), [milliseconds(value) for value in figures]))
    series = [Line(f"s{place}", values[name]) for place, name in enumerate(shown)]
    return lines(buckets, series, top), top, list(shown), rows


def _title(asked: Asked, key: str, sums: Sequence[float], shown: Sequence[str]) -> str:
    """What a bar says under the pointer."""
    names = [*shown, *[""] * (SERIES - len(shown)), "others", "failed"]
    said = [f"{name}: {_said(asked.metric, value)}" for name, value in zip(names, sums, strict=True) if value]
    return "\n".join([f"{moment(key)} · {_said(asked.metric, sum(sums))}", *said])


def _link(asked: Asked, since: str, until: str) -> str:
    """A bar leads to its hours, or to its calls."""
    if asked.unit == "day":
        return query(asked.given, range=None, since=since, until=until)
    return "requests" + query({}, since=since, until=until, tz=asked.tz)


def _said(metric: str, value: float | None, *, is_tick: bool = False) -> str:
    if metric == "cost":
        return f"${value:.3g}" if is_tick and value else usd(value)
    if metric in _TIMES:
        return milliseconds(value)
    return short(value) if is_tick or metric == "tokens" else count(value)


def _axis(keys: Sequence[str], unit: str) -> list[str]:
    """A label for each of a few bars, or up to six, evenly spread: the first and the last bar have one."""
    if len(keys) <= _MOST_LABELS:
        return [key[11:16] if unit == "hour" else moment(key) for key in keys]
    places = sorted({round(number * (len(keys) - 1) / 5) for number in range(6)})
    return [keys[place][11:16] if unit == "hour" else moment(keys[place]) for place in places]


def moment(key: str) -> str:
    """An hour or a day in words."""
    at = datetime.fromisoformat(key.replace("Z", "+00:00"))
    return f"{at:%a} {at.day} {at:%b}" + (f", {at:%H:%M}" if len(key) > 10 else "")


class Row(Struct, frozen=True):
    """A line of the table by group."""

    name: str
    bar: Markup
    share: float | None
    figures: Mapping[str, Any]
    fresh_tokens: int
    href: str


def rows_of(asked: Asked, total: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The groups, the dearest first; their shares are of the cost, or of the calls where nothing costs anything."""
    keys = GROUPS[asked.group]
    by = "cost_usd" if total["cost_usd"] else "calls"
    whole = total[by] or 0
    ranked = sorted(groups, key=lambda group: (-(group["cost_usd"] or 0), -group["calls"]))
    largest = max(((group[by] or 0) for group in ranked), default=0)
    filters = {"since": iso(asked.since_ns, asked.tz), "until": iso(asked.until_ns, asked.tz), "tz": asked.tz}
    rows = []
    for group in ranked:
        value = group[by] or 0
        named = {key: group[key] for key in keys}
        rows.append(
            Row(
                label(group, keys),
                share_bar([("spent", value / largest)] if largest else []),
                value / whole if whole else None,
                group,
                fresh(group),
                "requests" + query({}, **filters, **named) if all(named.values()) else "",
            )
        )
    return rows


def fresh(figures: Mapping[str, Any]) -> int:
    """The input tokens that no cache had."""
    known: int = figures["input_tokens"] - figures["cached_tokens"] - figures["cache_write_tokens"]
    return max(0, known)


def token_parts(total: Mapping[str, Any]) -> list[tuple[str, str, int, float]]:
    """Class, name, tokens and share of each part; the parts add up to the total."""
    reasoning = min(total["reasoning_tokens"], total["output_tokens"])
    parts = (
        ("s0", "fresh input", fresh(total)),
        ("s1", "cache read", total["cached_tokens"]),
        ("s2", "cache write", total["cache_write_tokens"]),
        ("s3", "output", total["output_tokens"] - reasoning),
        ("s4", "reasoning", reasoning),
    )
    whole = sum(tokens for _, _, tokens in parts)
    return [(style, name, tokens, tokens / whole if whole else 0.0) for style, name, tokens in parts]


def cache_hit_rate(total: Mapping[str, Any]) -> float | None:
    """The share of input that was read from a cache; None: there was no input."""
    return total["cached_tokens"] / total["input_tokens"] if total["input_tokens"] else None
