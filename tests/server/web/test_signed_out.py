"""Sessions that ended before their cookies did."""

from __future__ import annotations

import os
import time
from pathlib import Path

from proxy.server.web.sessions import SESSION_S, new_session
from proxy.server.web.signed_out import SignedOut


def test_every_worker_knows_who_signed_out(tmp_path: Path) -> None:
    """By the folder that they share, also one that starts later; what is older than any cookie is forgotten."""
    session, other = new_session(b"key"), new_session(b"key")
    first, second, alone = SignedOut(tmp_path), SignedOut(tmp_path), SignedOut(None)
    for each in (first, alone):
        each.add(session)
    assert all(session in each and other not in each for each in (first, second, alone, SignedOut(tmp_path)))
    assert session not in SignedOut(None)
    (file,) = tmp_path.iterdir()
    assert session.id not in file.name
    os.utime(file, (time.time() - SESSION_S - 60,) * 2)
    second.add(other)
    assert len(list(tmp_path.iterdir())) == 1 and other in first
