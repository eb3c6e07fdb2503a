"""Translates: the field `prompt` of a body, and names like `prompt:extraction_v1@production`, into a PromptUse."""

from __future__ import annotations

import re
from typing import Any

from proxy.schema.errors import BadRequest
from proxy.schema.prompts import LATEST, PREFIX, PromptUse

FIELD = "prompt"
OF_OPENAI = "pmpt_"  # the prefix of ids of prompts that OpenAI stores
MAX_VERSION = 2**31 - 1
_KEYS = ("id", "version", "label", "variables")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LABEL = re.compile(r"(?![0-9]+$)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_RESERVED = ("export", "import")  # paths of the API


def id_of(value: Any, where: str = "id") -> str:
    """A valid id. Raises BadRequest."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        message = f"{where}: expected 1 to 64 letters, digits, dots, dashes and underscores, like extraction_v1."
        raise BadRequest(message, param=where)
    if value.startswith(OF_OPENAI) or value in _RESERVED:
        message = f"{where}: ids that begin with {OF_OPENAI}, and {' and '.join(_RESERVED)}, are reserved."
        raise BadRequest(message, param=where)
    return value


def label_of(value: Any, where: str = "label") -> str:
    """A label that can be put on a version. Raises BadRequest."""
    if not isinstance(value, str) or not _LABEL.fullmatch(value) or value == LATEST:
        message = (
            f"{where}: expected 1 to 64 letters, digits, dots, dashes and underscores, not only digits. "
            f"`{LATEST}` always means the newest version."
        )
        raise BadRequest(message, param=where)
    return value


def version_of(value: Any, where: str = "version") -> int:
    """The number of a version, also if given as text. Raises BadRequest."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_VERSION:
        raise BadRequest(f"{where}: expected the number of a version, from 1.", param=where)
    return value


def is_of_openai(value: Any) -> bool:
    """True for a prompt that OpenAI stores (`/v1/responses`)."""
    name = value.get("id") if isinstance(value, dict) else None
    return isinstance(name, str) and name.startswith(OF_OPENAI)


def use_of(value: Any, model: Any) -> PromptUse | None:
    """The use in a body's field `prompt`, or in the name of its model; None: there is none. Raises BadRequest."""
    named = _of_model(model) if isinstance(model, str) and model.startswith(PREFIX) else None
    if value is None:
        return named
    given = _of_field(value, named)
    if named is None:
        return PromptUse(given["id"], given["version"], given["label"], given["variables"], leaves_model=model is None)
    for key, own in (("id", named.id), ("version", named.version), ("label", named.label)):
        pins_other = key != "id" and own is None and (named.version or named.label) and given[key] is not None
        if pins_other or (own is not None and given[key] not in (None, own)):
            message = f"prompt.{key}: the model {model[:200]!r} says otherwise. Set it in only one place."
            raise BadRequest(message, param=f"prompt.{key}")
    return PromptUse(
        named.id,
        named.version or given["version"],
        named.label or given["label"],
        given["variables"],
        leaves_model=True,
    )


def _of_field(value: Any, named: PromptUse | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        message = f"prompt: expected an object with {', '.join(_KEYS)}: a stored prompt. Text belongs in `messages`."
        raise BadRequest(message, param=FIELD)
    for key in value:
        if key not in _KEYS:
            message = f"prompt: unknown key {key[:64]!r}. Known: {', '.join(_KEYS)}."
            raise BadRequest(message, param=f"prompt.{key[:64]}", code="unsupported_parameter")
    given = {key: value.get(key) for key in _KEYS}
    if given["id"] is None and named is None:
        raise BadRequest("prompt.id: is missing. Set it to the id of a stored prompt.", param="prompt.id")
    if not isinstance(given["id"], str | None):
        raise BadRequest("prompt.id: expected text.", param="prompt.id")
    if given["version"] == LATEST:
        given["version"], given["label"] = None, given["label"] or LATEST
    if given["version"] is not None:
        given["version"] = version_of(given["version"], "prompt.version")
    if given["label"] is not None and not (isinstance(given["label"], str) and _LABEL.fullmatch(given["label"])):
        raise BadRequest("prompt.label: expected a label, like production.", param="prompt.label")
    if given["version"] is not None and given["label"] is not None:
        raise BadRequest("prompt.label: give either a version or a label.", param="prompt.label")
    given["variables"] = {} if given["variables"] is None else given["variables"]
    if not isinstance(given["variables"], dict):
        raise BadRequest("prompt.variables: expected an object: names and values.", param="prompt.variables")
    return given


def _of_model(name: str) -> PromptUse:
    prompt, at, mark = name.removeprefix(PREFIX).partition("@")
    if not prompt or (at and not mark):
        message = "model: expected prompt:ID, prompt:ID@LABEL or prompt:ID@VERSION, like prompt:extraction_v1@staging."
        raise BadRequest(message, param="model")
    if mark.isascii() and mark.isdecimal():
        return PromptUse(prompt, version_of(mark, "model"), leaves_model=True)
    return PromptUse(prompt, label=mark or None, leaves_model=True)


def name_of(use: PromptUse) -> str:
    """The model name that makes the same use."""
    mark = use.version or use.label
    return f"{PREFIX}{use.id}@{mark}" if mark else f"{PREFIX}{use.id}"
