"""Performs I/O: the rows of stored prompts, inside the caller's transaction."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
from msgspec import structs

from proxy.schema.prompts import Brought, LabelMove, PromptHead, PromptVersion
from proxy.storage.base import Refusal

MAX_PROMPTS = 5_000
MAX_VERSIONS = 5_000  # of one prompt
MAX_MOVES = 10_000  # of the labels of one prompt
MAX_LABELS = 100  # of one prompt, including removed ones
MAX_PAGE_BYTES = 1_000_000  # of the versions read at once, after the first
MAX_EXPORT_BYTES = 900_000  # of all versions in one file, which may have 1 MB
HEADS = "SELECT id, name, revision, created_ns, archived_ns FROM prompts"
IDS = "SELECT id FROM prompts WHERE archived_ns IS NULL ORDER BY id LIMIT ?"
_LIVE = "SELECT version FROM prompt_versions WHERE prompt = ? AND archived_ns IS NULL ORDER BY version"
# In a query with MAX, bare columns come from the row with the maximum.
_LABELS = "SELECT label, version, MAX(seq) FROM prompt_labels WHERE prompt = ? GROUP BY label"
VERSIONS = "SELECT version, created_ns, archived_ns, content FROM prompt_versions WHERE prompt = ?"
MOVES = "SELECT label, version, moved_ns, moved_by, note FROM prompt_labels WHERE prompt = ? ORDER BY seq DESC LIMIT ?"
SIZE = """
    SELECT IFNULL(SUM(LENGTH(content)), 0) FROM prompt_versions
    WHERE archived_ns IS NULL AND prompt IN (SELECT id FROM prompts WHERE archived_ns IS NULL AND id = IFNULL(?, id))
"""
_ADD = "INSERT INTO prompts (id, name, revision, created_ns) VALUES (?, ?, 1, ?)"
_ADD_VERSION = "INSERT INTO prompt_versions (prompt, version, created_ns, content) VALUES (?, ?, ?, ?)"
_NEWEST = "SELECT IFNULL(MAX(version), 0) FROM prompt_versions WHERE prompt = ?"
_MOVE = """
    INSERT INTO prompt_labels (prompt, label, seq, version, moved_ns, moved_by, note)
    SELECT ?1, ?2, IFNULL(MAX(seq), 0) + 1, ?3, ?4, ?5, ?6 FROM prompt_labels WHERE prompt = ?1
"""
_CHANGED = "UPDATE prompts SET revision = revision + 1, name = ?, archived_ns = ? WHERE id = ?"
ARCHIVE_VERSION = "UPDATE prompt_versions SET archived_ns = ? WHERE prompt = ? AND version = ?"
_OUTSIDE = ("version", "created_ns", "archived_ns")  # columns of their own


class PromptRefused(Refusal):
    """The change does not fit what is stored. `kind`: exists, unknown, changed, archived, in_use, full
    or large."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def unknown_version(head: PromptHead, version: int) -> str:
    """The message for a version that cannot be used."""
    shown = ", ".join(map(str, head.live[-10:])) or "none"
    first = "the last ones are " if len(head.live) > 10 else ""
    return f"{head.id} has no version {version}. Versions: {first}{shown}."


def taking_part(what: str, experiment: str) -> str:
    return f"{what} takes part in the running experiment {experiment}. Stop it first."


def head_of(db: sqlite3.Connection, prompt: str) -> PromptHead | None:
    row = db.execute(HEADS + " WHERE id = ?", (prompt,)).fetchone()
    return None if row is None else with_parts(db, row)


def with_parts(db: sqlite3.Connection, row: tuple[Any, ...]) -> PromptHead:
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


def open_head(db: sqlite3.Connection, prompt: str, revision: int | None, *, archived: bool = False) -> PromptHead:
    """The prompt before a change. Raises PromptRefused."""
    head = head_of(db, prompt)
    if head is None:
        raise PromptRefused("unknown", f"There is no prompt {prompt}.")
    if revision is not None and revision != head.revision:
        message = (
            f'{prompt} has changed since you read it: its ETag is now "{head.revision}". '
            "Read it again, then repeat the change."
        )
        raise PromptRefused("changed", message)
    if head.archived_ns is not None and not archived:
        raise PromptRefused("archived", f"{prompt} is archived. Restore it first.")
    return head


