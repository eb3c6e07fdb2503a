"""Translates: a request and its answers into scores, without a model.

Four measures from 0 to 1, weighted by the quality metric:

    validity     JSON and tool call arguments match the request; the answer was not cut off
    coverage     the share of the question's words that occur in the answer
    length       how near the answer's length is to the median of all answers, in doublings
    repetition   the share of its word sequences that are not repetitions

They are crude, but linear, bounded and always available. They tell a broken answer from a sound one, not a right answer
from a wrong one. Large answers are sampled at both ends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from msgspec import Struct

from proxy.ensembles.base import Reply
from proxy.ensembles.tool_votes import are_valid, calls_of, offered, parts_of
from proxy.schema.chat import ChatRequest, ResponseMessage, ToolCall, text_of
from proxy.schema.errors import BadRequest
from proxy.schema.json_check import JSONCheck, bare

WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "coherence": {"validity": 0.3, "coverage": 0.1, "length": 0.2, "repetition": 0.4},
    "accuracy": {"validity": 0.5, "coverage": 0.3, "length": 0.1, "repetition": 0.1},
    "completeness": {"validity": 0.2, "coverage": 0.5, "length": 0.2, "repetition": 0.1},
}
MAX_CHECKED = 256 * 1024  # characters of JSON that are checked; a longer one counts as valid
_SAMPLE = 8_000  # characters at each end of a text that are read
_MAX_CALLS, _MAX_TOOLS = 128, 16  # calls of an answer that are read; tools whose schemas are checked
_SEQUENCE = 4  # words
_SAME_LENGTH, _NO_LENGTH = 1, 5  # doublings away from the median: up to here 1, from here on 0
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")  # scripts without spaces: signs
_SHORT = 4  # letters of a word that carries little meaning


class Asked(Struct, frozen=True):
    """The requirements of a request that answers can be checked against.

    `tools`: their names. `arguments`: checks for those that are called and whose schema can be checked.
    """

    words: frozenset[str]
    json: JSONCheck | None
    tools: frozenset[str]
    arguments: Mapping[str, JSONCheck]


def asked_for(request: ChatRequest, replies: Sequence[Reply]) -> Asked:
    wanted = request.fields.get("response_format")
    is_json = isinstance(wanted, dict) and wanted.get("type") in ("json_schema", "json_object")
    schemas = {str(tool.get("name")): tool.get("parameters") for tool in offered(request)}
    called = dict.fromkeys(parts_of(call)[1] for reply in replies for call in _calls(reply.message))
    checks = {name: _check(_format(schemas[name])) for name in [*called][:_MAX_TOOLS] if name in schemas}
    return Asked(
        frozenset(word for word in words(request.question() or "") if len(word) >= _SHORT or not word.isalpha()),
        _check(wanted) if isinstance(wanted, dict) and is_json else None,
        frozenset(schemas),
        {name: check for name, check in checks.items() if check is not None},
    )


def offline_scores(replies: Sequence[Reply], asked: Asked, metric: str) -> list[dict[str, float]]:
    """The measures of each answer, and `score`, their weighted mean. Empty answers and refusals have 0."""
    texts = [_text(reply.message) for reply in replies]
    lengths = [math.log2(len(text)) for text in texts if text]
    usual = median(lengths) if lengths else 0.0
    return [_measured(reply, text, usual, asked, metric) for reply, text in zip(replies, texts, strict=True)]


def _measured(reply: Reply, text: str, usual: float, asked: Asked, metric: str) -> dict[str, float]:
    """`usual`: the logarithm of the median length."""
    if not text or reply.message.get("refusal"):
        return {**dict.fromkeys(WEIGHTS[metric], 0.0), "score": 0.0}
    found = words(text)
    measures = {
        "validity": validity(reply, asked),
        "coverage": len(asked.words.intersection(found)) / len(asked.words) if asked.words else 1.0,
        "length": _nearness(math.log2(len(text)) - usual),
        "repetition": _variety(found),
    }
    score = sum(weight * measures[name] for name, weight in WEIGHTS[metric].items())
    return {name: round(value, 4) for name, value in {**measures, "score": score}.items()}


def words(text: str) -> list[str]:
    """The words of a text in lower case; for a long text those at both ends."""
    if len(text) > 2 * _SAMPLE:
        text = f"{text[:_SAMPLE]} {text[-_SAMPLE:]}"
    return _WORD.findall(text.lower())


def is_whole(reply: Reply) -> bool:
    """False if the answer was cut off by a limit or a filter."""
    choices = (reply.response or {}).get("choices") or [{}]
    return choices[0].get("finish_reason") not in ("length", "content_filter")


def fits(reply: Reply, asked: Asked) -> float:
    """From 0 to 1: how well the form of an answer matches the request."""
    if calls := _calls(reply.message):
        return sum(_is_valid_call(call, asked) for call in calls) / len(calls)
    if asked.json is None or len(reply.text) > MAX_CHECKED:
        return 1.0
    return 0.0 if asked.json.wrong(bare(reply.text)) else 1.0


def validity(reply: Reply, asked: Asked) -> float:
    """The same, but half of it for an answer that was cut off."""
    return fits(reply, asked) * (1.0 if is_whole(reply) else 0.5)


def _is_valid_call(call: ToolCall, asked: Asked) -> bool:
    if not are_valid([call], asked.tools):
        return False
    kind, name, arguments = parts_of(call)
    if kind == "custom" or len(arguments) > MAX_CHECKED or name not in asked.arguments:
        return True
    return asked.arguments[name].wrong(arguments or "{}") is None


def _nearness(doublings: float) -> float:
    return min(1.0, max(0.0, (_NO_LENGTH - abs(doublings)) / (_NO_LENGTH - _SAME_LENGTH)))


def _variety(found: Sequence[str]) -> float:
    sequences = [tuple(found[at : at + _SEQUENCE]) for at in range(len(found) - _SEQUENCE + 1)]
    return len(set(sequences)) / len(sequences) if sequences else 1.0


def _text(message: ResponseMessage) -> str:
    spoken = [" ".join(parts_of(call)[1:]) for call in _calls(message)]
    return "\n".join([text_of(message.get("content")).strip(), *spoken]).strip()


def _calls(message: ResponseMessage) -> list[ToolCall]:
    return calls_of(message)[:_MAX_CALLS]


def _format(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema or {"type": "object"}}}


def _check(response_format: Mapping[str, Any]) -> JSONCheck | None:
    try:
        return JSONCheck(response_format)
    except BadRequest:  # the vendors decide whether they take it
        return None
