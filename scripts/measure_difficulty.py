"""Performs I/O: shows how well the difficulty orders the questions of a source that it was not trained on.

    scripts/measure-difficulty DATA

DATA is the folder of `scripts/train-classifier`. Each group of ordered sources is left out of the training in turn. Two
figures are printed for it, for the difficulty and for the length of the text: the share of pairs of different levels
in the right order, and the share of the harder half that is recovered, on average, when the hardest k % of the
questions go to a strong model (an APGR where the strong model is needed for just that half). Where a row has the key
"plain", its text in one layout, that is what is measured.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np  # type: ignore[import-not-found]
from train_classifier import describe_question, difficulty_of, read  # type: ignore[import-not-found]

from proxy.routing.features import question_window


def pair_order(scores: Any, levels: Any) -> float:
    harder = levels[:, None] - levels[None, :] > 1e-9
    return float((np.sign(scores[:, None] - scores[None, :])[harder] + 1).mean() / 2)


def recovered(scores: Any, levels: Any) -> float:
    hard = levels > np.median(levels) if (levels > np.median(levels)).any() else levels >= np.median(levels)
    return float((np.cumsum(hard[np.argsort(-scores, kind="stable")]) / hard.sum()).mean())


def scores_without(rows: list[dict[str, Any]], source: str) -> Any:
    kept = [row for row in rows if row["source"] != source]
    grams, slopes, bias, table = difficulty_of(kept)
    texts = [row.get("plain", row["text"]) for row in rows if row["source"] == source and row.get("ordered")]
    some: list[dict[str, Any]] = [{} for _ in texts]
    for row, text in zip(some, texts, strict=True):
        sample, _, _ = question_window(text)
        describe_question(row, sample)
    return (
        table.matrix([row["hard"] for row in some]) @ grams
        + np.array([row["measures"] for row in some]) @ slopes
        + bias
    )


def main() -> None:
    rows = read(Path(sys.argv[1]))
    sources: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row.get("ordered"):
            sources[row["source"]].append(row)
    print(f"{'left out':>16}{'questions':>11}{'pairs':>8}{'length':>8}{'APGR':>8}{'length':>8}")
    every = []
    for source, some in sorted(sources.items()):
        levels = np.array([row["difficulty"] for row in some])
        sizes = np.array([float(len(row.get("plain", row["text"]))) for row in some])
        scores = scores_without(rows, source)
        figures = [pair_order(scores, levels), pair_order(sizes, levels)]
        figures += [recovered(scores, levels), recovered(sizes, levels)]
        every.append(figures)
        print(f"{source:>16}{len(some):>11}" + "".join(f"{figure:>8.3f}" for figure in figures), flush=True)
    print(f"{'mean':>27}" + "".join(f"{figure:>8.3f}" for figure in np.mean(every, axis=0)))


if __name__ == "__main__":
    main()
