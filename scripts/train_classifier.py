"""Performs I/O: trains the request classifier from a folder of labelled prompts and writes its weights file.

    scripts/train-classifier DATA [--out proxy/routing/data/classifier.bin] [--report]

Needs NumPy, SciPy and scikit-learn, which the product itself does not (`pip install numpy scipy scikit-learn msgspec`).
DATA holds:
- `*.jsonl`: one prompt a line, {"text", "labels": [task, ...], "source"}. The first label is trained; a prompt without
  labels trains the difficulty only. Optional: "system", "difficulty" (0 to 1), "weight", "schema" (a JSON schema is
  given), "diverse" (no two prompts of the source share a template), "group" (sources with the same texts), "ordered"
  (the levels within the source are measured or judged one by one).
- `languages/CODE`: letter trigrams and their counts, the profiles of the package langdetect.
docs/classifier.md lists the sources. The same data gives the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np  # type: ignore[import-not-found]
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]
from sklearn.linear_model import LogisticRegression, Ridge  # type: ignore[import-not-found]

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proxy.routing.classify import MAGIC, TASKS
from proxy.routing.conversation import Conversation
from proxy.routing.features import difficulty_features, features_of, window

BODY, SYSTEM, SHAPE = 0.7, 0.7, 0.12
STRENGTH, RIDGE, MEASURES_RIDGE = 10.0, 200.0, 30.0
# Standard deviation of the levels within a source, in log-odds, that the measures have to explain.
SPREAD = 1.0
# Weight of a labelled prompt for the difficulty: most of them have only the level of their task.
COARSE = 0.2
LANGUAGES = (
    *("af", "ar", "bg", "ca", "cs", "cy", "da", "de", "en", "es", "et", "fa", "fi", "fr", "hi", "hr", "hu", "id", "it"),
    *("lt", "lv", "mk", "mr", "ne", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "so", "sq", "sv", "sw", "tl", "tr"),
    *("uk", "ur", "vi"),
)
TRIGRAMS = 900
# Log-odds in favour of the languages that most texts in their script are in.
PRIOR = {"en": 3.0, "hi": 8.0, "ru": 6.0, "es": 1.0}
FOLDS = 4
# The final model has seen more prompts than those of the cross-validation and is right more often.
SHARPEN = 0.87
SEEN = 3


class Table:
    """Column numbers of n-grams (integers) and shapes (strings). `of`: "values" or "hard", the difficulty's."""

    def __init__(self, of: str = "values") -> None:
        self.of = of
        self.columns: dict[Any, int] = {}

    def keep(self, rows: list[dict[str, Any]]) -> None:
        """N-grams of three sources, where each prompt of a diverse source counts: a template teaches its own words."""
        sources: defaultdict[Any, set[str]] = defaultdict(set)
        for number, row in enumerate(rows):
            source = f"{row['source']} {number}" if row.get("diverse") else row.get("group", row["source"])
            for key in row[self.of]:
                sources[key].add(source)
        kept = sorted(
            (key for key in sources if isinstance(key, str) or len(sources[key]) >= SEEN),
            key=lambda key: (isinstance(key, str), key),
        )
        self.columns = {key: number for number, key in enumerate(kept)}

    @property
    def grams(self) -> int:
        """Their columns are the first ones."""
        return sum(not isinstance(key, str) for key in self.columns)

    def matrix(self, rows: list[dict[str, Any]]) -> Any:
        data, indices, starts = [], [], [0]
        for row in rows:
            for key, value in row[self.of].items():
                if (column := self.columns.get(key)) is not None:
                    indices.append(column)
                    data.append(value)
            starts.append(len(indices))
        return csr_matrix((data, indices, starts), shape=(len(rows), len(self.columns)))


