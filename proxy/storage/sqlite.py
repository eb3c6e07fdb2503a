"""Performs I/O: the SQLite store. One connection writes, from one thread.

WAL lets readers and the writer work at the same time, and several processes share the file. A committed transaction
survives kill -9 with `durability: process` (synchronous=NORMAL), and a power loss with `power` (an fsync per commit).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec.structs import replace

from proxy.storage import rescue, rollups
from proxy.storage.base import Answers, Refusal, RowRefused, StoreBusy, StoreError
from proxy.storage.batch import Batch
from proxy.storage.kept_answers import lose_claims_of
from proxy.storage.migrations import migrate
from proxy.storage.owners import LEASE_S, Owners
from proxy.storage.reader import SqliteReader
from proxy.storage.rescue import Files
from proxy.storage.rows import lose_calls_of, put

_SYNCHRONOUS = {"process": "PRAGMA synchronous=NORMAL", "power": "PRAGMA synchronous=FULL"}
# sqlite3 looks for an adapter for every value that is not an int, float or str. For None it looks in five places, and
# such columns are a third of what a call writes. This adapter finds nothing either, but at once.
sqlite3.register_adapter(type(None), dict[None, None]().get)
_WAL_LIMIT = "PRAGMA journal_size_limit=67108864"  # shrinks a log that a long read made grow
_ROW_FAULTS = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError)
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)


def sqlite_path(url: str) -> Path:
    """The file of `sqlite:///relative.db` or `sqlite:////absolute.db`. Raises StoreError for any other URL."""
    scheme, separator, path = url.partition(":///")
    if scheme != "sqlite" or not separator or not path:
        raise StoreError(
            f"storage.url {url!r} is not supported. Write it as sqlite:///file.db, or sqlite:////path/to/file.db."
        )
    return Path(path)


class SqliteStore(SqliteReader):
    """A `Store` on one SQLite file. `busy_s`: how long a transaction waits for other processes, in seconds."""

    def __init__(
        self,
        path: Path,
        *,
        durability: str = "process",
        busy_s: float = 2.0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        # SQLite's logs and our locks are next to the file, not next to a link
        super().__init__(Path(os.path.realpath(path)), busy_s)
        self._synchronous = _SYNCHRONOUS[durability]
        self._clock_ns = clock_ns
        self._owners = Owners(self._path)
        self._renewed_at = 0.0
        self._ended = 0  # calls ended since the last summing up
        self._db: sqlite3.Connection | None = None
        self._files: Files = ()  # opened by the connection
        self._since_ns = 0
        self._orphan: tuple[sqlite3.Connection, Files, int] | None = (
            None  # its file is gone, and its rows are not saved yet
        )

    @property
    def owner(self) -> str:
        """The id in the rows of this process; empty until `open`."""
        return self._owners.id

    def open(self) -> None:
        try:
            self._create_file()
            if os.stat(self._path).st_nlink > 1:
                raise StoreError("it has another name (a hard link), so SQLite could keep two logs for it; remove one")
            self._connect()  # first, so that a refused database gets no owners folder
            self._owners.enter()
            self.write(Batch())
        except (OSError, sqlite3.Error, StoreError) as error:
            self.close()
            reason = error.strerror if isinstance(error, OSError) else error
            kind = StoreBusy if isinstance(error, StoreBusy) or _is_busy(error) else StoreError
            raise kind(
                f"Cannot use the usage database {self._path}: {reason}. "
                "Make sure that its directory exists and can be written, or name another file with --db."
            ) from error

    def write(self, batch: Batch) -> Answers:
        with self._errors():
            db = self._connected()
            self._owners.hold()
            try:
                with _transaction(db):
                    answers = put(db, batch, self.owner)
                    self._renew(db, even_if_fresh=not batch)
            except Exception as error:
                if _is_fault_of_store(error):
                    raise
                return self._write_apart(db, batch)
            self._sum_up(db, len(batch.closed))
            return answers

    def _sum_up(self, db: sqlite3.Connection, ended: int = rollups.AT_ONCE) -> None:
        """Sums ended calls up once there are many. If that fails, they stay listed, and still count."""
        self._ended += ended
        if self._ended >= rollups.AT_ONCE:
            self._ended = 0
            with suppress(sqlite3.Error), _transaction(db):
                rollups.sum_up(db)

    def sweep(self, now_ns: int) -> int:
        with self._errors():
            db = self._connected()
            self._owners.hold()
            with _transaction(db):
                self._renew(db, even_if_fresh=True)
            self._sum_up(db)
            rows = db.execute("SELECT DISTINCT owner FROM calls WHERE closed_ns IS NULL").fetchall()
            leases = self._owners.leases(db)
            swept = 0
            others = ({owner for (owner,) in rows} | leases.keys() | self._owners.lock_files()) - {self.owner}
            for owner in sorted(others):
                with self._owners.dead(owner, leases.get(owner), self._clock_ns()) as is_dead:
                    if is_dead:
                        with _transaction(db):
                            swept += lose_calls_of(db, owner, now_ns)
                            lose_claims_of(db, owner)
                            self._owners.end_lease(db, owner)
            return swept

    def close(self) -> None:
        has_lease = bool(self.owner)
        if self._db is not None and self.owner:
            with suppress(sqlite3.Error):
                self._owners.end_lease(self._db, self.owner)
                has_lease = False
        self._disconnect()
        self._owners.leave(has_lease)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(str(error)) from error
        except sqlite3.Error as error:
            self._after(error)
            raise (StoreBusy if _is_busy(error) else StoreError)(str(error)) from error

    def _renew(self, db: sqlite3.Connection, even_if_fresh: bool) -> None:
        """Renews our lease when due, and with every empty batch: only a write proves that writing works."""
        now = time.monotonic()
        if even_if_fresh or now > self._renewed_at + LEASE_S / 3:
            self._owners.renew(db, self._clock_ns())
            self._renewed_at = now

    def _create_file(self) -> None:
        # This only creates new files: closing a descriptor of an existing one would drop the POSIX locks of every
        # connection this process has on it (https://www.sqlite.org/howtocorrupt.html, 2.2). SQLite gives -wal and -shm
        # the same mode.
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _connected(self) -> sqlite3.Connection:
        """The connection. If its file is no longer at the path, raises StoreError once, then OSError and sqlite3.Error
        until the rows have been copied to the file now there, or to a new one.
        """
        if self._db is not None and not self._is_at_path():
            self._disconnect()
            raise StoreError(f"the database file {self._path} was removed or replaced while it was in use")
        return self._db or self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = self._open_file() if self._orphan is None else self._replace(*self._orphan)
        self._files, self._since_ns = rescue.file_and_logs(self._path), self._clock_ns()
        self._db, self._orphan = db, None
        self._owners.note(msgspec.json.encode(self._files))
        return db

    def _replace(self, orphan: sqlite3.Connection, files: Files, since_ns: int) -> sqlite3.Connection:
        """A connection to the file now at the path, or to a new one, with the rows of the orphan."""
        with rescue.one_at_a_time(self._path.parent):
            found = rescue.identity(self._path)
            if found == files[0]:  # moved away and back
                return orphan
            rescue.remove_logs(orphan, self._path, files)
            if found is None:
                rescue.recreate(orphan, self._path)
            db = self._open_file()
            try:
                with _transaction(db):
                    rescue.carry_over(orphan, db, since_ns)
            except BaseException:
                db.close()
                raise
            return db

    def _open_file(self) -> sqlite3.Connection:
        place = self._path.as_uri() + "?mode=rw"  # rw, not rwc: never replaces a missing file by an empty one
        before = rescue.identity(self._path)
        db = sqlite3.connect(place, uri=True, timeout=self._busy_s, isolation_level=None)
        try:
            _use_wal(db, time.monotonic() + self._busy_s)
            db.execute(self._synchronous)
            db.execute(_WAL_LIMIT)
            rollups.prepare(db)
            migrate(db)
            if rescue.identity(self._path) != before:
                raise StoreError("it was replaced while it was opened")
        except BaseException:
            db.close()
            raise
        return db

    def _is_at_path(self) -> bool:
        try:
            return rescue.identity(self._path) == self._files[0]
        except OSError:
            return False

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is None:
            return
        if self._is_at_path():
            with suppress(sqlite3.Error):  # it is dropped anyway; the next connection reports the problem
                db.close()
        else:
            rescue.keep_open(db)
            self._orphan = (db, self._files, self._since_ns)

    def _after(self, error: sqlite3.Error) -> None:
        """Reconnects after errors, except for a full disk or a lock, which are temporary."""
        if getattr(error, "sqlite_errorcode", None) not in _PASSING:
            self._disconnect()

    def _write_apart(self, db: sqlite3.Connection, batch: Batch) -> Answers:
        """Writes call by call in one transaction, and attempt by attempt if a call's rows are refused."""
        answers = Answers()
        with _transaction(db):
            for call_id, part in batch.split().items():
                refusal = self._refusal(db, part, answers)
                if refusal is None:
                    continue
                has_ended = part.closed or any(ended.end.id in part.intents for ended in part.ended)
                if has_ended or not part.intents:  # sums would include attempts without rows
                    answers.calls[call_id] = refusal
                else:
                    self._admit_apart(db, call_id, part, answers)
        return answers

    def _admit_apart(self, db: sqlite3.Connection, call_id: str, part: Batch, answers: Answers) -> None:
        self._refusal(
            db, replace(part.changes(), withdrawn=part.withdrawn, unopened=part.unopened, ended=[], closed={}), answers
        )
        unopened: Refusal | None = None  # why the call, and with it each attempt, is refused
        for admission in part.admissions():
            refusal = unopened or self._refusal(db, admission, answers)
            refusal = refusal or next(
                (answers.admissions[name] for name in admission.intents if name in answers.admissions), None
            )
            if refusal is not None:
                unopened = refusal if admission.opened else unopened
                answers.admissions |= dict.fromkeys(admission.intents, refusal)
        if unopened is None and (refusal := self._refusal(db, part.changes(), answers)) is not None:
            answers.calls[call_id] = refusal

    def _refusal(self, db: sqlite3.Connection, part: Batch, answers: Answers) -> Refusal | None:
        """Writes a part of a batch as a whole. If its rows are refused, writes nothing and returns the reason.

        Attempts that do not fit their budgets are added to `answers`.
        """
        db.execute("SAVEPOINT part")
        try:
            written = put(db, part, self.owner)
            answers.admissions |= written.admissions
            answers.spending |= written.spending
        except Exception as error:
            if _is_fault_of_store(error):
                raise
            db.execute("ROLLBACK TO part")
            return error if isinstance(error, Refusal) else RowRefused(str(error))
        finally:
            if db.in_transaction:
                db.execute("RELEASE part")
        return None


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")  # takes the write lock at once: an upgrade of a read lock may fail without waiting
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _is_fault_of_store(error: Exception) -> bool:
    """False for faulty rows: a used id, a number beyond 64 bits, a text that is not Unicode, a wrong type."""
    return isinstance(error, sqlite3.Error) and not isinstance(error, _ROW_FAULTS)


def _is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _use_wal(db: sqlite3.Connection, until_s: float) -> None:
    # Processes that start together collide here, and SQLite does not wait for locks when it changes the journal mode.
    while True:
        try:
            mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise
            time.sleep(0.01)
        else:
            break
    if mode != "wal":
        raise StoreError("its file system does not support SQLite's write-ahead log; use a local disk")
