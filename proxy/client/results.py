"""Values: the results of the Python client. Money is USD, times are milliseconds unless a name says otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any, TypedDict

from msgspec import Struct

_SHOWN_TEXT = 4000  # characters of an answer that a notebook shows
_SHOWN_ROWS = 50


class Usage(Struct, frozen=True):
    """Tokens of a call, over all its attempts. `cached_tokens` are part of the input, `reasoning_tokens` of the
    output.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Routing(Struct, frozen=True):
    """How a call was answered. `model`: the `provider/model` that answered; of an ensemble the one that answered last.

    `rule` and `strategy` are those that chose it, `downgraded_from` the name that a spent budget replaced.
    `dropped_params` and `adapted_params`: parameters that the provider did not get unchanged. `budget_remaining_usd`:
    of the caller's own budget. `trace`: `routing` of the answer, with the hint `trace` or of an ensemble. The fields
    that are known only at the end are None in a stream.
    """

    model: str | None = None
    provider: str | None = None
    rule: str | None = None
    strategy: str | None = None
    attempts: int | None = None
    downgraded_from: str | None = None
    dropped_params: tuple[str, ...] = ()
    adapted_params: tuple[str, ...] = ()
    budget_remaining_usd: float | None = None
    overhead_ms: float | None = None
    config_version: str | None = None
    trace: dict[str, Any] = {}


class Answer(Struct, frozen=True, kw_only=True):
    """One answer. `cost`: USD; None if the price is unknown. `id`: for `feedback`.

    `finish_reason`: stop, length, tool_calls or content_filter. `tool_calls` in OpenAI's form. `reasoning`: the
    model's thoughts before its answer, if the provider shows them. `data`: the whole answer, unchanged.
    """

    text: str
    model: str
    usage: Usage
    cost: float | None
    routing: Routing
    id: str
    request_id: str | None = None
    finish_reason: str | None = None
    tool_calls: list[dict[str, Any]] = []
    reasoning: str | None = None
    refusal: str | None = None
    data: dict[str, Any] = {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._shown().items())
        return f"{type(self).__name__}({shown})"

    def _shown(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "model": self.model,
            "usage": self.usage,
            "cost": self.cost,
            "finish_reason": self.finish_reason,
            "id": self.id,
        }

    def _repr_html_(self) -> str:
        facts = [self.model, f"{self.usage.total_tokens:,} tokens", money(self.cost), self.finish_reason or ""]
        return _text_html(self.text) + _small(" · ".join(fact for fact in facts if fact))


class RankedOutput(TypedDict):
    """One answer of a ranking. `model`: who gave it; several, separated by commas. `quality_score`: 0 to 1."""

    model: str
    output: str
    quality_score: float


class EnsembleAnswer(Answer, frozen=True, kw_only=True):
    """The answer of an ensemble; `model` is the requested name, `routing.trace["ensemble"]` the whole report.

    `confidence`: 0 to 1; None if the strategy has none. `agreed`: whether that is enough; None: not reported.
    `members`: for each ask its model, role, outcome, latency and cost.

    By strategy, else None:
    - voting: `votes`, how many members gave each answer;
    - ranking: `ranking`, all answers, the best first;
    - fusion: `merged`, the merged object if the answer is a JSON object, else its text;
    - verification: `verification`, the verdict: validator, correct, complete, confidence, issues.
    """

    strategy: str
    confidence: float | None = None
    agreed: bool | None = None
    votes: dict[str, float] | None = None
    ranking: list[RankedOutput] | None = None
    merged: Any = None
    verification: dict[str, Any] | None = None
    members: list[dict[str, Any]] = []

    @property
    def result(self) -> str:
        """The text of the answer."""
        return self.text

    @property
    def output(self) -> str:
        """The text of the answer, as verification calls it."""
        return self.text

    def _shown(self) -> dict[str, Any]:
        by_strategy = {
            name: value
            for name in ("votes", "ranking", "merged", "verification")
            if (value := getattr(self, name)) is not None
        }
        own = {"result": self.text, "strategy": self.strategy, "confidence": self.confidence, "agreed": self.agreed}
        return {**own, **by_strategy, "usage": self.usage, "cost": self.cost, "id": self.id}

    def _repr_html_(self) -> str:
        sure = "" if self.confidence is None else f"confidence {self.confidence:.0%}"
        facts = [self.strategy, sure, f"{self.usage.total_tokens:,} tokens", money(self.cost)]
        rows = [
            {"model": each.get("model"), "role": each.get("role"), "outcome": each.get("outcome"), "USD": cost}
            for each in self.members
            for cost in [each.get("cost_usd")]
        ]
        return _text_html(self.text) + _small(" · ".join(fact for fact in facts if fact)) + table_html(rows)


