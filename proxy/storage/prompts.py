"""Performs I/O: stored prompts, in the usage database. Versions never change; labels keep every move.

Every call opens its own connection, as that of the keys does, so that it works from any thread, and from the command
line while a server runs. A change is one transaction, which also counts the prompt's `revision`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from proxy.schema.prompts import LabelMove, PromptHead, PromptVersion
from proxy.storage.base import Refusal
from proxy.storage.connections import connected
from proxy.storage.sqlite import SqliteStore

MAX_PROMPTS = 5_000
MAX_VERSIONS = 5_000  # of one prompt
MAX_MOVES = 10_000  # of the labels of one prompt
_WHAT = "stored prompts in the database"
_HEADS = "SELECT id, name, revision, created_ns, archived_ns FROM prompts"
_IDS = "SELECT id FROM prompts WHERE archived_ns IS NULL ORDER BY id LIMIT ?"
_LIVE = "SELECT version FROM prompt_versions WHERE prompt = ? AND archived_ns IS NULL ORDER BY version"
# The bare columns of a query with MAX are those of the row that has it.
_LABELS = "SELECT label, version, MAX(seq) FROM prompt_labels WHERE prompt = ? GROUP BY label"
_VERSIONS = "SELECT version, created_ns, archived_ns, content FROM prompt_versions WHERE prompt = ?"
_MOVES = "SELECT label, version, moved_ns, moved_by, note FROM prompt_labels WHERE prompt = ? ORDER BY seq DESC LIMIT ?"
_ADD = "INSERT INTO prompts (id, name, revision, created_ns) VALUES (?, ?, 1, ?)"
_ADD_VERSION = "INSERT INTO prompt_versions (prompt, version, created_ns, content) VALUES (?, ?, ?, ?)"
_NEWEST = "SELECT IFNULL(MAX(version), 0) FROM prompt_versions WHERE prompt = ?"
_MOVE = """
    INSERT INTO prompt_labels (prompt, label, seq, version, moved_ns, moved_by, note)
    SELECT ?1, ?2, IFNULL(MAX(seq), 0) + 1, ?3, ?4, ?5, ?6 FROM prompt_labels WHERE prompt = ?1
"""
_CHANGED = "UPDATE prompts SET revision = revision + 1, name = ?, archived_ns = ? WHERE id = ?"
_ARCHIVE_VERSION = "UPDATE prompt_versions SET archived_ns = ? WHERE prompt = ? AND version = ?"
_OUTSIDE = ("version", "created_ns", "archived_ns")  # columns of their own
InUse = Callable[[sqlite3.Connection, str, int | None], str | None]


class PromptRefused(Refusal):
    """The change does not fit what is stored. `kind`: exists, unknown, changed, in_use or full."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def nobody(db: sqlite3.Connection, prompt: str, version: int | None) -> str | None:
    """No experiment uses any prompt."""
    return None


