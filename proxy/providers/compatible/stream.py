"""Translates: the events of one OpenAI-shaped stream into canonical chunks, in all variations of the shape."""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from proxy.providers.base.answers import choice_index, decode_piece, mapping, objects
from proxy.providers.base.call_ids import CallIds, Offer
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.finish import derived_finish, names_finish
from proxy.providers.base.lenient import Halves, without_halves
from proxy.providers.base.runs import TextRuns
from proxy.providers.base.stream import EventDecoder
from proxy.providers.base.usage import usage_of
from proxy.providers.compatible.calls import Calls
from proxy.providers.compatible.errors import error_in
from proxy.providers.compatible.finish import CALLED, finish_reason
from proxy.providers.compatible.response import (
    CHOICE_PADDING,
    PADDING,
    TEXTS,
    bare_message,
    choices_in,
    envelope,
    logprobs,
    plain,
)
from proxy.schema.chat import ChatChunk, ChatRequest, TextChunk
from proxy.schema.errors import UpstreamTruncated
from proxy.schema.sse import Event, Events

# Fields of a delta that are not part of the message: Together's `token_id`, Groq's `channel`, Mistral's `index`.
_NO_PART = frozenset({"role", *CALLED, "token_id", "channel", "index", "usage"})


class _TextDelta(Struct, forbid_unknown_fields=True):
    content: Annotated[str, Meta(min_length=1)]
    role: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None


class _TextChoice(Struct, forbid_unknown_fields=True):
    delta: _TextDelta
    index: int = 0
    logprobs: None = None
    finish_reason: None = None


class _TextEvent(Struct, forbid_unknown_fields=True):
    """An event that only adds text to a choice that has begun. Its other fields repeat those of the stream's first
    event.
    """

    choices: tuple[_TextChoice]
    id: Any = None
    object: Any = None
    created: Any = None
    model: Any = None
    service_tier: Any = None
    system_fingerprint: Any = None
    provider: Any = None
    obfuscation: Any = None
    p: Any = None
    usage: None = None


class _OnlyText(_TextChoice, forbid_unknown_fields=True):
    index: Literal[0] = 0


class _FirstChoice(_TextEvent, forbid_unknown_fields=True, kw_only=True):
    """The same, for the first choice."""

    choices: tuple[_OnlyText]


_text_event = msgspec.json.Decoder(_TextEvent).decode
_first_choice = msgspec.json.Decoder(_FirstChoice).decode
_TEXT_STEPS = (_first_choice, attrgetter("choices"), itemgetter(0), attrgetter("delta.content"))
_MAX_MISSES = 8  # consecutive events of another kind, after which the quick reader is no longer tried for this server


