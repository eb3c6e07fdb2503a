"""Translates: configuration mistakes into problems with a position. Messages never repeat a value that may be a key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from enum import StrEnum

from msgspec import Struct

Path = tuple[str, ...]

_KEY_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-|gsk_|xai-|hf_|csk-|nvapi-|mmp-|ghp_|github_pat_|xox[abp]-)[A-Za-z0-9_-]{6,}"
    r"|(?<![A-Za-z0-9])(?:pplx-[A-Za-z0-9]{24,}|AIza[A-Za-z0-9_-]{6,}|AKIA[A-Z0-9]{12,}|tgp_v1_[A-Za-z0-9_-]{6,})"
    r"|(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{10,}\."
    # Vendors whose keys have no prefix use 32 to 64 letters and digits.
    r"|\A(?=[^\s]*[0-9])(?=[^\s]*[A-Za-z])[A-Za-z0-9]{32,}\Z"
)
_KEY_NAMES = re.compile(
    r"token|(?:.*[_-])?(?:api[_-]?)?(?:keys?|secrets?|passwords?|passwd|credentials?|(?:auth|access|bearer)[_-]?tokens?)",
    re.IGNORECASE,
)


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Mark(Struct, frozen=True):
    """A position in a file, counted from 1. Line 0 means the file as a whole, or something that is not a file."""

    file: str
    line: int = 0
    column: int = 0


class Problem(Struct, frozen=True):
    """One error or warning. `path` is dotted, and empty for the file as a whole."""

    file: str
    line: int
    column: int
    path: str
    message: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        grade = "warning: " if self.severity is Severity.WARNING else ""
        path = f"{self.path}: " if self.path else ""
        return f"{place}: {grade}{path}{self.message}"


class ConfigError(Exception):
    """The configuration is unusable. `problems` holds every problem; `str()` has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def problem(mark: Mark, path: Path, message: str, severity: Severity = Severity.ERROR) -> Problem:
    return Problem(mark.file, mark.line, mark.column, ".".join(shown(key) for key in path), message, severity)


def shown(text: str) -> str:
    """A key or a name made safe to print: on one line, shortened, and masked if it may be a secret."""
    if looks_like_key(text):
        return "****"
    short = text if len(text) <= 100 else text[:97] + "..."
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in short)


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean "x"?`, or an empty text if no known word is close."""
    plain = {_plain(name): name for name in known}
    close = difflib.get_close_matches(_plain(word[:100]), plain, n=1, cutoff=0.7)
    return f'; did you mean "{shown(plain[close[0]])}"?' if close else ""


def looks_like_key(text: str) -> bool:
    """True for text in the format of a vendor's API key. Such text is refused and never repeated."""
    return _KEY_SHAPES.search(text) is not None


def names_a_key(word: str) -> bool:
    """True for `api_key`, `secret`, `auth-token` and similar names for a secret in plain text."""
    return _KEY_NAMES.fullmatch(word) is not None


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "").replace(" ", "")
