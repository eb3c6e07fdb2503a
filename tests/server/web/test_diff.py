"""The lines of a difference that a page shows."""

from __future__ import annotations

import time

from proxy.server.web.diff import MAX_LINES, Line, diff


def test_a_change_has_its_neighbours() -> None:
    """Three lines before and after it; a gap between changes far from each other."""
    before = "\n".join(map(str, range(30)))
    after = before.replace("\n5\n", "\nfive\n").replace("\n25\n", "\n")
    found = diff(before, after)
    same = [line.text for line in found if line.kind == "same"]
    assert same == [str(number) for number in (2, 3, 4, 6, 7, 8, 22, 23, 24, 26, 27, 28)]
    assert [(line.kind, line.number, line.text) for line in found if line.kind not in ("same", "gap")] == [
        ("removed", 6, "5"),
        ("added", 6, "five"),
        ("removed", 26, "25"),
    ]
    assert [line.kind for line in found].count("gap") == 1


def test_equal_texts_have_no_difference() -> None:
    assert diff("a\nb", "a\nb") == []
    assert diff("a\nb", "a\nb\n") == [Line("gap", 0, "Only line breaks differ.")]


def test_lines_at_the_ends() -> None:
    assert [(line.kind, line.text) for line in diff("", "a")] == [("added", "a")]
    assert [(line.kind, line.text) for line in diff("a", "")] == [("removed", "a")]
    assert [line.kind for line in diff("a\nb", "x\na\nb\ny")] == ["added", "same", "same", "added"]


def test_large_texts_are_bounded() -> None:
    """In lines and in time, also where every line is like the others."""
    started = time.process_time()
    found = diff("a\nb\n" * 40_000, "b\na\na\n" * 30_000)
    assert len(found) == MAX_LINES + 1 and "there are more" in found[-1].text
    assert time.process_time() - started < 5
