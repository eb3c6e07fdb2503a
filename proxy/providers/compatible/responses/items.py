"""Translates: the messages of a chat request into the input items of the Responses API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from proxy.providers.base.content import ECHOES, Part, parts, refuse, thoughts_in
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import BadRequest

_MESSAGE = ("role", "content", "tool_calls", "tool_call_id", "refusal")
_CALL = ("id", "type", "function", "custom", "index", "thought_signature")
_INSTRUCTING = ("system", "developer")

Item = dict[str, Any]


class Items:
    """The items of one request. Vendors override what they write differently or additionally support.

    `part_fields`: fields of content parts that are sent, beside the content itself.
    """

    part_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, request: ChatRequest, model: str) -> None:
        self.request = request
        self.model = model

    def instructions(self) -> list[str]:
        """The texts of the system messages at the start."""
        messages = self.request.messages[: self.first_turn]
        texts = [self.plain(each.content, f"messages.{place}.content") for place, each in enumerate(messages)]
        return [text for text in texts if text]

    @property
    def first_turn(self) -> int:
        """The index of the first message that is not an instruction; 0 if there is none."""
        messages = self.request.messages
        return next((place for place, each in enumerate(messages) if each.role not in _INSTRUCTING), 0)

    def from_message(self, first: int) -> list[Item]:
        """The items of all messages from `first` on. Raises BadRequest if they are empty."""
        items: list[Item] = []
        for place, message in list(enumerate(self.request.messages))[first:]:
            items += self._of(message, place)
        if not items:
            raise BadRequest(f"{self.model} needs a message with content.", param="messages")
        return items

    def report(self, drop: Callable[[str], None]) -> None:
        """Reports fields of messages and parts without a place in an item."""
        for message in self.request.fields["messages"]:
            for name, value in message.items():
                if name not in _MESSAGE and name not in ECHOES and value is not None:
                    drop(f"messages.{name}")
            for call in message.get("tool_calls") or []:
                for name in call:
                    if name not in _CALL and name not in ECHOES:
                        drop(f"messages.tool_calls.{name}"[:96])
            content = message.get("content")
            for part in content if isinstance(content, list) else []:
                for name in part:
                    if name not in ("type", part["type"], *self.part_fields) or name == "thinking":
                        drop(f"messages.content.{name}")

    # --- one message --------------------------------------------------------------------------------------------------

    def _of(self, message: Message, place: int) -> list[Item]:
        role, where = message.role, f"messages.{place}"
        if role == "tool":
            return [self.output(message, f"{where}.content")]
        if role == "assistant":
            return self.answer(message, place)
        if role not in ("user", *_INSTRUCTING):
            message_text = f"{self.model} does not support messages with the role {role[:64]!r}."
            raise BadRequest(message_text, param=f"{where}.role")
        return [{"type": "message", "role": role, "content": self.content(message, f"{where}.content")}]

    def content(self, message: Message, where: str) -> str | list[Item]:
        """The content of a message that is neither an answer nor a tool result."""
        if isinstance(message.content, str) or message.role != "user":
            return self.plain(message.content, where)
        return [self.part(part) for part in parts(self.known_parts(message.content), where)]

    def answer(self, message: Message, place: int) -> list[Item]:
        """An earlier answer: its text, or its refusal, which has no field of its own; then its calls."""
        where = f"messages.{place}"
        text = self.plain(message.content, f"{where}.content") or self._refusal(place)
        items: list[Item] = [{"type": "message", "role": "assistant", "content": text}] if text else []
        return items + [self.call(call, f"{where}.tool_calls.{i}") for i, call in enumerate(message.tool_calls or [])]

    def output(self, message: Message, where: str) -> Item:
        output = self.plain(message.content, where)
        return {"type": "function_call_output", "call_id": message.tool_call_id, "output": output}

    def call(self, call: dict[str, Any], where: str) -> Item:
        """The item of a call. Raises BadRequest for anything but a function call."""
        function, identity = call.get("function"), call.get("id")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not isinstance(identity, str):
            raise BadRequest(f"{self.model} accepts only function calls with an id.", param=where)
        text = function.get("arguments")
        arguments = text if isinstance(text, str) and text else "{}"
        return {"type": "function_call", "call_id": identity, "name": function["name"], "arguments": arguments}

    def _refusal(self, place: int) -> str:
        refusal = self.request.fields["messages"][place].get("refusal")
        return refusal if isinstance(refusal, str) else ""

    # --- content ------------------------------------------------------------------------------------------------------

    def plain(self, content: str | list[dict[str, Any]] | None, where: str) -> str:
        """The content of a message that may only be text. Raises BadRequest for other content."""
        found = parts(thoughts_in(content)[1], where)
        for part in found:
            if part.kind not in ("text", "refusal"):
                raise refuse(part, self.model)
        return "\n".join(part.text for part in found)

    def known_parts(self, content: Any) -> Any:
        """The same content, with a vendor's own parts written as OpenAI's."""
        return content

    def part(self, part: Part) -> Item:
        """One part of a user's message. Raises BadRequest for content that the vendor cannot carry."""
        if part.kind in ("text", "refusal"):
            return {"type": "input_text", "text": part.text}
        if part.kind == "image" and part.file_id is None:
            return {"type": "input_image", "image_url": _url(part)}
        if part.kind == "file" and part.file_id is None:
            file = {"type": "input_file", "file_url" if part.url else "file_data": _url(part)}
            return {**file, "filename": part.filename} if part.filename else file
        raise refuse(part, self.model)


def _url(part: Part) -> str:
    return part.url or f"data:{part.media_type};base64,{part.data}"
