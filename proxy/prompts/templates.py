"""Translates: a text with `{name}` for each variable into its parts, and parts and values into a text.

`{{` and `}}` are literal braces. There is nothing else: no attributes, no indices, no formats, no expressions. Values
are inserted as they are and never parsed: braces in a value stay braces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from proxy.schema.errors import BadRequest
from proxy.schema.long_text import joined

MAX_BYTES = 256 * 1024  # of all texts of one version
MAX_VARIABLES = 200
MAX_NAME = 64
_BRACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]{0,63})\}|[{}]")
_SHOWN = 24  # characters of a wrong placeholder


class Template(Struct, frozen=True):
    """`texts` are the pieces around the variables `names`: one more text than names."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    def size(self, values: Mapping[str, str]) -> int:
        """The characters that `render` would return."""
        return sum(map(len, self.texts)) + sum(len(values[name]) for name in self.names)

    def render(self, values: Mapping[str, str]) -> str:
        """The text. `values` has every name."""
        if not self.names:
            return self.texts[0]
        pieces = [self.texts[0]]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            pieces += (values[name], text)
        return joined(pieces)


def parse(text: str, where: str) -> Template:
    """The parts of a text. Raises BadRequest with the line and column of an error; `where` names the field."""
    texts, names, literal, end = [], [], [], 0
    for match in _BRACE.finditer(text):
        literal.append(text[end : match.start()])
        end = match.end()
        found = match[0]
        if match[1] is not None:
            texts.append("".join(literal))
            names.append(match[1])
            literal = []
        elif len(found) == 2:
            literal.append(found[0])
        else:
            raise _wrong(text, match.start(), where)
    literal.append(text[end:])
    texts.append("".join(literal))
    return Template(tuple(texts), tuple(names))


def variables_of(templates: Iterable[Template]) -> tuple[str, ...]:
    """The names of all variables, in the order of their first use."""
    return tuple(dict.fromkeys(name for template in templates for name in template.names))


def check_text(text: str, where: str) -> None:
    """Raises BadRequest for characters that no model reads and no database stores: NUL, and unpaired surrogates."""
    if (at := text.find("\0")) >= 0:
        raise BadRequest(f"{where}: NUL (character {at + 1}) is not allowed.", param=where)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = f"{where}: character {error.start + 1} is half of a surrogate pair. Cut the text between characters."
        raise BadRequest(message, param=where) from None


def names_text(names: Sequence[str], most: int = 10) -> str:
    """Names for a message, at most `most` of them."""
    shown = ", ".join(name[:MAX_NAME] for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _wrong(text: str, at: int, where: str) -> BadRequest:
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    end = text.find("}", at, at + _SHOWN) + 1
    shown = text[at : end or at + _SHOWN]
    message = (
        f"{where}: line {line}, column {column}: {shown!r} is not a variable. A variable is a name in braces, like "
        "{name}, of letters, digits and underscores only. Write {{ and }} for literal braces."
    )
    return BadRequest(message, param=where)
