"""Translates: a written date into ISO form, or None if it may mean two days (`03/04/2026`)."""

from __future__ import annotations

import re
from datetime import date

_MONTHS = """
january february march april may june july august september october november december
jan feb mar apr may jun jul aug sep oct nov dec
januar februar märz april mai juni juli august september oktober november dezember
janvier février mars avril mai juin juillet août septembre octobre novembre décembre
enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre
gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre
janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro
januari februari maart april mei juni juli augustus september oktober november december
"""
_MONTH = {name: place for line in _MONTHS.split("\n") for place, name in enumerate(line.split(), 1)} | {"sept": 9}
_MAX_LENGTH = 40  # characters

_WEEKDAYS = (
    *("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    *("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
)
_NAMED = re.compile(rf"({'|'.join(_WEEKDAYS)})(?:,|\.,?)? ")
_ISO = re.compile(r"([0-9]{4})([-/.])([0-9]{1,2})\2([0-9]{1,2})")
_NUMBERS = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([0-9]{4})")
_MONTH_FIRST = re.compile(r"([^\W\d_]{3,10})\.? ([0-9]{1,2})(?:st|nd|rd|th)?,? ([0-9]{4})")
_DAY_FIRST = re.compile(r"([0-9]{1,2})(?:st|nd|rd|th|er|º|\.)? (?:of |de )?([^\W\d_]{3,10})\.?,?(?: de)? ([0-9]{4})")


def day(text: str) -> str | None:
    """The day, if the text is a date and at most its weekday; else None."""
    text = text.lower()
    if len(text) > _MAX_LENGTH:
        return None
    named = _NAMED.match(text)
    if named is None:
        return _day(text)
    found = _day(text[named.end() :])
    weekday = _WEEKDAYS.index(named[1]) % 7
    return found if found is not None and date.fromisoformat(found).weekday() == weekday else None


def _day(text: str) -> str | None:
    if found := _ISO.fullmatch(text):
        return _iso(int(found[1]), int(found[3]), int(found[4]))
    if found := _MONTH_FIRST.fullmatch(text):
        return _iso(int(found[3]), _MONTH.get(found[1], 0), int(found[2]))
    if found := _DAY_FIRST.fullmatch(text):
        return _iso(int(found[3]), _MONTH.get(found[2], 0), int(found[1]))
    if found := _NUMBERS.fullmatch(text):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        if first > 12 or first == second:
            return _iso(year, second, first)
        if second > 12:
            return _iso(year, first, second)
    return None


def _iso(year: int, month: int, day: int) -> str | None:
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return None
