"""Performs I/O: trains the request classifier from a folder of labelled prompts and writes its weights file.

    scripts/train-classifier DATA [--out proxy/routing/data/classifier.bin] [--report]

Needs NumPy, SciPy and scikit-learn, which the product itself does not (`pip install numpy scipy scikit-learn msgspec`).
DATA holds:
- `*.jsonl`: one prompt a line, {"text", "labels": [task, ...], "source"}. The first label is trained; a prompt without
  labels trains the difficulty only. Optional: "system", "difficulty" (0 to 1), "weight", "schema" (a JSON schema is
  given), "diverse" (no two prompts of the source share a template), "group" (sources with the same texts), "ordered"
  (the levels within the source are measured or judged one by one). Or a line is {"system"} alone: what an application
  says of itself, whatever its users ask.
- `languages/CODE`: letter trigrams and their counts, the profiles of the package langdetect.
docs/classifier.md lists the sources. On one kind of processor, the same data gives the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "2"  # sums are rounded differently with another number
import numpy as np  # type: ignore[import-not-found]
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from sklearn.linear_model import Ridge  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from classifier_file import Weights, language_tables, pack  # type: ignore[import-not-found]
from classifier_fit import SYSTEM, averaged, fit, most_useful, scores_of, softmax, weights_of  # type: ignore[import-not-found]

from proxy.routing.classify import TASKS
from proxy.routing.conversation import Conversation
from proxy.routing.features import difficulty_features, features_of, question_window, system_window, window

SHAPE = 0.12
GENERAL = 3  # one in so many prompts without a system prompt gets one that says nothing about its task
RIDGE, MEASURES_RIDGE = 200.0, 30.0
# Standard deviation of the levels within a source, in log-odds, that the measures have to explain.
SPREAD = 1.0
# Weight of a labelled prompt for the difficulty: most of them have only the level of their task.
COARSE = 0.2
FOLDS = 4
# The final model has seen more prompts than those of the cross-validation and is right more often.
SHARPEN = 0.87
SEEN = 2
MOST = 86_000  # n-grams with weights: a few more would double the memory of their table


class Table:
    """Column numbers of n-grams (integers) and shapes (strings). `of`: "values" or "hard", the difficulty's."""

    def __init__(self, of: str = "values") -> None:
        self.of = of
        self.columns: dict[Any, int] = {}

    def keep(self, rows: list[dict[str, Any]], start: Weights | None = None) -> None:
        """N-grams of two sources, where each prompt of a diverse source counts: a template teaches its own words.
        Also all that `start` has a weight for.
        """
        sources: defaultdict[Any, set[str]] = defaultdict(set)
        for number, row in enumerate(rows):
            source = f"{row['source']} {number}" if row.get("diverse") else row.get("group", row["source"])
            parts = [values for values, _, _ in row.get("sentences", ())] if self.of == "values" else []
            for key in chain(row[self.of], *parts):
                sources[key].add(source)
        found = {key for key in sources if isinstance(key, str) or len(sources[key]) >= SEEN}
        found |= start.features if start is not None else set()
        kept = sorted(found, key=lambda key: (isinstance(key, str), key))
        self.columns = {key: number for number, key in enumerate(kept)}

    def reduce(self, columns: list[int]) -> None:
        """Keep these columns only."""
        keys = list(self.columns)
        self.columns = {keys[column]: number for number, column in enumerate(columns)}

    @property
    def grams(self) -> int:
        """Their columns are the first ones."""
        return sum(not isinstance(key, str) for key in self.columns)

    def matrix(self, described: list[dict[Any, float]]) -> Any:
        """A row for each: the values of its features that have a column."""
        data, indices, starts = [], [], [0]
        for values in described:
            for key, value in values.items():
                if (column := self.columns.get(key)) is not None:
                    indices.append(column)
                    data.append(value)
            starts.append(len(indices))
        return csr_matrix((data, indices, starts), shape=(len(described), len(self.columns)))


