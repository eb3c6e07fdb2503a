"""Translates: a request -> the kinds of content other than text in it, and where they are."""

from __future__ import annotations

from msgspec import Struct

from proxy.schema.endpoints import AnyRequest

# Type of a content part -> its kind, and its name under `supports` in pricing.yaml.
_KINDS = {
    "image_url": ("image", "images"),
    "input_audio": ("audio", "audio"),
    "video_url": ("video", "video"),
    "file": ("file", "files"),
    "document": ("file", "files"),
}


class ContentNeed(Struct, frozen=True):
    """One non-text part: its dotted path, its kind, and the capability it needs."""

    where: str
    kind: str
    needs: str


def content_needs(request: AnyRequest) -> list[ContentNeed]:
    """The first part of each kind in the whole conversation, in order; empty for text-only requests."""
    found: dict[str, ContentNeed] = {}
    for number, message in enumerate(request.messages):
        if isinstance(message.content, list):
            for place, part in enumerate(message.content):
                if isinstance(kind := part.get("type"), str) and kind in _KINDS:
                    what, needed = _KINDS[kind]
                    if needed not in found:
                        found[needed] = ContentNeed(
                            request.own_path(f"messages.{number}.content.{place}"), what, needed
                        )
    return list(found.values())
