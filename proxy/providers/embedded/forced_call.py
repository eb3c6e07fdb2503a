"""Translates: a forced tool call, for a model whose chat template has no place for tools.

The model is constrained to a JSON schema that only the call fits, and its answer is read back as that call. With one
tool the JSON is its arguments; with several it is `{"name": ..., "arguments": ...}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from proxy.providers.base.call_ids import CallIds, Offer
from proxy.providers.base.contract import StreamDecoder
from proxy.providers.base.json_schema import Subset, down_level
from proxy.providers.base.tools import allowed_tools, chosen_name, function_of, tool_name
from proxy.schema.chat import ChatChunk, ChatResponse, TextChunk
from proxy.schema.errors import BadRequest
from proxy.schema.json import decode, encode
from proxy.schema.sse import Event, Events

# The schema subset of llama.cpp's grammar, without references: those of several tools could have the same names.
_GRAMMAR = Subset(
    frozenset(
        (
            *("properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems"),
            *("anyOf", "oneOf", "allOf", "const", "enum", "type", "description", "title", "default"),
            *("minLength", "maxLength", "pattern", "format", "minimum", "maximum"),
            *("exclusiveMinimum", "exclusiveMaximum"),
        )
    )
)
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


class ForcedCall:
    """A choice that demands a call of one of `tools`."""

    def __init__(self, tools: list[dict[str, Any]]) -> None:
        self._functions = [function_of(tool, f"tools.{index}") for index, tool in enumerate(tools)]

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that only a call fits. Raises BadRequest for one that is too large or has a
        dangling reference.
        """
        if len(self._functions) == 1:
            return self._functions[0][2] or _NOTHING
        return {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "name": {"const": name},
                        "arguments": down_level(parameters or _NOTHING, _GRAMMAR, f"tools.{index}").schema,
                    },
                    "required": ["name", "arguments"],
                    "additionalProperties": False,
                }
                for index, (_, name, parameters) in enumerate(self._functions)
            ]
        }

    @property
    def instruction(self) -> str:
        """The text that describes the functions to the model."""
        lines = []
        for function, name, parameters in self._functions:
            described = function.get("description")
            about = f": {described}" if isinstance(described, str) and described else ""
            lines.append(f"{name}{about} Arguments: {', '.join((parameters or {}).get('properties') or {}) or 'none'}.")
        one = len(lines) == 1
        return "\n".join(["Answer with the arguments of this function:" if one else "Call one function:", *lines])

    def call(self, text: str, call_id: str) -> dict[str, Any]:
        """The call that the model's JSON represents. Text cut off by a limit is passed on as far as it goes."""
        if len(self._functions) == 1:
            return _call(call_id, self._functions[0][1], text.strip())
        try:
            said = decode(text.encode())
            name, arguments = said["name"], encode(said["arguments"]).decode()
        except (ValueError, TypeError, KeyError):
            head, _, arguments = text.partition('"arguments"')
            names = [known for _, known, _ in self._functions if json.dumps(known) in head]
            name, arguments = (names or [self._functions[0][1]])[0], arguments.lstrip(" :")
        return _call(call_id, name, arguments)


def forced_call(fields: Mapping[str, Any]) -> ForcedCall | None:
    """The call that the `tool_choice` of a request demands, if it does. Raises BadRequest for a choice without tools,
    or of a function that is not among them.
    """
    choice, tools = fields.get("tool_choice"), [t for t in fields.get("tools") or [] if isinstance(t, dict)]
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed, is_forced = allowed_tools(choice)
        names = {tool_name(tool) for tool in allowed}
        tools, choice = [tool for tool in tools if tool_name(tool) in names], "required" if is_forced else "auto"
    if choice in (None, "auto", "none"):
        return None
    if choice != "required":
        name = chosen_name(choice)
        tools = [tool for tool in tools if tool_name(tool) == name]
        if not tools:
            raise BadRequest(f"tool_choice names {name[:64]!r}, which is not among the tools.", param="tool_choice")
    if not tools:
        raise BadRequest("tool_choice demands a call, but there are no tools to call.", param="tool_choice")
    return ForcedCall(tools)


def with_calls(response: ChatResponse, forced: ForcedCall, offer: Offer) -> ChatResponse:
    """The answer with its JSON as the call."""
    for choice in response["choices"]:
        message = choice["message"]
        text = message.get("content") or ""
        message["content"] = None
        if text:
            message["tool_calls"] = [cast(Any, forced.call(text, _id(offer, response.get("id"), choice["index"])))]
            if choice.get("finish_reason") == "stop":
                choice["finish_reason"] = "tool_calls"
    return response


class ForcedCallDecoder:
    """The stream of a forced call: its text is kept until the choice ends, and then becomes the call."""

    def __init__(self, decoder: StreamDecoder, forced: ForcedCall, offer: Offer) -> None:
        self._decoder = decoder
        self._forced = forced
        self._offer = offer
        self._texts: dict[int, list[str]] = {}
        self._answer_id: object = None

    @property
    def finished(self) -> bool:
        return self._decoder.finished

    @property
    def done(self) -> bool:
        return self._decoder.done

    def feed(self, event: Event) -> list[ChatChunk]:
        return [self._chunk(chunk) for chunk in self._decoder.feed(event)]

    def texts(self, events: Events, at: int) -> TextChunk | None:
        return None

    def close(self) -> list[ChatChunk]:
        return [self._chunk(chunk) for chunk in self._decoder.close()]

    def _chunk(self, chunk: ChatChunk) -> ChatChunk:
        self._answer_id = self._answer_id or chunk.get("id")
        return cast(ChatChunk, {**chunk, "choices": [self._choice(cast(Any, c)) for c in chunk.get("choices", [])]})

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        index = choice["index"]
        delta = {name: value for name, value in choice["delta"].items() if name != "content"}
        self._texts.setdefault(index, []).append(choice["delta"].get("content") or "")
        reason = choice.get("finish_reason")
        if reason is None:
            return {**choice, "delta": delta}
        text = "".join(self._texts.pop(index))
        if not text:
            return {**choice, "delta": delta}
        delta["tool_calls"] = [{"index": 0, **self._forced.call(text, _id(self._offer, self._answer_id, index))}]
        return {**choice, "delta": delta, "finish_reason": "tool_calls" if reason == "stop" else reason}


def _call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments or "{}"}}


def _id(offer: Offer, answer_id: object, choice: int) -> str:
    return CallIds(offer, answer_id, choice).unique(None, 0)