def describe(row: dict[str, Any]) -> None:
    """Add the values that the weights are multiplied with: the same sums as `Classifier._scores` and `_difficulty`."""
    system = row.get("system") or ""
    conversation = Conversation(row["text"], system, 2 if system else 1, False, row.get("schema", False))
    features = features_of(conversation, window(row["text"]), system_window(system))
    row["sentences"] = [
        (_values([*part.singles, *part.pairs, *part.edges, *part.starts]), part.place, len(part))
        for part in (*features.sentences, *features.system)
    ]
    row["values"] = dict.fromkeys(features.shape, SHAPE)
    describe_question(row, question_window(row["text"])[0])


def _values(hashes: list[int]) -> dict[Any, float]:
    return {key: number / math.sqrt(len(hashes)) for key, number in Counter(hashes).items()}


def describe_question(row: dict[str, Any], sample: str) -> None:
    """Add what the difficulty is judged by."""
    grams, shape, row["measures"] = difficulty_features(sample)
    row["hard"] = _values(grams) | dict.fromkeys(shape, SHAPE)


def read(folder: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            lines += map(json.loads, file)
    rows = [line for line in lines if "text" in line]
    general = [line["system"] for line in lines if "text" not in line]
    for row in rows:
        number = zlib.crc32(row["text"].encode())
        if general and row.get("labels") and not row.get("system") and number % GENERAL == 0:
            row["system"] = general[number // GENERAL % len(general)]
        describe(row)
    return rows


def unseen_scores(
    rows: list[dict[str, Any]], fold_of: Callable[[dict[str, Any]], int], folds: int, table: Table, first: Any
) -> Any:
    """The scores of each prompt by a model that has seen nothing of its fold, but for what `first` has seen."""
    scores = np.zeros((len(rows), len(TASKS)))
    for number in range(folds):
        others = [row for row in rows if fold_of(row) != number]
        some = [index for index, row in enumerate(rows) if fold_of(row) == number]
        if not some:
            continue
        model = fit(others, table, first)
        scores[some] = scores_of(model, table, [rows[index] for index in some])
    return scores


def source_fold(rows: list[dict[str, Any]], folds: int) -> Callable[[dict[str, Any]], int]:
    sizes = Counter(row["source"] for row in rows)
    order = [source for source, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]
    fold = {source: number % folds for number, source in enumerate(order)}
    return lambda row: fold[row["source"]]


def prompt_fold(row: dict[str, Any], folds: int) -> int:
    """Diverse sources are split by prompt; of a templated one every prompt is always in the training set."""
    return zlib.crc32(row["text"].encode()) % folds if row.get("diverse") else folds


def temperature_of(scores: Any, rows: list[dict[str, Any]]) -> float:
    """The temperature with the best log-likelihood on prompts of unseen sources."""
    labels = [[TASKS.index(label) for label in row["labels"]] for row in rows]
    weights = weights_of(rows)

    def loss(temperature: float) -> float:
        odds = softmax(scores, temperature)
        right = np.array([max(odds[number, some]) for number, some in enumerate(labels)])
        return float(-(weights * np.log(right + 1e-9)).sum())

    return min((step / 20 for step in range(6, 120)), key=loss)


def report(scores: Any, rows: list[dict[str, Any]], title: str) -> None:
    print(f"\n{title}: {len(rows)} prompts")
    matrix = np.zeros((len(TASKS), len(TASKS)), dtype=int)
    for number, row in enumerate(rows):
        accepted = [TASKS.index(label) for label in row["labels"]]
        guess = int(scores[number].argmax())
        matrix[guess if guess in accepted else accepted[0], guess] += 1
    print("".join(f"{name[:9]:>10}" for name in ("", *TASKS, "F1")))
    f1s = []
    for task, name in enumerate(TASKS):
        total = matrix[task].sum() + matrix[:, task].sum()
        f1s.append(2 * matrix[task, task] / total if total else 1.0)
        print(f"{name[:9]:>10}" + "".join(f"{count:>10}" for count in matrix[task]) + f"{f1s[-1]:>10.2f}")
    print(f"macro-F1 {sum(f1s) / len(f1s):.3f}, accuracy {matrix.trace() / matrix.sum():.3f}")


def difficulty_of(rows: list[dict[str, Any]]) -> tuple[Any, Any, float, Table]:
    """Weights of the n-grams and shapes, weights of the measures and the bias, on the log-odds of the levels.

    How much a measure counts is learned within the ordered sources only: between sources it would tell the sources
    apart. The n-grams learn what is left.
    """
    some = [row for row in rows if "difficulty" in row]
    table = Table("hard")
    table.keep(some)
    sizes = Counter(row["source"] for row in some)
    weights = np.array([row.get("weight", 1.0) / math.sqrt(sizes[row["source"]]) for row in some])
    weights *= [COARSE if row.get("labels") else 1.0 for row in some]
    target = np.array([row["difficulty"] for row in some]).clip(0.03, 0.97)
    target = np.log(target / (1 - target))
    measures = np.array([row["measures"] for row in some])
    slopes = slopes_of(some, measures, target)
    model = Ridge(alpha=RIDGE, solver="sparse_cg", tol=1e-5)
    grams = table.matrix([row["hard"] for row in some])
    model.fit(grams, target - measures @ slopes, sample_weight=weights * len(some) / weights.sum())
    # Ridge regression shrinks the levels towards their mean.
    found = measures @ slopes + grams @ model.coef_ + model.intercept_
    centre = np.average(target, weights=weights)
    spread = np.average((found - np.average(found, weights=weights)) ** 2, weights=weights)
    stretch = math.sqrt(np.average((target - centre) ** 2, weights=weights) / spread)
    bias = centre + (model.intercept_ - np.average(found, weights=weights)) * stretch
    return model.coef_ * stretch, slopes * stretch, float(bias), table


def slopes_of(rows: list[dict[str, Any]], measures: Any, target: Any) -> Any:
    """Ridge regression on the deviations from the source's mean; each source's levels get the same spread."""
    spread = measures.std(axis=0) + 1e-6
    sources: defaultdict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        if row.get("ordered"):
            sources[row["source"]].append(number)
    inputs, outputs, weights = [], [], []
    for _, some in sorted(sources.items()):
        inputs.append((measures[some] - measures[some].mean(axis=0)) / spread)
        deviations = target[some] - target[some].mean()
        outputs.append(SPREAD * deviations / (deviations.std() + 1e-6))
        weights.append(np.full(len(some), 1 / math.sqrt(len(some))))
    weight = np.concatenate(weights)
    model = Ridge(alpha=MEASURES_RIDGE, fit_intercept=False)
    model.fit(np.vstack(inputs), np.concatenate(outputs), sample_weight=weight * len(weight) / weight.sum())
    return model.coef_ / spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--start", type=Path, help="the weights file to go on from")
    parser.add_argument("--out", type=Path, default=Path("proxy/routing/data/classifier.bin"))
    parser.add_argument("--report", action="store_true", help="print how well each source is classified unseen")
    options = parser.parse_args()
    start = Weights(options.start.read_bytes()) if options.start else None
    rows = read(options.data)
    labelled = [row for row in rows if row.get("labels")]
    table = Table()
    table.keep(rows if start is None else labelled, start)
    first = None if start is None else start.aligned(table.columns, SHAPE)
    columns = most_useful(fit(labelled, table, first), table, labelled, MOST)
    table.reduce(columns)
    first = None if first is None else first[:, [*columns, -1]]
    split = unseen_scores(labelled, lambda row: prompt_fold(row, FOLDS), FOLDS, table, first)
    known = [number for number, row in enumerate(labelled) if row.get("diverse")]
    diverse = [labelled[number] for number in known]
    temperature = round(SHARPEN * temperature_of(split[known], diverse), 3)
    if options.report:
        report(split[known], diverse, "Cross-validation by prompt, diverse sources")
        unseen = unseen_scores(labelled, source_fold(labelled, 2 * FOLDS), 2 * FOLDS, table, first)
        report(unseen[known], diverse, "Whole sources left out, diverse sources")
        for source in sorted({row["source"] for row in diverse}):
            some = [number for number, row in enumerate(labelled) if row["source"] == source]
            report(unseen[some], [labelled[number] for number in some], source)
    tasks = averaged(labelled, table, first), table, temperature
    factors = {"system": SYSTEM, "shape": SHAPE}
    if start is None:
        content = pack(tasks, difficulty_of(rows), language_tables(options.data / "languages"), factors)
    else:
        content = start.with_tasks(tasks, SHAPE)
    options.out.write_bytes(content)
    print(f"\n{len(table.columns)} features, temperature {temperature}, {len(content):,} bytes")


if __name__ == "__main__":
    main()
