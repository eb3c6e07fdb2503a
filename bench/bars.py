"""Translates: figures into a small SVG drawing of bars on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

_WIDTH, _LEFT, _RIGHT, _TOP, _BAR, _GAP, _FOOT = 760, 250, 70, 16, 17, 26, 44
_COLOURS = ("#1f5fbf", "#8a8f98", "#c2571a", "#2f8f5b", "#8a4fb0", "#b5a020", "#b03a5b")


def drawing(groups: Mapping[str, Mapping[str, float]], across: str) -> str:
    """An SVG image: a heading for each group, and under it one bar for each name, with its figure beside it."""
    figures = [figure for bars in groups.values() for figure in bars.values()]
    low, high = floor(log10(min(figures))), ceil(log10(max(figures)))
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    bottom = _TOP + sum(_GAP + _BAR * len(bars) for bars in groups.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + _FOOT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{_WIDTH}" height="{bottom + _FOOT}" fill="#ffffff"/>',
    ]
    for power in range(low, high + 1):
        x = _across(10.0**power, low, high)
        parts += [
            f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom + 4}" stroke="#e5e5e5"/>',
            f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{10**power:,}</text>',
        ]
    middle = (_LEFT + _WIDTH - _RIGHT) // 2
    parts.append(f'<text x="{middle}" y="{bottom + 36}" text-anchor="middle">{escape(across)}</text>')
    y = _TOP
    for heading, bars in groups.items():
        parts.append(f'<text x="8" y="{y + _GAP - 9}" font-weight="bold">{escape(heading)}</text>')
        y += _GAP
        parts += _bars(bars, names, y, (low, high))
        y += _BAR * len(bars)
    return "\n".join([*parts, "</svg>", ""])


def _bars(bars: Mapping[str, float], names: Sequence[str], y: int, powers: tuple[int, int]) -> list[str]:
    parts = []
    for place, (name, figure) in enumerate(bars.items()):
        top, x = y + place * _BAR, max(_across(figure, *powers), _LEFT + 1.0)
        size = f'width="{round(x - _LEFT, 1)}" height="{_BAR - 4}"'
        colour = _COLOURS[names.index(name) % len(_COLOURS)]
        parts += [
            f'<text x="{_LEFT - 8}" y="{top + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{top + 2}" {size} fill="{colour}"/>',
            f'<text x="{round(x + 5, 1)}" y="{top + 12}">{figure:,.0f}</text>',
        ]
    return parts


def _across(figure: float, low: int, high: int) -> float:
    return round(_LEFT + (log10(figure) - low) / max(high - low, 1) * (_WIDTH - _LEFT - _RIGHT), 1)
