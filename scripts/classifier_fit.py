"""Pure translation: labelled prompts -> the weights of the tasks.

The score of a task is linear in the n-grams of the whole window, of each sentence (`Classifier._scores`), of the system
prompt and of the shape. How much a sentence counts among the others of its text is softmax over a linear model of its
n-grams and its place, learned at the same time. So an instruction counts although most sentences are material.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np  # type: ignore[import-not-found]
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

from proxy.routing.classify import TASKS
from proxy.routing.sentences import OF_SYSTEM, PLACES

SYSTEM = 0.7  # how much the n-grams of a system prompt count beside those of the text
# Each step leaves out a random share of the n-grams of each prompt. So no weight relies on certain others, and prompts
# with many unknown n-grams, as all have that nobody has trained with, get the right task too.
_DROPPED = 0.6
_EPOCHS, _BATCH, _RATE = 12, 256, 0.03
_MODELS = 5


class Model(NamedTuple):
    """`tasks`: a row of weights for each task, the bias as its last column. `sentence`: of the weight of a sentence.
    `places`: what its place adds to it.
    """

    tasks: Any
    sentence: Any
    places: Any


class Inputs(NamedTuple):
    """Of some prompts. `owner`: the number of each sentence's prompt; `first`: that of each prompt's first sentence.
    `whole`: the n-grams of the whole window, of the system prompt, and the shape.
    """

    sentences: Any
    places: Any
    owner: Any
    first: Any
    whole: Any


def weights_of(rows: list[dict[str, Any]]) -> Any:
    """Each task counts the same; within it each source counts with the root of its size."""
    sizes = Counter((row["labels"][0], row["source"]) for row in rows)
    raw = np.array([row.get("weight", 1.0) / math.sqrt(sizes[row["labels"][0], row["source"]]) for row in rows])
    tasks = np.array([TASKS.index(row["labels"][0]) for row in rows])
    for task in range(len(TASKS)):
        raw[tasks == task] *= len(rows) / len(TASKS) / raw[tasks == task].sum()
    return raw


def softmax(scores: Any, temperature: float) -> Any:
    exponents = np.exp((scores - scores.max(axis=1, keepdims=True)) / temperature)
    return exponents / exponents.sum(axis=1, keepdims=True)


def inputs_of(rows: list[dict[str, Any]], table: Any) -> Inputs:
    """`sentences` of a row: for each its n-grams, with the root of their number as unit, its place and that number.

    The n-grams of the whole text together, and those of the whole system prompt, have the same weights.
    """
    parts = [part for row in rows for part in row["sentences"]]
    owner = np.repeat(np.arange(len(rows)), [len(row["sentences"]) for row in rows])
    sentences = table.matrix([values for values, _, _ in parts])
    sizes = np.array([float(size) for _, _, size in parts])
    group = 2 * owner + np.array([place == OF_SYSTEM for _, place, _ in parts])
    numbers = np.bincount(group, weights=sizes, minlength=2 * len(rows))
    shares = np.sqrt(sizes) / np.sqrt(np.maximum(numbers, 1))[group] * np.where(group % 2, SYSTEM, 1.0)
    added = csr_matrix((shares, (owner, np.arange(len(parts)))), shape=(len(rows), len(parts)))
    places = csr_matrix(
        (np.ones(len(parts)), (np.arange(len(parts)), [PLACES.index(place) for _, place, _ in parts])),
        shape=(len(parts), len(PLACES)),
    )
    whole = (added @ sentences + table.matrix([row["values"] for row in rows])).tocsr()
    return Inputs(sentences, places, owner, np.searchsorted(owner, np.arange(len(rows))), whole)


def _pooled(scores: Any, weights: Any, inputs: Inputs) -> tuple[Any, Any]:
    """The mean of the sentences' scores, weighted by softmax, and the shares."""
    powers = np.exp(weights - np.maximum.reduceat(weights, inputs.first)[inputs.owner])
    shares = powers / np.add.reduceat(powers, inputs.first)[inputs.owner]
    return np.add.reduceat(shares[:, None] * scores, inputs.first, axis=0), shares


def scores_of(model: Model, table: Any, rows: list[dict[str, Any]]) -> Any:
    inputs = inputs_of(rows, table)
    weights = inputs.sentences @ model.sentence + inputs.places @ model.places
    pooled, _ = _pooled(inputs.sentences @ model.tasks[:, :-1].T, weights, inputs)
    return pooled + inputs.whole @ model.tasks[:, :-1].T + model.tasks[:, -1]


def averaged(rows: list[dict[str, Any]], table: Any, start: Any) -> Model:
    """The mean of several models: a single one depends on what its steps left out."""
    models = [fit(rows, table, start, seed) for seed in range(_MODELS)]
    return Model(*(sum(parts) / len(models) for parts in zip(*models, strict=True)))


