"""Translates: a JSON text into its structure (all that is outside its strings), and checks it against the limits.

The cost of parsing depends on the number of values in a body, not only on its bytes. So the limits are checked on the
structure of the body, which is found at memory speed before anything is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, count
from operator import sub

from proxy.schema.errors import ProxyError

MAX_VALUES = 250_000  # in one request
MAX_PAIRS = 100_000  # of a key and a value in one request: a key that is new costs as much as 20 numbers
MAX_CONTAINERS = 50_000  # objects and arrays in one request: so does each of these, with garbage collection
MAX_NESTING = 512  # levels; the interpreter's own limit is 1,000 up to Python 3.12 and 10,000 later
STEP_BYTES = 1024 * 1024  # of a large text that are processed at once: other threads wait for the GIL meanwhile
_PREFIX = 512 * 1024  # bytes of a body that are looked at first: enough to refuse one that is all structure


def _all_but(kept: bytes) -> bytes:
    return bytes(set(range(256)) - set(kept))


_ESCAPES = b"\\/bfnrtu"  # the backslash, and what may follow it beside a quote
_UNMARKED = _all_but(b",:[{")
_UNWANTED = _all_but(b'",:[]{}' + _ESCAPES)
_NO_BRACKETS = b",:"
_STEPS = bytes(2 if byte in b"[{" else 0 for byte in range(256))  # less one for each byte: up for [{, down for ]}
_SLICE = 64 * 1024


def marks(text: bytes) -> bytes:
    """Commas, colons and opening brackets of a JSON text, those in its strings too: an upper bound of its structure."""
    return text.translate(None, _UNMARKED)


def structure(text: bytes) -> bytes:
    """Commas, colons and brackets outside the strings of a JSON text; of one cut anywhere, those before the cut."""
    return b"".join([found for _, _, found in sliced(text)])


def sliced(text: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """The text in slices: where each ends, whether that is within a string, and its structure.

    No slice ends between a backslash and what it escapes.
    """
    at, quoted = 0, False
    while at < len(text):
        until = at + _SLICE
        piece = text[at:until]
        if until < len(text) and is_escaping(piece):
            until += 1
            piece = text[at:until]
        kept = _quotes_and_structure(piece)
        # Where one string ends beside the next one's beginning, the two become one: nothing else changes sides.
        parts = kept.replace(b'""', b"").split(b'"')
        found = b"".join(parts[quoted::2])
        quoted ^= len(parts) % 2 == 0
        at = min(until, len(text))
        yield at, quoted, found


def is_escaping(piece: bytes) -> bool:
    """Whether the last byte of a piece of a string is a backslash that escapes what follows."""
    return piece.endswith(b"\\") and (len(piece) - len(piece.rstrip(b"\\"))) % 2 == 1


def _quotes_and_structure(text: bytes) -> bytes:
    kept = text.translate(None, _UNWANTED)
    if b"\\" in kept:
        kept = kept.replace(b"\\\\", b"").replace(b'\\"', b"")
    return kept.translate(None, _ESCAPES)


def check_nesting(text: bytes) -> None:
    """Raises RecursionError for JSON nested deeper than MAX_NESTING, whatever the interpreter allows.

    Costs next to nothing for a text with few brackets, as the events of streams are.
    """
    if len(text) > MAX_NESTING and containers(text) > MAX_NESTING and nesting(text) > MAX_NESTING:
        raise RecursionError(f"JSON nested deeper than {MAX_NESTING} levels")


def nesting(text: bytes) -> int:
    """How many levels deep a JSON text is nested."""
    deepest = depth = 0
    for _, _, found in sliced(text):
        if profile := depths(found):
            deepest = max(deepest, depth + max(profile))
            depth += profile[-1]
    return deepest


def check_limits(structure: bytes) -> None:
    """Raises RecursionError for a structure that is too deep, ProxyError 413 for one of too many values."""
    opened = containers(structure)
    values, pairs = opened + structure.count(b","), structure.count(b":")  # a value follows a comma or a bracket
    is_too_much = values > MAX_VALUES or pairs > MAX_PAIRS or opened > MAX_CONTAINERS
    looked_at = structure[: 4 * MAX_NESTING] if is_too_much else structure
    if opened > MAX_NESTING and _deepest(looked_at) > MAX_NESTING:
        raise RecursionError(f"JSON nested deeper than {MAX_NESTING} levels")
    if is_too_much:
        most = f"{MAX_VALUES:,} values, {MAX_PAIRS:,} of them with a key, and {MAX_CONTAINERS:,} objects and arrays"
        message = f"The JSON body has too many values. A request may have {most}."
        raise ProxyError(message, status=413, code="request_too_large")


def check_beginning(body: bytes) -> None:
    """Refuses a large body as soon as its beginning shows that it has too many values."""
    size = _PREFIX
    while len(body) > 1.5 * size:
        found = structure(body[:size])
        check_limits(found)
        # The share of a limit that this part has used: it shows where a body that goes on like this would exceed one.
        used = max(containers(found) / MAX_CONTAINERS, found.count(b":") / MAX_PAIRS, len(found) / MAX_VALUES)
        size = max(2 * size, int(1.05 * size / used) if used > 0.01 else len(body))


def containers(text: bytes) -> int:
    """How many brackets are opened in a structure, or at most in a text."""
    if len(text) <= STEP_BYTES:
        return len(text) - len(text.translate(None, b"[{"))
    return sum(containers(text[at : at + STEP_BYTES]) for at in range(0, len(text), STEP_BYTES))


def depths(structure: bytes) -> list[int]:
    """How many more containers are open after each bracket of a structure than before it."""
    steps = accumulate(structure.translate(_STEPS, _NO_BRACKETS))
    return list(map(sub, steps, count(1)))


def _deepest(structure: bytes) -> int:
    steps = accumulate(structure.translate(_STEPS, _NO_BRACKETS))
    return max((up - place for place, up in enumerate(steps, 1)), default=0)
