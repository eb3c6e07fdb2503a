"""Performs I/O: the sessions that were signed out, for all workers of one server.

A cookie that somebody has copied is as good as its own, so to sign out is more than to forget it. There is one empty
file for each session, in the folder that the workers share. A worker that starts anew finds it there; it ends with the
server, as the secret of the cookies does.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path

from proxy.server.web.sessions import SESSION_S, Session

_PREFIX = "signed-out-"


class SignedOut:
    """`folder` None: there is one process only, which remembers."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._ids: dict[str, float] = {}

    def add(self, session: Session) -> None:
        """From now on its cookie opens nothing. Forgets those whose cookies are too old by themselves."""
        name, now_s = _name(session), time.time()
        self._ids = {each: at for each, at in self._ids.items() if now_s - at <= SESSION_S} | {name: now_s}
        if self._folder is None:
            return
        (self._folder / name).touch()
        for file in self._folder.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # another worker was faster
                if now_s - file.stat().st_mtime > SESSION_S:
                    file.unlink()

    def __contains__(self, session: Session) -> bool:
        name = _name(session)
        return name in self._ids or (self._folder is not None and (self._folder / name).exists())


def _name(session: Session) -> str:
    return _PREFIX + hashlib.sha256(session.id.encode()).hexdigest()[:32]
