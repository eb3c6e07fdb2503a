"""Translates: the bytes of a YAML 1.2 file into a tree in which every node knows its position.

It is built from the parser's events. No objects are constructed, tags have no effect, and the size limits apply while
the file is read: an alias shares the node it refers to, and its size is added up before anything is expanded.
"""

from __future__ import annotations

import re

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from proxy.config.problems import ConfigError, Mark, Path, Problem, problem

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 50_000

# The core schema of YAML 1.2: `yes`, `on` and dates are text.
_WORDS: dict[str, bool | float | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WORDS |= {f"{sign}.{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")}
_WORDS |= {".nan": float("nan"), ".NaN": float("nan"), ".NAN": float("nan")}
_WHOLE = re.compile(r"[-+]?[0-9]{1,40}")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,32}")
_OCTAL = re.compile(r"0o[0-7]{1,40}")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TOO_HIGH = re.compile(r"\\U(?!000|0010)[0-9a-fA-F]{8}")


class Scalar(Struct):
    mark: Mark
    value: bool | int | float | str | None
    size: int = 1


class Sequence(Struct):
    mark: Mark
    items: list[Node]
    size: int = 1


class Entry(Struct):
    """One key of a mapping: the position of the key, and its value."""

    mark: Mark
    node: Node


class Mapping(Struct):
    mark: Mark
    entries: dict[str, Entry]
    size: int = 1


Node = Scalar | Sequence | Mapping


def parse(data: bytes, file: str, problems: list[Problem], *, merge_keys: bool = False) -> Mapping | None:
    """The tree of one file, or None if it could not be parsed. Adds mistakes to `problems`.

    `merge_keys`: `<<` is an entry like any other, for files of other programs.
    """
    try:
        return _Builder(file, problems, merge_keys).build(_text(data, file))
    except ConfigError as stop:
        problems.extend(stop.problems)
        return None


