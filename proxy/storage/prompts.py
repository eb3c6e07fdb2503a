"""Performs I/O: stored prompts, in the usage database. Versions never change; labels keep every move.

Every call opens its own connection, as for keys, so that it works from any thread, and from the command line while a
server runs. A change is one transaction, which also increments the prompt's `revision`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from proxy.schema.prompts import Brought, LabelMove, PromptHead, PromptVersion
from proxy.storage import prompt_rows as rows
from proxy.storage.connections import connected
from proxy.storage.prompt_rows import PromptRefused
from proxy.storage.sqlite import SqliteStore

_WHAT = "stored prompts in the database"
InUse = Callable[[sqlite3.Connection, str, int | None], str | None]


def nobody(db: sqlite3.Connection, prompt: str, version: int | None) -> str | None:
    """The default for `in_use`: no experiment uses any prompt."""
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

    @property
    def is_there(self) -> bool:
        """False if there is no database yet, or one of an older version, and so no prompts. Raises StoreError."""
        if not self._path.exists():
            return False
        with self._reading() as db:
            return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'prompts'").fetchone() is not None

    # --- reading ------------------------------------------------------------------------------------------------------

    def heads(self, ids: Sequence[str]) -> dict[str, PromptHead]:
        """The prompts with these ids."""
        with self._reading() as db:
            return {head.id: head for each in ids if (head := rows.head_of(db, each)) is not None}

    def page(self, *, archived: bool = False, after: str = "", limit: int = rows.MAX_PROMPTS) -> list[PromptHead]:
        """The prompts by id, those after `after`. `archived`: archived ones too."""
        condition = "" if archived else " AND archived_ns IS NULL"
        with self._reading() as db:
            statement = rows.HEADS + " WHERE id > ?" + condition + " ORDER BY id LIMIT ?"
            found = db.execute(statement, (after, limit)).fetchall()
            return [rows.with_parts(db, row) for row in found]

    def ids(self, limit: int) -> list[str]:
        """The ids of prompts that can be used."""
        with self._reading() as db:
            return [found for (found,) in db.execute(rows.IDS, (limit,))]

    def version(self, prompt: str, version: int) -> PromptVersion | None:
        with self._reading() as db:
            row = db.execute(rows.VERSIONS + " AND version = ?", (prompt, version)).fetchone()
        return None if row is None else rows.version_of(row)

    def versions(self, prompt: str, before: int, limit: int) -> list[PromptVersion]:
        """The versions below `before`, newest first, archived ones too: at most `limit`, fewer if they are large."""
        statement = rows.VERSIONS + " AND version < ? ORDER BY version DESC LIMIT ?"
        found: list[PromptVersion] = []
        size = 0
        with self._reading() as db:
            for row in db.execute(statement, (prompt, before, limit)):
                size += len(row[-1])
                if found and size > rows.MAX_PAGE_BYTES:
                    break
                found.append(rows.version_of(row))
        return found

    def all(self, prompt: str | None = None) -> list[tuple[PromptHead, list[PromptVersion]]]:
        """The prompts that can be used (None: all of them), with their versions that can be used, oldest first.

        Raises PromptRefused if they are too large for one file.
        """
        with self._reading() as db:
            (size,) = db.execute(rows.SIZE, (prompt,)).fetchone()
            if size > rows.MAX_EXPORT_BYTES:
                hint = "Export them one by one." if prompt is None else "Archive unused versions."
                message = f"The prompts have {size // 1000} kB of text, too much for one file of 1 MB. {hint}"
                raise PromptRefused("large", message)
            statement = rows.HEADS + " WHERE archived_ns IS NULL AND id = IFNULL(?, id) ORDER BY id"
            heads = [rows.with_parts(db, row) for row in db.execute(statement, (prompt,)).fetchall()]
            query = rows.VERSIONS + " AND archived_ns IS NULL ORDER BY version"
            return [(head, [rows.version_of(row) for row in db.execute(query, (head.id,))]) for head in heads]

    def moves(self, prompt: str, limit: int) -> list[LabelMove]:
        """The moves of a prompt's labels, latest first."""
        with self._reading() as db:
            return [LabelMove(*row) for row in db.execute(rows.MOVES, (prompt, limit)).fetchall()]

    # --- changes ------------------------------------------------------------------------------------------------------

    def create(self, head: PromptHead, first: PromptVersion, by: str | None = None) -> PromptHead:
        """Creates a prompt with its first version and the labels of `head`."""
        with self._changing() as db:
            return rows.create(db, head, first, by)

    def bring(
        self, prompts: Sequence[Brought], now_ns: int, by: str | None = None, *, only_new: bool = False
    ) -> dict[str, list[int]]:
        """Adds the prompts of a file, all or none: new ids, versions whose content is not stored yet, and moves of
        labels. Returns id -> the numbers of their versions here. `only_new`: ids that are or were in use stay
        unchanged.
        """
        if only_new:
            with self._reading() as db:
                prompts = [each for each in prompts if rows.head_of(db, each.id) is None]
        if not prompts:
            return {}
        with self._changing() as db:
            return {
                each.id: rows.bring(db, each, now_ns, by)
                for each in prompts
                if not only_new or rows.head_of(db, each.id) is None
            }

    def add_version(
        self,
        prompt: str,
        version: PromptVersion,
        revision: int | None,
        labels: Sequence[str] = (),
        by: str | None = None,
    ) -> tuple[PromptHead, PromptVersion]:
        """Adds the next version, with these labels. Returns it and the prompt."""
        with self._changing() as db:
            head = rows.open_head(db, prompt, revision)
            added = rows.add_next(db, prompt, version)
            for label in labels:
                rows.move(db, prompt, LabelMove(label, added.version, version.created_ns, by))
            return rows.changed(db, head, head.name, None), added

    def move_label(self, prompt: str, move: LabelMove, revision: int | None) -> PromptHead:
        """Puts a label on a version, or takes it off."""
        with self._changing() as db:
            head = rows.open_head(db, prompt, revision)
            if move.version is not None and move.version not in head.live:
                raise PromptRefused("unknown", rows.unknown_version(head, move.version))
            if move.version is None and move.label not in head.labels:
                known = ", ".join(sorted(head.labels)) or "none"
                raise PromptRefused("unknown", f"{prompt} has no label {move.label}. Labels: {known}.")
            if head.labels.get(move.label) == move.version:
                return head
            rows.move(db, prompt, move)
            return rows.changed(db, head, head.name, None)

    def archive(self, prompt: str, revision: int | None, now_ns: int) -> PromptHead:
        """Ends the use of a prompt; nothing is deleted."""
        with self._changing() as db:
            head = rows.open_head(db, prompt, revision)
            if (experiment := self._in_use(db, prompt, None)) is not None:
                raise PromptRefused("in_use", rows.taking_part(prompt, experiment))
            return rows.changed(db, head, head.name, now_ns)

    def restore(self, prompt: str, revision: int | None) -> PromptHead:
        """Reverts `archive`."""
        with self._changing() as db:
            head = rows.open_head(db, prompt, revision, archived=True)
            return head if head.archived_ns is None else rows.changed(db, head, head.name, None)

    def archive_version(self, prompt: str, version: int, revision: int | None, now_ns: int) -> PromptHead:
        """Ends the use of one version. Its number is never used again."""
        with self._changing() as db:
            head = rows.open_head(db, prompt, revision)
            if version not in head.live:
                raise PromptRefused("unknown", rows.unknown_version(head, version))
            if (experiment := self._in_use(db, prompt, version)) is not None:
                raise PromptRefused("in_use", rows.taking_part(f"Version {version} of {prompt}", experiment))
            if labels := sorted(label for label, at in head.labels.items() if at == version):
                message = f"Version {version} of {prompt} has the label {labels[0]}. Move it to another version first."
                raise PromptRefused("in_use", message)
            if head.live == (version,):
                raise PromptRefused(
                    "in_use", f"Version {version} is the only one of {prompt}. Archive the prompt instead."
                )
            db.execute(rows.ARCHIVE_VERSION, (now_ns, prompt, version))
            return rows.changed(db, head, head.name, None)

    # --- connections --------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with connected(self._path, "ro", self._busy_s, _WHAT) as db:
            db.execute("BEGIN")  # one snapshot
            yield db

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when the block ends. After an error, closing the connection rolls it back."""
        if not self.is_there:
            store = SqliteStore(self._path, busy_s=self._busy_s)
            store.open()  # sets the file mode, the journal and the schema
            store.close()
        with connected(self._path, "rw", self._busy_s, _WHAT) as db:
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
