"""Translates: checks non-text content of a request against the model's capabilities in pricing.yaml.

A row without `supports` is assumed to support everything. Tools and JSON schemas are left to the provider.
"""

from __future__ import annotations

from msgspec import Struct

from proxy.routing.deployment import Deployment
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest

# Type of a content part: what it is, and its name under `supports`.
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


def needs(request: AnyRequest) -> list[ContentNeed]:
    """The first part of each kind, in order; empty for text-only requests."""
    if not isinstance(request, ChatRequest):
        return []
    found: dict[str, ContentNeed] = {}
    for number, message in enumerate(request.messages):
        if isinstance(message.content, list):
            for place, part in enumerate(message.content):
                if isinstance(kind := part.get("type"), str) and kind in _KINDS:
                    what, needed = _KINDS[kind]
                    if needed not in found:
                        found[needed] = ContentNeed(f"messages.{number}.content.{place}", what, needed)
    return list(found.values())


def refusal(parts: list[ContentNeed], deployment: Deployment) -> BadRequest | None:
    """The error for the first unsupported part; None if the model supports all parts, or that is unknown."""
    takes = deployment.price.supports if deployment.price is not None else None
    missing = next((part for part in parts if takes is not None and part.needs not in takes), None)
    if missing is None:
        return None
    message = f"{deployment.name} cannot take {missing.kind} content."
    return BadRequest(message, param=missing.where, code="unsupported_content")
