"""The descriptions of keys in docs/configuration.md, which `proxy schema` passes on to editors."""

from __future__ import annotations

import re


def texts_in(page: str) -> dict[str, dict[str, str]]:
    """Struct -> key -> description, found by the `<!-- keys: STRUCT -->` before each table."""
    row = re.compile(r"^\| `([^`|]+)` \| [^|]+ \| [^|]+ \| (.+) \|$", re.MULTILINE)
    parts = re.split(r"^<!-- keys: (.+) -->\n", page, flags=re.MULTILINE)[1:]
    tables = zip(parts[::2], (part.partition("\n\n")[0] for part in parts[1::2]), strict=True)
    return {name: {key: plain(text) for key, text in row.findall(table)} for name, table in tables}


def plain(text: str) -> str:
    """The description without links and escaped bars, which make sense on a page only."""
    return re.sub(r"(?:; see )?\[[^]]*\]\([^)]*\)|; see below$", "", text).replace("\\|", "|")