def create(db: sqlite3.Connection, head: PromptHead, first: PromptVersion, by: str | None) -> PromptHead:
    if (found := head_of(db, head.id)) is not None:
        state = (
            "archived, and can be restored" if found.archived_ns is not None else "already there; add a version to it"
        )
        raise PromptRefused("exists", f"The prompt {head.id} is {state}.")
    (count,) = db.execute("SELECT COUNT(*) FROM prompts").fetchone()
    if count >= MAX_PROMPTS:
        raise PromptRefused("full", f"There are already {count} prompts, the maximum.")
    db.execute(_ADD, (head.id, head.name, head.created_ns))
    _add_version(db, head.id, structs.replace(first, version=1))
    for label in head.labels:
        move(db, head.id, LabelMove(label, 1, head.created_ns, by))
    return structs.replace(head, labels=dict.fromkeys(head.labels, 1), live=(1,), revision=1)


def bring(db: sqlite3.Connection, prompt: Brought, now_ns: int, by: str | None) -> list[int]:
    """The numbers of the versions of a file. Existing versions keep theirs."""
    head = head_of(db, prompt.id)
    known: dict[str, int] = {}
    if head is None:
        first = structs.replace(prompt.versions[0], created_ns=now_ns)
        head = create(db, PromptHead(id=prompt.id, name=prompt.name, created_ns=now_ns), first, by)
        is_changed = False
        known[_content(first)] = 1
    else:
        head, is_changed = open_head(db, prompt.id, None), head.name != prompt.name
        rows = db.execute(VERSIONS + " AND archived_ns IS NULL ORDER BY version", (prompt.id,))
        known = {content: version for version, _, _, content in rows}
    numbers = []
    for version in prompt.versions:
        content = _content(version)
        if content not in known:
            known[content] = add_next(db, prompt.id, structs.replace(version, created_ns=now_ns)).version
            is_changed = True
        numbers.append(known[content])
    for label, place in prompt.labels.items():
        if head.labels.get(label) != numbers[place]:
            move(db, prompt.id, LabelMove(label, numbers[place], now_ns, by))
            is_changed = True
    if is_changed:
        changed(db, head, prompt.name, None)
    return numbers


def add_next(db: sqlite3.Connection, prompt: str, version: PromptVersion) -> PromptVersion:
    (newest,) = db.execute(_NEWEST, (prompt,)).fetchone()
    if newest >= MAX_VERSIONS:
        raise PromptRefused("full", f"{prompt} already has {newest} versions, the maximum.")
    added = structs.replace(version, version=newest + 1)
    _add_version(db, prompt, added)
    return added


def _add_version(db: sqlite3.Connection, prompt: str, version: PromptVersion) -> None:
    db.execute(_ADD_VERSION, (prompt, version.version, version.created_ns, _content(version)))


def _content(version: PromptVersion) -> str:
    fields = {name: value for name, value in structs.asdict(version).items() if name not in _OUTSIDE}
    return msgspec.json.encode(fields).decode()


def move(db: sqlite3.Connection, prompt: str, move: LabelMove) -> None:
    counts = db.execute("SELECT COUNT(*), COUNT(DISTINCT label) FROM prompt_labels WHERE prompt = ?", (prompt,))
    moves, labels = counts.fetchone()
    is_new = db.execute("SELECT 1 FROM prompt_labels WHERE prompt = ? AND label = ?", (prompt, move.label)).fetchone()
    if moves >= MAX_MOVES:
        raise PromptRefused("full", f"The labels of {prompt} have been moved {moves} times, the maximum.")
    if is_new is None and labels >= MAX_LABELS:
        raise PromptRefused("full", f"{prompt} has had {labels} different labels, the maximum.")
    db.execute(_MOVE, (prompt, move.label, move.version, move.moved_ns, move.by, move.note))


def changed(db: sqlite3.Connection, head: PromptHead, name: str, archived_ns: int | None) -> PromptHead:
    """The prompt after a change."""
    db.execute(_CHANGED, (name, archived_ns, head.id))
    after = head_of(db, head.id)
    if after is None:
        raise RuntimeError("the row disappeared within its transaction")
    return after


def version_of(row: tuple[Any, ...]) -> PromptVersion:
    version, created_ns, archived_ns, content = row
    fields = {**msgspec.json.decode(content), "version": version, "created_ns": created_ns, "archived_ns": archived_ns}
    return msgspec.convert(fields, PromptVersion)
