"""Translates: a written number, percentage or amount of money into its canonical form; None if it is ambiguous.

`1,234.50` and `1.234,50` are one number. A comma before exactly three digits groups thousands, a point does not:
`1,234` is 1234, `1.234` is not. Trailing zeros of a possible version stay (`3.10` is not `3.1`), and a number with
leading zeros is a code (`007`).
"""

from __future__ import annotations

import re

_ISO = (
    *("USD", "EUR", "GBP", "JPY", "CNY", "INR", "CAD", "AUD", "NZD", "CHF", "SEK", "NOK", "DKK", "PLN", "CZK", "HUF"),
    *("RUB", "BRL", "MXN", "KRW", "SGD", "HKD", "ZAR", "TRY", "ILS", "THB", "VND", "UAH"),
)
_SIGNS = {
    "$": "USD",
    "US$": "USD",
    "€": "EUR",
    "£": "GBP",
    "₹": "INR",
    "₽": "RUB",
    "₩": "KRW",
    "₪": "ILS",
    "₫": "VND",
    "₺": "TRY",
    "₴": "UAH",
    "฿": "THB",
    "C$": "CAD",
    "CA$": "CAD",
    "A$": "AUD",
    "AU$": "AUD",
    "NZ$": "NZD",
    "HK$": "HKD",
    "R$": "BRL",
    "¥": "¥",  # yen and yuan
}
_WORDS = {
    "usd": "USD",
    "eur": "EUR",
    "gbp": "GBP",
    "dollar": "USD",
    "dollars": "USD",
    "US dollars": "USD",
    "euro": "EUR",
    "euros": "EUR",
    "Euro": "EUR",
    "Euros": "EUR",
}
_CURRENCIES = {**{code: code for code in _ISO}, **_SIGNS, **_WORDS}
_PERCENT = frozenset({"%", "percent", "per cent"})
_MAX_LENGTH = 100  # characters; longer digits are compared as text

_CURRENCY = "|".join(sorted(map(re.escape, _CURRENCIES), key=len, reverse=True))
_WRITTEN = re.compile(
    rf"(?P<sign>[-+]?)(?:(?P<before>{_CURRENCY}) ?)?(?P<inner>[-+]?)(?P<number>[0-9](?:[0-9.,' ]*[0-9])?\.?|[.,][0-9]+)"
    rf" ?(?P<after>{_CURRENCY}|%|percent|per cent)?"
)
_PLAIN = re.compile(r"[0-9]+|[0-9]*[.,][0-9]+")
_GROUPED = re.compile(r"[0-9]{1,3}(?P<mark>[,.' ])[0-9]{3}(?:(?P=mark)[0-9]{3})*(?:(?P<point>[.,])[0-9]+)?")
_LIKE_A_VERSION = re.compile(r"[0-9]{1,2}\.[0-9]*[1-9]0+")


def amount(text: str) -> str | None:
    """The canonical form of a text that is only a number, a percentage or an amount of money; else None."""
    found = _WRITTEN.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if found is None or (found["sign"] and found["inner"]):
        return None
    before, after = found["before"], found["after"]
    if before and after and _CURRENCIES[before] != _CURRENCIES.get(after):
        return None
    unit = before or after
    written = found["number"]
    if not unit and _LIKE_A_VERSION.fullmatch(written):
        return (found["sign"] or found["inner"]).replace("+", "") + written
    number = _number(written.removesuffix("."), has_unit=unit is not None)
    if number is None:
        return None
    if "-" in (found["sign"], found["inner"]) and number != "0":
        number = f"-{number}"
    if unit is None:
        return number
    return f"{number}%" if unit in _PERCENT else f"{number} {_CURRENCIES[unit]}"


def literal(text: str) -> str:
    """The canonical form of a JSON number: equal numbers have one form."""
    mantissa, _, exponent = text.lower().partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    if exponent and len(exponent) > 4:
        return text.lower()
    digits = (whole + fraction).lstrip("0")
    trimmed = digits.rstrip("0")
    if not trimmed:
        return "0"
    power = int(exponent or 0) - len(fraction) + len(digits) - len(trimmed)
    if power == 0:
        return sign + trimmed
    if 0 < power <= _MAX_LENGTH:
        return sign + trimmed + "0" * power
    if -_MAX_LENGTH <= power < 0:
        padded = trimmed.rjust(1 - power, "0")
        return f"{sign}{padded[:power]}.{padded[power:]}"
    return f"{sign}{trimmed}e{power}"


def _number(written: str, *, has_unit: bool) -> str | None:
    """Digits with a point. None: ambiguous, or no number."""
    if _PLAIN.fullmatch(written):
        mark = "," if "," in written else "."
        whole, _, fraction = written.partition(mark)
        if mark == "," and len(fraction) == 3 and 0 < len(whole) <= 3 and not whole.startswith("0"):
            return literal(whole + fraction)  # one group of thousands
        if whole.startswith("0") and len(whole) > 1:
            return None
        return literal(f"{whole or '0'}.{fraction}" if fraction else whole)
    grouped = _GROUPED.fullmatch(written)
    if grouped is None or written.startswith("0"):
        return None
    mark, point = grouped["mark"], grouped["point"]
    if point == mark or (mark == " " and not (point or has_unit)):
        return None  # "123 456" may be two numbers
    whole, _, fraction = written.partition(point) if point else (written, "", "")
    if mark == "." and not point and written.count(mark) == 1:
        return literal(written)  # 1.234
    whole = whole.replace(mark, "")
    return literal(f"{whole}.{fraction}" if fraction else whole)
