"""Translates: a Gemini model id into what that model accepts (facts of November 2026)."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

_GENERATION = re.compile(r"gemini-(\d+)(?:\.(\d+))?(?=-|$)")
_NEWEST = (3, 0)  # aliases and custom ids are treated as current models
_GEMMA = (2, 0)
_SAMPLES_ALONE = ("gemini-3.5-flash-lite", "gemini-3.6-flash", "gemini-3.7-flash", "gemini-3.8-flash")
_NO_MINIMAL = ("gemini-3.7-flash", "gemini-3.8-flash", "gemini-flash-latest")
_TWO_LEVELS = ("gemini-3-pro-preview",)
_NOT_THINKING = ("-image", "-tts")
_LEVELS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM"}  # all above: HIGH
_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 2048, "high": 4096, "xhigh": 4096, "max": 24_576}
_PRO_BUDGETS = _BUDGETS | {"none": 128, "minimal": 128, "max": 32_768}


class Traits(Struct, frozen=True):
    """What one model accepts. `generation`: its number, (2, 5) for 2.5."""

    model: str
    generation: tuple[int, int]

    @property
    def is_three(self) -> bool:
        """Has ids on function calls, thought signatures that must come back, and levels of thinking."""
        return self.generation >= (3, 0)

    @property
    def fetches_links(self) -> bool:
        return self.generation >= (2, 5)

    @property
    def validates_tools(self) -> bool:
        """Has the mode in which calls must fit their schema but a text answer is also allowed."""
        return self.generation >= (2, 5)

    @property
    def joins_tools(self) -> bool:
        """Accepts function tools together with JSON answers or with search. Others answer 400."""
        return self.is_three

    @property
    def takes_penalties(self) -> bool:
        """Accepts penalties. Others answer 400: "Penalty is not enabled for this model"."""
        return not self.is_three and "preview" not in self.model

    @property
    def takes_sampling(self) -> bool:
        return not self.model.startswith(_SAMPLES_ALONE)

    def thinking(self, effort: str) -> tuple[dict[str, Any] | None, bool]:
        """`thinkingConfig` for one of LEVELS (None: the model has no such switch), and whether it matches exactly."""
        if any(word in self.model for word in _NOT_THINKING) or self.generation < (2, 5):
            return None, effort == "none"
        shown = effort != "none"
        if not self.is_three:
            budgets = _PRO_BUDGETS if "-pro" in self.model else _BUDGETS
            exact = effort != "xhigh" and (effort != "none" or budgets["none"] == 0)
            return {"includeThoughts": shown, "thinkingBudget": budgets[effort]}, exact
        level = _LEVELS.get(effort, "HIGH")
        if level == "MINIMAL" and not self._thinks_minimally:
            level = "LOW"
        if level == "MEDIUM" and self.model.startswith(_TWO_LEVELS):
            level = "HIGH"
        return {"includeThoughts": shown, "thinkingLevel": level}, level.lower() == effort

    @property
    def _thinks_minimally(self) -> bool:
        return "flash" in self.model and not self.model.startswith(_NO_MINIMAL)


def traits_of(model: str) -> Traits:
    """`model`: an upstream id, with or without `models/` before it."""
    name = model.removeprefix("models/").lower()
    found = _GENERATION.match(name)
    if found is None:
        return Traits(name, _GEMMA if name.startswith("gemma") else _NEWEST)
    return Traits(name, (int(found[1]), int(found[2] or 0)))


def searches_billed(queries: int, model: str | None) -> int:
    """The billed searches: models since Gemini 3 bill each query, earlier ones each prompt with a search."""
    return queries if traits_of(model or "").is_three else min(queries, 1)
