"""Translates: a vendor's rules for images into the maximum tokens of an image."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil
from typing import NamedTuple


class ImageRule(NamedTuple):
    """For models whose id has this prefix: the maximum tokens of any image, or a function of width and height."""

    models: re.Pattern[str]
    most: int | Callable[[int, int], int]


def patches(each: int, factor: float) -> Callable[[int, int], int]:
    """Tokens by patches of `each` pixels. Vendors shrink larger images, which makes them cheaper."""
    return lambda width, height: ceil((ceil(width / each) + 1) * (ceil(height / each) + 1) * factor)