def fit(rows: list[dict[str, Any]], table: Any, start: Any, seed: int = 0) -> Model:
    """Logistic regression by Adam (Kingma and Ba 2015), from `start` (a matrix like `Model.tasks`, or None).

    Only few epochs, so that the weights stay near the start, where these prompts say nothing.
    """
    dice = np.random.default_rng(seed)
    inputs, counts = inputs_of(rows, table), weights_of(rows)
    wanted = np.zeros((len(rows), len(TASKS)))
    wanted[range(len(rows)), [TASKS.index(row["labels"][0]) for row in rows]] = 1
    first = np.zeros((len(TASKS), len(table.columns) + 1)) if start is None else start
    # A row for each n-gram or shape: the weights of the tasks, and that of a sentence. The bias. The places.
    grams = np.hstack([first[:, :-1].T, np.zeros((len(table.columns), 1))])
    found = [values.astype(np.float32) for values in (grams, first[:, -1], np.zeros(len(PLACES)))]
    batches = max(1, len(rows) // _BATCH)
    adam = _Adam(found, _EPOCHS * batches)
    for _ in range(_EPOCHS):
        for some in np.array_split(dice.permutation(len(rows)), batches):
            adam.step(_gradients(found, _some(inputs, some, dice), wanted[some], counts[some] / len(some)))
    grams, bias, places = (values.astype(float) for values in found)
    return Model(np.hstack([grams[:, :-1].T, bias[:, None]]), grams[:, -1], places)


def _some(inputs: Inputs, prompts: Any, dice: Any) -> Inputs:
    """Some of the prompts, without a random share of their n-grams; the others count the more."""
    ends = np.append(inputs.first, len(inputs.owner))
    numbers = ends[prompts + 1] - ends[prompts]
    parts = np.concatenate([np.arange(ends[prompt], ends[prompt + 1]) for prompt in prompts])
    thinned = []
    for matrix in (inputs.sentences[parts], inputs.whole[prompts]):
        left = dice.random(len(matrix.data)) >= _DROPPED
        matrix.data = (matrix.data * left / (1 - _DROPPED)).astype(np.float32)
        thinned.append(matrix)
    first = np.cumsum(numbers) - numbers
    return Inputs(thinned[0], inputs.places[parts], np.repeat(np.arange(len(prompts)), numbers), first, thinned[1])


def _gradients(found: list[Any], inputs: Inputs, wanted: Any, counts: Any) -> list[Any]:
    """Of minus the log-likelihood, by the n-grams' weights, the bias and the places."""
    grams, bias, places = found
    parts = inputs.sentences @ grams
    pooled, shares = _pooled(parts[:, :-1], parts[:, -1] + inputs.places @ places, inputs)
    errors = (softmax(pooled + (inputs.whole @ grams)[:, :-1] + bias, 1.0) - wanted) * counts[:, None]
    own = errors[inputs.owner]
    of_shares = (own * (parts[:, :-1] - pooled[inputs.owner])).sum(axis=1) * shares
    of_grams = inputs.sentences.T @ np.hstack([shares[:, None] * own, of_shares[:, None]]).astype(np.float32)
    of_grams[:, :-1] += inputs.whole.T @ errors.astype(np.float32)
    return [of_grams, errors.sum(axis=0), inputs.places.T @ of_shares]


class _Adam:
    """Changes `values` in `steps` steps, each shorter than the one before."""

    def __init__(self, values: list[Any], steps: int) -> None:
        self._values, self._steps, self._step = values, steps, 0
        self._means = [np.zeros_like(value) for value in values]
        self._squares = [np.zeros_like(value) for value in values]

    def step(self, gradients: list[Any]) -> None:
        rate = _RATE * (1 - self._step / self._steps)
        self._step += 1
        rate *= math.sqrt(1 - 0.999**self._step) / (1 - 0.9**self._step)
        for value, mean, square, gradient in zip(self._values, self._means, self._squares, gradients, strict=True):
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            value -= rate * mean / (np.sqrt(square) + 1e-8)


def most_useful(model: Model, table: Any, rows: list[dict[str, Any]], most: int) -> list[int]:
    """The columns of `most` n-grams and of all shapes: each n-gram takes memory in every process.

    One is useful if its weights differ much between the tasks; the more prompts have it, the better these are known.
    """
    weights = model.tasks[:, : table.grams]
    seen = inputs_of(rows, table).whole.getnnz(axis=0)[: table.grams]
    use = np.abs(weights - weights.mean(axis=0)).max(axis=0) * (seen + 1.0) ** 0.25
    return [*sorted(np.argsort(-use, kind="stable")[:most].tolist()), *range(table.grams, len(table.columns))]
