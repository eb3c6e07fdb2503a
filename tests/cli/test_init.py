"""`proxy init` writes two starter files and never destroys existing ones."""

from __future__ import annotations

import json

import pytest

from tests.cli.commands import ROOT, proxy

NAMES = ("routing_rules.yaml", "pricing.yaml")


def test_it_writes_the_shipped_files(tmp_path):
    """With their comments, and valid as they are."""
    done = proxy("init", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    assert proxy("check", cwd=tmp_path).returncode == 0


def test_it_says_which_keys_it_found_and_what_comes_next(tmp_path):
    """It names the variables, never their values."""
    done = proxy("init", cwd=tmp_path, GROQ_API_KEY="gsk_secret0123456789")
    lines = done.stdout.splitlines()
    assert "on: groq, local" in lines
    assert "off: openai: set OPENAI_API_KEY to enable it" in lines
    assert lines[-2:] == ["next:", "  proxy serve"]
    assert "secret" not in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_file_is_not_overwritten(tmp_path, name):
    """The other file is not written either: all or nothing."""
    (tmp_path / name).write_text("mine")
    done = proxy("init", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"proxy: {name} would be overwritten. --force replaces them, --dir selects another folder.\n"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_force_replaces_and_keeps_mode_and_link(tmp_path):
    """What a deployment set up stays set up."""
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "prices"
    real.write_text("mine")
    real.chmod(0o640)
    (tmp_path / "pricing.yaml").symlink_to(real)
    done = proxy("init", "--force", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "pricing.yaml").is_symlink()
    assert real.read_bytes() == (ROOT / "pricing.yaml").read_bytes()
    assert real.stat().st_mode & 0o777 == 0o640


def test_another_folder_is_created_and_named_in_the_next_step(tmp_path):
    """The printed command works as it is."""
    done = proxy("init", "--dir", "new/my files", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert answer["written"] == [f"new/my files/{name}" for name in NAMES]
    assert answer["next"] == (
        "proxy serve --config 'new/my files/routing_rules.yaml' --pricing 'new/my files/pricing.yaml'"
    )
    assert answer["providers"]["local"] == {"type": "embedded", "state": "on", "why": None}


def test_the_next_step_names_the_files_if_the_server_would_use_others(tmp_path):
    """PROXY_CONFIG points elsewhere."""
    done = proxy("init", cwd=tmp_path, PROXY_CONFIG="elsewhere.yaml")
    assert done.stdout.splitlines()[-1] == "  proxy serve --config routing_rules.yaml --pricing pricing.yaml"


def test_an_unwritable_folder_is_one_line(tmp_path):
    """Exit code 2."""
    (tmp_path / "file").write_text("")
    done = proxy("init", "--dir", "file/below", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "proxy: cannot write to file/below: not a directory\n"
