"""Translates: the fields of a version, as a client or a file gives them, into a PromptVersion that can be used."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from msgspec import structs

from proxy.prompts.presets import preset_of
from proxy.prompts.templates import MAX_VARIABLES, check_text, names_text, variables_of
from proxy.schema.errors import BadRequest
from proxy.schema.json import MAX_NAME, encode
from proxy.schema.prompts import PREFIX, PromptVersion

FIELDS = ("template", "messages", "variables", "model", "parameters", "tools", "response_format", "notes")
MAX_NOTES = 4_000  # characters
MAX_TITLE = 200
MAX_OPTIONS = 64 * 1024  # bytes of JSON: parameters, tools and response format together
# Fields of a body that belong to each request.
_OWN = (
    *("model", "messages", "prompt", "input", "instructions", "system", "stream", "stream_options", "n", "user"),
    *("metadata", "routing", "site", "store", "tools", "response_format", "background", "previous_response_id"),
)


def checked_version(given: Mapping[str, Any], prefix: str = "") -> PromptVersion:
    """Raises BadRequest, which names the field after `prefix`. The values of parameters are not checked."""
    try:
        return _checked(given)
    except BadRequest as error:
        if not prefix:
            raise
        name = error.param or ""
        message = error.message if error.message.startswith(name) else f"{name}: {error.message}"
        raise BadRequest(f"{prefix}{message}", param=f"{prefix}{name}", code=error.code or "invalid_value") from None


def check_known(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Raises BadRequest for an unknown field."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.6)
            hint = f" Did you mean {near[0]}?" if near else ""
            message = f"Unknown field {name[:64]!r}.{hint} Known: {', '.join(known)}."
            raise BadRequest(message, param=name[:64], code="unsupported_parameter")


def title_of(value: Any, otherwise: str) -> str:
    """The display name of a prompt; without one its id. Raises BadRequest."""
    if value is None:
        return otherwise
    if not isinstance(value, str) or not 0 < len(value.strip()) <= MAX_TITLE or not value.isprintable():
        raise BadRequest(f"name: expected 1 to {MAX_TITLE} printable characters.", param="name")
    return value.strip()


def _checked(given: Mapping[str, Any]) -> PromptVersion:
    template, messages = _texts(given)
    parameters = _parameters(given.get("parameters"))
    tools, answer = given.get("tools"), given.get("response_format")
    if not isinstance(tools, list | None) or not all(isinstance(tool, dict) for tool in tools or ()):
        raise BadRequest("tools: expected a list of objects.", param="tools")
    if not isinstance(answer, dict | None):
        raise BadRequest("response_format: expected an object.", param="response_format")
    for name, value in (("parameters", parameters), ("tools", tools), ("response_format", answer)):
        if len(encode(value)) > MAX_OPTIONS:
            raise BadRequest(f"{name}: expected at most {MAX_OPTIONS // 1024} kB.", param=name)
    version = PromptVersion(
        version=1,
        messages=messages,
        template=template,
        model=_model(given.get("model")),
        parameters=parameters,
        tools=tools or None,
        response_format=answer,
        notes=_notes(given.get("notes")),
    )
    found = variables_of(preset_of(version).templates)
    _check_variables(given.get("variables"), found)
    return structs.replace(version, variables=found)


def _texts(given: Mapping[str, Any]) -> tuple[str | None, list[dict[str, Any]]]:
    template, messages = given.get("template"), given.get("messages")
    if (template is None) == (messages is None):
        raise BadRequest("template: give either `template`, a text, or `messages`, those of a chat.", param="template")
    if template is not None:
        if not isinstance(template, str) or not template.strip():
            raise BadRequest("template: expected a text that is not empty.", param="template")
        return template, [{"role": "user", "content": template}]
    if not isinstance(messages, list):
        raise BadRequest("messages: expected a list of messages.", param="messages")
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise BadRequest(f"messages.{place}: expected an object.", param=f"messages.{place}")
    return None, messages


def _parameters(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest("parameters: expected an object: names and values.", param="parameters")
    for name in value:
        if name in _OWN:
            field = f"parameters.{name}"
            own = name in ("tools", "response_format", "model")
            where = "It is a field of the version itself." if own else "It belongs in each request."
            raise BadRequest(f"{field}: is no parameter. {where}", param=field, code="unsupported_parameter")
    return {name: each for name, each in value.items() if each is not None}


def _model(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME or not value.isprintable():
        raise BadRequest("model: expected the name of a model, like auto or auto:extraction.", param="model")
    if value.startswith(PREFIX):
        raise BadRequest("model: a prompt cannot name another prompt.", param="model")
    return value


def _notes(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NOTES:
        raise BadRequest(f"notes: expected at most {MAX_NOTES} characters.", param="notes")
    check_text(value, "notes")
    return value.strip() or None


def _check_variables(declared: Any, found: tuple[str, ...]) -> None:
    """The variables are those in the texts. Declaring them too reveals a misspelt one."""
    if declared is None:
        return
    if not isinstance(declared, list | tuple) or not all(isinstance(name, str) for name in declared):
        raise BadRequest("variables: expected a list of names.", param="variables")
    if len(declared) > MAX_VARIABLES:
        raise BadRequest(f"variables: expected at most {MAX_VARIABLES} names.", param="variables")
    undeclared = [name for name in found if name not in declared]
    unused = [name for name in declared if name not in found]
    if undeclared or unused:
        said = [f"in the text, but not declared: {names_text(undeclared)}"] if undeclared else []
        said += [f"declared, but not in the text: {names_text(unused)}"] if unused else []
        raise BadRequest(f"variables: {'; '.join(said)}.", param="variables")
