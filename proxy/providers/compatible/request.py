"""Translates: the draft of a request to an OpenAI-shaped server, with the changes that several of them need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from proxy.providers.base.answers import listed
from proxy.providers.base.content import ECHOES, REASONING_FIELD, Part, refuse, thoughts_in
from proxy.providers.base.contract import Built, post_json
from proxy.providers.base.fields import LEVELS, LIMITS, NEUTRAL, Fields, nearest_level, stop_list
from proxy.providers.base.history import media_after_results
from proxy.providers.base.names import names_of
from proxy.providers.base.tidy import tidied
from proxy.providers.base.tools import allowed_tools, tool_name
from proxy.schema.chat import NO_LIMIT, ChatRequest
from proxy.schema.errors import BadRequest

_FUNCTION = ("name", "description", "parameters", "strict")
_CALL = ("id", "type", "function", "custom")
_NULLABLE = ("content", "refusal", "audio", "function_call")  # in messages, by OpenAI's own types
_CALL_ECHOES = ("extra_content", "provider_specific_fields", "index", "thought_signature")


class Draft:
    """One request body in the making: the client's fields in the client's order, and a record of the losses.

    `parameters` are the provider's defaults for fields that the client did not set.
    """

    def __init__(self, request: ChatRequest, model: str, parameters: Mapping[str, Any]) -> None:
        # The request's own limit overrides a default under either name: the call's price bound follows from it.
        limits = LIMITS if request.max_tokens is not None else ()
        given = parameters.items()
        defaults = {name: value for name, value in given if value is not None and name not in limits} if given else {}
        self.request = tidied(request, names_of(request, parameters))
        self.model = model
        self.body: dict[str, Any] = {**defaults, **self.request.fields, "model": model}
        self._dropped: dict[str, None] = {}  # an ordered set: clients choose how many names there are
        self._adapted: dict[str, None] = {}
        self.stops: list[str] = []
        self.unchecked_json = False
        if request.fields.get("tools") == []:
            self.drop("tool_choice", "parallel_tool_calls")  # vendors refuse them alone

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body["messages"]  # type: ignore[no-any-return]

    # --- what is lost -------------------------------------------------------------------------------------------------

    def drop(self, *names: str) -> None:
        """Removes fields that the vendor lacks. Reported unless the value is OpenAI's default or the provider's.

        Raises BadRequest for fields that ask for another kind of answer.
        """
        lost = {}
        for name in names:
            if name in self.body:
                value = self.body.pop(name)
                if name in self.request.fields and value != NEUTRAL.get(name, NEUTRAL):
                    lost[name] = value
        for name in Fields(lost).rest() if lost else ():
            self.note_dropped(name)

    def note_dropped(self, name: str) -> None:
        self._adapted.pop(name, None)
        self._dropped[name] = None

    def adapt(self, name: str) -> None:
        """Records that the request carries it with another value, or by means that may differ in effect."""
        self._adapted[name] = None

    def keep_only(self, allowed: Collection[str]) -> None:
        """Drops every field at the top level that is not `allowed`."""
        self.drop(*[name for name in self.body if name not in allowed])

    # --- changes that mean the same -----------------------------------------------------------------------------------

    def rename(self, old: str, new: str) -> None:
        """Moves a value to the vendor's name, in place; a value under the new name takes precedence."""
        if old in self.body and new not in self.body:
            self.body = {(new if name == old else name): value for name, value in self.body.items()}
        else:
            self.body.pop(old, None)

    def name_limit(self, name: str) -> None:
        """Renames the output limit: servers ignore or refuse a name that they do not know. Of two limits the smaller
        one counts.
        """
        other = LIMITS[1 - LIMITS.index(name)]
        given = [self.body[each] for each in (name, other) if self.body.get(each) is not None]
        self.rename(other, name)
        if given:
            self.body[name] = min(given)

    def lift_limit(self, how: str | None) -> None:
        """Sets no limit at the client's request, also against the provider's defaults. `how`: its `no_limit`."""
        self.body = {name: value for name, value in self.body.items() if name not in LIMITS}
        if how == "sent":
            self.body["max_tokens"] = NO_LIMIT

    def name_roles(self) -> None:
        """Renames the role `developer`, OpenAI's newer word for `system`."""
        for index, message in enumerate(self.messages):
            if message["role"] == "developer":
                self.put_message(index, {**message, "role": "system"})

    def cap_stops(self, most: int) -> None:
        """Sends at most this many stop sequences; the answer is cut here at the others."""
        stops = stop_list(self.body.get("stop"))
        if len(stops) > most:
            self.stops = stops[most:]
            self.body["stop"] = stops[:most]
            if not most:
                del self.body["stop"]

    def level_effort(self, levels: tuple[str, ...]) -> str:
        """Sets `reasoning_effort` to the nearest of `levels`; an unknown level is left to the vendor to refuse."""
        effort: str = self.body["reasoning_effort"]
        if effort in levels or effort not in LEVELS:
            return effort
        self.body["reasoning_effort"] = nearest = nearest_level(effort, levels)
        self.adapt("reasoning_effort")
        return nearest

    def drop_effort(self) -> None:
        """Drops the effort for a model that cannot think; `none` is no loss."""
        if self.body.get("reasoning_effort") == "none":
            del self.body["reasoning_effort"]
        self.drop("reasoning_effort")

    def name_tier(self, words: Mapping[str, str]) -> None:
        """Sets `service_tier` to the vendor's word; a tier without an equivalent is dropped."""
        tier = self.body.get("service_tier")
        if isinstance(tier, str) and tier in words:
            self.body["service_tier"] = words[tier]
        else:
            self.drop("service_tier")

    # --- tools --------------------------------------------------------------------------------------------------------

    def only_functions(self) -> None:
        """Raises BadRequest for custom tools, in the history too: they have no equivalent outside OpenAI."""
        for index, tool in enumerate(self.tools()):
            if tool.get("type", "function") != "function" or not isinstance(tool.get("function"), dict):
                raise _no_custom(f"tools.{index}", self.model)
        for index, message in enumerate(self.messages):
            for place, call in enumerate(message.get("tool_calls") or []):
                if not isinstance(call.get("function"), dict):
                    raise _no_custom(f"messages.{index}.tool_calls.{place}", self.model)

    def tools(self) -> list[dict[str, Any]]:
        tools = self.body.get("tools")
        return [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []

    def narrow_tools(self) -> None:
        """Replaces `allowed_tools` for vendors without it: sends only those tools, with its mode as the choice."""
        choice = self.body.get("tool_choice")
        if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
            allowed, is_forced = allowed_tools(choice)
            names = {tool_name(tool) for tool in allowed}
            self.body["tools"] = [tool for tool in self.tools() if tool_name(tool) in names]
            self.body["tool_choice"] = "required" if is_forced else "auto"
            self.adapt("tool_choice")

    def plain_tools(self) -> None:
        """Strips tools and choices to the fields of plain functions: some vendors refuse others (`cache_control`)."""
        if "tools" in self.body:
            tools = self.tools()
            self.body["tools"] = [self._plain_tool(each) if tool_name(each) else each for each in tools]
        name = tool_name(self.body.get("tool_choice"))
        if name is not None:
            self.body["tool_choice"] = {"type": "function", "function": {"name": name}}

    def _plain_tool(self, tool: dict[str, Any]) -> dict[str, Any]:
        function = {name: value for name, value in tool["function"].items() if value is not None}
        for name in [*(n for n in tool if n not in ("type", "function")), *(n for n in function if n not in _FUNCTION)]:
            self.note_dropped(f"tools.{name}")
        kept = {name: value for name, value in function.items() if name in _FUNCTION}
        return {"type": "function", "function": kept}

    def plain_calls(self) -> None:
        """Strips the calls of the history to the fields of OpenAI's calls; cache marks on them are lost."""
        for index, message in enumerate(self.messages):
            calls = [call for call in listed(message.get("tool_calls")) if isinstance(call, dict)]
            others = dict.fromkeys(name for call in calls for name in call if name not in _CALL)
            for name in others:
                if name not in _CALL_ECHOES:
                    self.note_dropped(f"messages.tool_calls.{name}"[:96])
            if others:
                kept = [{name: value for name, value in call.items() if name in _CALL} for call in calls]
                self.put_message(index, {**message, "tool_calls": kept})

    def only_tool(self, name: str) -> None:
        """Sends only the tool that `tool_choice` names, for servers without a choice by name. Raises BadRequest."""
        tools = [tool for tool in self.tools() if tool_name(tool) == name]
        if not tools:
            raise BadRequest(f"tool_choice names {name[:64]!r}, which is not among the tools.", param="tool_choice")
        self.body["tools"] = tools

    # --- messages -----------------------------------------------------------------------------------------------------

    def put_message(self, index: int, message: dict[str, Any]) -> None:
        """Replaces one message; the client's own list stays unchanged."""
        if self.body["messages"] is self.request.fields.get("messages"):
            self.body["messages"] = self.messages.copy()
        self.body["messages"][index] = message

    def strip_echoes(self, keep: Collection[str] = ()) -> None:
        """Removes fields of our own answers that the vendor cannot read, and nulls, which SDKs write and servers
        refuse. No content of the client is lost.
        """
        for index, message in enumerate(self.messages):
            calls = message.get("tool_calls")
            kept = {
                name: value
                for name, value in message.items()
                if (name not in ECHOES or name in keep) and (value is not None or name in _NULLABLE)
            }
            if isinstance(calls, list) and any(name in call for call in calls for name in _CALL_ECHOES):
                kept["tool_calls"] = [
                    {name: value for name, value in call.items() if name not in _CALL_ECHOES} for call in calls
                ]
            if len(kept) != len(message) or kept.get("tool_calls") is not calls:
                self.put_message(index, kept)

    def keep_message_fields(self, allowed: Mapping[str, frozenset[str]]) -> None:
        """Keeps the `allowed` fields by role; others are dropped, and reported unless null or an echo of our own.

        A refusal becomes the content if the vendor has no field for it.
        """
        for index, message in enumerate(self.messages):
            names = allowed.get(message["role"])
            if names is None:
                raise BadRequest(
                    f"{self.model} does not support messages with the role {message['role'][:64]!r}.",
                    param=f"messages.{index}.role",
                )
            refusal = message.get("refusal")
            if isinstance(refusal, str) and not message.get("content") and "refusal" not in names:
                message = {**message, "content": refusal, "refusal": None}
            for name in message:
                if name not in names and name not in ECHOES and message[name] is not None:
                    self.note_dropped(f"messages.{name}")
            kept = {name: value for name, value in message.items() if name in names}
            self.put_message(index, {name: kept[name] for name in kept if kept[name] is not None or name == "content"})

    def move_media(self) -> None:
        """Leaves only text in tool results; other content follows in a message of the user."""
        moved = media_after_results(self.messages)
        if moved is not self.messages:
            self.body["messages"] = moved
            self.adapt("messages.content")

    def flatten_texts(self, roles: Collection[str]) -> None:
        """Joins content that is a list of texts: such vendors accept only a string, or split the message."""
        for index, message in enumerate(self.messages):
            content = message.get("content")
            if message["role"] in roles and isinstance(content, list) and all(_is_text(part) for part in content):
                for name in {name: None for part in content for name in part if name not in ("type", part["type"])}:
                    self.note_dropped(f"messages.content.{name}")
                self.put_message(index, {**message, "content": "\n".join(_text_of(part) for part in content)})

    def refuse_parts(self, kinds: Collection[str], roles: Collection[str] | None = None) -> None:
        """Raises BadRequest `unsupported_content` for a content part of such a type, in a message of such a role."""
        self._refuse(lambda kind, role: kind in kinds and (roles is None or role in roles))

    def only_parts(self, kinds: Collection[str]) -> None:
        """Raises BadRequest `unsupported_content` for parts of another type. Thoughts are dropped and reported."""
        for index, message in enumerate(self.messages):
            thoughts, content = thoughts_in(message.get("content"))
            if thoughts:
                self.note_dropped("messages.content.thinking")
                self.put_message(index, {**message, "content": content or ""})
        self._refuse(lambda kind, role: kind not in kinds)

    def _refuse(self, is_wrong: Callable[[Any, str], bool]) -> None:
        for index, message in enumerate(self.messages):
            for place, raw in enumerate(listed(message.get("content"))):
                kind = raw.get("type")
                if is_wrong(kind, message["role"]):
                    raise refuse(Part(str(kind), f"messages.{index}.content.{place}.{kind}", raw), self.model)

    def return_thoughts(self) -> None:
        """Sends the thoughts of earlier answers under the name `reasoning`, which the server reads."""
        for index, message in enumerate(self.messages):
            if message.get("reasoning_content") and not message.get("reasoning"):
                self.put_message(index, {**message, "reasoning": message["reasoning_content"]})

    def give_back_reasoning(self, name: str) -> None:
        """Restores the thoughts of the same model before its tool calls for clients that dropped them: some servers
        refuse a tool result without them. `name`: the vendor's field.
        """
        for index, message in enumerate(self.messages):
            calls = message.get("tool_calls")
            if message["role"] != "assistant" or not isinstance(calls, list):
                continue
            states = [self._kept_with(call) for call in calls]
            texts = [text for state in states if isinstance(text := state.get("reasoning_content"), str) and text]
            given: dict[str, Any] = {}
            field = next((state[REASONING_FIELD] for state in states if state.get(REASONING_FIELD)), None)
            if field is not None:
                given[REASONING_FIELD] = field
            if texts and not message.get(name) and not message.get("reasoning_content"):
                given[name] = texts[0]
            details = [found for state in states if isinstance(found := state.get("reasoning_details"), list)]
            if details and not message.get("reasoning_details"):
                given["reasoning_details"] = details[0]
            if any("extra_content" in state for state in states):  # signatures of Google's models, one for each call
                given["tool_calls"] = [
                    {**{name: state[name] for name in ("extra_content",) if name in state}, **call}
                    for state, call in zip(states, calls, strict=True)
                ]
            if given:
                self.put_message(index, {**message, **given})

    def _kept_with(self, call: dict[str, Any]) -> dict[str, Any]:
        kept = self.request.kept.get(str(call.get("id")))
        return kept.state if kept is not None and kept.model == self.model else {}

    # --- the end ------------------------------------------------------------------------------------------------------

    def built(self, path: str, *, stream_usage: bool = True) -> Built:
        """The request. `stream_usage` False: the vendor refuses `stream_options`, and sends usage unasked."""
        if self.request.stream:
            self.body["stream"] = True
            if stream_usage:
                self.body["stream_options"] = {**self.body.get("stream_options", {}), "include_usage": True}
            else:
                self.body.pop("stream_options", None)
        http = post_json(path, self.body, self.request)
        return Built(http, list(self._dropped), list(self._adapted), self.stops, self.unchecked_json)


def _is_text(part: object) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(part, dict) and kind in ("text", "refusal") and isinstance(part.get(kind), str)


def _text_of(part: dict[str, Any]) -> str:
    return str(part[part["type"]])


def _no_custom(where: str, model: str) -> BadRequest:
    message = f"{model} accepts only function tools: {where} is something else."
    return BadRequest(message, param=where, code="unsupported_parameter")
