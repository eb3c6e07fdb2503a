"""Translates: OpenAI's messages into Cohere's turns. The vendor refuses an empty turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.providers.base.content import CACHE_MARKS, ECHOES, Part, arguments, parts, refuse, thoughts_in
from proxy.providers.base.fields import Fields
from proxy.providers.base.tools import called_function, needed_id
from proxy.providers.cohere.models import refuses_images
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode

DIALECT = "cohere"  # the `type`, with which stored reasoning is marked
_FIELDS = ("role", "content", "refusal", "reasoning_content", "tool_calls", "tool_call_id", "tool_plan")
_DETAILS = ("auto", "low", "high")
_NO_OUTPUT = "{}"  # of a tool without output: an empty result is refused like any empty turn


class Turns:
    """The turns of one request, in order; losses are reported to `fields`. `thinks`: the model thinks in this request,
    and gets its earlier thoughts.
    """

    def __init__(self, request: ChatRequest, model: str, fields: Fields, *, thinks: bool) -> None:
        self._request = request
        self._model = model
        self._fields = fields
        self._thinks = thinks

    def build(self, instruction: str | None) -> list[dict[str, Any]]:
        """`instruction` joins the system turn. Raises BadRequest for content that the model does not support."""
        system: list[str | list[dict[str, Any]]] = []
        turns: list[dict[str, Any]] = []
        for index, message in enumerate(self._request.fields["messages"]):
            where = f"messages.{index}"
            role = message["role"]
            for name, value in message.items():
                if value is not None and name not in _FIELDS and name not in ECHOES:
                    self._fields.drop(f"messages.{name}")
            if role in ("system", "developer") and not turns:
                system.append(self._system(message, where))
            else:
                turns += self._turn(role, message, where)
        if instruction is not None:
            system.append(instruction)
        return [*_system_turn(system), *turns]

    def _turn(self, role: str, message: dict[str, Any], where: str) -> list[dict[str, Any]]:
        if role == "user":
            return [self._user(message, where)]
        if role == "assistant":
            return self._assistant(message, where)
        if role == "tool":
            return [self._tool(message, where)]
        if role in ("system", "developer"):
            # "system turn must be the first in the list" (several models): later ones keep their places.
            self._fields.adapt("messages.role")
            return [{"role": "user", "content": said} for said in [self._system(message, where)] if said]
        known = "system, developer, user, assistant, tool"
        raise BadRequest(f"Unknown role {str(role)[:64]!r}. Known: {known}.", param=f"{where}.role")

    def _system(self, message: dict[str, Any], where: str) -> str | list[dict[str, Any]]:
        content = message.get("content")
        return content if isinstance(content, str) else [self._text(part) for part in self._parts(content, where)]

    def _user(self, message: dict[str, Any], where: str) -> dict[str, Any]:
        content = message.get("content")
        if not isinstance(content, str):
            content = [
                self._image(part) if part.kind == "image" else self._text(part) for part in self._parts(content, where)
            ]
        if not content:
            raise BadRequest(f"{self._model} refuses a message without content.", param=f"{where}.content")
        return {"role": "user", "content": content}

    def _assistant(self, message: dict[str, Any], where: str) -> list[dict[str, Any]]:
        """An assistant turn. The text beside calls is the plan that led to them; earlier thoughts go back as
        thinking.
        """
        content = message.get("content")
        thoughts, content = thoughts_in(content)
        texts = [content] if isinstance(content, str) else [part.text for part in self._said(content, where)]
        refusal = message.get("refusal")
        texts += [refusal] if isinstance(refusal, str) else []
        text = "".join(texts)
        calls = [
            self._call(call, f"{where}.tool_calls.{place}")
            for place, call in enumerate(message.get("tool_calls") or [])
        ]
        thought = message.get("reasoning_content")
        thought = "".join(thoughts) or (thought if isinstance(thought, str) else "")
        turn: dict[str, Any] = {"role": "assistant"}
        plan = message.get("tool_plan")
        plan = plan if isinstance(plan, str) else ""
        if calls:
            plan, text = "\n\n".join(filter(None, (text, plan))), ""  # a separate text is refused beside calls
            if not plan and not (thoughts and self._thinks):
                plan, thought = thought or self._kept_plan(calls), ""
            turn |= {"tool_calls": calls, **({"tool_plan": plan} if plan else {})}
        elif plan:
            self._fields.drop("messages.tool_plan")
        blocks = [{"type": "thinking", "thinking": thought}] if thought and self._thinks else []
        if thought and not blocks:
            self._fields.drop("messages.content.thinking" if thoughts else "messages.reasoning_content")
        if blocks and text:
            turn["content"] = [*blocks, {"type": "text", "text": text}]
        elif blocks or text:
            turn["content"] = blocks or text
        return [turn] if len(turn) > 1 else []

    def _kept_plan(self, calls: list[dict[str, Any]]) -> str:
        kept = self._request.kept.get(calls[0]["id"])
        plan = kept.state.get("tool_plan") if kept is not None and kept.dialect == DIALECT else None
        return plan if isinstance(plan, str) else ""

    def _call(self, call: dict[str, Any], where: str) -> dict[str, Any]:
        function = {"name": called_function(call, where), "arguments": _arguments(call)}
        for mark in CACHE_MARKS:
            if call.get(mark) is not None:
                self._fields.drop(f"messages.tool_calls.{mark}")
        return {"id": needed_id(call, where), "type": "function", "function": function}

    def _tool(self, message: dict[str, Any], where: str) -> dict[str, Any]:
        """A tool turn. Documents in the vendor's form (`{"type": "document", "document": {"data": ...}}`) are cited."""
        content = message.get("content")
        if not isinstance(content, str):
            content = [self._result(raw, f"{where}.content", place) for place, raw in enumerate(content or [])]
            content = [block for block in content if block.get("text") != ""]
        return {"role": "tool", "tool_call_id": message["tool_call_id"], "content": content or _NO_OUTPUT}

    def _result(self, raw: dict[str, Any], where: str, place: int) -> dict[str, Any]:
        document = raw.get("document") if raw.get("type") == "document" else None
        if isinstance(document, dict) and isinstance(document.get("data"), dict):
            return {
                "type": "document",
                "document": {name: document[name] for name in ("id", "data") if name in document},
            }
        for mark in CACHE_MARKS:
            if raw.get(mark) is not None:
                self._fields.drop(f"messages.content.{mark}")
        try:
            [part] = parts([raw], where)
        except BadRequest as error:
            error.param = (error.param or where).replace(f"{where}.0", f"{where}.{place}", 1)
            raise
        return self._text(msgspec.structs.replace(part, where=part.where.replace(f"{where}.0", f"{where}.{place}", 1)))

    def _parts(self, content: Any, where: str) -> list[Part]:
        """The parts without empty texts."""
        found = parts(content, f"{where}.content")
        for part in found:
            for name, value in part.raw.items():
                if value is not None and name not in ("type", part.raw["type"]):
                    self._fields.drop(f"messages.content.{name}")
        return [part for part in found if part.text or part.kind != "text"]

    def _said(self, content: Any, where: str) -> list[Part]:
        found = self._parts(content, where)
        for part in found:
            if part.kind not in ("text", "refusal"):
                raise refuse(part, self._model)
        return found

    def _text(self, part: Part) -> dict[str, Any]:
        if part.kind != "text":
            raise refuse(part, self._model)
        return {"type": "text", "text": part.text}

    def _image(self, part: Part) -> dict[str, Any]:
        if refuses_images(self._model):
            raise refuse(part, self._model)
        if part.data is not None:
            image = {"url": f"data:{part.media_type};base64,{part.data}"}
        elif part.url is not None and part.url.startswith("http"):
            image = {"url": part.url}
        else:
            raise refuse(part, self._model, "send it as a data URL or a link")
        inner = part.raw.get("image_url")
        detail = inner.get("detail") if isinstance(inner, dict) else None
        if detail in _DETAILS:
            image["detail"] = detail
        elif detail is not None:
            self._fields.adapt("messages.content.image_url.detail")
        return {"type": "image_url", "image_url": image}


def _system_turn(system: list[str | list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One turn with all instructions before the conversation: the vendor accepts one, at the start."""
    said = [each for each in system if each]
    if len(said) <= 1:
        return [{"role": "system", "content": each} for each in said]
    blocks = [[{"type": "text", "text": each}] if isinstance(each, str) else each for each in said]
    return [{"role": "system", "content": [block for each in blocks for block in each]}]


def _arguments(call: Mapping[str, Any]) -> str:
    """The arguments unchanged if they are an object; else wrapped in one."""
    function = call["function"]
    text = function.get("arguments")
    found = arguments(call)
    if isinstance(text, str) and text.strip().startswith("{") and "_raw" not in found:
        return text
    return encode(found).decode()
