"""Translates: curves into a small SVG drawing."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 640, 400, 60, 20, 20, 50
Point = tuple[float, float]


class Axis(Struct, frozen=True):
    """`form`: how its values are written."""

    low: float = 0.5
    high: float = 1.0
    form: str = "{:.1f}"


_HALVES = (Axis(), Axis())


class Curve(Struct, frozen=True):
    """A line, and dots of its colour."""

    name: str
    colour: str
    line: Sequence[Point]
    dots: Sequence[Point]


def drawing(curves: Sequence[Curve], across: str, up: str, axes: tuple[Axis, Axis] = _HALVES) -> str:
    """An SVG image with a legend; both axes reach from 0.5 to 1 unless `axes` says otherwise."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
    ]
    for step in range(6):
        values = [axis.low + step * (axis.high - axis.low) / 5 for axis in axes]
        x, y = _place((values[0], values[1]), axes)
        parts += [
            f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}" stroke="#e5e5e5"/>',
            f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{axes[1].form.format(values[1])}</text>',
            f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{axes[0].form.format(values[0])}</text>',
        ]
    middle = (_LEFT + _WIDTH - _RIGHT) // 2
    parts += [
        f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{across}</text>',
        f'<text x="16" y="{_HEIGHT // 2}" text-anchor="middle" transform="rotate(-90 16 {_HEIGHT // 2})">{up}</text>',
    ]
    for place, curve in enumerate(curves):
        line = " ".join("{},{}".format(*_place(point, axes)) for point in curve.line)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{curve.colour}" stroke-width="2"/>')
        for point in curve.dots:
            x, y = _place(point, axes)
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{curve.colour}"/>')
        y = _HEIGHT - _BOTTOM - 20 * (len(curves) - place)
        parts += [
            f'<line x1="{_WIDTH - 270}" y1="{y}" x2="{_WIDTH - 245}" y2="{y}" '
            f'stroke="{curve.colour}" stroke-width="3"/>',
            f'<text x="{_WIDTH - 238}" y="{y + 4}">{curve.name}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def _place(point: Point, axes: tuple[Axis, Axis]) -> tuple[float, float]:
    across, up = ((value - axis.low) / (axis.high - axis.low) for value, axis in zip(point, axes, strict=True))
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return round(_LEFT + across * width, 1), round(_TOP + (1 - up) * height, 1)