def describe(row: dict[str, Any]) -> None:
    """Add the values that the weights are multiplied with: the same sums as `Classifier._scores` and `_difficulty`."""
    system = row.get("system", "")
    features = features_of(Conversation(row["text"], system, 2 if system else 1, False, row.get("schema", False)))
    values: defaultdict[Any, float] = defaultdict(float)
    near = [*features.singles, *features.pairs, *features.others, *features.starts]
    for hashes, weight in ((near, 1.0), (features.body, BODY), (features.system, SYSTEM)):
        for key in hashes:
            values[key] += weight / math.sqrt(len(hashes))
    for name in features.shape:
        values[name] += SHAPE
    row["values"] = values
    describe_question(row, row["text"], window(row["text"]))


def describe_question(row: dict[str, Any], text: str, sample: str) -> None:
    """Add what the difficulty is judged by."""
    grams, shape, row["measures"] = difficulty_features(text, sample)
    values: defaultdict[Any, float] = defaultdict(float)
    for key in grams:
        values[key] += 1 / math.sqrt(len(grams))
    for name in shape:
        values[name] += SHAPE
    row["hard"] = values


def read(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            rows += [json.loads(line) for line in lines]
    for row in rows:
        describe(row)
    return rows


def weights_of(rows: list[dict[str, Any]]) -> Any:
    """Each task counts the same; within it each source counts with the root of its size."""
    sizes = Counter((row["labels"][0], row["source"]) for row in rows)
    raw = np.array([row.get("weight", 1.0) / math.sqrt(sizes[row["labels"][0], row["source"]]) for row in rows])
    tasks = np.array([TASKS.index(row["labels"][0]) for row in rows])
    for task in range(len(TASKS)):
        raw[tasks == task] *= len(rows) / len(TASKS) / raw[tasks == task].sum()
    return raw


def fit(rows: list[dict[str, Any]], table: Table) -> LogisticRegression:
    model = LogisticRegression(C=STRENGTH, max_iter=120, tol=1e-4)
    model.fit(table.matrix(rows), [TASKS.index(row["labels"][0]) for row in rows], sample_weight=weights_of(rows))
    return model


def scores_of(model: LogisticRegression, table: Table, rows: list[dict[str, Any]]) -> Any:
    scores = np.full((len(rows), len(TASKS)), -20.0)
    scores[:, model.classes_] = model.decision_function(table.matrix(rows))
    return scores


def unseen_scores(rows: list[dict[str, Any]], fold_of: Callable[[dict[str, Any]], int], folds: int) -> Any:
    """The scores of each prompt by a model that has seen nothing of its fold."""
    scores = np.zeros((len(rows), len(TASKS)))
    for number in range(folds):
        others = [row for row in rows if fold_of(row) != number]
        some = [index for index, row in enumerate(rows) if fold_of(row) == number]
        table = Table()
        table.keep(others)
        scores[some] = scores_of(fit(others, table), table, [rows[index] for index in some])
    return scores


def source_fold(rows: list[dict[str, Any]], folds: int) -> Callable[[dict[str, Any]], int]:
    sizes = Counter(row["source"] for row in rows)
    order = [source for source, _ in sorted(sizes.items(), key=lambda item: (-item[1], item[0]))]
    fold = {source: number % folds for number, source in enumerate(order)}
    return lambda row: fold[row["source"]]


def prompt_fold(row: dict[str, Any], folds: int) -> int:
    """Diverse sources are split by prompt; of a templated one every prompt is always in the training set."""
    return zlib.crc32(row["text"].encode()) % folds if row.get("diverse") else folds


def softmax(scores: Any, temperature: float) -> Any:
    exponents = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    return exponents / exponents.sum(axis=1, keepdims=True)


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
    grams = table.matrix(some)
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


def language_tables(folder: Path) -> dict[str, Any]:
    """Naive Bayes over letter trigrams, above a floor that all languages share."""
    counts: dict[str, Counter[str]] = {}
    for code in LANGUAGES:
        profile = json.loads((folder / code).read_text(encoding="utf-8"))["freq"]
        merged: Counter[str] = Counter()
        for gram, count in profile.items():
            if len(gram) == 3:
                merged[gram.lower()] += count
        counts[code] = Counter(dict(sorted(merged.items(), key=lambda item: (-item[1], item[0]))[:TRIGRAMS]))
    floor = math.log(2e-5)
    grams = sorted({gram for some in counts.values() for gram in some})
    scale = (math.log(0.06) - floor) / 255
    columns = []
    for code in LANGUAGES:
        total = sum(counts[code].values())
        shares = ((counts[code][gram] / total) for gram in grams)
        columns.append(bytes(min(255, round(max(0.0, math.log(s) - floor) / scale)) if s else 0 for s in shares))
    return {"grams": grams, "scale": scale, "columns": columns}


def quantised(weights: Any, table: Table, scale: float) -> tuple[list[int], list[bytes], dict[str, list[float]]]:
    """The n-grams that have a weight, the weights of each output as bytes, and the weights of the shapes."""
    grams = [key for key in table.columns if not isinstance(key, str)]
    shapes = [key for key in table.columns if isinstance(key, str)]
    rounded = np.clip(np.round(weights[:, : len(grams)] / scale), -127, 127).astype(int) + 128
    kept = np.flatnonzero((rounded != 128).any(axis=0))
    named = {name: [round(float(one) * SHAPE, 4) for one in weights[:, table.columns[name]]] for name in shapes}
    return [grams[number] for number in kept], [bytes(column.tolist()) for column in rounded[:, kept]], named


def pack(
    tasks: tuple[LogisticRegression, Table], temperature: float, questions: tuple[Any, Any, float, Table], data: Path
) -> bytes:
    model, table = tasks
    scale = float(np.abs(model.coef_[:, : table.grams]).max()) / 127 * 0.6
    grams, columns, shapes = quantised(model.coef_, table, scale)
    coefficients, slopes, bias, hard_table = questions
    hard, hard_columns, hard_shapes = quantised(coefficients[None, :], hard_table, scale)
    languages = language_tables(data / "languages")
    header = {
        "grams": len(grams),
        "scale": scale,
        "bias": [round(float(one), 4) for one in model.intercept_],
        "temperature": temperature,
        "shapes": shapes,
        "body": BODY,
        "system": SYSTEM,
        "hard_grams": len(hard),
        "hard_bias": round(bias, 4),
        "hard_shapes": {name: weight for name, (weight,) in hard_shapes.items()},
        "measures": [round(float(one), 5) for one in slopes],
        "languages": LANGUAGES,
        "trigrams": languages["grams"],
        "trigram_scale": languages["scale"],
        "language_bias": [PRIOR.get(code, 0.0) for code in LANGUAGES],
    }
    text = json.dumps(header, ensure_ascii=False).encode()
    body = struct.pack("<I", len(text)) + text + struct.pack(f"<{len(grams)}I", *grams)
    body += b"".join(columns) + b"".join(languages["columns"])
    body += struct.pack(f"<{len(hard)}I", *hard) + b"".join(hard_columns)
    return MAGIC + zlib.compress(body, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("proxy/routing/data/classifier.bin"))
    parser.add_argument("--report", action="store_true", help="print how well each source is classified unseen")
    options = parser.parse_args()
    rows = read(options.data)
    labelled = [row for row in rows if row.get("labels")]
    split = unseen_scores(labelled, lambda row: prompt_fold(row, FOLDS), FOLDS)
    known = [number for number, row in enumerate(labelled) if row.get("diverse")]
    diverse = [labelled[number] for number in known]
    temperature = round(SHARPEN * temperature_of(split[known], diverse), 3)
    if options.report:
        report(split[known], diverse, "Cross-validation by prompt, diverse sources")
        unseen = unseen_scores(labelled, source_fold(labelled, 2 * FOLDS), 2 * FOLDS)
        report(unseen[known], diverse, "Whole sources left out, diverse sources")
        for source in sorted({row["source"] for row in diverse}):
            some = [number for number, row in enumerate(labelled) if row["source"] == source]
            report(unseen[some], [labelled[number] for number in some], source)
    table = Table()
    table.keep(rows)
    content = pack((fit(labelled, table), table), temperature, difficulty_of(rows), options.data)
    options.out.write_bytes(content)
    print(f"\n{len(table.columns)} features, temperature {temperature}, {len(content):,} bytes")


if __name__ == "__main__":
    main()
