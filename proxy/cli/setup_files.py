"""Translates: a settings file of another program into the same file with a few values set. Everything else stays.

The result is parsed again. If it does not have exactly the old content plus the new values, it is not used.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from proxy.cli.import_source import plain
from proxy.config.problems import Problem
from proxy.config.tree import parse

Values = Mapping[str, Any]  # nested; None removes a key


class NotEditable(Exception):
    """The file must be edited by hand; the message says why."""


def edited(text: str, values: Values, form: str) -> str:
    """The file with these values. `form`: json, toml, yaml or env. Raises NotEditable."""
    before = read_values(text, form)
    wanted = _merged(before, values)
    if before == wanted and text:
        return text
    after = {"json": _as_json, "toml": _as_toml, "yaml": _as_yaml, "env": _as_env}[form](text, values, wanted)
    try:
        is_right = read_values(after, form) == wanted
    except NotEditable:
        is_right = False
    if not is_right:
        raise NotEditable("is written in a way that cannot be edited safely")
    return after


def snippet(values: Values, form: str) -> str:
    """The lines for a new file."""
    return edited("", _merged({}, values), form)


def _merged(before: Values, values: Values) -> dict[str, Any]:
    merged = dict(before)
    for key, value in values.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            inner = merged.get(key, {})
            if not isinstance(inner, Mapping):
                raise NotEditable(f"has a {key} that does not hold keys and values")
            merged[key] = _merged(inner, value)
        else:
            merged[key] = value
    return merged


def read_values(text: str, form: str) -> dict[str, Any]:
    """The values in a file. Raises NotEditable."""
    if not text.strip():
        return {}
    try:
        if form == "json":
            found = json.loads(text.removeprefix("\ufeff"))
        elif form == "toml":
            found = tomllib.loads(text)
        elif form == "yaml":
            problems: list[Problem] = []
            tree = parse(text.encode(), "it", problems, merge_keys=True)
            if tree is None or problems:
                raise NotEditable(f"is not valid YAML, or uses what this command does not read: {problems[0].message}")
            found = plain(tree)
        else:
            found = dict(line for each in text.splitlines() if (line := _assignment(each)) is not None)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        has_comments = form == "json" and re.search(r"^\s*//|/\*", text, re.MULTILINE)
        why = "has comments, which this command would lose" if has_comments else f"is not valid {form.upper()}: {error}"
        raise NotEditable(why) from None
    if not isinstance(found, dict):
        raise NotEditable("does not hold keys and values")
    return found


def _as_json(text: str, _: Values, wanted: Values) -> str:
    indent = re.search(r"^([ \t]+)\S", text, re.MULTILINE)
    return json.dumps(wanted, indent=indent[1] if indent else 2, ensure_ascii=False) + "\n"


def _as_toml(text: str, values: Values, _: Values) -> str:
    """Top-level keys go before the first table; each table is found by its header, or added at the end."""
    lines = text.splitlines()
    first = next((place for place, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
    top = _set_lines(lines[:first], {key: each for key, each in values.items() if not isinstance(each, Mapping)}, " = ")
    rest = lines[first:]
    for name, table in _tables(values):
        header = f"[{name}]"
        start = next((place for place, line in enumerate(rest) if line.strip() == header), None)
        if start is None:
            rest += ["", header, *_set_lines([], table, " = ")]
            continue
        end = next((p for p in range(start + 1, len(rest)) if rest[p].lstrip().startswith("[")), len(rest))
        rest[start + 1 : end] = _set_lines(rest[start + 1 : end], table, " = ")
    while rest and not top and not rest[0].strip():
        rest = rest[1:]
    return "\n".join([*top, *rest]) + "\n"


def _tables(values: Values, path: str = "") -> list[tuple[str, Values]]:
    """The tables of nested values, by their dotted names."""
    found: list[tuple[str, Values]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            name = f"{path}{key}"
            own = {each: inner for each, inner in value.items() if not isinstance(inner, Mapping)}
            found += [(name, own)] if own else []
            found += _tables(value, f"{name}.")
    return found


def _as_yaml(text: str, values: Values, _: Values) -> str:
    return "\n".join(_set_lines(text.splitlines(), values, ": ")) + "\n"


def _as_env(text: str, values: Values, _: Values) -> str:
    lines = text.splitlines()
    for key, value in values.items():
        line = f"{key}={value}"
        places = [place for place, each in enumerate(lines) if (_assignment(each) or ("",))[0] == key]
        if places:
            lines[places[-1]] = line
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _set_lines(lines: list[str], values: Values, sign: str) -> list[str]:
    """Lines of `key = value` with these values, each in its place or after the last line that is not blank."""
    found = list(lines)
    for key, value in values.items():
        pattern = re.compile(rf"{re.escape(key)}\s*{sign.strip()}")
        place = next((place for place, line in enumerate(found) if pattern.match(line)), None)
        if value is None:
            found = [line for line in found if not pattern.match(line)]
        elif place is not None:
            found[place] = f"{key}{sign}{json.dumps(value, ensure_ascii=False)}"
        else:
            last = max((place for place, line in enumerate(found) if line.strip()), default=-1)
            found.insert(last + 1, f"{key}{sign}{json.dumps(value, ensure_ascii=False)}")
    return found


def _assignment(line: str) -> tuple[str, str] | None:
    found = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_]\w*)=(.*)", line)
    return None if found is None else (found[1], found[2])
