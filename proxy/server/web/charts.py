"""Translates: series of figures into inline SVG. Pure. No style, no script: the page's own CSS colours the classes.

The drawings stretch to the width of the page, so they hold no text: labels of axes stand beside them as HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape
from msgspec import Struct

HEIGHT = 100.0
STEP = 10.0  # width of a bucket
_GAP = 1.2
_WIDTH = f"{STEP - 2 * _GAP:g}"
_LINES = 4
_HIDDEN = {"aria-hidden": "true", "focusable": "false"}


class Part(Struct, frozen=True):
    """A value of one bucket. `style`: its class, `s0` to `s7` or `failed`."""

    style: str
    value: float


class Bucket(Struct, frozen=True):
    """One bar: its parts from below, what to say of it, and where a click leads."""

    title: str
    href: str
    parts: Sequence[Part]

    @property
    def total(self) -> float:
        return sum(part.value for part in self.parts)


class Line(Struct, frozen=True):
    """A series of values, None where nothing is known."""

    style: str
    values: Sequence[float | None]


def top_of(largest: float) -> float:
    """The value at the top of an axis that is divided by four: 1, 2, 4, 5 or 8 times a power of ten."""
    if not largest > 0 or not math.isfinite(largest):
        return 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    return next(step * power for step in (1, 2, 4, 5, 8, 10, 20) if step * power >= largest * 0.999999)


def ticks(top: float) -> list[float]:
    """The values of the axis, from above."""
    return [top * part / _LINES for part in range(_LINES, -1, -1)]


def bars(buckets: Sequence[Bucket], top: float) -> Markup:
    """Stacked bars. Each bucket is a link, so that a click opens its time without a script."""
    drawn = []
    for number, bucket in enumerate(buckets):
        inside, below = [_hit(number)], 0.0
        for part in bucket.parts:
            height = HEIGHT * part.value / top
            if height > 0:
                place = {"x": f"{number * STEP + _GAP:g}", "y": f"{HEIGHT - below - height:.3f}"}
                inside.append(
                    _element("rect", {"class": part.style, **place, "width": _WIDTH, "height": f"{height:.3f}"})
                )
                below += height
        drawn.append(_link(bucket, inside))
    return _drawing("bars", len(buckets), drawn)


def lines(buckets: Sequence[Bucket], series: Sequence[Line], top: float) -> Markup:
    """A line for each series, broken where nothing is known. The buckets are links as in `bars`."""
    drawn = [_element("path", {"class": line.style, "d": _path(line.values, top)}) for line in series]
    drawn += [
        _element("path", {"class": f"{line.style} dot", "d": dots}) for line in series if (dots := _dots(line, top))
    ]
    drawn += [_link(bucket, [_hit(number)]) for number, bucket in enumerate(buckets)]
    return _drawing("lines", len(buckets), drawn)


def interval(points: Sequence[tuple[float, float, float] | None], reach: float) -> Markup:
    """A value within its interval (`low`, `value`, `high`) over time, with zero in the middle. Beyond `reach` it is
    drawn at the edge. None: nothing is known; the band begins anew behind it.
    """

    def at(number: int, value: float) -> str:
        share = min(1.0, max(-1.0, value / reach))
        return f"{(number + 0.5) * STEP:g} {HEIGHT / 2 * (1 - share):.3f}"

    drawn, piece = [], list[tuple[int, tuple[float, float, float]]]()
    for number, point in enumerate([*points, None]):
        if point is not None:
            piece.append((number, point))
            continue
        if piece:
            edge = [at(place, high) for place, (_, _, high) in piece]
            edge += [at(place, low) for place, (low, _, _) in reversed(piece)]
            drawn.append(_element("path", {"class": "band", "d": f"M{'L'.join(edge)}Z"}))
            line = "L".join(at(place, value) for place, (_, value, _) in piece)
            drawn.append(_element("path", {"class": "s0", "d": f"M{line}" + ("h0.01" if len(piece) == 1 else "")}))
        piece = []
    zero = {"class": "zero", "x1": "0", "x2": f"{max(1, len(points)) * STEP:g}"}
    drawn.append(_element("line", {**zero, "y1": f"{HEIGHT / 2:g}", "y2": f"{HEIGHT / 2:g}"}))
    return _drawing("lines", len(points), drawn)


def share_bar(parts: Sequence[tuple[str, float]], marks: Sequence[tuple[str, float]] = ()) -> Markup:
    """One horizontal bar: parts by class and share of the whole width, and marks at shares."""
    full = {"height": "100%", "rx": "3"}
    drawn, left = [_element("rect", {"class": "ground", "width": "100%", **full})], 0.0
    for style, share in parts:
        width = min(max(share, 0.0), 1.0 - left)
        if width > 0:
            place = {"x": f"{left * 100:.2f}%", "width": f"{width * 100:.2f}%"}
            drawn.append(_element("rect", {"class": style, **place, **full}))
        left += width
    for style, share in marks:
        if 0 <= share <= 1:
            at = f"{share * 100:.2f}%"
            drawn.append(_element("line", {"class": style, "x1": at, "x2": at, "y1": "0", "y2": "100%"}))
    return _element("svg", {"class": "share", **_HIDDEN}, drawn)


def _drawing(kind: str, buckets: int, inside: Sequence[Markup]) -> Markup:
    """A drawing and its grid. The page has the same figures as a table, for those who cannot see it."""
    width = f"{max(1, buckets) * STEP:g}"
    places = [f"{HEIGHT * number / _LINES:g}" for number in range(_LINES + 1)]
    grid = [_element("line", {"class": "grid", "x1": "0", "x2": width, "y1": at, "y2": at}) for at in places]
    box = {"viewBox": f"0 0 {width} {HEIGHT:g}", "preserveAspectRatio": "none"}
    return _element("svg", {"class": kind, **box, **_HIDDEN}, [*grid, *inside])


def _link(bucket: Bucket, inside: Sequence[Markup]) -> Markup:
    title = _element("title", {}, [escape(bucket.title)])
    return _element("a", {"href": bucket.href, "tabindex": "-1"}, [title, *inside])


def _hit(number: int) -> Markup:
    """What the pointer finds of a bucket: all of its height."""
    place = {"x": f"{number * STEP:g}", "y": "0", "width": f"{STEP:g}", "height": f"{HEIGHT:g}"}
    return _element("rect", {"class": "hit", **place})


def _element(name: str, attributes: Mapping[str, str], inside: Sequence[Markup] = ()) -> Markup:
    """One element; the only place where markup is made, and it escapes every value."""
    said = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{said}>") + Markup("").join(inside) + Markup(f"</{name}>")


def _path(values: Sequence[float | None], top: float) -> str:
    """Pieces of a line; a value alone is a line without length, which round ends make a dot."""
    steps, is_drawing = [], False
    for number, value in enumerate(values):
        if value is None:
            is_drawing = False
            continue
        place = f"{(number + 0.5) * STEP:g} {HEIGHT * (1 - value / top):.3f}"
        steps.append(f"L{place}" if is_drawing else f"M{place}h0.01")
        is_drawing = True
    return "".join(steps)


def _dots(line: Line, top: float) -> str:
    """The values without a neighbour: a line of one value would not be seen."""
    around = [None, *line.values, None]
    drawn = ""
    for number, value in enumerate(line.values):
        if value is not None and around[number] is None and around[number + 2] is None:
            drawn += f"M{(number + 0.5) * STEP:g} {HEIGHT * (1 - value / top):.3f}h0.01"
    return drawn
