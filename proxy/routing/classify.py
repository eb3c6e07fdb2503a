"""Pure translation: a conversation becomes a task, a difficulty and a language, by linear models over n-grams.

docs/classifier.md explains the labels, the training data and the accuracy of the models. A call takes at
most 300 µs of processor time for a text of any length, because only a window of the text is read (`features.window`).

Each n-gram's weights for all columns are one integer, with some bytes for each, so one addition adds all columns.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable
from importlib import resources
from itertools import chain, repeat
from math import inf
from operator import mul
from typing import TypeVar

import msgspec
from msgspec import Struct

from proxy.routing.conversation import Conversation, conversation_of
from proxy.routing.features import (
    Features,
    difficulty_features,
    features_of,
    language_of_script,
    question_window,
    system_window,
    trigrams,
    window,
)

__all__ = ["TASKS", "Classified", "Classifier", "Conversation", "conversation_of", "load"]

T = TypeVar("T")

TASKS = ("reasoning", "extraction", "classification", "summarization", "code", "chat")
EVIDENCE = 5

# A text with fewer letter trigrams gets a language only if the likeliest one leads by this many log-odds.
_SHORT_TRIGRAMS, _SURE = 24, 3.0
KEPT = 1_024

# Columns of the n-gram table: how many n-grams were found, one score for each task, and the weight of a sentence.
_COLUMNS = 1 + len(TASKS) + 1
_FIELD = 2  # bytes: the sum over the n-grams of a sentence fits, and over the letter trigrams of a text
_UNPACK = struct.Struct(f"<{_COLUMNS}H")
_ZERO = 128
MAGIC = b"MMPC0004"


class Classified(Struct, frozen=True):
    """Confidence and difficulty: 0 to 1. Language: its code, or `und`."""

    task: str
    confidence: float
    difficulty: float
    language: str


class Header(Struct, frozen=True):
    """The metadata of the weights file, ahead of its tables. `scale`, `weight_scale`, `hard_scale`: the units of the
    tasks' weights, of the weights of sentences and of the difficulty's. `places`: how much a sentence's place counts.
    """

    grams: int
    scale: float
    weight_scale: float
    places: dict[str, float]
    bias: list[float]
    temperature: float
    shapes: dict[str, list[float]]
    system: float
    hard_scale: float
    hard_grams: int
    hard_bias: float
    hard_shapes: dict[str, float]
    measures: list[float]
    languages: list[str]
    trigrams: list[str]
    trigram_scale: float
    language_bias: list[float]


class Classifier:
    """The models of one weights file.

    An agent sends the same question with each turn, so the latest results are kept: `kept` of them, by a hash of what
    is read. No text is kept.
    """

    def __init__(self, weights: bytes, kept: int = KEPT) -> None:
        if weights[: len(MAGIC)] != MAGIC:
            raise ValueError("not a weights file of this version of the classifier")
        data = zlib.decompress(weights[len(MAGIC) :])
        (size,) = struct.unpack_from("<I", data)
        self._header = header = msgspec.json.decode(data[4 : 4 + size], type=Header)
        start = 4 + size
        hashes = struct.unpack_from(f"<{header.grams}I", data, start)
        start += 4 * header.grams
        columns = [b"\x01" * header.grams]
        for number in range(_COLUMNS - 1):
            first = start + number * header.grams
            columns.append(data[first : first + header.grams])
        self._rows = dict(zip(hashes, _packed(columns), strict=True))
        start += (_COLUMNS - 1) * header.grams
        count = len(header.trigrams)
        letters = [data[start + n * count : start + (n + 1) * count] for n in range(len(header.languages))]
        self._trigrams: dict[str | bytes, int] = {}
        for trigram, row in zip(header.trigrams, _packed(letters), strict=True):
            self._trigrams[trigram] = row
            if trigram.isascii():
                self._trigrams[trigram.encode()] = row
        start += len(header.languages) * count
        hashes = struct.unpack_from(f"<{header.hard_grams}I", data, start)
        start += 4 * header.hard_grams
        self._hard = {gram: weight - _ZERO for gram, weight in zip(hashes, data[start:], strict=True)}
        self._kept = kept
        self._known: dict[int, Classified] = {}
        self._known_difficulties: dict[int, float] = {}

    def classify(self, conversation: Conversation) -> Classified:
        text = conversation.text
        sample, system = window(text), system_window(conversation.system)
        key = hash((sample, len(text), system, conversation.has_json_schema))
        found = self._known.get(key)
        if found is None:
            found = self._classified(conversation, features_of(conversation, sample, system))
            self._keep(self._known, key, found)
        return found

    def _keep(self, known: dict[int, T], key: int, value: T) -> None:
        if len(known) >= self._kept:
            known.pop(next(iter(known), key), None)
        if self._kept:
            known[key] = value

    def _classified(self, conversation: Conversation, features: Features) -> Classified:
        text = conversation.text
        scores = self._scores(features)
        best = max(scores)
        task = scores.index(best)
        odds = sum(math.exp((score - best) / self._header.temperature) for score in scores)
        return Classified(
            task=TASKS[task],
            confidence=round(1 / odds, 3),
            difficulty=self._difficulty(*(features.question or difficulty_features(question_window(text)[0]))),
            language=self._language(text),
        )

    def evidence(self, conversation: Conversation) -> tuple[str, ...]:
        """The n-grams and shapes that favour the task most; only those that also occur in the training data.

        Nothing but an explanation shows them, so no call pays for them.
        """
        features = features_of(conversation, window(conversation.text), system_window(conversation.system))
        scores = self._scores(features)
        return self._evidence(features, scores.index(max(scores)))

    def difficulty(self, text: str) -> tuple[float, str]:
        """The difficulty of a question whose task is known, by a shorter window than that of `classify`, and which
        characters were read.
        """
        sample, head, tail = question_window(text)
        key = hash(sample)
        found = self._known_difficulties.get(key)
        if found is None:
            found = self._difficulty(*difficulty_features(sample))
            self._keep(self._known_difficulties, key, found)
        if len(text) <= head + tail:
            return found, f"the {len(text)} characters of the question"
        return found, f"the first {head} and the last {tail} of the {len(text)} characters of the question"

    def _difficulty(self, grams: list[int], shape: list[str], measures: list[float]) -> float:
        header = self._header
        hardness = header.hard_bias + sum(map(mul, header.measures, measures))
        hardness += sum(map(header.hard_shapes.get, shape, repeat(0.0)))
        hardness += sum(map(self._hard.get, grams, repeat(0))) * header.hard_scale / math.sqrt(len(grams) or 1)
        return round(1 / (1 + math.exp(-max(-30.0, min(30.0, hardness)))), 3)

    def _scores(self, features: Features) -> list[float]:
        """The sum of five linear models: of all n-grams of the text, of those of the system prompt, of those of the
        sentences of both (each with its own weight, which is softmax over another linear model), of the shape, and the
        bias.
        """
        header, parts = self._header, [*features.sentences, *features.system]
        read = [self._sum(chain(part.singles, part.pairs, part.starts, part.edges)) for part in parts]
        sizes = [math.sqrt(len(part) or 1) for part in parts]
        weights = [
            sums[-1] * header.weight_scale / size + header.places[part.place]
            for part, sums, size in zip(parts, read, sizes, strict=True)
        ]
        most = max(weights)
        weights = [math.exp(weight - most) for weight in weights]
        share, total = header.scale / sum(weights), header.bias
        wholes = [header.scale / math.sqrt(sum(map(len, features.sentences)) or 1)] * len(features.sentences)
        if features.system:
            unit = header.scale * header.system / math.sqrt(sum(map(len, features.system)))
            wholes += [unit] * len(features.system)
        for sums, weight, size, whole in zip(read, weights, sizes, wholes, strict=True):
            factor = weight * share / size + whole
            total = [one + added * factor for one, added in zip(total, sums, strict=False)]
        for name in features.shape:
            if shape := header.shapes.get(name):
                total = [one + added for one, added in zip(total, shape, strict=True)]
        return total

    def _sum(self, hashes: Iterable[int]) -> list[int]:
        """The sums of the n-grams' weights: one for each task, and that of the sentence's weight."""
        packed = sum(map(self._rows.get, hashes, repeat(0)))
        found, *sums = _UNPACK.unpack(packed.to_bytes(_UNPACK.size, "little"))
        zero = _ZERO * found
        return [each - zero for each in sums]

    def _evidence(self, features: Features, task: int) -> tuple[str, ...]:
        shift = 8 * _FIELD * (1 + task)
        mask = (1 << 8 * _FIELD) - 1
        found: list[tuple[float, str]] = []
        for part in (*features.sentences, *features.system):
            unit = self._header.scale / math.sqrt(max(1, len(part)))
            for width, hashes in ((1, part.singles), (2, part.pairs)):
                for at, row in enumerate(map(self._rows.get, hashes)):
                    if row is not None:
                        name = b" ".join(part.words[at : at + width]).decode(errors="replace")
                        found.append((((row >> shift & mask) - _ZERO) * unit, name))
        shapes = self._header.shapes
        found += [(shapes[name][task], name) for name in features.shape if name in shapes and not name.endswith(" 0")]
        found.sort(reverse=True)
        return tuple(dict.fromkeys(name for weight, name in found[: 2 * EVIDENCE] if weight > 0))[:EVIDENCE]

    def _language(self, text: str) -> str:
        sure = language_of_script(text)
        if sure is not None:
            return sure
        grams = trigrams(text)
        total = sum(map(self._trigrams.get, grams, repeat(0)))
        if not total:
            return "und"
        languages = self._header.languages
        sums = struct.unpack(f"<{len(languages)}H", total.to_bytes(_FIELD * len(languages), "little"))
        scale = self._header.trigram_scale
        scores = [
            one * scale + bias if one else -inf for one, bias in zip(sums, self._header.language_bias, strict=True)
        ]
        best = max(scores)
        if len(grams) < _SHORT_TRIGRAMS and sum(best - score < _SURE for score in scores) > 1:
            return "und"
        return languages[scores.index(best)]


def load(kept: int = KEPT) -> Classifier:
    """Reads the weights shipped with the package. Takes some tens of milliseconds: the caller keeps the result."""
    return Classifier(resources.files("proxy.routing").joinpath("data", "classifier.bin").read_bytes(), kept)


def _packed(columns: list[bytes]) -> list[int]:
    """One integer for each row: its value in column 0 in the lowest bits, and so on."""
    rows, width = len(columns[0]), _FIELD * len(columns)
    table = bytearray(rows * width)
    for number, column in enumerate(columns):
        table[number * _FIELD :: width] = column
    return [int.from_bytes(table[at : at + width], "little") for at in range(0, rows * width, width)]
