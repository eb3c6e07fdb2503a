"""The strategies by name. A new one is one file with a `rank`, and one entry here and in `settings.STRATEGIES`."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.routing.strategies import cost_optimized, quality_optimized, speed_optimized, task_based
from proxy.routing.strategies.base import Strategy

MEASURED = frozenset({"speed_optimized"})  # these rank by this worker's measurements; the others agree on every worker
STRATEGIES: Mapping[str, Strategy] = {
    "task_based": task_based.rank,
    "cost_optimized": cost_optimized.rank,
    "speed_optimized": speed_optimized.rank,
    "quality_optimized": quality_optimized.rank,
}
