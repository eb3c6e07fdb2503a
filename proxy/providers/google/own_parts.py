"""Translates: parts without an equivalent at OpenAI (the vendor's searches, executed code) into notes beside a message,
and back to their positions among its texts and calls.

A note is `{"after_characters", "after_calls", "part"}`: the length of the content and the number of calls before it.
The signature of a part carries the result of a search, which the next turn would lose without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from proxy.providers.base.answers import listed, mapping
from proxy.schema.json import encode

CODE = ("executableCode", "codeExecutionResult")
SEARCHES = ("toolCall", "toolResponse")
MOST_BYTES = 384 * 1024  # of the notes that are stored for clients that drop them


def note(part: dict[str, Any], signature: str | None, characters: int, calls: int) -> dict[str, Any]:
    """One note. `part`: the vendor's, under its own name."""
    signed = {**part, "thoughtSignature": signature} if signature else part
    return {"after_characters": characters, "after_calls": calls, "part": signed}


def notes_in(message: Mapping[str, Any]) -> list[Any]:
    """The unchecked value of `extra_content.google.parts` in a message."""
    return listed(mapping(mapping(message.get("extra_content")).get("google")).get("parts"))


def kept_notes(message: Mapping[str, Any]) -> list[Any]:
    """The notes to keep here; none if they are too large."""
    notes = notes_in(message)
    return notes if len(encode(notes)) <= MOST_BYTES else []


def names_taken(tools: Mapping[str, Any]) -> frozenset[str]:
    """The parts that a request with these `tools` and this `toolConfig` may hold."""
    code = CODE if any("codeExecution" in tool for tool in tools.get("tools", [])) else ()
    searches = SEARCHES if tools.get("toolConfig", {}).get("includeServerSideToolInvocations") is True else ()
    return frozenset((*code, *searches))


def interleaved(
    texts: list[dict[str, Any]], calls: list[dict[str, Any]], notes: list[Any], names: Collection[str]
) -> list[dict[str, Any]]:
    """One turn: texts and calls, with the noted parts of `names` at their positions."""
    own = [found for each in notes if (found := _read(each, names)) is not None]
    if not own:
        return [*texts, *calls]
    content = "".join(each["text"] for each in texts if each.keys() == {"text"})
    if any(each.keys() != {"text"} for each in texts):
        return [*(part for _, _, part in own), *texts, *calls]
    said: list[dict[str, Any]] = []
    told = called = 0
    for characters, number, part in own:
        if content[told:characters]:
            said.append({"text": content[told:characters]})
        told = max(told, characters)
        said += calls[called:number]
        called = max(called, number)
        said.append(part)
    rest = [{"text": content[told:]}] if content[told:] else []
    return [*said, *rest, *calls[called:]]


def _read(given: object, names: Collection[str]) -> tuple[int, int, dict[str, Any]] | None:
    part = given.get("part") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(part, dict):
        return None
    sent: dict[str, Any] = {name: value for name, value in part.items() if name in names and isinstance(value, dict)}
    if len(sent) != 1:
        return None
    signature = part.get("thoughtSignature")
    if isinstance(signature, str) and signature:
        sent["thoughtSignature"] = signature
    return _place(given.get("after_characters")), _place(given.get("after_calls")), sent


def _place(value: object) -> int:
    """A position that a client sent back; 0 for an impossible one."""
    return value if type(value) is int and value >= 0 else 0
