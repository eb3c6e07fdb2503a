"""Charts: heights, widths and marks are the figures; texts in them are only text; nothing divides by zero."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from proxy.server.web.charts import HEIGHT, Bucket, Line, Part, bars, interval, lines, share_bar, ticks, top_of


@pytest.mark.parametrize(
    ("largest", "top"),
    [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 1), (1.01, 2), (0.0301, 0.04), (450, 500), (9, 10)],
)
def test_the_axis_ends_at_a_round_value(largest: float, top: float) -> None:
    """Above the largest value, and by less than it again."""
    assert top_of(largest) == pytest.approx(top)
    assert ticks(top_of(largest)) == pytest.approx([top, top * 3 / 4, top / 2, top / 4, 0])


def test_bars_are_stacked_to_their_total() -> None:
    """Each part stands on the one before it."""
    bucket = Bucket("Mon", "?a=1&b=2", (Part("s0", 30), Part("s1", 20), Part("failed", 0), Part("s2", 10)))
    root = ElementTree.fromstring(str(bars([bucket], 100)))
    drawn = [each.attrib for each in root.iter("rect") if each.get("class") != "hit"]
    assert [each["class"] for each in drawn] == ["s0", "s1", "s2"]
    assert [float(each["height"]) for each in drawn] == [30, 20, 10]
    assert [float(each["y"]) + float(each["height"]) for each in drawn] == [HEIGHT, HEIGHT - 30, HEIGHT - 50]
    (link,) = root.iter("a")
    assert link.get("href") == "?a=1&b=2"


def test_texts_are_escaped() -> None:
    """They are names of models."""
    evil = '"><script>alert(1)</script>'
    for drawn in (bars([Bucket(evil, evil, ())], 1), lines([Bucket(evil, evil, ())], [Line("s0", [1.0])], 1)):
        root = ElementTree.fromstring(str(drawn))
        assert [each.tag for each in root.iter("script")] == []
        assert [each.text for each in root.iter("title")] == [evil]


def test_a_line_breaks_where_nothing_is_known() -> None:
    """A value alone is a dot, that is, a line without length."""
    drawn = str(lines([Bucket("", "", ())] * 5, [Line("s0", [1, 2, None, 4, None])], 4))
    assert '<path class="s0 dot" d="M35 0.000h0.01"></path>' in drawn  # without a neighbour it would not be seen
    path, _ = re.findall(r' d="([^"]+)"', drawn)
    assert re.sub(r"[\d. ]", "", path) == "MhLMh"
    assert "M5 75.000h0.01L15 50.000" in path


def test_shares_never_leave_the_bar() -> None:
    """Also where more is spent than fits."""
    root = ElementTree.fromstring(str(share_bar([("spent", 0.7), ("held", 0.6)], [("mark", 0.5), ("mark", 2)])))
    widths = [each.get("width") for each in root.iter("rect")]
    assert widths == ["100%", "70.00%", "30.00%"]
    assert [each.get("x1") for each in root.iter("line")] == ["50.00%"]


def test_an_interval_stays_within_its_drawing() -> None:
    """Zero is in the middle, what is beyond the reach at the edge; it breaks where nothing is known."""
    drawn = str(interval([(-9, 1, 9), (-1, 0, 1), None, (0.5, 0.5, 0.5)], 2))
    first, second = re.findall(r'class="band" d="([^"]+)"', drawn)
    assert first == "M5 0.000L15 25.000L15 75.000L5 100.000Z"
    assert second == "M35 37.500L35 37.500Z"
    assert re.findall(r'class="s0" d="([^"]+)"', drawn) == ["M5 25.000L15 50.000", "M35 37.500h0.01"]
    assert ElementTree.fromstring(drawn).find("line[@class='zero']").attrib["y1"] == "50"  # type: ignore[union-attr]


def test_no_buckets_make_an_empty_chart() -> None:
    """Rather than an error."""
    for drawn in (bars([], 1), lines([], [], 1), share_bar([]), interval([], 1)):
        assert ElementTree.fromstring(str(drawn)).tag == "svg"
