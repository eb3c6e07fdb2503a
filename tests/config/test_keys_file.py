"""The file of provider keys: lines of a variable and its key, for nobody else's eyes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from proxy.config.keys_file import read_keys, set_key
from proxy.config.problems import ConfigError
from proxy.config.source import ConfigFiles

ROUTING = "version: 1\nproviders: {openai: {}, groq: {}}\n"
KEY = "sk-a-key-that-no-message-repeats"


def test_keys_are_written_and_read(tmp_path: Path) -> None:
    """One by one; another one stays, and the file is this user's alone from its first byte."""
    path = tmp_path / "keys"
    assert read_keys(path) == {}
    set_key(path, "OPENAI_API_KEY", f" {KEY}\n")
    set_key(path, "GROQ_API_KEY", "gsk=with=signs")
    assert read_keys(path) == {"OPENAI_API_KEY": KEY, "GROQ_API_KEY": "gsk=with=signs"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    set_key(path, "OPENAI_API_KEY", None)
    set_key(path, "NEVER_SET", None)
    assert read_keys(path) == {"GROQ_API_KEY": "gsk=with=signs"}


def test_a_key_changes_its_own_line_only(tmp_path: Path) -> None:
    """Comments, blank lines and the order of others stay; of a variable that stands twice, the last one counts."""
    path = tmp_path / "keys"
    path.touch(0o600)
    before = "# Of the team.\n\nGROQ_API_KEY = first\n  # billed to research\nOPENAI_API_KEY=old\nGROQ_API_KEY=second"
    path.write_text(before)
    set_key(path, "OPENAI_API_KEY", KEY)
    assert path.read_text() == before.replace("=old", f"={KEY}") + "\n"
    set_key(path, "GROQ_API_KEY", "third")
    assert path.read_text() == f"# Of the team.\n\n  # billed to research\nOPENAI_API_KEY={KEY}\nGROQ_API_KEY=third\n"
    set_key(path, "OPENAI_API_KEY", None)
    set_key(path, "GROQ_API_KEY", None)
    assert path.read_text() == "# Of the team.\n\n  # billed to research\n"


def test_a_file_is_never_cut(tmp_path: Path) -> None:
    """One that is too large or not UTF-8 is refused as it is, and none grows beyond what can be read."""
    path = tmp_path / "keys"
    path.touch(0o600)
    longest = "".join(f"KEY_{number}={'k' * 4000}\n" for number in range(249))
    for data, message in (
        (b"#" * 1_000_001, "larger than 1 MB"),
        (f"{longest}LAST={'k' * 3000}\nCUT={'k' * 3000}\n".encode(), "larger than 1 MB"),
        (b"GROQ_API_KEY=\xff\n", "not UTF-8"),
    ):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=message):
            set_key(path, "OPENAI_API_KEY", KEY)
        with pytest.raises(ConfigError, match=message):
            read_keys(path)
        assert path.read_bytes() == data
    path.write_text(longest)
    with pytest.raises(ValueError, match="larger than 1 MB"):
        set_key(path, "OPENAI_API_KEY", "k" * 4_000)
    assert path.read_text() == longest


@pytest.mark.parametrize("key", ["", "  ", "two words", "line\nPROXY_ADMIN_KEY=x", "ключ", "k" * 4_097])
def test_what_no_header_carries_is_no_key(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        set_key(tmp_path / "keys", "OPENAI_API_KEY", key)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        (f"OPENAI_API_KEY={KEY}\n", 0o640, "chmod 600"),
        (f"{KEY}\n", 0o600, ":1:1: expected VARIABLE=key"),
        (f"# a comment\n\nPROXY_ADMIN_KEY={KEY}\n", 0o600, ":3:1: expected VARIABLE=key"),
    ],
)
def test_a_wrong_file_is_refused_without_its_keys(tmp_path: Path, text: str, mode: int, message: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigError) as refused:
        read_keys(path)
    assert message in str(refused.value) and KEY not in str(refused.value)


def test_the_environment_comes_first_and_changes_are_seen(tmp_path: Path) -> None:
    """An empty variable counts as unset. The version is that of the two files alone, and yet a new key is a change."""
    routing, path = tmp_path / "routing_rules.yaml", tmp_path / "keys"
    routing.write_text(ROUTING)
    set_key(path, "OPENAI_API_KEY", "of-the-file")
    set_key(path, "GROQ_API_KEY", "of-the-file")
    environ = {"PROXY_KEYS_FILE": str(path), "OPENAI_API_KEY": "of-the-environment", "GROQ_API_KEY": ""}
    files = ConfigFiles(routing, None, environ)
    assert path in files.watched and path not in files.paths
    config = files.load()
    found = {name: key.reveal() for keys in config.provider_keys.values() for name, key in keys.items()}
    assert found == {"OPENAI_API_KEY": "of-the-environment", "GROQ_API_KEY": "of-the-file"}
    assert files.load_changed(config.version) is None
    set_key(path, "GROQ_API_KEY", "another")
    changed = files.load_changed(config.version)
    assert changed is not None and changed.version == config.version
    assert changed.provider_keys["groq"]["GROQ_API_KEY"].reveal() == "another"
    assert files.load_changed(config.version) is None
