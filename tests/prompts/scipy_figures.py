"""Makes `data/scipy.json`, with which the tests of the statistics compare: `python -m tests.prompts.scipy_figures`.

It needs scipy, which the tests do not: a library that finds numpy loads it, and the tests measure memory and start-up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "data" / "scipy.json"
NORMALS = (-8, -3, -1.96, -0.5, 0, 0.1, 1, 2.5, 6)
SCALES = (0.02, 0.1, 0.3)
RATES = (((60, 100), (45, 110)), ((5, 200), (9, 180)), ((30, 60), (31, 60)))  # successes of outcomes
SHARES = (([50, 50], [0.5, 0.5]), ([600, 400], [0.5, 0.5]), ([10, 25, 70], [0.1, 0.2, 0.7]))
THREE = {"a": (120, 200), "b": (130, 200), "c": (75, 130)}


def mixture(stats: Any, integrate: Any, rates: Any, scale: float) -> float:
    """The likelihood ratio against an effect from N(0, scale^2), integrated."""
    (s1, n1), (s2, n2) = rates
    value = s1 / n1 - s2 / n2
    error = (s1 / n1 * (1 - s1 / n1) / n1 + s2 / n2 * (1 - s2 / n2) / n2) ** 0.5

    def weighted(effect: float) -> float:
        return float(stats.norm.pdf(value, effect, error) * stats.norm.pdf(effect, 0, scale))

    whole, _ = integrate.quad(weighted, -2, 2, points=[value, 0], epsabs=1e-12, limit=200)
    return float(whole / stats.norm.pdf(value, 0, error))


def split(stats: Any, counts: list[int], shares: list[float]) -> float:
    """The logarithm of a Dirichlet-multinomial's probability over the multinomial's."""
    total = sum(counts)
    drawn = stats.dirichlet_multinomial.logpmf(counts, [100 * share for share in shares], total)
    return float(drawn - stats.multinomial.logpmf(counts, total, shares))


def main() -> None:
    import numpy as np  # type: ignore[import-not-found]
    import scipy  # type: ignore[import-untyped]
    from scipy import integrate, stats

    dice = np.random.default_rng(7)
    draws = np.array([dice.beta(s + 1, n - s + 1, 2_000_000) for s, n in THREE.values()])
    figures = {
        "scipy": scipy.__version__,
        "normal": [float(stats.norm.cdf(z)) for z in NORMALS],
        "mixture": [[mixture(stats, integrate, rates, scale) for scale in SCALES] for rates in RATES],
        "split": [split(stats, counts, shares) for counts, shares in SHARES],
        "chi_square": {
            "600": float(stats.chisquare([600, 400]).pvalue),
            "510": float(stats.chisquare([510, 490]).pvalue),
        },
        "best": (np.bincount(draws.argmax(axis=0), minlength=3) / draws.shape[1]).tolist(),
    }
    FILE.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
