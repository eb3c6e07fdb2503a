"""Translates: stored prompts into what their pages show, and the fields of their forms into the API's. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from proxy.prompts.templates import MAX_VARIABLES
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import decode
from proxy.schema.prompts import PromptVersion
from proxy.server.web.words import MAX_TEXT, long_text, plain

NEW = ("id", "name", "template", "messages", "variables", "labels", "model", "notes", "parameters", "tools")
FIELDS = (*NEW, "response_format")  # of the form of a new version
MOVE = ("label", "version", "note")
VALUE = "value."  # begins the field of a variable's value
_JSON = ("messages", "parameters", "tools", "response_format")
_LISTS = ("variables", "labels")
_MOST_TEXT = 60_000  # characters of all texts of a page
_LEAST_TEXT = 200  # of each, beyond that
_MOST_LINES = 3_000  # of a comparison
_MOST_LINE = 2_000


class Wrong(Struct, frozen=True):
    """Why a form was refused. `field`: the one that is marked; empty: none is."""

    message: str
    field: str = ""
    status: int = 400


class Piece(Struct, frozen=True):
    """A text with its heading: a message of a chat, or a field of a version."""

    heading: str
    text: str


class DiffLine(Struct, frozen=True):
    """`style`: added, removed, gap or same."""

    style: str
    text: str


def wrong_of(error: ProxyError, fields: Sequence[str]) -> Wrong:
    """What a form shows of an error: the field that it names, if the form has it."""
    param = error.param or ""
    field = next((name for name in (param, param.split(".")[0]) if name in fields), "")
    message = "Somebody has changed it since this page was loaded. Look at it as it is now, then repeat your change."
    return Wrong(message if error.status == 412 else error.message, field, error.status)


def version_fields(form: Mapping[str, str], known: Sequence[str]) -> dict[str, Any]:
    """The body of the API from the fields of the form; empty ones are left out. Raises BadRequest with the field."""
    found: dict[str, Any] = {}
    for name in known:
        text = form.get(name, "")
        if not text.strip():
            continue
        if name in _JSON:
            found[name] = decoded(name, text)
        elif name in _LISTS:
            found[name] = [part for part in text.replace(",", " ").split() if part]
        else:
            found[name] = text if name == "template" else text.strip()
    return found


def decoded(name: str, text: str) -> Any:
    """The JSON in a field. Raises BadRequest."""
    try:
        return decode(text.encode())
    except RecursionError:
        raise BadRequest(f"{name}: is nested too deeply.", param=name) from None
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise BadRequest(f"{name}: this is no JSON: {error}.", param=name) from None


def form_of(version: PromptVersion) -> dict[str, str]:
    """The fields of the form with the contents of a version, for one that is like it."""
    fields = {
        "template": version.template or "",
        "messages": "" if version.template is not None else _indented(version.messages),
        "model": version.model or "",
        "notes": "",
    }
    options = {name: getattr(version, name) for name in ("parameters", "tools", "response_format")}
    return {**fields, **{name: _indented(value) if value else "" for name, value in options.items()}}


def pieces_of(version: PromptVersion) -> list[Piece]:
    """All that a version holds; long texts are cut."""
    options = {name: getattr(version, name) for name in ("parameters", "tools", "response_format")}
    shown = [Piece(name.replace("_", " "), long_text(_indented(value))) for name, value in options.items() if value]
    return [*messages_of(version.messages), *shown]


def messages_of(messages: Sequence[Mapping[str, Any]]) -> list[Piece]:
    """The messages of a chat."""
    shown, left = [], _MOST_TEXT
    for message in messages:
        content = message.get("content")
        others = {name: value for name, value in message.items() if name not in ("role", "content")}
        texts = [content if isinstance(content, str) else _indented(content)] if content is not None else []
        texts += [_indented(others)] if others else []
        text = "\n".join(texts)
        shown.append(Piece(plain(message.get("role")), long_text(text, min(MAX_TEXT, max(left, _LEAST_TEXT)))))
        left -= len(text)
    return shown


def diff_lines(text: str) -> list[DiffLine]:
    """The lines of a comparison, without the two that name the versions."""
    lines, shown, left = text.splitlines()[2:], list[DiffLine](), _MOST_TEXT
    for line in lines[:_MOST_LINES]:
        shown.append(DiffLine(_style_of(line), long_text(line, _MOST_LINE)))
        left -= len(line)
        if left < 0:
            break
    rest = len(lines) - len(shown)
    return [*shown, DiffLine("gap", f"{rest:,} more lines")] if rest else shown


def _style_of(line: str) -> str:
    return {"+": "added", "-": "removed", "@": "gap"}.get(line[:1], "same")


def values_of(form: Mapping[str, str]) -> dict[str, str]:
    """The values of the variables in the form that tries a version."""
    names = [name for name in form if name.startswith(VALUE)][:MAX_VARIABLES]
    return {name.removeprefix(VALUE): form[name] for name in names}


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
