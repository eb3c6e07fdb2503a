"""Translates: the input items of a Responses request into the messages of a chat.

Texts, calls and reasoning that follow each other are one answer. Reasoning goes back to the vendor it came from: ours
carries its state in `encrypted_content` (`state.py`), and OpenAI's own is only for OpenAI.
"""

from __future__ import annotations

from typing import Any

from proxy.providers.base.answers import mapping, objects
from proxy.schema.errors import BadRequest
from proxy.schema.origins import Origin
from proxy.server.formats.responses import state
from proxy.server.formats.responses.references import INSTEAD, answer_of, refers
from proxy.server.formats.responses.tools import Tools, free_arguments, load

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text", "summary_text")
_SAME = ("input_audio", "image_url", "file")  # parts that some clients write as in chats
_MARKS = ("prompt_cache_breakpoint", "cache_control")
# Items that only OpenAI can read: its own tools at work. Without them the conversation still makes sense.
_OF_VENDOR = (
    *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "tool_search_call"),
    *("tool_search_output", "mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response"),
    *("computer_call", "computer_call_output", "local_shell_call", "local_shell_call_output", "shell_call"),
    *("shell_call_output", "apply_patch_call", "apply_patch_call_output", "program", "program_output"),
    *("additional_tools", "configuration_update"),
)
_LOADED = ("tool_search_output", "additional_tools")  # with tools that can be called from there on
_VITAL = ("compaction", "compaction_trigger", "compaction_summary")  # without these it does not
_STATELESS = "Nothing is stored here: send the item itself."
_THEIRS = "openai-responses-v1"  # the format of OpenAI's encrypted reasoning in `reasoning_details`

Message = dict[str, Any]


