"""What may stand in a header of an answer."""

from __future__ import annotations

import pytest

from proxy.server.api.answers import new_id, raw_headers, safe_headers


@pytest.mark.parametrize(
    "value", ["a\r\nset-cookie: b=1", "a\nb", "a\rb", "a\0b", "a\tb", "a\x7fb", "a\x85b", "a\u2028b"]
)
def test_a_value_that_could_end_its_line_is_left_out(value: str) -> None:
    """Left out whole: half a value would say something else (S20)."""
    assert safe_headers({"x-a": value, "x-b": "fine"}) == {"x-b": "fine"}


def test_other_scripts_become_question_marks() -> None:
    """Header values are latin-1."""
    assert raw_headers({"x-a": "模型 é"}) == [(b"x-a", b"?? \xe9")]


def test_ids_are_unique_and_ascend_with_time() -> None:
    """Also those of one microsecond are unique."""
    ids = [new_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [value[:14] for value in ids] == sorted(value[:14] for value in ids)
