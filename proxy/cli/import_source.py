"""Translates: another program's YAML file into sections that know their position, with a finding for each key.

A key that is never read is lost, and a finding reports it: nothing in the file is dropped silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from proxy.config.problems import Mark, Path, shown
from proxy.config.tree import Entry, Mapping, Node, Scalar, Sequence

LOST, ACTION, CHANGED, NOTE = "lost", "to do", "changed", "note"
KINDS = (LOST, ACTION, CHANGED, NOTE)
NO_EQUIVALENT = "has no equivalent here"
_MERGE = "<<"
_VARIABLE = re.compile(r"os\.environ/([A-Za-z_]\w*)|\$\{([A-Za-z_]\w*)(?::?-[^}]*)?\}|\$([A-Za-z_]\w*)")
_OLD_BOOLEANS = {"yes": True, "on": True, "no": False, "off": False}  # of YAML 1.1, which LiteLLM reads
_MOST_MERGES = 16
_MOST = 1e12  # bounds any number: no meaningful one is larger


class Finding(Struct, frozen=True):
    """The result for one key that does not carry over unchanged."""

    file: str
    line: int
    column: int
    path: str
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.kind}: {self.path}: {self.message}"


def variable_of(value: object) -> str | None:
    """The environment variable that a value refers to: `os.environ/X`, `${X}` or `$X`."""
    found = _VARIABLE.fullmatch(value.strip()) if isinstance(value, str) else None
    return None if found is None else next(name for name in found.groups() if name)


class Section:
    """One mapping of the file. Reading a key marks it as handled."""

    def __init__(self, node: Mapping, path: Path, findings: list[Finding]) -> None:
        self.path = path
        self.mark = node.mark
        self.findings = findings
        self._entries = _merged(node, 0)
        self._handled: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def names(self) -> list[str]:
        return [*self._entries]

    def read(self, *names: str) -> Any:
        """The plain value of the first of these keys that has one; None without."""
        found = None
        for name in names:
            self._handled.add(name)
            entry = self._entries.get(name)
            if found is None and entry is not None:
                found = plain(entry.node)
        return found

    def text(self, name: str) -> str | None:
        """A text; numbers count as text, because YAML reads `2` as one."""
        value = self.read(name)
        if value is None or isinstance(value, str):
            return value.strip() or None if value else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        self.say(LOST, name, "is no text, so it is left out")
        return None

    def number(self, name: str) -> float | None:
        """A number that is at least 0, also as text."""
        value = self.read(name)
        if isinstance(value, bool) or value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            where = variable_of(value)
            why = f"is read from {where} there; here the file has numbers" if where else "is no number"
            self.say(LOST, name, f"{why}, so it is left out")
            return None
        if not 0 <= number <= _MOST:
            self.say(LOST, name, "is not a number that can be used, so it is left out")
            return None
        return int(number) if number == int(number) else number

    def flag(self, name: str) -> bool:
        value = self.read(name)
        return _OLD_BOOLEANS.get(value.lower(), value.lower() == "true") if isinstance(value, str) else bool(value)

    def section(self, name: str) -> Section | None:
        """The mapping below a key."""
        self._handled.add(name)
        entry = self._entries.get(name)
        if entry is None or _is_empty(entry.node):
            return None
        if isinstance(entry.node, Mapping):
            return Section(entry.node, (*self.path, name), self.findings)
        self.say(LOST, name, "is not made of keys and values, so it is left out")
        return None

    def sections(self, name: str) -> Iterator[Section]:
        """The mappings in the list below a key."""
        self._handled.add(name)
        entry = self._entries.get(name)
        if entry is None or _is_empty(entry.node):
            return
        items = entry.node.items if isinstance(entry.node, Sequence) else [entry.node]
        for place, item in enumerate(items):
            if isinstance(item, Mapping):
                yield Section(item, (*self.path, name, str(place)), self.findings)
            else:
                self.say(LOST, name, f"its item {place + 1} is not made of keys and values, so it is left out")

    def lend(self, other: Section) -> None:
        """Adds the entries of another section for keys that it lacks."""
        self._entries = other._entries | self._entries

    def say(self, kind: str, name: str, message: str) -> None:
        """A finding at a key of this section."""
        self._handled.add(name)
        entry = self._entries.get(name)
        self._add(kind, entry.mark if entry else self.mark, (*self.path, name), message)

    def about(self, kind: str, message: str) -> None:
        """A finding at the section itself."""
        self._add(kind, self.mark, self.path, message)

    def rest(self, message: str = NO_EQUIVALENT) -> None:
        """Every key that was not read is lost."""
        for name in self._entries:
            if name not in self._handled:
                self.say(LOST, name, message)

    def _add(self, kind: str, mark: Mark, path: Path, message: str) -> None:
        where = ".".join(shown(part) for part in path) or "the file"
        found = Finding(mark.file, mark.line, mark.column, where, kind, message)
        if found not in self.findings:
            self.findings.append(found)


def plain(node: Node) -> Any:
    """The Python value of a node."""
    if isinstance(node, Mapping):
        return {key: plain(entry.node) for key, entry in _merged(node, 0).items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _merged(node: Mapping, depth: int) -> dict[str, Entry]:
    """The entries of a mapping, merged with those of `<<`; its own take precedence."""
    own = {key: entry for key, entry in node.entries.items() if key != _MERGE}
    lent = node.entries.get(_MERGE)
    if lent is None or depth > _MOST_MERGES:
        return own
    sources = lent.node.items if isinstance(lent.node, Sequence) else [lent.node]
    for source in sources:
        if isinstance(source, Mapping):
            own = _merged(source, depth + 1) | own
    return own
