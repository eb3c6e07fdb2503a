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
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

from proxy.routing.classify import TASKS
from proxy.routing.sentences import OF_SYSTEM, PLACES

# How much the prompts count against the penalty on the distance from the weights at the start.
STRENGTH, FIRST_STRENGTH = 40.0, 10.0
SYSTEM = 0.7  # how much the n-grams of a system prompt count beside those of the text
_PLACES_PENALTY = 100.0  # or the places of the instruction in these prompts would count for everything
_STEPS = 100
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
    """The mean of several models, in each of which the prompts count differently, at random (a Bayesian bootstrap). One
    model depends on single prompts: five others in ten thousand change 2 % of its answers.
    """
    dice = np.random.default_rng(1)
    models = [fit(rows, table, start, dice.exponential(size=len(rows))) for _ in range(_MODELS)]
    return Model(*(sum(parts) / len(models) for parts in zip(*models, strict=True)))


def fit(rows: list[dict[str, Any]], table: Any, start: Any, counts: Any = 1.0) -> Model:
    """Logistic regression with a penalty on the distance from `start` (a matrix like
    `Model.tasks`, or None), so that what they know of prompts that are not here stays known. `counts`: how often each
    prompt counts.
    """
    count, tasks = len(table.columns), len(TASKS)
    first = np.zeros((tasks, count + 1)) if start is None else start
    inputs = inputs_of(rows, table)
    by_gram, by_place, by_whole = (each.T.tocsr() for each in (inputs.sentences, inputs.places, inputs.whole))
    wanted = np.zeros((len(rows), tasks))
    wanted[range(len(rows)), [TASKS.index(row["labels"][0]) for row in rows]] = 1
    weights = (FIRST_STRENGTH if start is None else STRENGTH) * counts * weights_of(rows)
    known = inputs.sentences @ first[:, :-1].T
    known_whole = inputs.whole @ first[:, :-1].T + first[:, -1]
    ends = np.cumsum([tasks * count, tasks, count])

    def loss(moved: Any) -> tuple[float, Any]:
        change, bias, sentence, places = np.split(moved, ends)
        change = change.reshape(tasks, count)
        scores = known + inputs.sentences @ change.T
        pooled, shares = _pooled(scores, inputs.sentences @ sentence + inputs.places @ places, inputs)
        odds = softmax(pooled + known_whole + inputs.whole @ change.T + bias, 1.0)
        errors = (odds - wanted) * weights[:, None]
        own = errors[inputs.owner]
        of_tasks = (by_gram @ (shares[:, None] * own)).T + (by_whole @ errors).T + change
        of_shares = (own * (scores - pooled[inputs.owner])).sum(axis=1) * shares
        penalty = (change**2).sum() + (sentence**2).sum() + _PLACES_PENALTY * (places**2).sum()
        likelihood = float((weights * np.log((odds * wanted).sum(axis=1) + 1e-30)).sum())
        gradients = [
            of_tasks.ravel(),
            errors.sum(axis=0),
            by_gram @ of_shares + sentence,
            by_place @ of_shares + _PLACES_PENALTY * places,
        ]
        return float(penalty) / 2 - likelihood, np.concatenate(gradients)

    nothing = np.zeros(ends[-1] + len(PLACES))
    found = minimize(loss, nothing, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS, "ftol": 1e-7})
    change, bias, sentence, places = np.split(found.x, ends)
    return Model(first + np.hstack([change.reshape(tasks, count), bias[:, None]]), sentence, places)


def lightened(model: Model, table: Any, most: int) -> Model:
    """Without the n-grams of the least weights, so that `most` are left: each takes memory in every process."""
    sizes = np.abs(model.tasks[:, : table.grams]).max(axis=0)
    dropped = np.argsort(-sizes, kind="stable")[most:]
    tasks, sentence = model.tasks.copy(), model.sentence.copy()
    tasks[:, dropped], sentence[dropped] = 0, 0
    return Model(tasks, sentence, model.places)
