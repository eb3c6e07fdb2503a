"""Files that are written anew stay whose they were."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config.files import finish_saving, write_all, write_file
from proxy.config.problems import ConfigError
from proxy.config.source import ConfigFiles

# Dies just before a file takes another one's place for the n-th time: the note, routing_rules.yaml, pricing.yaml.
_DIES = """
import os, sys
from pathlib import Path
from proxy.config.files import write_all
left = [int(sys.argv[1])]
def die(event, _):
    if event == "os.rename":
        left[0] -= 1
        if not left[0]:
            os._exit(9)
sys.addaudithook(die)
routing, pricing = (Path(sys.argv[2]) / name for name in ("routing_rules.yaml", "pricing.yaml"))
write_all({routing: routing.read_bytes() + b"budget: {daily_usd: 2}\\n", pricing: b"version: 1\\n# new\\n"})
"""


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


@pytest.mark.parametrize(("dies_at", "is_new"), [(1, False), (2, True), (3, True), (4, True)])
def test_a_save_that_a_crash_interrupts_is_finished_at_the_next_start(
    tmp_path: Path, dies_at: int, is_new: bool
) -> None:
    """Both files are new or both are old, never one of each, and the start says so."""
    routing, pricing = tmp_path / "routing_rules.yaml", tmp_path / "pricing.yaml"
    routing.write_text("version: 1\nproviders: {openai: {}}\nrouter: {default_model: openai/a}\n")
    pricing.write_text("version: 1\n")
    program = [sys.executable, "-c", _DIES, str(dies_at), str(tmp_path)]
    done = subprocess.run(program, check=False, timeout=60)
    assert done.returncode == (0 if dies_at == 4 else 9)
    if dies_at == 3:
        assert ("daily_usd" in routing.read_text(), "new" in pricing.read_text()) == (True, False)
    config = ConfigFiles(routing, pricing, {}).load()
    assert ("daily_usd" in routing.read_text(), "new" in pricing.read_text()) == (is_new, is_new)
    said = [notice for notice in config.notices if "interrupted" in notice]
    assert len(said) == {1: 0, 2: 2, 3: 1, 4: 0}[dies_at]
    assert not (tmp_path / ".routing_rules.yaml.saving").exists()
    assert finish_saving([routing, pricing]) == []


def test_a_note_moves_no_other_file(tmp_path: Path) -> None:
    """Only files of a save beside the files of the configuration; a note that cannot be read is said."""
    routing, other, new = tmp_path / "routing_rules.yaml", tmp_path / "other", tmp_path / ".other.x.new"
    for file in (routing, other, new):
        file.write_text(file.name)
    note = tmp_path / ".routing_rules.yaml.saving"
    for pairs in (f'[["{new}", "{other}"]]', f'[["{other}", "{routing}"]]', f'[["/tmp/x.new", "{routing}"]]'):
        note.write_text(pairs)
        assert finish_saving([routing]) == []
    assert {file.read_text() for file in (routing, other, new)} == {routing.name, other.name, new.name}
    note.write_text("{")
    with pytest.raises(ConfigError, match="compare the files"):
        finish_saving([routing])


def test_files_that_cannot_all_be_written_stay_as_they_were(tmp_path: Path) -> None:
    """The second one cannot take the place of a folder."""
    first, second = tmp_path / "routing_rules.yaml", tmp_path / "pricing.yaml"
    first.write_text("old")
    second.mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        write_all({first: b"new", second: b"new"})
    assert first.read_text() == "old" and sorted(os.listdir(tmp_path)) == ["pricing.yaml", "routing_rules.yaml"]
