"""Pure translation: trained weights <-> the weights file of the request classifier."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np  # type: ignore[import-not-found]

from proxy.routing.classify import MAGIC, TASKS, Header
from proxy.routing.sentences import PLACES

LANGUAGES = (
    *("af", "ar", "bg", "ca", "cs", "cy", "da", "de", "en", "es", "et", "fa", "fi", "fr", "hi", "hr", "hu", "id", "it"),
    *("lt", "lv", "mk", "mr", "ne", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "so", "sq", "sv", "sw", "tl", "tr"),
    *("uk", "ur", "vi"),
)
TRIGRAMS = 900
# Log-odds in favour of a language: how common it is in requests, among those of its script.
PRIOR = dict.fromkeys(("sv", "uk", "cs", "da", "fi", "hu", "no", "ro"), -1.0)
PRIOR |= dict.fromkeys(("ca", "hr", "lt", "sk", "et", "lv", "sl"), -2.0) | dict.fromkeys(("sw", "tl"), -3.5)
PRIOR |= dict.fromkeys(("af", "cy", "sq"), -4.0) | {"so": -8.0}
PRIOR |= {"en": 3.0, "es": 1.0, "de": 0.7, "fr": 0.7, "pt": 0.3, "it": 0.3, "ru": 6.0, "hi": 9.0, "ar": 2.0}


Tasks = tuple[Any, Any, float]  # a `classifier_fit.Model`, the table of its columns, the temperature


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


class Weights:
    """What a weights file holds for the tasks, and its tables for the difficulty and the language as they are."""

    def __init__(self, content: bytes) -> None:
        data = zlib.decompress(content[len(MAGIC) :])
        (size,) = struct.unpack_from("<I", data)
        self._header = header = msgspec.json.decode(data[4 : 4 + size], type=Header)
        start = 4 + size
        self._grams = struct.unpack_from(f"<{header.grams}I", data, start)
        start += 4 * header.grams
        count = len(TASKS) * header.grams
        columns = np.frombuffer(data, dtype=np.uint8, count=count, offset=start).reshape(len(TASKS), -1)
        self._columns = (columns.astype(float) - 128) * header.scale
        self._others = data[start + count + header.grams :]  # the weights of sentences are learned anew

    @property
    def features(self) -> set[int | str]:
        """The n-grams and shapes that have weights."""
        return {*self._grams, *self._header.shapes}

    def aligned(self, columns: dict[Any, int], shape: float) -> Any:
        """The weights in the columns of a table, and the bias as the last one."""
        found = np.zeros((len(TASKS), len(columns) + 1))
        found[:, [columns[gram] for gram in self._grams]] = self._columns
        for name, weights in self._header.shapes.items():
            found[:, columns[name]] = np.array(weights) / shape
        found[:, -1] = self._header.bias
        return found

    def with_tasks(self, tasks: Tasks, shape: float) -> bytes:
        """The file with other weights for the tasks."""
        of_tasks, grams, columns = _of_tasks(tasks, _scale(tasks), shape)
        header = msgspec.to_builtins(self._header) | of_tasks
        header["language_bias"] = [PRIOR.get(code, 0.0) for code in header["languages"]]
        return _file(header, grams, columns, self._others)


def _scale(tasks: Tasks) -> float:
    """The few greatest weights are cut, so that the many small ones are not rounded to nothing."""
    (weights, _, _), table, _ = tasks
    return float(np.abs(weights[:, : table.grams]).max()) / 127 * 0.6


def _of_tasks(tasks: Tasks, scale: float, shape: float) -> tuple[dict[str, Any], list[int], list[bytes]]:
    """The header's part about the tasks, the n-grams, and their weights: the last column is that of sentences."""
    (weights, sentence, places), table, temperature = tasks
    weight_scale = float(np.abs(sentence[: table.grams]).max()) / 127 or 1.0
    every = np.vstack([weights[:, :-1] / scale, sentence / weight_scale])
    grams, columns, _ = quantised(every, table, 1.0, shape)
    _, _, shapes = quantised(weights[:, :-1], table, scale, shape)
    header = {
        "grams": len(grams),
        "scale": scale,
        "weight_scale": weight_scale,
        "places": dict(zip(PLACES, _rounded(places), strict=True)),
        "bias": _rounded(weights[:, -1]),
        "temperature": temperature,
        "shapes": shapes,
    }
    return header, grams, columns


def quantised(weights: Any, table: Any, scale: float, shape: float) -> tuple[list[int], list[bytes], dict[str, Any]]:
    """The n-grams that have a weight, the weights of each output as bytes, and the weights of the shapes."""
    grams = [key for key in table.columns if not isinstance(key, str)]
    shapes = [key for key in table.columns if isinstance(key, str)]
    rounded = np.clip(np.round(weights[:, : len(grams)] / scale), -127, 127).astype(int) + 128
    kept = np.flatnonzero((rounded[: len(TASKS)] != 128).any(axis=0))  # a sentence's weight alone classifies nothing
    named = {name: [round(float(one) * shape, 4) for one in weights[:, table.columns[name]]] for name in shapes}
    return [grams[number] for number in kept], [bytes(column.tolist()) for column in rounded[:, kept]], named


def pack(
    tasks: Tasks,
    questions: tuple[Any, Any, float, Any],
    languages: dict[str, Any],
    factors: dict[str, float],
) -> bytes:
    scale = _scale(tasks)
    of_tasks, grams, columns = _of_tasks(tasks, scale, factors["shape"])
    coefficients, slopes, bias, hard_table = questions
    hard, hard_columns, hard_shapes = quantised(coefficients[None, :], hard_table, scale, factors["shape"])
    header = of_tasks | {
        "system": factors["system"],
        "hard_scale": scale,
        "hard_grams": len(hard),
        "hard_bias": round(bias, 4),
        "hard_shapes": {name: weight for name, (weight,) in hard_shapes.items()},
        "measures": [round(float(one), 5) for one in slopes],
        "languages": LANGUAGES,
        "trigrams": languages["grams"],
        "trigram_scale": languages["scale"],
        "language_bias": [PRIOR.get(code, 0.0) for code in LANGUAGES],
    }
    others = b"".join(languages["columns"]) + struct.pack(f"<{len(hard)}I", *hard) + b"".join(hard_columns)
    return _file(header, grams, columns, others)


def _rounded(numbers: Any) -> list[float]:
    return [round(float(one), 4) for one in numbers]


def _file(header: dict[str, Any], grams: list[int], columns: list[bytes], others: bytes) -> bytes:
    text = json.dumps(header, ensure_ascii=False).encode()
    body = struct.pack("<I", len(text)) + text + struct.pack(f"<{len(grams)}I", *grams) + b"".join(columns)
    return MAGIC + zlib.compress(body + others, 9)
