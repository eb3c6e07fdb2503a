"""Files that are written anew stay whose they were."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from proxy.config.files import write_all, write_file


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_keeps_its_owner_and_its_mode(tmp_path: Path) -> None:
    """A server that runs as root must not take the operator's file away from them."""
    path = tmp_path / "routing_rules.yaml"
    path.write_text("version: 1\n")
    path.chmod(0o640)
    os.chown(path, 1_234, 5_678)
    write_all({path: b"version: 1\nrouter: {}\n"})
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1_234, 5_678, 0o640)


def test_an_owner_that_cannot_be_kept_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    path = tmp_path / "routing_rules.yaml"
    path.write_text("version: 1\n")
    monkeypatch.setattr(os, "chown", refused)
    write_file(path, b"version: 1\nrouter: {}\n")
    assert path.read_text() == "version: 1\nrouter: {}\n" and os.listdir(tmp_path) == [path.name]
