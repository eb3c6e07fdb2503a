"""Translates: request bodies into checked fields, for all endpoints."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from proxy.schema.errors import BadRequest
from proxy.schema.json import MAX_NAME, decode_object
from proxy.schema.usage import Usage

_PATH = re.compile(r"^(?P<what>.*) - at `\$\.?(?P<path>.*)`$", re.DOTALL)
T = TypeVar("T", bound=Struct)


def request_fields(body: bytes, known: frozenset[str]) -> dict[str, Any]:
    """The fields of a request body; `known`: the endpoint's own fields. Raises BadRequest."""
    fields = decode_object(body)
    for name in () if fields.keys() <= known else fields:
        if name not in known and name.casefold() in known:
            raise BadRequest(f"Unknown parameter {name!r}. Did you mean {name.casefold()!r}?", param=name[:64])
    return fields


def view_of(fields: dict[str, Any], kind: type[T]) -> T:
    """The fields declared by a Struct, validated. Raises BadRequest, which names the field."""
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None


def without_nulls(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The fields without known ones that are null: some SDKs send them, and servers reject them."""
    if None not in fields.values():
        return fields
    return {name: value for name, value in fields.items() if value is not None or name not in known}


def _invalid(text: str) -> BadRequest:
    """msgspec's message with the path of the field in OpenAI's dotted form."""
    match = _PATH.match(text)
    if match is None:
        missing = re.search(r"missing required field `(\w+)`", text)
        return BadRequest(text, param=missing[1] if missing else None)
    path = match["path"].replace("[", ".").replace("]", "").strip(".")
    missing = re.search(r"missing required field `(\w+)`", match["what"])
    if missing:
        path = f"{path}.{missing[1]}"
    return BadRequest(f"{path}: {match['what']}.", param=path)


def check_model(name: str) -> None:
    """Raises BadRequest for a name that is not safe to repeat in rows, log lines and answers."""
    if not name.strip():
        raise BadRequest("model: name a model, for example `auto`.", param="model")
    if len(name) > MAX_NAME or not name.isprintable():
        raise BadRequest(f"model: expected at most {MAX_NAME} printable characters.", param="model")


def in_range(name: str, value: int | None, most: int) -> None:
    """Raises BadRequest for a number below 1 or above `most`."""
    if value is not None and value < 1:
        raise BadRequest(f"{name}: expected at least 1.", param=name)
    if value is not None and value > most:
        raise BadRequest(f"{name}: expected at most {most}.", param=name)


def without_output(usage: Usage) -> dict[str, Any]:
    """Usage for endpoints without output tokens."""
    return {name: value for name, value in usage.items() if name != "completion_tokens"}