class PromptStore:
    """The prompts of one SQLite file. `busy_s`: how long a call waits for other processes, in seconds. `in_use`: the
    name of the running experiment that a version (None: any version) of a prompt takes part in, read in the transaction
    that would archive it.

    All methods raise StoreError; those that change something PromptRefused too. `revision`: the one that the caller has
    seen; None: it does not matter.
    """

    def __init__(self, path: Path, *, busy_s: float = 2.0, in_use: InUse = nobody) -> None:
        self._path = path
        self._busy_s = busy_s
        self._in_use = in_use

    # --- reading ------------------------------------------------------------------------------------------------------

    def heads(self, ids: Sequence[str]) -> dict[str, PromptHead]:
        """The prompts with these ids."""
        with self._reading() as db:
            return {head.id: head for each in ids if (head := _head(db, each)) is not None}

    def page(self, *, archived: bool = False, after: str = "", limit: int = MAX_PROMPTS) -> list[PromptHead]:
        """The prompts by id, those after `after`. `archived`: archived ones too."""
        condition = "" if archived else " AND archived_ns IS NULL"
        with self._reading() as db:
            found = db.execute(_HEADS + " WHERE id > ?" + condition + " ORDER BY id LIMIT ?", (after, limit)).fetchall()
            return [_with_parts(db, row) for row in found]

    def ids(self, limit: int) -> list[str]:
        """The ids of prompts that can be used."""
        with self._reading() as db:
            return [found for (found,) in db.execute(_IDS, (limit,))]

    def version(self, prompt: str, version: int) -> PromptVersion | None:
        with self._reading() as db:
            row = db.execute(_VERSIONS + " AND version = ?", (prompt, version)).fetchone()
        return None if row is None else _version(row)

    def versions(self, prompt: str, before: int, limit: int) -> list[PromptVersion]:
        """The versions below `before`, newest first, archived ones too."""
        statement = _VERSIONS + " AND version < ? ORDER BY version DESC LIMIT ?"
        with self._reading() as db:
            return [_version(row) for row in db.execute(statement, (prompt, before, limit)).fetchall()]

    def moves(self, prompt: str, limit: int) -> list[LabelMove]:
        """Where the labels of a prompt were, latest first."""
        with self._reading() as db:
            return [LabelMove(*row) for row in db.execute(_MOVES, (prompt, limit)).fetchall()]

    # --- changes ------------------------------------------------------------------------------------------------------

    def create(self, head: PromptHead, first: PromptVersion, by: str | None = None) -> PromptHead:
        """A new prompt with its first version, and the labels of `head`."""
        with self._changing() as db:
            return _created(db, head, first, by)

    def create_missing(self, prompts: Sequence[tuple[PromptHead, PromptVersion]]) -> list[str]:
        """Creates those whose ids were never used; returns their ids."""
        with self._reading() as db:
            if all(_head(db, head.id) is not None for head, _ in prompts):
                return []
        with self._changing() as db:
            new = [(head, first) for head, first in prompts if _head(db, head.id) is None]
            return [_created(db, head, first, None).id for head, first in new]

    def add_version(
        self,
        prompt: str,
        version: PromptVersion,
        revision: int | None,
        labels: Sequence[str] = (),
        by: str | None = None,
    ) -> tuple[PromptHead, PromptVersion]:
        """The next version, and the prompt with it. `labels` are put on it."""
        with self._changing() as db:
            head = _open(db, prompt, revision)
            (newest,) = db.execute(_NEWEST, (prompt,)).fetchone()
            if newest >= MAX_VERSIONS:
                raise PromptRefused("full", f"{prompt} has {newest} versions, and may have no more.")
            added = structs.replace(version, version=newest + 1)
            _add_version(db, prompt, added)
            for label in labels:
                _move(db, prompt, LabelMove(label, added.version, version.created_ns, by))
            return _changed(db, head, head.name, None), added

    def move_label(self, prompt: str, move: LabelMove, revision: int | None) -> PromptHead:
        """Puts a label on a version, or takes it off."""
        with self._changing() as db:
            head = _open(db, prompt, revision)
            if move.version is not None and move.version not in head.live:
                raise PromptRefused("unknown", unknown_version(head, move.version))
            if move.version is None and move.label not in head.labels:
                known = ", ".join(sorted(head.labels)) or "none"
                raise PromptRefused("unknown", f"{prompt} has no label {move.label}. Labels: {known}.")
            if head.labels.get(move.label) == move.version:
                return head
            _move(db, prompt, move)
            return _changed(db, head, head.name, None)

    def archive(self, prompt: str, revision: int | None, now_ns: int) -> PromptHead:
        """Ends the use of a prompt; nothing is deleted."""
        with self._changing() as db:
            head = _open(db, prompt, revision)
            if (experiment := self._in_use(db, prompt, None)) is not None:
                raise PromptRefused(
                    "in_use", f"{prompt} takes part in the running experiment {experiment}. Stop it first."
                )
            return _changed(db, head, head.name, now_ns)

    def restore(self, prompt: str, revision: int | None) -> PromptHead:
        """Takes `archive` back."""
        with self._changing() as db:
            head = _open(db, prompt, revision, archived=True)
            return head if head.archived_ns is None else _changed(db, head, head.name, None)

    def archive_version(self, prompt: str, version: int, revision: int | None, now_ns: int) -> PromptHead:
        """Ends the use of one version. Its number is never used again."""
        with self._changing() as db:
            head = _open(db, prompt, revision)
            if version not in head.live:
                raise PromptRefused("unknown", unknown_version(head, version))
            if (experiment := self._in_use(db, prompt, version)) is not None:
                message = (
                    f"Version {version} of {prompt} takes part in the running experiment {experiment}. Stop it first."
                )
                raise PromptRefused("in_use", message)
            if labels := sorted(label for label, at in head.labels.items() if at == version):
                message = f"Version {version} of {prompt} has the label {labels[0]}. Move it to another version first."
                raise PromptRefused("in_use", message)
            if head.live == (version,):
                raise PromptRefused(
                    "in_use", f"Version {version} is the only one of {prompt}. Archive the prompt instead."
                )
            db.execute(_ARCHIVE_VERSION, (now_ns, prompt, version))
            return _changed(db, head, head.name, None)

    # --- connections --------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with connected(self._path, "ro", self._busy_s, _WHAT) as db:
            db.execute("BEGIN")  # one snapshot
            yield db

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when the block ends; rolled back after an error, since the connection closes."""
        if not self._path.exists():
            store = SqliteStore(self._path, busy_s=self._busy_s)
            store.open()  # its mode, its journal, its schema
            store.close()
        with connected(self._path, "rw", self._busy_s, _WHAT) as db:
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")


def unknown_version(head: PromptHead, version: int) -> str:
    """What to say of a version that cannot be used."""
    shown = ", ".join(map(str, head.live[-10:])) or "none"
    first = "the last ones are " if len(head.live) > 10 else ""
    return f"{head.id} has no version {version}. Versions: {first}{shown}."


def _taking_part(what: str, experiment: str) -> str:
    return f"{what} takes part in the running experiment {experiment}. Stop it first."


def _head(db: sqlite3.Connection, prompt: str) -> PromptHead | None:
    row = db.execute(_HEADS + " WHERE id = ?", (prompt,)).fetchone()
    return None if row is None else _with_parts(db, row)


def _with_parts(db: sqlite3.Connection, row: tuple[Any, ...]) -> PromptHead:
    prompt, name, revision, created_ns, archived_ns = row
    labels = {label: at for label, at, _ in db.execute(_LABELS, (prompt,)) if at is not None}
    live = tuple(version for (version,) in db.execute(_LIVE, (prompt,)))
    return PromptHead(
        id=prompt,
        name=name,
        labels=labels,
        live=live,
        revision=revision,
        created_ns=created_ns,
        archived_ns=archived_ns,
    )


def _open(db: sqlite3.Connection, prompt: str, revision: int | None, *, archived: bool = False) -> PromptHead:
    """The prompt as it is before a change. Raises PromptRefused."""
    head = _head(db, prompt)
    if head is None:
        raise PromptRefused("unknown", f"There is no prompt {prompt}.")
    if revision is not None and revision != head.revision:
        message = (
            f'{prompt} has changed meanwhile: its ETag is "{head.revision}". Read it again, then repeat the change.'
        )
        raise PromptRefused("changed", message)
    if head.archived_ns is not None and not archived:
        raise PromptRefused("archived", f"{prompt} is archived. Restore it first.")
    return head


def _created(db: sqlite3.Connection, head: PromptHead, first: PromptVersion, by: str | None) -> PromptHead:
    if (found := _head(db, head.id)) is not None:
        state = (
            "archived, and can be restored" if found.archived_ns is not None else "there already; add a version to it"
        )
        raise PromptRefused("exists", f"The prompt {head.id} is {state}.")
    (count,) = db.execute("SELECT COUNT(*) FROM prompts").fetchone()
    if count >= MAX_PROMPTS:
        raise PromptRefused("full", f"There are {count} prompts, and there may be no more.")
    db.execute(_ADD, (head.id, head.name, head.created_ns))
    _add_version(db, head.id, structs.replace(first, version=1))
    for label in head.labels:
        _move(db, head.id, LabelMove(label, 1, head.created_ns, by))
    return structs.replace(head, labels=dict.fromkeys(head.labels, 1), live=(1,), revision=1)


def _add_version(db: sqlite3.Connection, prompt: str, version: PromptVersion) -> None:
    fields = {name: value for name, value in structs.asdict(version).items() if name not in _OUTSIDE}
    content = msgspec.json.encode(fields).decode()
    db.execute(_ADD_VERSION, (prompt, version.version, version.created_ns, content))


def _move(db: sqlite3.Connection, prompt: str, move: LabelMove) -> None:
    (count,) = db.execute("SELECT COUNT(*) FROM prompt_labels WHERE prompt = ?", (prompt,)).fetchone()
    if count >= MAX_MOVES:
        raise PromptRefused("full", f"The labels of {prompt} were moved {count} times, and cannot be moved again.")
    db.execute(_MOVE, (prompt, move.label, move.version, move.moved_ns, move.by, move.note))


def _changed(db: sqlite3.Connection, head: PromptHead, name: str, archived_ns: int | None) -> PromptHead:
    """The prompt after a change."""
    db.execute(_CHANGED, (name, archived_ns, head.id))
    after = _head(db, head.id)
    if after is None:
        raise RuntimeError("the row has gone within its transaction")
    return after


def _version(row: tuple[Any, ...]) -> PromptVersion:
    version, created_ns, archived_ns, content = row
    fields = {**msgspec.json.decode(content), "version": version, "created_ns": created_ns, "archived_ns": archived_ns}
    return msgspec.convert(fields, PromptVersion)
