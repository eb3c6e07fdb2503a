"""Translates: the events of one OpenAI-shaped stream into canonical chunks, tolerant of how servers vary the shape."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Struct

from proxy.providers.base.answers import arguments_text, call_id, decode_piece, listed, objects
from proxy.providers.base.errors import ErrorRules
from proxy.providers.base.lenient import Halves, without_halves
from proxy.providers.base.stream import EventDecoder
from proxy.providers.base.usage import usage_of
from proxy.providers.compatible.errors import error_in
from proxy.providers.compatible.response import (
    CHOICE_PADDING,
    PADDING,
    TEXTS,
    derived_finish,
    envelope,
    finish_reason,
    logprobs,
    plain,
    spare_id,
)
from proxy.schema.chat import ChatChunk, TextChunk
from proxy.schema.errors import UpstreamError, UpstreamTruncated

# Of a delta alone, and no part of the message: Together's `token_id`, Groq's `channel`, Mistral's `index`.
_NO_PART = frozenset({"role", "tool_calls", "token_id", "channel", "index", "usage"})


class _Calls:
    """Gives the tool calls of one choice dense indexes, and passes id, type and name once per call."""

    def __init__(self, choice: int, answer_id: object) -> None:
        self._choice = choice
        self._answer_id = answer_id
        self._by_key: dict[object, int] = {}
        self._ids: list[str] = []  # of the calls so far, by their dense index

    def delta(self, raw: object) -> dict[str, Any] | None:
        if not isinstance(raw, dict):
            return None
        kind = "custom" if isinstance(raw.get("custom"), dict) else "function"
        said: dict[str, Any] = raw[kind] if isinstance(raw.get(kind), dict) else {}
        field = "input" if kind == "custom" else "arguments"
        text = arguments_text(said.get(field))
        name = said["name"] if isinstance(said.get("name"), str) and said["name"] else None
        index = self._index(raw, name)
        if index < len(self._ids):
            return {"index": index, kind: {field: text}} if text else None
        if name is None:
            raise UpstreamError("The provider's stream has a tool call without a function name.")
        self._ids.append(call_id(raw.get("id")) or spare_id(self._answer_id, self._choice, index))
        signed = {"extra_content": raw["extra_content"]} if isinstance(raw.get("extra_content"), dict) else {}
        return {"index": index, "id": self._ids[index], "type": kind, kind: {"name": name, field: text}, **signed}

    def _index(self, raw: dict[str, Any], name: str | None) -> int:
        """By the server's index, else by id, else the call in progress. A fragment with a name starts another call if
        its id differs, or if it has neither index nor id.
        """
        identity = call_id(raw.get("id"))
        key = raw["index"] if isinstance(raw.get("index"), int) else identity
        if key is None:
            return len(self._ids) if name is not None or not self._ids else len(self._ids) - 1
        index = self._by_key.setdefault(key, len(self._ids))
        if index < len(self._ids) and name is not None and identity not in (None, self._ids[index]):
            index = self._by_key[key] = len(self._ids)
        return index

    def __bool__(self) -> bool:
        return bool(self._ids)


class _TextDelta(Struct, forbid_unknown_fields=True):
    content: str
    role: str | None = None
    refusal: None = None
    tool_calls: None = None


class _TextChoice(Struct, forbid_unknown_fields=True):
    delta: _TextDelta
    index: int = 0
    logprobs: None = None
    finish_reason: None = None


class _TextEvent(Struct, forbid_unknown_fields=True):
    """An event that adds text to a choice that has begun, and says nothing else. Its other fields repeat what the first
    event of the stream said.
    """

    choices: list[_TextChoice]
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


_text_event = msgspec.json.Decoder(_TextEvent).decode
_MAX_MISSES = 8  # events that are of another kind after one another: then this server's are not looked at so any more


class CompatibleStreamDecoder(EventDecoder):
    """Decodes one stream. `expected`: the number of choices in the request; a server may send fewer. `limit`: the
    output limit of each.
    """

    has_quick_text = True  # False where a subclass looks into every chunk

    def __init__(self, expected: int, rules: ErrorRules, limit: int | None = None) -> None:
        self._expected = expected
        self._rules = rules
        self._calls: dict[int, _Calls] = {}
        self._finished: set[int] = set()
        self._halves = Halves()
        self._limit = limit
        self._written = 0  # tokens of all choices, as far as the server has said
        self._misses = 0

    @property
    def finished(self) -> bool:
        return len(self._finished) >= self._expected and len(self._finished) >= len(self._calls)

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        is_quick = self.has_quick_text and self._misses < _MAX_MISSES and not name and not self._halves
        if is_quick and (text := self._text(data)) is not None:
            return [text]
        body, is_odd = decode_piece(data)
        error = error_in(body if name != "error" else {"error": body, **body}, self._rules)
        if error is not None:
            raise error
        chunk = envelope(body)
        chunk["choices"] = [
            self._choice(choice, body.get("id")) for choice in listed(body.get("choices")) if isinstance(choice, dict)
        ]
        if is_odd:
            chunk = without_halves(chunk)
        usage = usage_of(body)
        if usage is not None:
            chunk["usage"] = usage
            self._written = usage.billed.output
        return [cast(ChatChunk, chunk)]

    def at_end_marker(self) -> list[ChatChunk]:
        """The finish of each choice that has none: the server says that the answer is complete."""
        is_cut = self._limit is not None and self._written >= self._limit * max(1, len(self._calls))
        choices: list[dict[str, Any]] = []
        for index, calls in self._calls.items():
            if index not in self._finished:
                self._finished.add(index)
                reason, native = derived_finish(bool(calls), is_cut)
                delta = {name: rest for name in TEXTS if (rest := self._halves.rest((index, name)))}
                choices.append({"index": index, "delta": delta, "finish_reason": reason, **native})
        return [cast(ChatChunk, {"choices": choices})] if choices else []

    def _text(self, data: bytes) -> ChatChunk | None:
        """The chunk of an event that only adds text; None for every other event."""
        try:
            choices = _text_event(data).choices
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            self._misses += 1
            return None
        if len(choices) != 1 or not (text := choices[0].delta.content):
            return None
        index = choices[0].index
        if index not in self._calls or index in self._finished:
            return None
        self._misses = 0
        return cast(ChatChunk, TextChunk(index, text))

    def close(self) -> list[ChatChunk]:
        """Raises UpstreamTruncated unless every choice that began has finished."""
        if not self._finished or len(self._finished) < len(self._calls):
            raise UpstreamTruncated("The provider's stream ended before the answer did.")
        return []

    def _choice(self, raw: dict[str, Any], answer_id: object) -> dict[str, Any]:
        index = raw.get("index")
        index = index if isinstance(index, int) else 0
        calls = self._calls.setdefault(index, _Calls(index, answer_id))
        delta = self._delta(raw.get("delta"), calls)
        for name in TEXTS:
            if piece := delta.get(name):
                delta[name] = self._halves.feed((index, name), piece)
        choice = {name: value for name, value in raw.items() if name not in CHOICE_PADDING}
        choice |= {"index": index, "delta": delta, "finish_reason": None}
        if raw.get("logprobs") is not None:
            choice["logprobs"] = logprobs(raw["logprobs"], delta.get("content"))
        if index in self._finished:
            return choice
        reason, native = finish_reason(raw.get("finish_reason"), bool(calls))
        if reason is not None:
            if self._halves:
                delta |= {
                    name: delta.get(name, "") + rest for name in TEXTS if (rest := self._halves.rest((index, name)))
                }
            self._finished.add(index)
            choice |= {"finish_reason": reason} | native
        return choice

    def _delta(self, raw: object, calls: _Calls) -> dict[str, Any]:
        """The new content of a chunk, without empty values and the role."""
        if not isinstance(raw, dict):
            return {}
        raw = plain(raw)
        delta = {
            name: value
            for name, value in raw.items()
            if value not in (None, "", []) and name not in _NO_PART and name not in PADDING
        }
        if "annotations" in delta:
            delta["annotations"] = objects(delta["annotations"])
        fragments = [fragment for fragment in map(calls.delta, listed(raw.get("tool_calls"))) if fragment is not None]
        if fragments:
            delta["tool_calls"] = fragments
        return delta
