"""Translates: figures and names into the words of pages. None is an en dash: nothing is known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlencode

NOTHING = "\u2013"
MAX_NAME = 120  # characters of a name that a page shows
MAX_TEXT = 20_000  # of a text
# What is not seen itself but changes what stands beside it, like the direction of writing: Unicode's controls, formats,
# surrogates and separators of lines (16.0). The joiners of emoji and of some scripts are no such marks.
_FORMATS = (
    r"\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064"
    r"\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
MARKS = re.compile(rf"[\x00-\x1f{_FORMATS}]")
_LINE_MARKS = re.compile(rf"[\x00-\x08\x0b-\x1f{_FORMATS}]")  # a text of several lines keeps tabs and ends of lines
_SIZES = ("B", "kB", "MB", "GB", "TB")
_SHORT = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def usd(value: float | None) -> str:
    """Dollars, with as many digits as small amounts need."""
    if value is None:
        return NOTHING
    amount = abs(value)
    if amount == 0:
        text = "0.00"
    elif amount >= 1000:
        text = f"{amount:,.0f}"
    elif amount >= 1:
        text = f"{amount:.2f}"
    elif amount >= 0.01:
        text = f"{amount:.4f}"
    elif amount >= 0.0001:
        text = f"{amount:.6f}"
    else:
        text = f"{amount:.9f}".rstrip("0")
    return ("-$" if value < 0 else "$") + text


def count(value: float | None) -> str:
    """A whole number, in groups of three."""
    return NOTHING if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """A number in three digits, for axes and tiles."""
    if value is None:
        return NOTHING
    for unit, letter in _SHORT:
        if abs(value) >= unit * 0.9995:
            return f"{value / unit:.3g}{letter}" if abs(value) < 999.5 * unit else f"{value / unit:.0f}{letter}"
    return f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    """A duration, in the unit that suits it."""
    if value is None:
        return NOTHING
    if 0 < value < 1:
        return f"{value:.1f} ms"
    if value < 1000:
        return f"{value:.0f} ms"
    seconds = value / 1000
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def percent(value: float | None) -> str:
    """A share, without decimals where they tell nothing."""
    if value is None:
        return NOTHING
    shown = value * 100
    if 0 < shown < 0.1:
        return "< 0.1 %"
    return f"{shown:.1f} %" if shown < 10 and shown != round(shown) else f"{shown:.0f} %"


def size(value: float | None) -> str:
    """Bytes, in units of a thousand."""
    if value is None:
        return NOTHING
    for unit in _SIZES[:-1]:
        if value < 999.5:
            return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.3g} {_SIZES[-1]}"


def plain(value: object, most: int = MAX_NAME) -> str:
    """A text that others chose, made harmless for the layout: no control or direction marks, and not endless."""
    if value is None or value == "":
        return NOTHING
    text = str(value)
    shown = MARKS.sub("\ufffd", text[: most + 1])
    return shown if len(text) <= most else shown[:most] + "…"


def long_text(value: str, most: int = MAX_TEXT) -> str:
    """A text of several lines, made harmless in the same way, and cut where it is long."""
    shown, rest = _LINE_MARKS.sub("\ufffd", value[:most]), len(value) - most
    return shown if rest <= 0 else f"{shown}…\n[{count(rest)} more characters]"


def line(text: str, most: int = 400) -> str:
    """A line of a file, harmless for the layout as `plain` makes it, with its indentation."""
    shown = text.expandtabs(4)
    return plain(shown, most) if shown else ""


def ago(seconds: float) -> str:
    """How long ago something was."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"


def query(current: Mapping[str, str], **changes: str | None) -> str:
    """The query string with some parameters changed; None leaves one out."""
    full = {name: value for name, value in {**current, **changes}.items() if value}
    return "?" + urlencode(full) if full else "?"
