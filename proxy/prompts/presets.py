"""Translates: a version of a prompt, the values of its variables and a request into the final request.

The version's messages come first, then the request's own. Its model, parameters, tools and response format are
defaults for what the request leaves out. The values that an experiment varies override both.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET, Struct, convert, structs

from proxy.prompts.templates import MAX_BYTES, MAX_VARIABLES, Template, check_text, names_text, parse, variables_of
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import encode_sized, utf8
from proxy.schema.prompts import PromptUse, PromptVersion, Variant
from proxy.schema.request import NOBODY

AUTO = "auto"
MAX_MESSAGES = 200
MAX_DEPTH = 16  # of the parts of a message
_LIMITS = ("max_tokens", "max_completion_tokens")
_TOOLS = ("tools", "functions")
_CHOICES = ("tool_choice", "function_call", "parallel_tool_calls")
# Groups of fields with one meaning: a request that sets one of them overrides all of them.
_RIVALS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_LIMITS, _LIMITS),
    **dict.fromkeys(_TOOLS, _TOOLS),
    **{name: (name, *_TOOLS) for name in _CHOICES},
}
_SUGGESTED = 3


class Preset(Struct, frozen=True):
    """A version whose texts are parsed. `contents`: for each message the parts, with a Template for each text."""

    version: PromptVersion
    contents: tuple[Any, ...]
    templates: tuple[Template, ...]
    text_bytes: int  # of the version's texts


def preset_of(version: PromptVersion) -> Preset:
    """Raises BadRequest, which names the field, for a text that is not a template, and for anything too large."""
    found: list[Template] = []
    contents, size = [], 0
    if not 0 < len(version.messages) <= MAX_MESSAGES:
        raise BadRequest(f"messages: expected 1 to {MAX_MESSAGES} messages.", param="messages")
    for place, message in enumerate(version.messages):
        where = "template" if version.template is not None else f"messages.{place}.content"
        size += _size(message.get("content"), where, 0)
        if size > MAX_BYTES:
            message_text = f"{where.split('.')[0]}: expected at most {MAX_BYTES // 1024} kB of text in one version."
            raise BadRequest(message_text, param=where.split(".")[0])
        contents.append(_parsed(message.get("content"), where, found))
    if len(names := variables_of(found)) > MAX_VARIABLES:
        message_text = f"variables: expected at most {MAX_VARIABLES} variables, got {len(names)}."
        raise BadRequest(message_text, param="template" if version.template is not None else "messages")
    return Preset(version, tuple(contents), tuple(found), size)


def _size(content: Any, where: str, depth: int) -> int:
    """The total bytes of all texts."""
    if depth > MAX_DEPTH:
        raise BadRequest(f"{where}: is nested too deeply.", param=where)
    if isinstance(content, str):
        if len(content) > MAX_BYTES:
            return len(content)  # too long already
        check_text(content, where)
        return len(content.encode())
    if isinstance(content, dict | list):
        inner = content.values() if isinstance(content, dict) else content
        return sum(_size(each, where, depth + 1) for each in inner)
    return 0


def _parsed(content: Any, where: str, found: list[Template]) -> Any:
    if isinstance(content, str):
        found.append(parse(content, where))
        return found[-1]
    if isinstance(content, list):
        return [_parsed(each, where, found) for each in content]
    if isinstance(content, dict):
        return {name: _parsed(each, where, found) for name, each in content.items()}
    return content


def _filled(content: Any, values: Mapping[str, str]) -> Any:
    if isinstance(content, Template):
        return content.render(values)
    if isinstance(content, list):
        return [_filled(each, values) for each in content]
    if isinstance(content, dict):
        return {name: _filled(each, values) for name, each in content.items()}
    return content


def values_of(given: Mapping[str, Any], names: tuple[str, ...], where: str, size: int = 0) -> dict[str, str]:
    """The text of each variable. Values that are not text are written as JSON; `size`: their approximate total in
    bytes. Raises BadRequest, which names missing and unknown variables, with suggestions for the unknown ones.
    """
    missing = [name for name in names if given.get(name) is None]
    known = frozenset(names)
    extra = [name for name in given if name not in known]
    if missing or extra:
        said = [f"missing: {names_text(missing)}"] if missing else []
        if extra:
            said.append(f"unknown: {', '.join(_unknown(name, missing or names) for name in extra[:_SUGGESTED])}")
        if len(extra) > _SUGGESTED:
            said[-1] += f" and {len(extra) - _SUGGESTED} more"
        wants = f"The prompt has the variables {names_text(names)}." if names else "The prompt has no variables."
        field = f"{where}.{(missing or extra)[0][:64]}"
        raise BadRequest(f"{where}: {'; '.join(said)}. {wants}", param=field)
    return {name: _text(given[name], size) for name in names}


def _unknown(name: str, known: list[str] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name[:64], known, n=1, cutoff=0.6)
    return f"{name[:64]!r} (did you mean {near[0]}?)" if near else repr(name[:64])


def _text(value: Any, size: int) -> str:
    return value if isinstance(value, str) else encode_sized(value, size).decode()


def rendered(
    preset: Preset, given: Mapping[str, Any], max_chars: int, where: str, given_size: int = 0
) -> list[dict[str, Any]]:
    """The messages of a version; `given_size`: about how many bytes the values have. Raises BadRequest for wrong
    variables, and ProxyError 413 for a result that is too long.
    """
    values = values_of(given, preset.version.variables, where, given_size)
    size = sum(template.size(values) for template in preset.templates)
    if size > max_chars:
        long = f"The rendered prompt has {size} characters; at most {max_chars} are allowed."
        raise ProxyError(long, status=413, code="request_too_large", param=where)
    messages = []
    for message, content in zip(preset.version.messages, preset.contents, strict=True):
        messages.append({**message, "content": _filled(content, values)} if "content" in message else dict(message))
    return messages


def applied(
    request: ChatRequest, use: PromptUse | None, preset: Preset | None, variant: Variant | None, max_chars: int
) -> ChatRequest:
    """The final request. Raises as `rendered` does."""
    own = list(request.fields.get("messages") or ())
    messages: list[dict[str, Any]] = []
    fields: dict[str, Any] = {name: value for name, value in request.fields.items() if value is not None}
    if preset is not None:
        given = {} if use is None else use.variables
        messages = rendered(preset, given, max_chars, "prompt.variables", request.size)
        unsaid = _unsaid(preset.version, fields, is_unlimited=request.unlimited)
        if use is not None and (lacking := [name for name in unsaid if name in use.lacks]):
            message = f"The prompt {use.id} has {lacking[0]}, which this endpoint does not support. Use a chat."
            raise BadRequest(message, param="prompt.id", code="unsupported_parameter")
        fields |= unsaid
    if variant is not None and variant.parameters:
        varied = {rival for name in variant.parameters for rival in _RIVALS.get(name, (name,))}
        fields = {name: value for name, value in fields.items() if name not in varied} | dict(variant.parameters)
    fields["messages"] = [*messages, *own]
    limit = fields.get("max_completion_tokens") or fields.get("max_tokens")
    return structs.replace(
        request,
        model=_model(request, use, preset, variant),
        messages=[*convert(messages, list[Message]), *request.messages],
        max_tokens=limit,
        unlimited=request.unlimited and limit is None,
        size=_request_size(request, use, messages),
        fields=fields,
        hints=_hints(request, variant),
        native=None if request.native is None else structs.replace(request.native, dialect=NOBODY),
        stored=None,
    )


def _unsaid(version: PromptVersion, said: Mapping[str, Any], *, is_unlimited: bool) -> dict[str, Any]:
    """The fields that a version sets and the request does not."""
    preset = dict(version.parameters)
    preset |= {} if version.tools is None else {"tools": version.tools}
    preset |= {} if version.response_format is None else {"response_format": version.response_format}
    return {
        name: value
        for name, value in preset.items()
        if said.keys().isdisjoint(_RIVALS.get(name, (name,))) and not (is_unlimited and name in _LIMITS)
    }


def _model(request: ChatRequest, use: PromptUse | None, preset: Preset | None, variant: Variant | None) -> str:
    if variant is not None and variant.model is not None:
        return variant.model
    if use is None or not use.leaves_model:
        return request.model
    return AUTO if preset is None or preset.version.model is None else preset.version.model


def _hints(request: ChatRequest, variant: Variant | None) -> Any:
    if variant is None or variant.ensemble is None:
        return request.hints
    return structs.replace(request.hints, ensemble=variant.ensemble)


def _request_size(request: ChatRequest, use: PromptUse | None, messages: list[dict[str, Any]]) -> int:
    """A bound of the bytes of the prompt. The values are no longer in the body but in the messages."""
    left = 0 if use is None else sum(len(value) for value in use.variables.values() if isinstance(value, str))
    return max(0, request.size - left) + sum(_bytes(message) for message in messages)


def _bytes(value: Any) -> int:
    """The bytes of all texts in a value."""
    total, rest = 0, [value]
    while rest:
        node = rest.pop()
        if isinstance(node, str):
            total += len(utf8(node))
        elif isinstance(node, dict):
            rest += node.values()
        elif isinstance(node, list):
            rest += node
    return total


def shown_fields(version: PromptVersion) -> dict[str, Any]:
    """The fields of a version as stored, exported and compared, without those that are not set."""
    text = version.template
    fields = {
        "template": text,
        "messages": UNSET if text is not None else version.messages,
        "model": version.model,
        "parameters": version.parameters or None,
        "tools": version.tools,
        "response_format": version.response_format,
        "notes": version.notes,
    }
    return {name: value for name, value in fields.items() if value is not None and value is not UNSET}