class Conversation:
    """The messages of one request. `only_here`: path of an item that no other vendor has -> its description.
    `carries_state`: some of it is useless to OpenAI's own API. `references`: ids of items of our earlier answers,
    which are missing here.
    """

    def __init__(self, tools: Tools) -> None:
        self.messages: list[Message] = []
        self.origins: list[Origin] = []  # of each message
        self.left_out: dict[str, None] = {}
        self.only_here: dict[str, str] = {}
        self.carries_state = False
        self.references: dict[str, None] = {}
        self._tools = tools
        self._answer: Message | None = None  # the one that may continue
        self._parts: list[str] = []  # the places of its texts
        self._calls: list[str] = []  # and of its calls
        self._called: set[str] = set()

    def add(self, items: list[Any]) -> None:
        for place, item in enumerate(items):
            if not isinstance(item, dict):
                raise BadRequest(f"input.{place}: expected an object.", param=f"input.{place}")
            self._add(item, f"input.{place}")
        self._close()

    def _add(self, item: dict[str, Any], where: str) -> None:
        kind = item.get("type")
        if kind is None:
            kind = "item_reference" if refers(item) else "message" if item.keys() & {"role", "content"} else None
        if kind == "message":
            self._message(item, where)
        elif kind in ("function_call", "custom_tool_call"):
            self._call(item, where, is_custom=kind == "custom_tool_call")
        elif kind in ("function_call_output", "custom_tool_call_output"):
            self._output(item, where)
        elif kind == "reasoning":
            self._reasoning(item, where)
        elif kind == "item_reference":
            self._reference(item.get("id"), where)
        elif kind in _VITAL:
            self.only_here[f"{where}.type"] = f"items of the type {kind}"
        elif kind in _LOADED and (found := objects(item.get("tools"))):
            load(self._tools, found, f"{where}.tools")
        elif kind in _OF_VENDOR:
            self.left_out[f"input.{kind}"] = None
        else:
            message = f"{where}.type: unknown type of item {str(kind)[:64]!r}."
            raise BadRequest(message, param=f"{where}.type")

    def _reference(self, identity: Any, where: str) -> None:
        """A reference to an item that we store, or that OpenAI stores."""
        if not isinstance(identity, str) or not identity:
            raise BadRequest(f"{where}.id: expected a text.", param=f"{where}.id")
        if identity in self.references:
            message = f"{where}.id: the item {identity!r} appears twice."
            raise BadRequest(message, param=f"{where}.id")
        if answer_of(identity) is not None:
            self.references[identity] = None
        else:
            self.only_here[f"{where}.id"] = f"item {identity[:64]!r} of an earlier answer. {INSTEAD[:-1]}"

    # --- messages -----------------------------------------------------------------------------------------------------

    def _message(self, item: dict[str, Any], where: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            message = f"{where}.role: expected one of {', '.join(_ROLES)}."
            raise BadRequest(message, param=f"{where}.role")
        content = self._content(item.get("content"), f"{where}.content")
        if role != "assistant":
            self._close()
            self.say({"role": role, "content": content}, Origin(where, _places(content, f"{where}.content")))
            return
        before = None if self._answer is None else self._answer["content"]
        if self._answer is not None and before is not None:
            if "tool_calls" in self._answer:  # results belong beside their calls
                content = _joined(before, content)
            else:
                self._close()
        self._open(where)["content"] = content
        self._parts += _places(item.get("content"), f"{where}.content")

    def _content(self, content: Any, where: str) -> str | list[dict[str, Any]]:
        """Text, or parts; a single plain text stays a string, which all servers accept."""
        if isinstance(content, str):
            return content
        if not isinstance(content, list):
            raise BadRequest(f"{where}: expected a text or a list of parts.", param=where)
        parts = [self._part(part, f"{where}.{place}") for place, part in enumerate(content)]
        if len(parts) == 1 and parts[0].keys() == {"type", "text"}:
            return str(parts[0]["text"])
        return parts or ""

    def _part(self, part: Any, where: str) -> dict[str, Any]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in _TEXTS or kind == "refusal":
            name = "refusal" if kind == "refusal" else "text"
            if not isinstance(part.get(name), str):
                raise BadRequest(f"{where}.{name}: expected a text.", param=f"{where}.{name}")
            found = {"type": name, name: part[name]}
        elif kind == "input_image":
            found = {"type": "image_url", "image_url": _image(part, where)}
        elif kind == "input_file":
            found = {"type": "file", "file": _file(part, where)}
        elif kind in _SAME:
            found = {"type": kind, kind: part.get(kind)}
        else:
            message = f"{where}.type: unknown type of content part {str(kind)[:64]!r}."
            raise BadRequest(message, param=f"{where}.type", code="unsupported_content")
        return found | {name: part[name] for name in _MARKS if part.get(name) is not None}

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call(self, item: dict[str, Any], where: str, *, is_custom: bool) -> None:
        text = "input" if is_custom else "arguments"
        for name in ("call_id", "name", text):
            if not isinstance(item.get(name), str) or (name != text and not item[name]):
                raise BadRequest(f"{where}.{name}: expected a text.", param=f"{where}.{name}")
        namespace = item.get("namespace")
        if not isinstance(namespace, str | None):
            raise BadRequest(f"{where}.namespace: expected a text.", param=f"{where}.namespace")
        name = self._tools.name_of(item["name"], namespace or None, is_custom=is_custom)
        arguments = free_arguments(item[text]) if is_custom else item[text]
        call = {"id": item["call_id"], "type": "function", "function": {"name": name, "arguments": arguments}}
        self._open(where).setdefault("tool_calls", []).append(call)
        self._calls.append(where)
        self._called.add(item["call_id"])

    def _output(self, item: dict[str, Any], where: str) -> None:
        call_id = item.get("call_id")
        if not isinstance(call_id, str) or not call_id:
            raise BadRequest(f"{where}.call_id: expected a text.", param=f"{where}.call_id")
        if call_id not in self._called and not (self.references or self.only_here):
            message = f"{where}.call_id: no call before it has the id {call_id[:64]!r}. {_STATELESS}"
            raise BadRequest(message, param=f"{where}.call_id")
        self._close()
        content = self._content(item.get("output"), f"{where}.output")
        origin = Origin(where, _places(content, f"{where}.output"), content="output")
        self.say({"role": "tool", "tool_call_id": call_id, "content": content}, origin)

    # --- reasoning ----------------------------------------------------------------------------------------------------

    def _reasoning(self, item: dict[str, Any], where: str) -> None:
        for name in ("summary", "content"):
            if not isinstance(item.get(name), list | None):
                raise BadRequest(f"{where}.{name}: expected a list.", param=f"{where}.{name}")
        content, identity = item.get("encrypted_content"), item.get("id")
        if not isinstance(content, str | None):
            raise BadRequest(f"{where}.encrypted_content: expected a text.", param=f"{where}.encrypted_content")
        texts = [each["text"] for name in ("summary", "content") for each in objects(item.get(name)) if _has_text(each)]
        answer = self._open(where)
        if content and state.is_ours(content):
            self._restore(answer, content, where)
        elif content and isinstance(identity, str):
            head = {"id": identity, "format": _THEIRS, "index": _pieces(answer)}
            told = [{"type": "reasoning.summary", "summary": "\n\n".join(texts), **head}] if texts else []
            answer.setdefault("reasoning_details", []).extend(
                [*told, {"type": "reasoning.encrypted", "data": content, **head}]
            )
        if texts:
            before = [answer["reasoning_content"]] if "reasoning_content" in answer else []
            answer["reasoning_content"] = "\n\n".join([*before, *texts])

    def _restore(self, answer: Message, content: str, where: str) -> None:
        self.carries_state = True
        found = state.unpacked(content)
        if found is None:
            message = f"{where}.encrypted_content: it is damaged. Send it back unchanged, or leave the item out."
            raise BadRequest(message, param=f"{where}.encrypted_content")
        for name, value in found[0].items():
            before = answer.get(name)
            if isinstance(before, list) and isinstance(value, list):
                value = [*before, *value]
            elif isinstance(before, dict) and isinstance(value, dict):
                value = {**before, **value}
            answer[name] = value
        answer.setdefault("signed", {}).update(found[1])

    # --- answers ------------------------------------------------------------------------------------------------------

    def say(self, message: Message, origin: Origin) -> None:
        self.messages.append(message)
        self.origins.append(origin)

    def _open(self, where: str) -> Message:
        if self._answer is None:
            self._answer, self._parts, self._calls = {"role": "assistant", "content": None}, [], []
            self.say(self._answer, Origin(where, self._parts, self._calls))
        return self._answer

    def _close(self) -> None:
        """Ends the answer; an empty one is dropped."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        signed = answer.pop("signed", {})
        for call in answer.get("tool_calls", ()):
            if call["id"] in signed:
                call[state.OF_CALLS] = signed[call["id"]]
        if answer["content"] is None and "tool_calls" not in answer:
            self.messages.pop()
            self.origins.pop()


def _joined(one: str | list[Any], other: str | list[Any]) -> str | list[Any]:
    """Two texts of one answer."""
    if isinstance(one, str) and isinstance(other, str):
        return f"{one}\n\n{other}"
    return [
        part for each in (one, other) for part in ([{"type": "text", "text": each}] if isinstance(each, str) else each)
    ]


def _places(content: Any, where: str) -> list[str]:
    """The places of the parts of a content; a text is its own."""
    return [f"{where}.{place}" for place in range(len(content))] if isinstance(content, list) else [where]


def _has_text(piece: dict[str, Any]) -> bool:
    return isinstance(piece.get("text"), str) and bool(piece["text"])


def _pieces(answer: Message) -> int:
    """The number of items before the next one in the answer: reasoning, text and calls."""
    thoughts = {detail.get("id") for detail in objects(answer.get("reasoning_details"))}
    return len(thoughts) + (answer["content"] is not None) + len(answer.get("tool_calls", ()))


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    detail = {"detail": part["detail"]} if isinstance(part.get("detail"), str) else {}
    url = mapping(part.get("image_url")).get("url", part.get("image_url"))
    if isinstance(url, str) and url:
        return {"url": url, **detail}
    if isinstance(part.get("file_id"), str):
        return {"file_id": part["file_id"], **detail}
    message = f"{where}.image_url: expected a link or a data URL."
    raise BadRequest(message, param=f"{where}.image_url")


def _file(part: dict[str, Any], where: str) -> dict[str, Any]:
    named = {"filename": part["filename"]} if isinstance(part.get("filename"), str) else {}
    for name in ("file_id", "file_data", "file_url"):
        if isinstance(part.get(name), str) and part[name]:
            return {"file_id" if name == "file_id" else "file_data": part[name], **named}
    message = f"{where}: a file needs `file_data`, `file_url` or `file_id`."
    raise BadRequest(message, param=f"{where}.file_data")