def plain_value(text: str) -> bool | int | float | str | None:
    """The value of an unquoted scalar."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    return float(text) if _REAL.fullmatch(text) else text


def _text(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        raise ConfigError([problem(Mark(file), (), "larger than 1 MB")])
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        mark = _place(file, data[: error.start].decode("utf-8"), error.start)
        raise ConfigError([problem(mark, (), "not UTF-8; save the file as UTF-8")]) from None
    return text


def _place(file: str, text: str, position: int) -> Mark:
    before = text[:position]
    return Mark(file, before.count("\n") + 1, len(before) - before.rfind("\n"))


class _Open:
    """A mapping or sequence that has not ended yet. If `key` is None, the next node is a key."""

    def __init__(self, node: Mapping | Sequence, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: str | None = None
        self.key_mark = node.mark
        self.keep = True  # False: the next value belongs to a refused key


class _Builder:
    def __init__(self, file: str, problems: list[Problem], merge_keys: bool) -> None:
        self._file = file
        self._problems = problems
        self._merge_keys = merge_keys
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._root: Node | None = None

    def build(self, text: str) -> Mapping:
        documents = 0
        try:
            for event in YAML(typ="safe", pure=True).parse(text):
                documents += isinstance(event, DocumentStartEvent)
                if documents > 1:
                    raise self._stop(self._mark(event), "a second document starts here; a file may hold only one")
                self._take(event)
        except MarkedYAMLError as error:
            raise self._syntax(error, text) from None
        except ReaderError as error:
            message = f"the control character U+{ord(text[error.position]):04X} is not allowed"
            raise self._stop(_place(self._file, text, error.position), message) from None
        except ValueError:  # the parser passes all eight-digit hex numbers to chr(), which rejects large ones
            escape = _TOO_HIGH.search(text)
            raise self._stop(
                _place(self._file, text, escape.start() if escape else 0), "an escape beyond U+10FFFF"
            ) from None
        if self._root is None or (isinstance(self._root, Scalar) and self._root.value is None):
            raise self._stop(Mark(self._file), "the file is empty; it must start with `version: 1`")
        if not isinstance(self._root, Mapping):
            raise self._stop(self._root.mark, "expected keys and values at the top level")
        return self._root

    def _take(self, event: Event) -> None:
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            self._refuse_tag(event)
            mark = self._mark(event)
            if len(self._open) == MAX_DEPTH:
                raise self._stop(mark, f"nested deeper than {MAX_DEPTH} levels")
            node = Mapping(mark, {}) if isinstance(event, MappingStartEvent) else Sequence(mark, [])
            self._open.append(_Open(node, event.anchor))
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            closed = self._open.pop()
            self._add(closed.node, closed.anchor)
        elif isinstance(event, ScalarEvent):
            self._refuse_tag(event)
            value = event.value if event.style else plain_value(event.value)
            if any(0xD800 <= ord(char) <= 0xDFFF for char in event.value):
                raise self._stop(self._mark(event), "a lone surrogate is not valid text")
            mark = self._mark(event)
            if value is None and not event.value and self._open and self._open[-1].key is not None:
                mark = self._open[-1].key_mark  # an omitted value: the parser's position is the next token
            self._add(Scalar(mark, value), event.anchor, event.value)
        elif isinstance(event, AliasEvent):
            self._add(self._resolve(event), None, at=self._mark(event))

    def _refuse_tag(self, event: MappingStartEvent | SequenceStartEvent | ScalarEvent) -> None:
        if event.tag is not None:
            self._problems.append(
                problem(self._mark(event), self._path(), "tags (`!...`) are not allowed; write plain YAML")
            )

    def _resolve(self, event: AliasEvent) -> Node:
        node = self._anchors.get(event.anchor)
        if node is not None:
            return node
        if any(opened.anchor == event.anchor for opened in self._open):
            raise self._stop(self._mark(event), "this alias refers to a node that contains it")
        raise self._stop(self._mark(event), "unknown alias; no anchor of this name comes before it")

    def _add(self, node: Node, anchor: str | None, key: str | None = None, at: Mark | None = None) -> None:
        """Adds a complete node to its parent. `key` is its text if it can be a key, `at` the position of an alias."""
        if anchor:
            self._anchors[anchor] = node
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent.node, Mapping) and parent.key is None:
            self._name(parent, node, key)
            return
        parent.node.size += node.size
        if sum(opened.node.size for opened in self._open) > MAX_NODES:
            raise self._stop(at or node.mark, f"more than {MAX_NODES:,} values once aliases are expanded")
        if isinstance(parent.node, Sequence):
            parent.node.items.append(node)
            return
        if parent.keep and parent.key is not None:
            parent.node.entries[parent.key] = Entry(parent.key_mark, node)
        parent.key = None

    def _name(self, parent: _Open, node: Node, key: str | None) -> None:
        """Handles a node that is a key: remembers it, or refuses it together with its value."""
        parent.key, parent.key_mark, parent.keep = "?" if key is None else key, node.mark, True
        wrong = None
        entries = parent.node.entries if isinstance(parent.node, Mapping) else {}
        if key is None:
            wrong = "a key must be plain text"
        elif key == "<<" and not self._merge_keys:
            wrong = "merge keys (`<<`) are not part of YAML 1.2; write the keys out"
        elif key in entries:
            wrong = f"duplicate key; it first appears in line {entries[key].mark.line}"
        if wrong:
            parent.keep = False
            self._problems.append(problem(node.mark, self._path(), wrong))

    def _path(self) -> Path:
        return tuple(
            str(len(opened.node.items)) if isinstance(opened.node, Sequence) else opened.key or ""
            for opened in self._open
            if isinstance(opened.node, Sequence) or opened.key is not None
        )

    def _mark(self, event: Event) -> Mark:
        return Mark(self._file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _stop(self, mark: Mark, message: str) -> ConfigError:
        return ConfigError([problem(mark, (), message)])

    def _syntax(self, error: MarkedYAMLError, text: str) -> ConfigError:
        """The parser's error in plain words. The parser cannot continue, so this is the last problem of the file."""
        at = error.problem_mark or error.context_mark
        mark = Mark(self._file, at.line + 1, at.column + 1)
        lines = text.split("\n")
        line = lines[at.line] if at.line < len(lines) else ""
        tab = line.find("\t", 0, at.column + 1)
        if tab >= 0 and not line[:tab].strip():
            return self._stop(Mark(self._file, mark.line, tab + 1), "a tab character; YAML is indented with spaces")
        started = ""
        if error.context and error.context_mark and error.context_mark.line != at.line:
            started = f" ({error.context} that starts in line {error.context_mark.line + 1})"
        return self._stop(mark, f"not valid YAML: {error.problem}{started}")