class Chunk(Struct, frozen=True):
    """A piece of a streamed answer. `text` is empty if the piece is not part of the answer's text: reasoning, a tool
    call, or the usage at the end. `data`: the unchanged chunk.
    """

    text: str
    reasoning: str = ""
    finish_reason: str | None = None
    data: dict[str, Any] = {}

    def __repr__(self) -> str:
        end = f", finish_reason={self.finish_reason!r}" if self.finish_reason else ""
        return f"Chunk({self.text!r}{end})"


class Explanation(Struct, frozen=True):
    """How a call would be routed. `chosen`: the `provider/model` it would go to; None: no model may be asked now.

    `estimated_cost_usd`: `low` and `high`. `candidates`: in order, excluded ones with the reason. `data`: the
    whole answer of `POST /v1/route/explain`.
    """

    requested: str
    chosen: str | None
    fallbacks: list[str]
    task: str | None
    rule: str | None
    strategy: str | None
    candidates: list[dict[str, Any]]
    estimated_cost_usd: dict[str, float | None]
    data: dict[str, Any]

    def __repr__(self) -> str:
        names = ("requested", "chosen", "task", "rule", "strategy", "fallbacks", "estimated_cost_usd")
        return f"Explanation({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def _repr_html_(self) -> str:
        facts = [
            f"task {self.task}" if self.task else "",
            f"rule {self.rule}" if self.rule else "",
            self.strategy or "",
        ]
        rows = [
            {"model": each.get("model"), "order": each.get("order"), "rejected": each.get("rejected")}
            for each in self.candidates
        ]
        return (
            _text_html(f"{self.requested} → {self.chosen}") + _small(" · ".join(filter(None, facts))) + table_html(rows)
        )


class UsageReport(Struct, frozen=True):
    """What calls used in a period, which ends before `until`; None: no limit on that side.

    `total` and each of `groups` have `calls, successes, errors, input_tokens, output_tokens, total_tokens,
    cached_tokens, reasoning_tokens, cost_usd, fallbacks, p50_latency_ms, p95_latency_ms, savings_usd` and more; a group
    also what it is grouped by. `budget`: the spent and remaining amounts of each budget of the caller.
    """

    since: str | None
    until: str | None
    total: dict[str, Any]
    groups: list[dict[str, Any]]
    budget: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"UsageReport(since={self.since!r}, until={self.until!r}, total={self.total!r}, groups={self.groups!r})"

    def _repr_html_(self) -> str:
        hidden = {"charged_usd", "unpriced_calls", "replays", "p50_first_token_ms", "avg_latency_ms", "savings_usd"}
        rows = [
            {name: value for name, value in row.items() if name not in hidden} for row in [*self.groups, self.total]
        ]
        return table_html(rows)


class Feedback(Struct, frozen=True):
    """A rating as it is stored. `id`: that of the call, `timestamp`: ISO 8601, UTC."""

    id: str
    success: bool | None = None
    score: float | None = None
    comment: str | None = None
    source: str = "api"
    key_id: str | None = None
    timestamp: str | None = None


# --- in notebooks -----------------------------------------------------------------------------------------------------


def money(cost: float | None) -> str:
    """USD with as many digits as a small amount needs; "" if it is not known."""
    return "" if cost is None else f"${cost:.6f}".rstrip("0").rstrip(".")


def table_html(rows: Iterable[dict[str, Any]]) -> str:
    """A table with the keys of all rows as columns."""
    shown = list(rows)[:_SHOWN_ROWS]
    names = list(dict.fromkeys(name for row in shown for name in row))
    if not names:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    cells = ["".join(f"<td>{escape(_cell(row.get(name)))}</td>" for name in names) for row in shown]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _text_html(text: str) -> str:
    cut = text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]} …"
    return f'<div style="white-space: pre-wrap">{escape(cut)}</div>'


def _small(text: str) -> str:
    return f"<small>{escape(text)}</small>"
