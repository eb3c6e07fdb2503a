"""Values: types of configuration keys that allow only some values of a type. The reader refuses all others, and the
JSON schema tells editors; both follow these definitions.

Bounds are msgspec's own (`ge`, `gt`, `le`). `extra` may hold `one_of`, the allowed values; `pattern` for text,
with `must`, the end of the error "must ..."; and `check`, the name of a check that no pattern can express.
msgspec's own `pattern` is not used: a Struct that has one can crash the interpreter when it exits (msgspec 0.22.0 in
`TypeNode_Free`, seen in November 2026; issue 717 of msgspec).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta


def one_of(*allowed: str | int | bool) -> Meta:
    """Exactly these values."""
    return Meta(extra={"one_of": allowed}, extra_json_schema={"enum": [*allowed]})


def text(pattern: str, must: str) -> Meta:
    """Text in which the pattern is found."""
    return Meta(extra={"pattern": pattern, "must": must}, extra_json_schema={"pattern": pattern})


NotBlank = Annotated[str, text(r"\S", "not be empty")]
Variable = Annotated[
    str,
    text("^[A-Za-z_][A-Za-z0-9_]*$", "be the name of an environment variable, like GROQ_API_KEY, not its value"),
]
_DAY = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
Day = Annotated[
    str,
    Meta(
        extra={"pattern": _DAY, "must": "be a day that exists, like 2026-11-22", "check": "day"},
        extra_json_schema={"format": "date", "pattern": _DAY},
    ),
]
TimeZone = Annotated[str, Meta(extra={"check": "time_zone"}, extra_json_schema={"examples": ["UTC", "Europe/Berlin"]})]
Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
# Bounds of pricing.yaml that no vendor comes near. They keep costs in nano-USD within 64 bits.
Price = Annotated[float, Meta(ge=0, le=100_000)]  # USD per 1M tokens
Factor = Annotated[float, Meta(ge=0, le=100)]
Fee = Annotated[float, Meta(ge=0, le=1_000)]  # USD
TokenCount = Annotated[int, Meta(ge=1, le=2**31 - 1)]
# Bounds of retention: far beyond any use, and times in nanoseconds stay within 64 bits.
Days = Annotated[int, Meta(ge=1, le=36_500)]
Lifetime = Annotated[float, Meta(gt=0, le=30 * 86_400)]  # seconds
Dollars = Annotated[float, Meta(ge=0, le=1_000_000_000)]  # keeps sums of nano-USD within 64 bits
