"""docs/ensembles.md tells the truth about the report: its fields, its limits, and its verdicts on simulated panels."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from proxy.ensembles.report import EnsembleReport, report_of
from proxy.ensembles.worth import LEAST_RATED, ONE_MEMBER, UNDECIDED, WORTH_IT
from proxy.server.api.outcome_queries import MAX_CALLS
from proxy.server.api.queries import DEFAULT_DAYS, MOST_DAYS
from tests.ensembles.panels import simulated, truth

PAGE = Path(__file__).parents[2] / "docs" / "ensembles.md"
TABLE = re.compile(r"(?<=<!-- verdicts: begin -->\n).*?(?=<!-- verdicts: end -->)", re.DOTALL)
REWRITE = "WRITE_DOCS=1 scripts/test tests/docs/test_ensemble_report.py"
PANELS = (
    ((0.9, 0.6, 0.6), 0.0),
    ((0.9, 0.6, 0.6), 0.5),
    ((0.8, 0.8, 0.8), 1.0),
    ((0.9, 0.8, 0.7), 0.0),
    ((0.8, 0.75, 0.7), 0.0),
    ((0.7, 0.7, 0.7), 0.0),
)
SIZES = ((50, 20), (300, 10), (1_000, 5))  # calls, reports


def decisions(members: tuple[float, ...], alike: float, calls: int, reports: int) -> str:
    panels = (simulated(members, calls, alike=alike, seed=seed) for seed in range(reports))
    found = Counter(report_of("v", panel, (None, None)).verdict.decision for panel in panels)
    return ", ".join(f"{found[each]} {each}" for each in (ONE_MEMBER, WORTH_IT, UNDECIDED) if found[each])


def table() -> str:
    lines = [
        "| members are right | alike | the panel is right | " + " | ".join(f"{calls:,} calls" for calls, _ in SIZES),
        "|---" * (3 + len(SIZES)),
    ]
    for members, alike in PANELS:
        right = " ".join(f"{each:.0%}" for each in members).replace("%", " %")
        whole = f"{truth(members, alike=alike):.0%}".replace("%", " %")
        cells = [decisions(members, alike, calls, reports) for calls, reports in SIZES]
        lines.append("| " + " | ".join([right, f"{alike:.0%}".replace("%", " %"), whole, *cells]))
    return "".join(f"{line} |\n" for line in lines)


def test_the_verdicts_on_simulated_panels_are_in_the_document() -> None:
    """Made anew each time."""
    found = table()
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(TABLE.sub(lambda _: found, PAGE.read_text()))
    assert TABLE.findall(PAGE.read_text()) == [found], f"run {REWRITE}"


def test_fields_and_limits_are_in_the_document() -> None:
    """As they are in the answer."""
    text = " ".join(PAGE.read_text().split())
    for name in ("members", "levels", "cascade", "verdict", "calibration_error"):
        assert name in EnsembleReport.__struct_fields__ and f"`{name}`" in text
    assert f"{MAX_CALLS:,} calls" in text
    assert f"at least {LEAST_RATED} rated calls" in text
    assert (DEFAULT_DAYS, MOST_DAYS) == (7, 31) and "last seven" in text and f"at most {MOST_DAYS} days" in text
