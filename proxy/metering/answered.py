"""Translates: the requested model and the model that an answer names -> are they the same?

Vendors answer with a dated snapshot (`gpt-4o-2024-08-06`), with the id that an alias stands for, with their own prefix
or with a path. A later version or a variant (`-mini`, `-next`) is another model.
"""

from __future__ import annotations

import re

# What vendors append to name a snapshot: 2024-08-06, 20250929, 08-2024, 05-06, 2507, 0125, 001, -0 (Anthropic), latest.
_DATE = r"\d{4}-\d{2}-\d{2}|20\d{6}|\d{2}-\d{4}|\d{2}-\d{2}|\d{4}|\d{3}|0|latest"
_SNAPSHOT = re.compile(rf"[-@:](?:{_DATE})$")
_FILE = re.compile(r"^(?:/|\.{0,2}/|[a-z]:\\|~)|\.(?:gguf|safetensors|bin|ggml|llamafile)$")


def is_same_model(asked: str, answered: str) -> bool:
    """True if both ids name one model: apart from prefix, case and snapshot, or the answer names a file."""
    if asked == answered:
        return True
    one, other = asked.lower().removeprefix("models/"), answered.lower().removeprefix("models/")
    if one == other or _FILE.search(answered.lower()):
        return True
    if _base(one) == _base(other):
        return "/" not in one or "/" not in other or one.rpartition("/")[0] == other.rpartition("/")[0]
    return False


def _base(name: str) -> str:
    """The id without prefix and snapshot."""
    name = name.rpartition("/")[2]
    return _SNAPSHOT.sub("", name)
