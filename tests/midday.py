"""A day that is half over, whenever a test runs: of a window that has only begun, pages do not foretell the end."""

from __future__ import annotations

import time


def zone() -> str:
    """A time zone in which it is noon, or up to an hour later. (The signs of these names are reversed.)"""
    return f"Etc/GMT{time.gmtime().tm_hour - 12:+d}"
