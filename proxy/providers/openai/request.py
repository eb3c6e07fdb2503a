"""Translates: a request on its way to an OpenAI-shaped vendor, and the changes that several of them need."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from proxy.providers.base.content import Fields, Part, refuse, stop_list, thoughts_in
from proxy.providers.base.contract import Built, HTTPRequest
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode

_LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # of `reasoning_effort`, in order
# What OpenAI does when nothing is said: leaving such a value out changes nothing, so it is no loss.
NEUTRAL: dict[str, Any] = {
    "temperature": 1,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": 0,
    "n": 1,
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "service_tier": "auto",
    "verbosity": "medium",
    "metadata": {},
    "store": False,
    "stop": [],
}
# Fields of our own answers that clients send back with the history, and only some vendors can read.
ECHOES = frozenset(
    {
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "thinking_blocks",
        "extra_content",
        "provider_specific_fields",
        "annotations",
        "citations",
        "search_results",
        "executed_tools",
    }
)
_FUNCTION = ("name", "description", "parameters", "strict")
_NULLABLE = ("content", "refusal", "audio", "function_call")  # in messages, by OpenAI's own types
_CALL_ECHOES = ("extra_content", "provider_specific_fields", "index", "thought_signature")


class Draft:
    """One request body as it is shaped: the client's fields in the client's order, and what they lose on the way.

    `parameters` are the provider's defaults; they stand in where the client said nothing.
    """

    def __init__(self, request: ChatRequest, model: str, parameters: Mapping[str, Any]) -> None:
        # A limit of the request stands above a default under either name: what it may cost was bounded by it.
        limits = tuple(_LIMITS) if request.max_tokens is not None else ()
        defaults = {name: value for name, value in parameters.items() if value is not None and name not in limits}
        self.request = request
        self.model = model
        self.body: dict[str, Any] = {**defaults, **request.fields, "model": model}
        self.dropped: list[str] = []
        self.adapted: list[str] = []
        self.stops: list[str] = []
        self.unchecked_json = False

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    # --- what is lost -------------------------------------------------------------------------------------------------

    def drop(self, *names: str) -> None:
        """The vendor lacks them. Said unless the value changes nothing, or was the provider's own default.

        Raises BadRequest for what asks for another kind of answer.
        """
        for name in names:
            if name in self.body:
                value = self.body.pop(name)
                if name in self.request.fields and value != NEUTRAL.get(name, NEUTRAL):
                    for lost in Fields({name: value}).rest():
                        self.note_dropped(lost)

    def note_dropped(self, name: str) -> None:
        self.adapted = [other for other in self.adapted if other != name]
        if name not in self.dropped:
            self.dropped.append(name)

    def adapt(self, name: str) -> None:
        """It goes out with another value, or by means that may differ in their effect."""
        if name not in self.adapted:
            self.adapted.append(name)

    def keep_only(self, allowed: Collection[str]) -> None:
        """Everything at the top level that is not `allowed` is dropped."""
        self.drop(*[name for name in self.body if name not in allowed])

    # --- changes that mean the same -----------------------------------------------------------------------------------

    def rename(self, old: str, new: str) -> None:
        """The same value under the vendor's name, in its place; a value under the new name stands."""
        if old in self.body and new not in self.body:
            self.body = {(new if name == old else name): value for name, value in self.body.items()}
        else:
            self.body.pop(old, None)

    def name_limit(self, name: str) -> None:
        """Servers that know one of the two names ignore or refuse the other; of two limits the smaller one."""
        other = _LIMITS[name]
        given = [self.body[each] for each in (name, other) if self.body.get(each) is not None]
        self.rename(other, name)
        if given:
            self.body[name] = min(given)

    def name_roles(self) -> None:
        """`developer` is OpenAI's newer word for `system`."""
        for index, message in enumerate(self.messages):
            if message["role"] == "developer":
                self.put_message(index, {**message, "role": "system"})

    def cap_stops(self, most: int) -> None:
        """At most so many stop sequences are sent; at the others the answer is cut on our side."""
        stops = stop_list(self.body.get("stop"))
        if len(stops) > most:
            self.stops = stops[most:]
            self.body["stop"] = stops[:most]
            if not most:
                del self.body["stop"]

    def level_effort(self, levels: tuple[str, ...]) -> str:
        """`reasoning_effort` as the nearest of `levels`; what is no level at all is left to the vendor to refuse."""
        effort: str = self.body["reasoning_effort"]
        if effort in levels or effort not in LEVELS:
            return effort
        above = [level for level in LEVELS[LEVELS.index(effort) :] if level in levels]
        known = [level for level in LEVELS if level in levels]
        self.body["reasoning_effort"] = nearest = above[0] if above else known[-1]
        self.adapt("reasoning_effort")
        return nearest

    # --- tools --------------------------------------------------------------------------------------------------------

    def only_functions(self) -> None:
        """Custom tools have no equivalent outside OpenAI. Raises BadRequest, in the history too."""
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
        """`allowed_tools` for vendors without it: only those tools are sent, and its mode is the choice."""
        choice = self.body.get("tool_choice")
        if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
            names, mode = allowed_tools(choice)
            self.body["tools"] = [tool for tool in self.tools() if tool_name(tool) in names]
            self.body["tool_choice"] = mode
            self.adapt("tool_choice")

    def plain_tools(self) -> None:
        """Functions with the fields that everyone knows, for vendors that refuse others (`cache_control`); a choice
        likewise.
        """
        if "tools" in self.body:
            self.body["tools"] = [self._plain_tool(tool) for tool in self.tools()]
        name = tool_name(self.body.get("tool_choice"))
        if name is not None:
            self.body["tool_choice"] = {"type": "function", "function": {"name": name}}

    def _plain_tool(self, tool: dict[str, Any]) -> dict[str, Any]:
        function = {name: value for name, value in tool["function"].items() if value is not None}
        for name in [*(n for n in tool if n not in ("type", "function")), *(n for n in function if n not in _FUNCTION)]:
            self.note_dropped(f"tools.{name}")
        kept = {name: value for name, value in function.items() if name in _FUNCTION}
        return {"type": "function", "function": kept}

    def only_tool(self, name: str) -> None:
        """The one tool that `tool_choice` names, for servers that cannot be told by name. Raises BadRequest."""
        tools = [tool for tool in self.tools() if tool_name(tool) == name]
        if not tools:
            raise BadRequest(f"tool_choice names {name[:64]!r}, which is none of the tools.", param="tool_choice")
        self.body["tools"] = tools

    # --- messages -----------------------------------------------------------------------------------------------------

    def put_message(self, index: int, message: dict[str, Any]) -> None:
        """In the place of one message; the client's own list stays as it was."""
        if self.body["messages"] is self.request.fields.get("messages"):
            self.body["messages"] = self.messages.copy()
        self.body["messages"][index] = message

    def strip_echoes(self, keep: Collection[str] = ()) -> None:
        """Fields of our own answers that came back and the vendor cannot read, and nulls, which SDKs write out and
        servers refuse: no loss of anything the client said.
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
        """By role; what else a message says is dropped, and reported unless it is null or an echo of ours.

        A refusal becomes the content, where the vendor has no field for it.
        """
        for index, message in enumerate(self.messages):
            names = allowed.get(message["role"])
            if names is None:
                raise BadRequest(
                    f"{self.model} knows no messages with role {message['role'][:64]!r}.",
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

    def flatten_texts(self, roles: Collection[str]) -> None:
        """Content that is a list of texts becomes one text: such vendors take a string only, or split the message."""
        for index, message in enumerate(self.messages):
            content = message.get("content")
            if message["role"] in roles and isinstance(content, list) and all(_is_text(part) for part in content):
                for name in {name: None for part in content for name in part if name not in ("type", part["type"])}:
                    self.note_dropped(f"messages.content.{name}")
                self.put_message(index, {**message, "content": "\n".join(_text_of(part) for part in content)})

    def refuse_parts(self, kinds: Collection[Any], roles: Collection[str] | None = None) -> None:
        """Raises BadRequest `unsupported_content` for a content part of such a type, in a message of such a role."""
        for index, message in enumerate(self.messages):
            for place, raw in enumerate(_listed(message)):
                kind = raw.get("type")
                if kind in kinds and (roles is None or message["role"] in roles):
                    raise refuse(Part(str(kind), f"messages.{index}.content.{place}.{kind}", raw), self.model)

    def only_parts(self, kinds: Collection[str]) -> None:
        """Raises BadRequest `unsupported_content` for parts of another type. Thoughts are left out, and told."""
        for index, message in enumerate(self.messages):
            thoughts, content = thoughts_in(message.get("content"))
            if thoughts:
                self.note_dropped("messages.content.thinking")
                self.put_message(index, {**message, "content": content or ""})
        types = [raw.get("type") for each in self.messages for raw in _listed(each)]
        self.refuse_parts([kind for kind in types if kind not in kinds])

    def give_back_reasoning(self, name: str) -> None:
        """What the same model thought before its tool calls, for clients that did not send it: some servers refuse a
        tool's result without it. `name`: the vendor's field.
        """
        for index, message in enumerate(self.messages):
            calls = message.get("tool_calls")
            if message["role"] != "assistant" or not isinstance(calls, list):
                continue
            states = [self._kept_with(call) for call in calls]
            texts = [text for state in states if isinstance(text := state.get("reasoning_content"), str) and text]
            given: dict[str, Any] = {}
            if texts and not message.get(name) and not message.get("reasoning_content"):
                given[name] = texts[0]
            details = [found for state in states if isinstance(found := state.get("reasoning_details"), list)]
            if details and not message.get("reasoning_details"):
                given["reasoning_details"] = details[0]
            if any("extra_content" in state for state in states):  # signatures of Google's models, of each call its own
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
        http = HTTPRequest("POST", path, headers(self.request.stream), encode(self.body))
        return Built(http, self.dropped, self.adapted, self.stops, self.unchecked_json)


def headers(stream: bool) -> dict[str, str]:
    """What every request to an OpenAI-shaped server says about itself."""
    return {"content-type": "application/json", "accept": "text/event-stream" if stream else "application/json"}


def allowed_tools(choice: Mapping[str, Any]) -> tuple[set[str | None], str]:
    """The names in a tool choice of type `allowed_tools`, and its mode."""
    allowed = choice.get("allowed_tools")
    if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list):
        raise BadRequest("A choice of allowed_tools needs `allowed_tools.tools`.", param="tool_choice.allowed_tools")
    return {tool_name(tool) for tool in allowed["tools"]}, "required" if allowed.get("mode") == "required" else "auto"


def tool_name(tool: object) -> str | None:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _listed(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _is_text(part: object) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(part, dict) and kind in ("text", "refusal") and isinstance(part.get(kind), str)


def _text_of(part: dict[str, Any]) -> str:
    return str(part[part["type"]])


def _no_custom(where: str, model: str) -> BadRequest:
    message = f"{model} takes function tools only: {where} is something else."
    return BadRequest(message, param=where, code="unsupported_parameter")
