"""Values change in the text of a YAML file; everything else stays, comments first of all."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config import ConfigError
from proxy.config.edit import edited, plain


def test_text_with_the_same_values_is_the_same_text() -> None:
    """However it is written."""
    text = "a:   {b: 1,c: [1,2]}  # here\n"
    assert edited(text, {"a": {"b": 1, "c": [1, 2]}}) is text


def test_a_comment_goes_with_the_value_before_it() -> None:
    """The parser keeps all of them up to the next key there."""
    text = "# top\na: 1  # one\n# still one\nb: 2  # two\n# still two\nc: 3  # three\n"
    assert edited(text, {"a": 1, "c": 4}) == "# top\na: 1  # one\n# still one\nc: 4  # three\n"


def test_an_anchor_is_not_changed_for_those_who_share_it() -> None:
    """Only the place that differs is written out."""
    text = "a: &one {x: 1, y: 2}\nb: *one\nc: {d: *one}\n"
    values = plain(text.encode(), "x")
    values["b"] = {"x": 1, "y": 3}
    changed = edited(text, values)
    assert plain(changed.encode(), "x") == values
    assert "&one" in changed


@pytest.mark.parametrize(
    "value",
    [
        True,
        1,
        1.0,
        "1",
        "true",
        "no",
        None,
        [],
        {},
        [1, {"a": None}],
        "a: b",
        "# no comment",
        "ä\n",
        "1e3",
        "a\x85",
        "a\x85\n- b",
    ],
)
def test_every_value_is_read_back_as_it_was_written(value: Any) -> None:
    text = "old: {deep: 1}   # kept\n"
    changed = edited(text, {"old": {"deep": 1, "new": value}, "top": value})
    found = plain(changed.encode(), "x")
    assert found == {"old": {"deep": 1, "new": value}, "top": value}
    assert type(found["top"]) is type(value)
    assert "# kept" in changed


def test_text_that_is_no_yaml_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"^x:1:5: "):
        plain(b"a: b: c\n", "x")
