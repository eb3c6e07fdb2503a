"""Translates: cuts answers at stop sequences for vendors that do not take them. Pure, across chunk borders.

Only `content` is searched, as at vendors: reasoning, refusals and tool calls pass. A choice that is cut ends with the
finish_reason `stop`, unless it called tools. In a stream, text that may be the start of a stop sequence is held back
until more text arrives. After a cut the stream is still read to its end, because the vendor bills everything it
generates and reports usage last; further text of that choice is dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from proxy.schema.chat import ChatChunk, ChatResponse, Choice, ChunkChoice
from proxy.schema.errors import BadRequest

MAX_STOPS = 64
MAX_LENGTH = 1_000  # characters of one stop: each chunk searches that much text again
MAX_TOTAL = 4_000  # characters of all stops: each chunk is searched for every stop


class StopSequences:
    """Cuts one answer, whole or streamed, at the first of `stops`. Raises BadRequest for too many or too long ones."""

    def __init__(self, stops: Sequence[str]) -> None:
        lengths = [len(stop) for stop in stops]
        if len(stops) > MAX_STOPS or max(lengths, default=0) > MAX_LENGTH or sum(lengths) > MAX_TOTAL:
            each = f"{MAX_STOPS} sequences of at most {MAX_LENGTH} characters each"
            message = f"stop: expected at most {each}, {MAX_TOTAL} characters in total."
            raise BadRequest(message, param="stop")
        self._stops = [stop for stop in stops if stop]
        self._choices: dict[int, _ChoiceCut] = {}
        self._matched: str | None = None

    @property
    def matched(self) -> str | None:
        """The stop at which the first choice was cut; None: it was not."""
        first = self._choices.get(0)
        return self._matched if first is None else first.matched

    def whole(self, response: ChatResponse) -> ChatResponse:
        """The answer with each choice cut at its first stop."""
        return cast(ChatResponse, {**response, "choices": [self._whole(choice) for choice in response["choices"]]})

    def _whole(self, choice: Choice) -> Choice:
        message = choice["message"]
        text = message.get("content") or ""
        end = first_stop(text, self._stops)
        if end is None:
            return choice
        if not choice.get("index"):
            self._matched = _stop_at(text, end, self._stops)
        cut: dict[str, Any] = {**choice, "message": {**message, "content": text[:end]}}
        if not message.get("tool_calls"):
            cut["finish_reason"] = "stop"
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
            cut["logprobs"] = {**logprobs, "content": _within(logprobs["content"], end)}
        return cast(Choice, cut)

    def feed(self, chunks: list[ChatChunk]) -> list[ChatChunk]:
        """The chunks with the text that may be sent. Every chunk is returned, if only with an empty delta."""
        return [cast(ChatChunk, {**chunk, "choices": self._cut(chunk.get("choices", []))}) for chunk in chunks]

    def _cut(self, choices: list[ChunkChoice]) -> list[ChunkChoice]:
        return [self._choice(choice.get("index", 0)).feed(choice) for choice in choices]

    def _choice(self, index: int) -> _ChoiceCut:
        if index not in self._choices:
            self._choices[index] = _ChoiceCut(self._stops)
        return self._choices[index]


class _ChoiceCut:
    """One choice of a stream: the text held back, and its log probabilities."""

    def __init__(self, stops: list[str]) -> None:
        self._stops = stops
        self._pending = ""
        self._tokens: deque[Any] = deque()
        self._ahead = 0  # characters sent whose tokens have not been sent yet
        self._is_cut = False
        self.matched: str | None = None
        self._has_calls = False

    def feed(self, choice: ChunkChoice) -> ChunkChoice:
        delta: dict[str, Any] = {**(choice.get("delta") or {})}
        self._has_calls |= bool(delta.get("tool_calls"))
        out: dict[str, Any] = {**choice, "delta": delta}
        text = self._pass(delta.pop("content", None) or "", bool(choice.get("finish_reason")))
        if text:
            delta["content"] = text
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
            self._tokens.extend(logprobs["content"])
            out["logprobs"] = {**logprobs, "content": []}
        if self._tokens and (tokens := self._take_sent(text, bool(choice.get("finish_reason")))):
            out["logprobs"] = {**(out.get("logprobs") or {}), "content": tokens}
        if self._is_cut and choice.get("finish_reason") and not self._has_calls:
            out["finish_reason"] = "stop"
        return cast(ChunkChoice, out)

    def _pass(self, text: str, is_last: bool) -> str:
        """The part of the held-back text plus `text` that may be sent now."""
        if self._is_cut:
            return ""
        text = self._pending + text
        end = first_stop(text, self._stops)
        if end is not None:
            self._is_cut, self._pending, self.matched = True, "", _stop_at(text, end, self._stops)
            return text[:end]
        keep = len(text) if is_last else begun_stop(text, self._stops)
        self._pending = text[keep:]
        return text[:keep]

    def _take_sent(self, text: str, is_last: bool) -> list[Any]:
        """The tokens whose text has been sent."""
        self._ahead += len(text)
        due: list[Any] = []
        while self._tokens and (_length(self._tokens[0]) <= self._ahead or (is_last and not self._is_cut)):
            self._ahead -= _length(self._tokens[0])
            due.append(self._tokens.popleft())
        return due


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """The start of the stop that is completed first when the text grows token by token; None without a stop."""
    found = [(place + len(stop), place) for stop in stops if (place := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def _stop_at(text: str, start: int, stops: Sequence[str]) -> str:
    """The stop that begins there; of several the shortest, which is completed first."""
    return min((stop for stop in stops if text.startswith(stop, start)), key=len)


def begun_stop(text: str, stops: Sequence[str]) -> int:
    """The start of the longest suffix of `text` that is a prefix of a stop; the length of `text` without one."""
    begun = len(text)
    for stop in stops:
        place = text.find(stop[0], max(0, len(text) - len(stop) + 1), begun)
        while place >= 0 and not stop.startswith(text[place:]):
            place = text.find(stop[0], place + 1, begun)
        if place >= 0:
            begun = place
    return begun


def _within(tokens: list[Any], characters: int) -> list[Any]:
    """The tokens that lie within the first `characters` characters."""
    kept: list[Any] = []
    for token in tokens:
        characters -= _length(token)
        if characters < 0:
            break
        kept.append(token)
    return kept


def _length(token: Any) -> int:
    text = token.get("token") if isinstance(token, dict) else None
    return len(text) if isinstance(text, str) else 0
