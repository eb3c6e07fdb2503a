"""Translates: the body of `/v1/responses` into a checked chat request; its own vendor gets it as received."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from proxy.prompts.uses import is_of_openai
from proxy.providers.base.answers import mapping
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode_sized
from proxy.schema.origins import Origin, Origins
from proxy.schema.prompts import PromptUse
from proxy.schema.records import MAX_TOKENS
from proxy.schema.request import NOBODY, NativeBody
from proxy.server.formats.body import check_model, in_range, request_fields, view_of, without_nulls
from proxy.server.formats.responses import references
from proxy.server.formats.responses.items import Conversation
from proxy.server.formats.responses.tools import OF_CLIENTS, Named, Tools, tools_of
from proxy.server.formats.stored_prompt import taken

DIALECT = "openai-responses"
PATH = "/responses"
_STATELESS = "Nothing is stored here: send the whole conversation in `input`."


class ResponsesBody(Struct, frozen=True):
    """The fields of a request that the proxy reads. Optional fields may be null, because some SDKs send nulls."""

    model: str
    input: str | list[Any]
    instructions: str | None = None
    stream: bool | None = None
    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    include: list[str] | None = None
    top_logprobs: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    background: bool | None = None
    truncation: str | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None


# Fields that a chat has too, under the same name.
_SAME = (
    *("temperature", "top_p", "parallel_tool_calls", "metadata", "user", "safety_identifier", "prompt_cache_key"),
    *("prompt_cache_options", "prompt_cache_retention", "service_tier", "moderation", "stream"),
)
_READ = (
    *("input", "instructions", "tools", "tool_choice", "text", "reasoning", "max_output_tokens", "include"),
    *("top_logprobs", "store", "background", "truncation", "previous_response_id", "conversation", "prompt"),
    *("stream_options",),
)
_UNHEARD = ("client_metadata", "max_tool_calls", "context_management")
KNOWN_FIELDS = frozenset({"model", *_SAME, *_READ, *_UNHEARD})
_ENCRYPTED, _LOGPROBS = "reasoning.encrypted_content", "message.output_text.logprobs"
# Field of a chat -> the client's own field, for errors.
_OWN_WORDS = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
    "web_search_options": "tools",
    "logprobs": "top_logprobs",
    "messages": "input",
}
_OF_CHATS = ("messages", "response_format", "max_tokens", "max_completion_tokens", "n")


class ResponsesRequest(ChatRequest, frozen=True, kw_only=True):
    """A chat request that came in the shape of the Responses API. `asked`: its body. `names`: the tools that its
    functions represent.
    """

    asked: dict[str, Any] = {}
    names: dict[str, Named] = {}

    def resolved(self, answers: Mapping[str, bytes]) -> ResponsesRequest:
        """The request with references replaced by items. Raises BadRequest for one that is not in `answers`."""
        items = references.put_in(self.asked["input"], answers)
        found = decode(encode_sized({**self.asked, "input": items}, self.size + sum(map(len, answers.values()))))
        return found if self.stored is None else replace(found, stored=self.stored)

    def without_offers(self) -> tuple[ResponsesRequest, list[str]]:
        """The request without hosted tools offered beside functions: a translated request has none of them."""
        if self.native is None or not self.native.fetches or self.native.only_here or self.native.needed:
            return self, []
        tools = [tool for tool in self.asked.get("tools") or () if tool.get("type", "function") in OF_CLIENTS]
        native = replace(self.native.changed({"tools": tools}), fetches=False)
        return replace(self, native=native), ["tools"]


def unread(model: str) -> ResponsesRequest:
    """A placeholder for an invalid request."""
    return ResponsesRequest(model=model, messages=[], fields={})


def decode(body: bytes) -> ResponsesRequest:
    """Decodes and checks a request. Raises BadRequest, which names the field."""
    asked = request_fields(body, KNOWN_FIELDS)
    stored: PromptUse | None = None
    if not is_of_openai(asked.get("prompt")):
        asked, stored = taken(asked, own="input")
    if "input" not in asked and "messages" in asked:
        message = "messages: this endpoint uses `input`. Send chats to /v1/chat/completions."
        raise BadRequest(message, param="messages")
    view = view_of(asked, ResponsesBody)
    _check(asked, view, needs_input=stored is None)
    tools = tools_of(view.tools, view.tool_choice)
    conversation = Conversation(tools)
    if view.instructions:
        conversation.say({"role": "system", "content": view.instructions}, Origin("instructions", content=""))
    conversation.add([{"role": "user", "content": view.input}] if isinstance(view.input, str) else view.input)
    if not (conversation.messages or conversation.only_here or conversation.references or stored):
        raise BadRequest("input: expected at least one message.", param="input")
    fields, left_out = _fields(asked, view, tools)
    fields["messages"] = conversation.messages
    left_out += [*tools.left_out, *conversation.left_out]
    only_here = {
        **tools.only_here,
        **conversation.only_here,
        **({"prompt": "stored prompts"} if asked.get("prompt") else {}),
    }
    native = NativeBody(
        NOBODY if conversation.carries_state or stored else DIALECT,
        PATH,
        body,
        limit="max_output_tokens",
        lost=tuple(dict.fromkeys(left_out)),
        only_here=only_here,
        needed={"web_search_options": ("tools", "web search")} if tools.search is not None else {},
        fetches=tools.fetches,
    )
    return ResponsesRequest(
        model=view.model,
        size=len(body),
        messages=msgspec.convert(conversation.messages, list[Message]),
        stream=bool(view.stream),
        max_tokens=view.max_output_tokens,
        fields=fields,
        stored=stored,
        native=native.without_hints(asked),
        origins=Origins(conversation.origins, tools.places, _OWN_WORDS),
        asked=asked,
        names=tools.names,
        references=tuple(dict.fromkeys(filter(None, map(references.answer_of, conversation.references)))),
    )


def _check(asked: dict[str, Any], view: ResponsesBody, *, needs_input: bool) -> None:
    """Checks the rules that types cannot express. Raises BadRequest."""
    check_model(view.model)
    if not view.input and needs_input:
        raise BadRequest("input: expected a text or at least one item, got nothing.", param="input")
    for name in ("previous_response_id", "conversation"):
        if asked.get(name) is not None:
            raise BadRequest(f"{name}: {_STATELESS}", param=name, code="unsupported_parameter")
    if view.background:
        message = "background: not supported; an answer is only sent to its own request. Leave it out, or set `stream`."
        raise BadRequest(message, param="background", code="unsupported_parameter")
    for name in _OF_CHATS:
        if asked.get(name) is not None:
            message = f"{name}: this is a field of /v1/chat/completions, which /v1/responses does not have."
            raise BadRequest(message, param=name, code="unsupported_parameter")
    in_range("max_output_tokens", view.max_output_tokens, MAX_TOKENS)


def _fields(asked: dict[str, Any], view: ResponsesBody, tools: Tools) -> tuple[dict[str, Any], list[str]]:
    """The fields of the chat, and the names of those that chats do not have."""
    others = {name: value for name, value in asked.items() if name not in (*_READ, *_UNHEARD)}
    fields = without_nulls(others, KNOWN_FIELDS)
    left_out = [name for name in _UNHEARD if asked.get(name)]
    left_out += ["store"] if view.store else []
    left_out += ["truncation"] if view.truncation not in (None, "disabled") else []
    if view.max_output_tokens is not None:
        fields["max_completion_tokens"] = view.max_output_tokens
    if tools.functions:
        fields["tools"] = tools.functions
    else:
        fields.pop("parallel_tool_calls", None)
    if tools.choice is not None:
        fields["tool_choice"] = tools.choice
    if tools.search is not None:
        fields["web_search_options"] = tools.search
    _text(fields, view.text or {})
    left_out += _reasoning(fields, view.reasoning or {})
    left_out += _include(fields, view)
    return fields, left_out


def _text(fields: dict[str, Any], text: dict[str, Any]) -> None:
    form = text.get("format")
    if not isinstance(form, dict | None):
        raise BadRequest("text.format: expected an object.", param="text.format")
    kind = mapping(form).get("type", "text")
    if kind == "json_schema":
        inner = mapping(mapping(form).get("json_schema")) or mapping(form)
        if not isinstance(inner.get("schema"), dict):
            raise BadRequest("text.format.schema: expected a JSON schema.", param="text.format.schema")
        schema = {name: value for name, value in inner.items() if name != "type" and value is not None}
        fields["response_format"] = {"type": kind, "json_schema": {"name": "answer", **schema}}
    elif kind == "json_object":
        fields["response_format"] = {"type": kind}
    elif kind != "text":
        message = "text.format.type: expected text, json_object or json_schema."
        raise BadRequest(message, param="text.format.type", code="unsupported_parameter")
    if text.get("verbosity") is not None:
        fields["verbosity"] = text["verbosity"]


def _reasoning(fields: dict[str, Any], reasoning: dict[str, Any]) -> list[str]:
    """Sets the effort. The summary of reasoning is whatever thoughts the vendor shows."""
    if reasoning.get("effort") is not None:
        fields["reasoning_effort"] = reasoning["effort"]
    known = ("effort", "summary", "generate_summary")
    return [f"reasoning.{name}"[:96] for name, value in reasoning.items() if name not in known and value is not None]


def _include(fields: dict[str, Any], view: ResponsesBody) -> list[str]:
    include = view.include or []
    if _LOGPROBS in include or view.top_logprobs:
        fields["logprobs"] = True
        if view.top_logprobs is not None:
            fields["top_logprobs"] = view.top_logprobs
    return [f"include.{name}"[:96] for name in include if name not in (_ENCRYPTED, _LOGPROBS)]
