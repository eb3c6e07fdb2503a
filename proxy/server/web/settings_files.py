"""Performs I/O: the files behind the page of settings: read, written with a backup, and the versions before.

Everything here may block; it runs on a thread. Nothing is overwritten that changed since its reader saw it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from msgspec import Struct

from proxy.config import ConfigError
from proxy.config.files import PRICING, ROUTING, is_installed, keep_copy, shipped, write_all
from proxy.config.keys_file import VARIABLE, set_key
from proxy.config.load import version_of
from proxy.config.source import ConfigFiles
from proxy.schema.errors import Conflict, ProxyError
from proxy.server.history import keep_files
from proxy.storage.base import StoreError
from proxy.storage.configurations import ConfigStore
from proxy.storage.sqlite import sqlite_path

MAX_SHOWN_VERSIONS = 20
_COPY = "Copy the text below into the file yourself."


class Texts(Struct, frozen=True):
    """Both files. `pricing` None: there is no such file. `version`: of the files they were read from."""

    routing: str
    pricing: str | None
    version: str


class FilesChanged(Conflict):
    """The files are not those that the form was made of."""

    def __init__(self) -> None:
        message = (
            "The files have changed on disk since this page was loaded. Nothing was saved, and nothing overwritten. "
            "What you typed is below: load the page again in another tab, and repeat it there."
        )
        super().__init__(message)


class NotWritten(Conflict):
    """The files cannot be written; nothing has changed."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why} Nothing was saved.")


class SettingsFiles:
    """`url`: of the database, which keeps versions."""

    def __init__(self, files: ConfigFiles, url: Callable[[], str]) -> None:
        self._files = files
        self._url = url

    @property
    def names(self) -> list[str]:
        """The paths, for people."""
        return [str(path) for path in self._files.paths]

    def read(self) -> Texts:
        """The files as they are. Raises ConfigError."""
        routing, *pricing = self._files.texts()
        try:
            texts = [text.decode("utf-8") for text in (routing, *pricing)]
        except UnicodeDecodeError:
            raise Conflict("The files are not UTF-8. Save them as UTF-8 first.") from None
        return Texts(texts[0], texts[1] if pricing else None, version_of(routing, *pricing))

    def why_read_only(self) -> str:
        """Why no settings can be saved; empty: they can."""
        return _why_read_only(self._files.paths[0])

    def save(self, texts: Texts) -> tuple[str, list[str]]:
        """Writes the files that differ, both or none, after a backup of each. Returns the new version and the paths.

        `texts.version` is the one that the change is based on. Raises FilesChanged, NotWritten and ConfigError.
        """
        with _alone(self._files.paths[0].resolve().parent):
            before = self._files.texts()
            if version_of(*before) != texts.version:
                raise FilesChanged
            given = [texts.routing, *([] if texts.pricing is None else [texts.pricing])]
            after = [text.encode() for text in given][: len(before)]
            after += before[len(after) :]
            changed = {path: new for path, old, new in zip(self._files.paths, before, after, strict=True) if old != new}
            if why := next(filter(None, map(_why_read_only, changed)), ""):
                raise NotWritten(f"{why} {_COPY}")
            try:
                self._keep(changed)
                write_all(changed)
            except ConfigError as error:
                raise NotWritten(f"{error}. {_COPY}") from None
        return version_of(*after), [str(path) for path in changed]

    def set_key(self, variable: str, key: str | None) -> None:
        """Writes one provider's key to the file for them; None takes it away. Raises ValueError, NotWritten."""
        path = self._files.keys_file
        if path is None:
            raise NotWritten(f"{VARIABLE} names no file for keys.")
        try:
            with _alone(path.resolve().parent):
                set_key(path, variable, key)
        except ConfigError as error:
            raise NotWritten(f"{error}.") from None
        except OSError as error:
            raise NotWritten(f"{path}: {(error.strerror or type(error).__name__).lower()}.") from None

    def _keep(self, changed: dict[Path, bytes]) -> None:
        """The files as they are, as a version in the database and beside the files."""
        with suppress(StoreError):  # the copies beside the files remain
            keep_files(self._files, self._store())
        for path in changed:
            keep_copy(path)

    def versions(self) -> list[tuple[str, int | None]]:
        """The latest versions that servers have run or that were replaced; none if the database cannot be read."""
        try:
            return self._store().names(MAX_SHOWN_VERSIONS)
        except StoreError:
            return []

    def of_version(self, version: str, base: Texts) -> Texts:
        """The files of a version, as a change of `base`. Raises ProxyError 404, 503."""
        try:
            found = [each for each in self._store().find(version) if each.version == version]
        except StoreError as error:
            raise ProxyError(str(error), status=503, code="storage_unavailable") from None
        if not found:
            raise ProxyError("There is no such version.", status=404, code="not_found", param="version")
        pricing = None if found[0].pricing is None else found[0].pricing.decode("utf-8", "replace")
        return Texts(found[0].routing.decode("utf-8", "replace"), self._prices(pricing, base), base.version)

    def has_run(self, texts: Texts) -> bool:
        """True for files that nobody has edited in a page: the shipped ones, and an earlier version as it was."""
        if texts.routing == self.defaults(texts).routing:
            return True
        version = version_of(texts.routing.encode(), *([] if texts.pricing is None else [texts.pricing.encode()]))
        try:
            return any(each.version == version for each in self._store().find(version))
        except StoreError:
            return False

    def defaults(self, base: Texts) -> Texts:
        """The shipped files, as a change of `base`."""
        texts = {name: path.read_text("utf-8") for name in (ROUTING, PRICING) if (path := shipped(name))}
        return Texts(texts.get(ROUTING, base.routing), self._prices(texts.get(PRICING), base), base.version)

    def _prices(self, pricing: str | None, base: Texts) -> str | None:
        """Prices are written only where the server reads them from a file."""
        return None if base.pricing is None else pricing or base.pricing

    def _store(self) -> ConfigStore:
        return ConfigStore(sqlite_path(self._url()))


def _why_read_only(path: Path) -> str:
    if is_installed(path):
        return f"{path} belongs to the installed package. Create your own files with `proxy init`."
    folder = path.resolve().parent
    return "" if os.access(folder, os.W_OK) else f"{folder} is read-only for the server."


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two pages of two workers save one after the other. Some file systems have no locks: there the check of the
    version has to do. Raises NotWritten.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise NotWritten(f"{folder} cannot be read by the server: {why}.") from None
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
