"""Values: the description of one operation in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

JSON, CSV, YAML = "application/json", "text/csv", "application/yaml"


class Described(Struct, frozen=True):
    """One operation. `answers`: status -> media type -> its Struct or TypedDict, None for text that has no schema."""

    summary: str
    answers: dict[str, dict[str, Any]]
    body: Any = None
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    errors: tuple[int, ...] = ()
