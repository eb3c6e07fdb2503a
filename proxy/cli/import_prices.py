"""Translates: prices and sizes of LiteLLM's configuration into rows of pricing.yaml, and its budgets."""

from __future__ import annotations

import re
from typing import Any

from proxy.cli.import_source import CHANGED, LOST, Section
from proxy.config.problems import shown

_PER_TOKEN = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "output_cost_per_image_token": "image_output",
}
_PER_CALL = {"input_cost_per_request": "per_request", "input_cost_per_query": "per_search"}
_ABOVE = re.compile(r"(.+)_above_(\d+)k_tokens")
_OF_TIERS = ("input", "output", "cached_input", "cache_write")
_MILLION = 1_000_000
_DEAREST = 100_000  # USD per million tokens
_LARGEST = 2**31 - 1  # tokens
_MOST_USD = 1_000_000_000


def row_of(params: Section, info: Section | None) -> dict[str, Any]:
    """The row, from both places that may hold it; empty if there are no values."""
    row: dict[str, Any] = {}
    for section in (info, params):
        if section is not None:
            row |= _prices(section)
    if info is not None:
        row |= _sizes(info)
    return row


def budget_of(section: Section, key: str, amount: float, period: str | None) -> dict[str, float]:
    """A limit in US dollars per period, under our name of the window."""
    amount = min(amount, _MOST_USD)
    if period is None:
        return {"total_usd": amount}
    windows = {"m": "minute_usd", "h": "hour_usd", "d": "daily_usd", "w": "weekly_usd", "mo": "monthly_usd"}
    found = re.fullmatch(r"(\d+)\s*(s|m|h|d|w|mo)", period.strip().lower())
    count, unit = (int(found[1]), found[2]) if found else (0, "")
    known = {(60, "s"): "m", (60, "m"): "h", (24, "h"): "d", (7, "d"): "w", (30, "d"): "mo", (31, "d"): "mo"}
    unit = known.get((count, unit), unit if count == 1 else "")
    if unit not in windows:
        section.say(LOST, key, f"there is no budget per {shown(period)} here; the limit is left out")
        return {}
    if period.strip().lower() != f"1{unit}":
        section.say(CHANGED, key, f"{shown(period)} becomes {windows[unit]}, which begins with the calendar")
    return {windows[unit]: amount}


def _prices(section: Section) -> dict[str, Any]:
    found: dict[str, Any] = {}
    tiers: dict[int, dict[str, float]] = {}
    for name in section.names():
        above = _ABOVE.fullmatch(name)
        plain = above[1] if above else name
        if plain in _PER_TOKEN:
            price = section.number(name)
            if price is None:
                continue
            price = float(f"{price * _MILLION:.10g}")
            if price > _DEAREST:
                section.say(LOST, name, "is more than any price per token; is it one per million?")
                continue
            if above is None:
                found[_PER_TOKEN[plain]] = price
            elif _PER_TOKEN[plain] in _OF_TIERS:
                tiers.setdefault(int(above[2]) * 1000, {})[_PER_TOKEN[plain]] = price
        elif name in _PER_CALL:
            if (fee := section.number(name)) is not None:
                found[_PER_CALL[name]] = min(fee, 1_000)
        elif "cost_per" in name:
            section.say(LOST, name, "prices here are per token or per call")
    if tiers:
        found["tiers"] = [{"above_input_tokens": size, **tiers[size]} for size in sorted(tiers)]
    return found


def _sizes(info: Section) -> dict[str, int]:
    context, output = info.number("max_input_tokens"), info.number("max_output_tokens")
    at_most = info.number("max_tokens")
    found = {"context": context, "max_output": output if output is not None else at_most}
    return {name: int(size) for name, size in found.items() if size and 1 <= size <= _LARGEST}
