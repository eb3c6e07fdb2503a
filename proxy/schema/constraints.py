"""Values: types of configuration keys that allow only some values of a type. The reader refuses the others, and the
JSON schema tells editors, both by what stands here.

`extra["must"]` ends the sentence "must ..."; `extra["check"]` names a check that a pattern cannot make.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta


def one_of(*allowed: str | int | bool) -> Meta:
    """Exactly these values."""
    return Meta(extra={"one_of": allowed}, extra_json_schema={"enum": [*allowed]})


def text(pattern: str, must: str) -> Meta:
    """Text that the pattern is found in."""
    return Meta(pattern=pattern, extra={"must": must})


NotBlank = Annotated[str, text(r"\S", "not be empty")]
Variable = Annotated[
    str,
    text("^[A-Za-z_][A-Za-z0-9_]*$", "be the name of an environment variable, like GROQ_API_KEY, not its value"),
]
Day = Annotated[
    str,
    Meta(
        pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
        extra={"must": "be a day that exists, like 2026-11-22", "check": "day"},
        extra_json_schema={"format": "date"},
    ),
]
TimeZone = Annotated[str, Meta(extra={"check": "time_zone"}, extra_json_schema={"examples": ["UTC", "Europe/Berlin"]})]
Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
