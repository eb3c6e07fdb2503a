"""Translates: the fragments of the tool calls of one streamed choice, however servers cut and number them.

A client gets dense indexes in order, and id, type and whole name once per call. Servers differ: names come late or in
pieces; parallel calls share an index or an id, or have none; arguments are objects, `null` or missing.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from proxy.providers.base.answers import arguments_text, call_entries, call_id, whole_number
from proxy.providers.base.call_arguments import Arguments
from proxy.providers.base.call_ids import CallIds
from proxy.schema.errors import UpstreamError

_MAX_NAME = 1024  # characters of a name that arrives in pieces
_LEGACY = -1  # the index of the one call of a `function_call`


class _Fragment(Struct, frozen=True):
    """The content of one entry of `tool_calls`."""

    index: int | None
    id: str | None
    kind: str  # "function" or "custom"
    name: str
    text: str
    extra: dict[str, Any]

    @property
    def starts_object(self) -> bool:
        return self.text.lstrip().startswith("{")

    @property
    def says_nothing(self) -> bool:
        return not (self.id or self.name or self.text or self.extra)


class _Call:
    """One call in progress. `place`: its index for the client, once it is open."""

    __slots__ = ("arguments", "extra", "given", "is_listed", "key", "kind", "name", "place", "repeats", "turn")

    def __init__(self, fragment: _Fragment, name: str) -> None:
        self.key = fragment.index
        self.given = fragment.id
        self.kind = fragment.kind
        self.name = name
        self.arguments = Arguments(is_free=fragment.kind == "custom")
        self.extra: dict[str, Any] = {}
        self.place: int | None = None
        self.turn = 0
        self.repeats = ""  # the name of the previous call, which may only have been repeated
        self.is_listed = False

    @property
    def is_repetition(self) -> bool:
        return bool(self.name) and self.name == self.repeats and not self.arguments.has_begun

    def piece(self, text: str) -> dict[str, Any]:
        return {self.kind: {"input" if self.kind == "custom" else "arguments": text}}


class Calls:
    """The calls of one choice. `feed` and `end` return the entries of `tool_calls` for the client."""

    def __init__(self, ids: CallIds) -> None:
        self._offer = ids.offer
        self._ids = ids
        self._is_called = False  # True once one has a name
        self._calls: list[_Call] = []
        self._opened: list[_Call] = []
        self._next = 0  # index in `_calls` of the first that is not open
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}
        self._last: _Call | None = None
        self._turn = 0

    @property
    def called(self) -> str | None:
        """The field of the message that has the calls, if there are any."""
        if not self._is_called:
            return None
        is_legacy = self._calls[0].key == _LEGACY and self._offer.is_legacy
        return "function_call" if is_legacy else "tool_calls"

    def feed(self, raw: object, legacy: object = None) -> list[dict[str, Any]]:
        """`raw`: `tool_calls` of a delta. `legacy`: its `function_call`, if it has one."""
        self._turn += 1
        entries = raw if isinstance(raw, list) else call_entries(raw)
        fragments = [_fragment(entry) for entry in entries if isinstance(entry, dict)]
        if isinstance(legacy, dict) and not fragments and all(call.key == _LEGACY for call in self._calls[:1]):
            fragments = [_fragment({"index": _LEGACY, "function": legacy})]
        return [entry for fragment in fragments for entry in self._add(fragment)]

    def end(self) -> list[dict[str, Any]]:
        """The rest, when the choice finishes. Raises UpstreamError for a call that never had a name."""
        entries: list[dict[str, Any]] = []
        for call in self._calls[self._next :]:
            if call.name:
                entries.append(self._open(call))
            elif call.arguments.has_begun or (call.given and not self._is_called):
                raise UpstreamError("The provider's stream has a tool call without a function name.")
        self._next = len(self._calls)
        for call in self._opened:
            if rest := call.arguments.rest():
                entries.append({"index": call.place, **call.piece(rest)})
        return entries

    def _add(self, fragment: _Fragment) -> list[dict[str, Any]]:
        call = self._call_of(fragment)
        if call is None:
            return []
        if call.place is None:
            call.given = call.given or fragment.id
            self._is_called = self._is_called or bool(call.name)
        extra = {name: value for name, value in fragment.extra.items() if name not in call.extra}
        call.extra |= extra
        call.arguments.add(fragment.text)
        call.turn = self._turn
        if not call.is_listed and not call.is_repetition:
            self._calls.append(call)
            call.is_listed = True
        if call.place is None:
            return self._open_next()
        text = call.arguments.take()
        return [{"index": call.place, **(call.piece(text) if text else {}), **extra}] if text or extra else []

    def _open_next(self) -> list[dict[str, Any]]:
        """Opens calls in order of arrival: OpenAI's SDK cannot handle another order."""
        entries = []
        while self._next < len(self._calls) and self._is_ready(call := self._calls[self._next]):
            entries.append(self._open(call))
            self._next += 1
        return entries

    def _is_ready(self, call: _Call) -> bool:
        """True if the name is whole: it is offered, or arguments followed it, and no longer one is possible."""
        if not call.name:
            return False
        is_offered, has_begun = call.name in self._offer.names, call.arguments.has_begun
        return (is_offered and has_begun) if self._offer.extends(call.name) else (is_offered or has_begun)

    def _open(self, call: _Call) -> dict[str, Any]:
        call.place = len(self._opened)
        self._opened.append(call)
        said = {"name": call.name, **call.piece(call.arguments.take())[call.kind]}
        identity = self._ids.unique(call.given, call.place)
        return {"index": call.place, "id": identity, "type": call.kind, call.kind: said, **call.extra}

    # --- which call a fragment belongs to -----------------------------------------------------------------------------

    def _call_of(self, fragment: _Fragment) -> _Call | None:
        """The call of a fragment; None if the fragment adds nothing."""
        call = self._found(fragment)
        if fragment.says_nothing or (call is not None and _repeats(call, fragment)):
            return None
        if call is None or self._begins(call, fragment):
            call = self._after(call, fragment)
        elif call.place is None:
            call.name = self._name_after(call, fragment) or call.name
        self._last = call
        if fragment.index is not None:
            self._by_index[fragment.index] = call
        if fragment.id is not None:
            self._by_id[fragment.id] = call
        return call

    def _after(self, last: _Call | None, fragment: _Fragment) -> _Call:
        """The call that a fragment starts; `last` has the same index or id."""
        if last is None or _is_other(last, fragment):
            return _Call(fragment, fragment.name)
        call = _Call(fragment, fragment.name or last.name)
        if not fragment.text.strip() and last.arguments.is_whole:
            call.repeats = last.name
        return call

    def _found(self, fragment: _Fragment) -> _Call | None:
        """By index, else by id; without both the call in progress."""
        known = self._by_id.get(fragment.id) if fragment.id is not None else None
        if fragment.index is not None:
            call = self._by_index.get(fragment.index)
            if call is None:
                return None if fragment.name else known or (None if self._by_index else self._last)
            return known if known is not None and known.key == fragment.index else call
        return known or (None if fragment.id and fragment.name else self._last)

    def _begins(self, call: _Call, fragment: _Fragment) -> bool:
        """True if the fragment, by its index or id one of `call`, starts another call."""
        is_other = _is_other(call, fragment)
        arguments, says = call.arguments, bool(fragment.text.strip())
        if fragment.kind != call.kind and says:
            return True
        if not call.name:
            return is_other and arguments.is_whole
        if not fragment.name:
            if is_other and not says:
                return arguments.is_whole
            is_more = not fragment.starts_object or (arguments.is_placeholder and not is_other)
            return not is_more and arguments.is_whole
        if self._name_after(call, fragment) is None or (is_other and fragment.name != call.name):
            return True
        if fragment.name != call.name:
            return False  # a piece of it
        if is_other:
            return not arguments.has_begun or arguments.is_whole or not says or fragment.starts_object
        if not arguments.has_begun:
            is_keyless = fragment.index is None and fragment.id is None
            return not call.is_repetition and (call.turn == self._turn or is_keyless)
        return arguments.is_whole and (says or not fragment.text)

    def _name_after(self, call: _Call, fragment: _Fragment) -> str | None:
        """The name of the call once this fragment is added; None if it names another call."""
        piece, name = fragment.name, call.name
        if not piece or not name:
            return piece or name
        joined, names = name + piece, self._offer.names
        is_open = call.place is not None
        if not is_open and joined in names and name not in names and piece not in names:
            return joined  # even after all its arguments
        may_join = not is_open and not call.arguments.is_whole and len(joined) <= _MAX_NAME
        if may_join and self._offer.begins(joined) and (piece != name or name not in names):
            return joined
        if piece == name:
            return name
        if may_join and piece.startswith(name) and name not in names:
            return piece
        is_keyless = fragment.index is None and fragment.id is None
        if not may_join or call.arguments.has_begun or name in names or piece in names or is_keyless:
            return None
        return None if call.turn == self._turn else joined


def _is_other(call: _Call, fragment: _Fragment) -> bool:
    """True if both have ids, and these differ."""
    return fragment.id is not None and call.given is not None and fragment.id != call.given


def _repeats(call: _Call, fragment: _Fragment) -> bool:
    """True for a repetition of the whole arguments, with which some servers end a call."""
    if not fragment.starts_object or _is_other(call, fragment) or (fragment.name and not fragment.id):
        return False
    return fragment.name in ("", call.name) and call.arguments.equals(fragment.text) and call.arguments.is_whole


def _fragment(raw: dict[str, Any]) -> _Fragment:
    kind = "custom" if isinstance(raw.get("custom"), dict) else "function"
    said: dict[str, Any] = raw[kind] if isinstance(raw.get(kind), dict) else raw  # some servers send it flat
    name = said.get("name")
    extra = {"extra_content": raw["extra_content"]} if isinstance(raw.get("extra_content"), dict) else {}
    return _Fragment(
        whole_number(raw.get("index")),
        call_id(raw.get("id")),
        kind,
        name if isinstance(name, str) else "",
        arguments_text(said.get("input" if kind == "custom" else "arguments")),
        extra,
    )
