"""Translates: two versions of a prompt into their differences."""

from __future__ import annotations

import difflib
import json
from typing import Any

from msgspec import Struct

from proxy.prompts.presets import shown_fields
from proxy.schema.prompts import PromptVersion

MAX_LINES = 1_000  # compared line by line; longer texts are replaced as a block


class Difference(Struct, frozen=True):
    """`fields`: those that differ. `text`: the texts compared line by line, as `diff -u` writes it."""

    fields: list[str]
    variables_added: list[str]
    variables_removed: list[str]
    text: str


def difference(old: PromptVersion, new: PromptVersion) -> Difference:
    """The changes from `old` to `new`."""
    before, after = shown_fields(old), shown_fields(new)
    names = list(dict.fromkeys([*before, *after]))
    lines = _unified(_lines(before), _lines(after), f"version {old.version}", f"version {new.version}")
    return Difference(
        fields=[name for name in names if before.get(name) != after.get(name)],
        variables_added=[name for name in new.variables if name not in old.variables],
        variables_removed=[name for name in old.variables if name not in new.variables],
        text="".join(f"{line}\n" for line in lines),
    )


def _lines(fields: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in fields.items():
        if name == "template":
            lines += ["[user]", *value.splitlines()]
        elif name == "messages":
            for message in value:
                content = message.get("content")
                others = {key: each for key, each in message.items() if key not in ("role", "content")}
                lines += [f"[{message.get('role')}]", *(content.splitlines() if isinstance(content, str) else [])]
                lines += [] if isinstance(content, str | None) else _json(content)
                lines += _json(others) if others else []
        else:
            lines += [f"[{name}]", *(value.splitlines() if isinstance(value, str) else _json(value))]
    return lines


def _json(value: Any) -> list[str]:
    return json.dumps(value, indent=2, ensure_ascii=False).splitlines()


def _unified(before: list[str], after: list[str], old: str, new: str) -> list[str]:
    """difflib's time grows with the square of the lines, so only a few are compared one by one."""
    if max(len(before), len(after)) <= MAX_LINES:
        return list(difflib.unified_diff(before, after, old, new, lineterm=""))
    if before == after:
        return []
    same = next((at for at, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), None)
    start = min(len(before), len(after)) if same is None else same
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    removed, added = before[start : len(before) - end], after[start : len(after) - end]
    place = f"@@ -{start + 1},{len(removed)} +{start + 1},{len(added)} @@"
    return [f"--- {old}", f"+++ {new}", place, *(f"-{line}" for line in removed), *(f"+{line}" for line in added)]