class CompatibleStreamDecoder(EventDecoder):
    """Decodes one stream. `expected`: the number of choices, if not the request's; a server may send fewer."""

    has_quick_text = True  # False if a subclass must see every chunk

    def __init__(self, request: ChatRequest, rules: ErrorRules, expected: int | None = None) -> None:
        self._expected = expected or request.n
        self._rules = rules
        self._offer = Offer(request)
        self._calls: dict[int, Calls] = {}
        self._with_delta: set[int] = set()
        self._finished: dict[int, str | None] = {}  # its finish_reason; None: an unknown word
        self._unknown: dict[int, str] = {}  # unknown words for a finish, which usage helps to interpret
        self._halves = Halves()
        self._limit = request.max_tokens
        self._written = 0  # tokens of all choices, as far as reported
        self._runs = TextRuns(b'"content":"')
        self._misses = 0
        self._is_quick = False

    @property
    def finished(self) -> bool:
        return len(self._finished) >= self._expected and len(self._finished) >= len(self._calls)

    def feed(self, event: Event) -> list[ChatChunk]:
        """Most events only add text; none of these contains half a character, which the quick reader refuses."""
        if self._is_quick and not event.name and (text := self._text(event.data)) is not None:
            return [text]
        chunks = super().feed(event)
        is_whole = self._split is None and not self._halves and not self.done
        self._is_quick = is_whole and self.has_quick_text and self._misses < _MAX_MISSES
        return chunks

    def texts(self, events: Events, at: int) -> TextChunk | None:
        """What `feed` does with one event after the other, without its cost for each; only for a single choice."""
        if not self._is_quick or self._calls.keys() != {0} or self._finished or events.names[at]:
            return None
        pieces = self._runs.read(events, at, _TEXT_STEPS)
        if not pieces:
            return None
        self._misses = 0
        return TextChunk(0, "".join(pieces), pieces)

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        body, is_odd = decode_piece(data)
        sound = without_halves(body) if is_odd else body
        error = error_in(sound if name != "error" else {"error": sound, **sound}, self._rules)
        if error is not None:
            raise error
        chunk = envelope(body)
        raw = body.get("choices")
        choices = objects(raw) if isinstance(raw, list) else choices_in(body)
        chunk["choices"] = [self._choice(choice, place, body.get("id")) for place, choice in enumerate(choices)]
        if is_odd:
            chunk = without_halves(chunk)
        usage = usage_of(sound)
        if usage is not None:
            chunk["usage"] = usage
            self._written = usage.billed.output
            if self._unknown:
                return [cast(ChatChunk, chunk), *self._named()]
        return [cast(ChatChunk, chunk)]

    def at_end_marker(self) -> list[ChatChunk]:
        """The finish of each choice that has none, since the server marks the answer as complete."""
        choices: list[dict[str, Any]] = []
        for index, calls in self._calls.items():
            if index in self._finished:
                late: dict[str, Any] = {}
                _put(late, calls, calls.end())
                choices += [{"index": index, "delta": late, "finish_reason": None}] if late else []
            else:
                rest_of_calls = calls.end()  # raises before anything has finished
                reason, native = derived_finish(calls.called, self._is_cut)
                self._finished[index] = reason
                delta: dict[str, Any] = {name: rest for name in TEXTS if (rest := self._halves.rest((index, name)))}
                _put(delta, calls, rest_of_calls)
                choices.append({"index": index, "delta": delta, "finish_reason": reason, **native})
        found = [cast(ChatChunk, {"choices": choices})] if choices else []
        return found + self._named() if self._unknown else found

    @property
    def _is_cut(self) -> bool:
        return self._limit is not None and self._written >= self._limit * max(1, len(self._calls))

    def _named(self) -> list[ChatChunk]:
        """The finish of each choice that has only an unknown word."""
        choices = []
        for index, word in self._unknown.items():
            reason, native = derived_finish(self._calls[index].called, self._is_cut, word)
            choices.append({"index": index, "delta": {}, "finish_reason": reason, **native})
        self._unknown = {}
        return [cast(ChatChunk, {"choices": choices})]

    def _text(self, data: bytes) -> ChatChunk | None:
        """The chunk of an event that only adds text; None for every other event."""
        try:
            (choice,) = _text_event(data).choices
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            self._misses += 1
            return None
        index = choice.index
        if index not in self._calls or index in self._finished:
            return None
        self._misses = 0
        return cast(ChatChunk, TextChunk(index, choice.delta.content))

    def close(self) -> list[ChatChunk]:
        """Raises UpstreamTruncated unless every choice that began has finished."""
        if not self._finished or len(self._finished) < len(self._calls):
            raise UpstreamTruncated("The provider's stream ended before the answer did.")
        return self._named() if self._unknown else []

    def _choice(self, raw: dict[str, Any], place: int, answer_id: object) -> dict[str, Any]:
        index = choice_index(raw.get("index"), place)
        calls = self._calls.get(index)
        if calls is None:
            calls = self._calls[index] = Calls(CallIds(self._offer, answer_id, index))
        delta = _delta(self._part(raw, index, calls), calls)
        for name in TEXTS:
            if piece := delta.get(name):
                delta[name] = self._halves.feed((index, name), piece)
        choice = {name: value for name, value in raw.items() if name not in CHOICE_PADDING}
        choice |= {"index": index, "delta": delta, "finish_reason": None}
        if raw.get("logprobs") is not None:
            choice["logprobs"] = logprobs(raw["logprobs"], delta.get("content"))
        word = raw.get("finish_reason")
        if index in self._finished:
            if names_finish(word):  # some servers send one with each call
                _put(delta, calls, calls.end())
            if calls.called and self._finished[index] == "stop":  # others send one before the first
                choice["finish_reason"] = self._finished[index] = calls.called
        elif word is not None:
            reason, native = finish_reason(word, calls.called)
            if reason is None and not names_finish(word):
                return choice
            if self._halves:
                delta |= {
                    name: delta.get(name, "") + rest for name in TEXTS if (rest := self._halves.rest((index, name)))
                }
            _put(delta, calls, calls.end())
            self._finished[index] = reason
            choice |= {"finish_reason": reason} | native
            if reason is None:
                self._unknown[index] = word
        return choice

    def _part(self, raw: dict[str, Any], index: int, calls: Calls) -> dict[str, Any]:
        """The delta. Some servers send a `message` in its place. One that comes beside or after deltas, or after the
        finish, repeats the text, but may be the only one with the calls.
        """
        delta, message = mapping(raw.get("delta")), mapping(raw.get("message"))
        if delta:
            self._with_delta.add(index)
        is_repeated = index in self._with_delta or index in self._finished
        if not message or not (is_repeated or delta):
            return delta or message or ({} if "delta" in raw else bare_message(raw))
        if calls.called or any(delta.get(name) for name in CALLED):
            return delta
        return {**delta, **{name: message.get(name) for name in CALLED}}


def _delta(raw: dict[str, Any], calls: Calls) -> dict[str, Any]:
    """The new content of a chunk, without empty values and the role."""
    raw = plain(raw)
    delta = {
        name: value
        for name, value in raw.items()
        if value not in (None, "", []) and name not in _NO_PART and name not in PADDING
    }
    if "annotations" in delta:
        delta["annotations"] = objects(delta["annotations"])
    given, legacy = raw.get("tool_calls"), raw.get("function_call")
    if given or legacy:
        _put(delta, calls, calls.feed(given, legacy))
    return delta


def _put(delta: dict[str, Any], calls: Calls, entries: list[dict[str, Any]]) -> None:
    """Adds fragments of calls to a delta."""
    if entries and calls.called == "function_call":
        said = [entry["function"] for entry in entries if entry["index"] == 0]
        text = delta.get("function_call", {}).get("arguments", "") + "".join(each.get("arguments", "") for each in said)
        names = {name: value for each in said for name, value in each.items() if name == "name"}
        delta["function_call"] = {**delta.get("function_call", {}), **names, "arguments": text}
    elif entries:
        delta["tool_calls"] = [*delta.get("tool_calls", ()), *entries]
