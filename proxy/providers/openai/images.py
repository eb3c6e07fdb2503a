"""Values: the maximum tokens of an image in OpenAI's models. Checked in November 2026."""

from __future__ import annotations

import re
from math import ceil

from proxy.providers.base.images import ImageRule, patches

_TILES = 85 + 8 * 170  # a base, and the eight tiles of the largest picture


def _tiles_or_patches(width: int, height: int) -> int:
    return max(_TILES, patches(32, 2.46)(width, height))


IMAGE_RULES = (
    ImageRule(re.compile(r"gpt-4o-mini"), 2_833 + 8 * 5_667),
    ImageRule(re.compile(r"(?:gpt-4o|chatgpt-4o|gpt-4-turbo|gpt-4\.1(?!-(?:mini|nano))|o1|o3)(?![a-z0-9])"), _TILES),
    ImageRule(re.compile(r"gpt-(?:4\.1-(?:mini|nano)|5-(?:mini|nano))|o4-mini"), ceil(1_536 * 2.46)),
    ImageRule(re.compile(r"gpt-[5-9]"), _tiles_or_patches),
)
