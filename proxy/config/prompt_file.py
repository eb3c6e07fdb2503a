"""Translates: a YAML file of prompts into prompts, and back.

A prompt is one version (`template` or `messages`, ...) with a list of `labels`, or a list of `versions` with `labels`
that map to their numbers in this file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from proxy.config.edit import plain
from proxy.config.problems import ConfigError
from proxy.config.tree import MAX_BYTES, plain_value
from proxy.prompts.checked import FIELDS, check_known, checked_version, title_of
from proxy.prompts.presets import shown_fields
from proxy.prompts.uses import id_of, label_of
from proxy.schema.errors import BadRequest
from proxy.schema.prompts import Brought, PromptHead, PromptVersion

Check = Callable[[PromptVersion, str], None]
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./@+-]*")
_WIDTH = 4096  # lines of a text are never wrapped


def read_prompts(data: bytes, file: str, check: Check) -> list[Brought]:
    """The prompts of a file, called `file` in messages. `check` gets each version and its path, and raises BadRequest
    for one that cannot be used. Raises BadRequest, which names the place.
    """
    try:
        values = plain(data, file)
    except ConfigError as error:
        raise BadRequest(f"The file cannot be read.\n{error}", param="prompts") from None
    prompts = values.get("prompts")
    if values.get("version") != 1 or not isinstance(prompts, dict) or values.keys() - {"version", "prompts"}:
        message = f"{file}: expected `version: 1` and `prompts:`, keys and values, and nothing else."
        raise BadRequest(message, param="prompts")
    return [_prompt(id_of(name, f"prompts.{str(name)[:64]}"), entry, check) for name, entry in prompts.items()]


def written(prompts: Iterable[tuple[PromptHead, Sequence[PromptVersion]]]) -> str:
    """A file with these prompts and all their versions, oldest first."""
    entries = {}
    for head, versions in prompts:
        places = {version.version: place for place, version in enumerate(versions, 1)}
        entries[head.id] = {
            **({"name": head.name} if head.name != head.id else {}),
            "labels": {label: places[at] for label, at in sorted(head.labels.items()) if at in places},
            "versions": [shown_fields(version) for version in versions],
        }
    text = _dumped({"version": 1, "prompts": _styled(entries, LiteralScalarString)})
    # A block that YAML would read differently, or whose indentation makes the file too large.
    if len(text.encode()) > MAX_BYTES or not _reads_as(text, {"version": 1, "prompts": entries}):
        text = _dumped({"version": 1, "prompts": _styled(entries, DoubleQuotedScalarString)})
    return text


def _reads_as(text: str, values: dict[str, Any]) -> bool:
    try:
        return plain(text.encode(), "export") == values
    except ConfigError:  # in YAML, U+0085 and some other characters end a line
        return False


def _prompt(name: str, entry: Any, check: Check) -> Brought:
    where = f"prompts.{name}."
    if not isinstance(entry, dict):
        raise BadRequest(f"prompts.{name}: expected keys and values.", param=f"prompts.{name}")
    entries = entry.get("versions", [{key: entry[key] for key in FIELDS if key in entry}])
    known = ("name", "labels", *(("versions",) if "versions" in entry else FIELDS))
    try:
        check_known(entry, known)
        title = title_of(entry.get("name"), name)
    except BadRequest as error:
        raise BadRequest(f"{where}{error.message}", param=f"{where}{error.param}", code=error.code or "") from None
    if not isinstance(entries, list) or not entries or not all(isinstance(each, dict) for each in entries):
        raise BadRequest(f"{where}versions: expected a list of versions.", param=f"{where}versions")
    versions = []
    for place, each in enumerate(entries):
        prefix = f"{where}versions.{place}." if "versions" in entry else where
        try:
            check_known(each, FIELDS)
        except BadRequest as error:
            raise BadRequest(f"{prefix}{error.message}", param=f"{prefix}{error.param}") from None
        versions.append(checked_version(each, prefix))
        check(versions[-1], prefix)
    return Brought(name, title, versions, _labels(entry.get("labels"), len(versions), f"{where}labels"))


def _labels(given: Any, count: int, where: str) -> dict[str, int]:
    """Label -> index of its version. Labels in a list belong to the last version."""
    if given is None:
        return {}
    if isinstance(given, list):
        return {label_of(label, where): count - 1 for label in given}
    if not isinstance(given, dict):
        raise BadRequest(f"{where}: expected a list of labels, or labels and numbers of versions.", param=where)
    for label, at in given.items():
        if isinstance(at, bool) or not isinstance(at, int) or not 1 <= at <= count:
            raise BadRequest(f"{where}.{label[:64]}: expected the number of a version, 1 to {count}.", param=where)
    return {label_of(label, where): at - 1 for label, at in given.items()}


def _styled(value: Any, of_lines: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        if _WORD.fullmatch(value) and plain_value(value) == value:
            return value
        return of_lines(value) if "\n" in value else DoubleQuotedScalarString(value)
    if isinstance(value, dict):
        return {_styled(name, of_lines): _styled(each, of_lines) for name, each in value.items()}
    return [_styled(each, of_lines) for each in value] if isinstance(value, list) else value


def _dumped(value: Any) -> str:
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = StringIO()
    yaml.dump(value, text)
    return text.getvalue()
