"""Other values in a file: only their own characters change, and comments stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.edit import plain
from proxy.config.files import ROUTING, shipped
from proxy.config.patch import REMOVED, patched
from proxy.config.problems import ConfigError

FILE = """\
# The whole.
version: 1   # one
budget:
  daily_usd: 20.00       # dollars
  alert_at:              # shares
    - 0.8                # first
    - 0.95
router: {default_model: cheap, fallback: [a, b]}   # routes
providers:
  fake: {type: openai}
  other:
  quoted: "a # b"

# The last lines.
"""


@pytest.mark.parametrize(
    ("path", "value", "before", "after"),
    [
        (("version",), 2, "version: 1 ", "version: 2 "),
        (("budget", "daily_usd"), 5.5, "20.00", "5.5"),
        (("budget", "daily_usd"), None, "20.00", "null"),
        (("budget", "daily_usd"), REMOVED, "  daily_usd: 20.00       # dollars\n", ""),
        (("budget", "alert_at"), [0.5], "- 0.8                # first\n    - 0.95", "- 0.5"),
        (("budget", "timezone"), "UTC", "    - 0.95\n", "    - 0.95\n  timezone: UTC\n"),
        (("router", "fallback"), ["x"], "[a, b]", "[x]"),
        (("router", "fallback"), REMOVED, ", fallback: [a, b]", ""),
        (("router", "default_model"), REMOVED, "default_model: cheap, ", ""),
        (("router", "enabled"), False, "[a, b]}", "[a, b], enabled: false}"),
        (("providers", "fake", "models", "default"), "m/n", "openai}", "openai, models: {default: m/n}}"),
        (("providers", "other", "enabled"), True, "other:\n", "other: {enabled: true}\n"),
        (("providers", "quoted"), "yes: no", '"a # b"', '"yes: no"'),
        (("rules",), [], '"a # b"\n', '"a # b"\n\nrules: []\n'),
        (("server", "workers"), 2, '"a # b"\n', '"a # b"\n\nserver: {workers: 2}\n'),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_only_the_value_changes(path: tuple[str, ...], value: Any, before: str, after: str, newline: str) -> None:
    """Every other character stays, the line breaks of the file too."""
    text = FILE.replace("\n", newline)
    wanted = FILE.replace(before, after).replace("\n", newline)
    assert FILE.count(before) == 1
    assert patched(text, {path: value}) == wanted


def test_equal_values_change_nothing() -> None:
    assert patched(FILE, {("budget", "daily_usd"): 20, ("nothing", "here"): REMOVED}) == FILE


def test_several_changes_at_once() -> None:
    """Each is made where the ones before left it."""
    text = patched(FILE, {("budget", "daily_usd"): 1, ("version",): 2, ("budget", "hour_usd"): 3, ("new", "a"): 4})
    assert plain(text.encode(), "x") == plain(FILE.encode(), "x") | {
        "version": 2,
        "budget": {"daily_usd": 1, "alert_at": [0.8, 0.95], "hour_usd": 3},
        "new": {"a": 4},
    }
    assert [line.partition("#")[2] for line in text.splitlines() if "#" in line] == [
        line.partition("#")[2] for line in FILE.splitlines() if "#" in line
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: &x {b: 1}\nc: *x\n",
        "a: &x\n  b: 1  # kept\nc: *x\n",
        "? a\n: {b: 1}\n",
        "a:\n  b: |\n    1\n    2\n",
        "\ufeffa: {b: 1}\n",
        "a: {b: 1}",
        "a:   # nothing yet\n",
        "a: {}\n",
        "a: {b: 1,\n    c: 2}  # kept\n",
    ],
)
def test_unusual_files_have_the_value_too(text: str) -> None:
    """Where the position is not enough, the whole file is written anew; other keys keep their values."""
    before = plain(text.encode(), "x")
    found = plain(patched(text, {("a", "b"): 9}).encode(), "x")
    inner = {**(before["a"] or {}), "b": 9}
    assert found == {**before, "a": inner}


def test_what_is_no_mapping_has_no_keys() -> None:
    with pytest.raises(ConfigError, match="expected keys and values"):
        patched("- 1\n", {("a",): 1})


PATHS = [
    ("version",),
    ("router", "max_retries"),
    ("router", "fallback"),
    ("budget", "daily_usd"),
    ("budget", "alert_at"),
    ("providers", "openai", "models", "default"),
    ("providers", "ollama", "enabled"),
    ("ensembles", "careful", "members"),
    ("rate_limits", "everyone", "concurrent"),
    ("server", "log_format"),
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(0, 10**6),
    st.text(max_size=12).filter(lambda text: text.isprintable()),
    st.lists(st.sampled_from(["a/b", "x: y", "# no", "", "1", "true"]), max_size=3),
)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.sampled_from(PATHS), VALUES | st.just(REMOVED), min_size=1, max_size=3))
@pytest.mark.slow
def test_the_shipped_file_takes_any_value(changes: dict[tuple[str, ...], Any]) -> None:
    """The values are those asked for, and no comment line of the file is lost."""
    path = shipped(ROUTING)
    assert isinstance(path, Path)
    text = path.read_text("utf-8")
    values = plain(text.encode(), "x")
    for keys, value in changes.items():
        inner = values
        for key in keys[:-1]:
            inner = inner.setdefault(key, {}) if value is not REMOVED else inner.get(key, {})
        if value is REMOVED:
            inner.pop(keys[-1], None)
        else:
            inner[keys[-1]] = value
    found = patched(text, changes)
    assert plain(found.encode(), "x") == values
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert [line for line in found.splitlines() if line.startswith("#")] == comments
