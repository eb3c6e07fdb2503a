"""Translates: a vendor's rules for images into the most tokens that one may cost."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil
from typing import NamedTuple


class ImageRule(NamedTuple):
    """For models whose id begins like this: the most tokens of any image, or of one by its width and height."""

    models: re.Pattern[str]
    most: int | Callable[[int, int], int]


def patches(each: int, factor: float) -> Callable[[int, int], int]:
    """Tokens by patches of so many pixels. Vendors shrink larger images, which makes them cheaper."""
    return lambda width, height: ceil((ceil(width / each) + 1) * (ceil(height / each) + 1) * factor)
