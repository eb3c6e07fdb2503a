"""Performs I/O: sums up the outcomes of experiments and of prompts, in SQL: it returns one row per variant."""

from __future__ import annotations

import sqlite3

from proxy.schema.experiments import OUTCOMES, OutcomeRule, StoredExperiment, Sums, VariantSums

# The rating that counts for a call: the last one with a value, or the mean.
_LAST = "(SELECT {value} FROM feedback WHERE call_id = calls.id AND {value} IS NOT NULL ORDER BY seq DESC LIMIT 1)"
_MEAN = "(SELECT AVG({value}) FROM feedback WHERE call_id = calls.id)"
_SUM = "COUNT({name}), TOTAL({name}), TOTAL({name} * {name})"
# Repeats got the answer of another call, and share its ratings. Cost and latency of failures are meaningless.
_READ = """
    WITH rated AS (
        SELECT variant, IFNULL(experiment_unit, id) AS unit, 1 AS is_call, success = 0 AS is_error,
            {success} AS success, {score} AS score, valid_json, refusal,
            CASE WHEN success = 1 THEN cost_nano / 1e9 END AS cost, CASE WHEN success = 1 THEN latency_ms END AS latency
        FROM calls
        WHERE experiment = :id AND replay_of IS NULL AND closed_ns IS NOT NULL
            AND opened_ns >= :since AND opened_ns < :until
        UNION ALL
        SELECT variant, IFNULL(unit, 'outcome ' || seq), 0, 0, success, score, NULL, NULL, NULL, NULL
        FROM experiment_outcomes WHERE experiment = :id AND given_ns >= :since AND given_ns < :until
    ), by_unit AS (
        SELECT variant, SUM(is_call) AS calls, SUM(is_error) AS errors, {means} FROM rated GROUP BY variant, unit
    )
    SELECT variant, SUM(calls), COUNT(*), SUM(errors), {sums} FROM by_unit GROUP BY variant
"""
_SCORES = """
    SELECT prompt_version, AVG(rating) FROM (
        SELECT prompt_version, (SELECT IFNULL(score, success) FROM feedback WHERE call_id = calls.id
            AND (score IS NOT NULL OR success IS NOT NULL) ORDER BY seq DESC LIMIT 1) AS rating
        FROM calls WHERE prompt = ? AND prompt_version IS NOT NULL AND replay_of IS NULL
    ) WHERE rating IS NOT NULL GROUP BY prompt_version
"""
# The change that each outcome of one kind makes to the mean of its unit: to the number of units, the sum of the means
# and the sum of their squares. Added up to some moment, they are the sums of `_READ` at that moment.
_STEPS = """
    WITH rated AS (
        SELECT variant, IFNULL(experiment_unit, id) AS unit, opened_ns AS at, {value} AS value FROM calls
        WHERE experiment = :id AND replay_of IS NULL AND closed_ns IS NOT NULL
            AND opened_ns >= :since AND opened_ns < :until
        UNION ALL
        SELECT variant, IFNULL(unit, 'outcome ' || seq), given_ns, {tracked} FROM experiment_outcomes
        WHERE experiment = :id AND given_ns >= :since AND given_ns < :until
    ), means AS (
        SELECT variant, unit, at, AVG(value) OVER so_far AS mean, ROW_NUMBER() OVER so_far AS number
        FROM rated WHERE value IS NOT NULL
        WINDOW so_far AS (PARTITION BY variant, unit ORDER BY at ROWS UNBOUNDED PRECEDING)
    ), steps AS (
        SELECT variant, at, number, mean, LAG(mean, 1, 0.0) OVER (PARTITION BY variant, unit ORDER BY number) AS before
        FROM means
    )
    SELECT variant, (at - :since) / :width AS step, SUM(number = 1), TOTAL(mean - before),
        TOTAL(mean * mean - before * before)
    FROM steps GROUP BY variant, step ORDER BY step
"""
_RATED = {"success": "feedback.success", "score": "feedback.score"}  # the others are columns of the call itself
_FOREVER_NS = 2**63 - 1


def read_sums(
    db: sqlite3.Connection, experiment: str, rule: OutcomeRule, since_ns: int, until_ns: int | None
) -> dict[str, VariantSums]:
    """The sums by variant of calls and outcomes in this period; variants without any are left out."""
    statement = _statement(_LAST if rule == "last" else _MEAN)
    until_ns = _FOREVER_NS if until_ns is None else until_ns
    found = {}
    for variant, calls, units, errors, *sums in db.execute(
        statement, {"id": experiment, "since": since_ns, "until": until_ns}
    ):
        outcomes: dict[str, Sums] = {}
        for place, name in enumerate(OUTCOMES):
            count, total, squares = sums[3 * place : 3 * place + 3]
            outcomes[name] = (count, total, squares)
        found[variant] = VariantSums(calls, units, errors, outcomes)
    return found


def read_steps(
    db: sqlite3.Connection, stored: StoredExperiment, since_ns: int, until_ns: int, width_ns: int
) -> list[tuple[str, int, Sums]]:
    """The amounts that each interval of `width_ns` adds to the sums of the deciding metric, by variant and interval."""
    metric, experiment = stored.experiment.metric, stored.experiment
    rating = _LAST if experiment.outcome_rule == "last" else _MEAN
    rated = _RATED.get(metric)
    value = metric if rated is None else rating.replace("{value}", rated)
    statement = _STEPS.replace("{value}", value).replace("{tracked}", "NULL" if rated is None else metric)
    values = {"id": experiment.id, "since": since_ns, "until": until_ns, "width": width_ns}
    return [
        (variant, step, (count, total, squares))
        for variant, step, count, total, squares in db.execute(statement, values)
    ]


def read_scores(db: sqlite3.Connection, prompt: str) -> dict[int, float]:
    """The mean rating of each version of a prompt that was rated, from 0 to 1; the last rating of each call counts."""
    return dict(db.execute(_SCORES, (prompt,)).fetchall())


def _statement(rating: str) -> str:
    """The statement. Only names of our own columns are inserted."""
    parts = {
        "{success}": rating.replace("{value}", "feedback.success"),
        "{score}": rating.replace("{value}", "feedback.score"),
        "{means}": ", ".join(f"AVG({name}) AS {name}" for name in OUTCOMES),
        "{sums}": ", ".join(_SUM.replace("{name}", name) for name in OUTCOMES),
    }
    statement = _READ
    for place, text in parts.items():
        statement = statement.replace(place, text)
    return statement
