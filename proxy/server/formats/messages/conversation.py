"""Translates: Anthropic's turns of content blocks into OpenAI's messages.

A user turn becomes messages of the role `tool`, one for each result, and one for the rest. Blocks of an unknown kind
are not an error: a deployment of the vendor gets them unchanged.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.base.answers import listed
from proxy.schema.errors import BadRequest
from proxy.schema.json_writing import text_of
from proxy.schema.origins import Origin
from proxy.server.formats.messages.tools import Translated

# The prefix of signatures of other vendors' thoughts, which Anthropic could not read.
MARK = "mmproxy."
BETWEEN = "\n\n"  # between two thoughts
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_ROLES = ("user", "assistant", "system")
_DONE = "_tool_result"  # results of the vendor's own tools, in its earlier answers
_BILLING = "x-anthropic-billing-header:"  # a block of Claude Code that is not an instruction
Block = dict[str, Any]


class Conversation:
    """The messages of one body. Raises BadRequest, which names the block."""

    def __init__(self, found: Translated) -> None:
        self._system: list[Block] = []
        self._turns: list[dict[str, Any]] = []
        self._system_places: list[str] = []
        self._origins: list[Origin] = []  # of each turn
        self._has_answered = False
        self.has_foreign = False  # blocks that Anthropic would refuse: thoughts and ids of other vendors
        self._found = found
        self._called: set[str] = set()

    @property
    def messages(self) -> list[dict[str, Any]]:
        """All messages, the system prompt first."""
        return [*([{"role": "system", "content": _plain(self._system)}] if self._system else []), *self._turns]

    @property
    def origins(self) -> list[Origin]:
        """Where each of the messages came from."""
        return [*([Origin("system", self._system_places, content="")] if self._system else []), *self._origins]

    def _say(self, turn: dict[str, Any], origin: Origin) -> None:
        self._turns.append(turn)
        self._origins.append(origin)

    def add_system(self, system: str | list[Any] | None) -> None:
        if isinstance(system, str):
            blocks: list[Any] = [{"type": "text", "text": system}] if system else []
        else:
            blocks = system or []
        for place, block in enumerate(_objects(blocks, "system")):
            part = self._text(block, f"system.{place}")
            if part["text"].startswith(_BILLING):
                self._found.lose("system.billing_header")
            else:
                self._system.append(part)
                self._system_places.append("system" if isinstance(system, str) else f"system.{place}")

    def add(self, message: dict[str, Any], where: str) -> None:
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in _ROLES:
            raise BadRequest(f"Expected one of {', '.join(_ROLES)}.", param=f"{where}.role")
        self._has_answered |= role == "assistant"
        if isinstance(content, str) and role != "system":
            self._say({"role": role, "content": content}, Origin(where))
            return
        if isinstance(content, str):
            content = [_said(content)]
        if not isinstance(content, list):
            raise BadRequest("Expected a text or a list of content blocks.", param=f"{where}.content")
        blocks = _objects(content, f"{where}.content")
        if role == "assistant":
            self._answer(blocks, f"{where}.content")
        elif role == "user":
            self._user(blocks, f"{where}.content")
        else:
            places = [f"{where}.content.{place}" for place in range(len(blocks))]
            self._instruct([*map(self._text, blocks, places)], Origin(where, places))

    def _instruct(self, parts: list[Block], origin: Origin) -> None:
        """Adds an instruction. Claude Code sends some after the first user turn, which the templates of many models
        refuse: before the first answer, they may as well come before that turn.
        """
        if self._has_answered:
            self._say({"role": "system", "content": _plain(parts)}, origin)
        else:
            self._system += parts
            self._system_places += origin.parts

    # --- the user -----------------------------------------------------------------------------------------------------

    def _user(self, blocks: list[Block], where: str) -> None:
        said: list[Block] = []
        places: list[str] = []
        before = len(self._turns)
        for place, block in enumerate(blocks):
            at = f"{where}.{place}"
            if block.get("type") == "tool_result":
                self._result(block, at)
            else:
                said += self._parts(block, at)
                places += [at] * (len(said) - len(places))
        if said or len(self._turns) == before:
            self._say({"role": "user", "content": _plain(said)}, Origin(where.removesuffix(".content"), places))

    def _result(self, block: Block, where: str) -> None:
        call_id, content = block.get("tool_use_id"), block.get("content")
        if not isinstance(call_id, str) or call_id not in self._called:
            message = "Expected the id of a `tool_use` block of the assistant before this result."
            raise BadRequest(message, param=f"{where}.tool_use_id")
        places: list[str] = []
        if isinstance(content, str | None):
            said: str | list[Block] = content or ""
        elif isinstance(content, list):
            parts: list[Block] = []
            for place, inner in enumerate(_objects(content, f"{where}.content")):
                at = f"{where}.content.{place}"
                parts += self._parts(inner, at)
                places += [at] * (len(parts) - len(places))
            said = _plain(parts)
        else:
            raise BadRequest("Expected a text or a list of content blocks.", param=f"{where}.content")
        made: dict[str, Any] = {"role": "tool", "tool_call_id": call_id, "content": said}
        if block.get("is_error") is True:
            made["is_error"] = True
        self._say(_marked(made, block), Origin(where, places))

    def _parts(self, block: Block, where: str) -> list[Block]:
        """OpenAI's parts of a block from the user or a tool."""
        match kind := block.get("type"):
            case "text":
                return [self._text(block, where)]
            case "image":
                return self._image(block, where)
            case "document":
                return self._document(block, where)
            case "search_result":
                texts = [each.get("text") for each in _objects(block.get("content") or [], f"{where}.content")]
                head = [block.get("title"), block.get("source"), *texts]
                return [_marked(_said("\n".join(text for text in head if isinstance(text, str))), block)]
            case "tool_reference":  # what a search for tools has found
                name = _of(block, "tool_name", where)
                self._found.loaded.add(name)
                return [_said(f"The tool {name} can be called now.")]
            case str():
                self._found.only_here[where] = f"content of the type {kind[:64]!r}"
                return []
        raise BadRequest("Expected a text.", param=f"{where}.type")

    def _text(self, block: Block, where: str) -> Block:
        if block.get("type") != "text":
            raise BadRequest("Expected a text block.", param=f"{where}.type")
        if not isinstance(block.get("text"), str):
            raise BadRequest("Expected a text.", param=f"{where}.text")
        self.has_foreign |= any(map(is_foreign_source, listed(block.get("citations"))))
        return _marked(_said(block["text"]), block)

    def _image(self, block: Block, where: str) -> list[Block]:
        source, at = _source(block, where), f"{where}.source"
        match source["type"]:
            case "base64":
                url = f"data:{_of(source, 'media_type', at)};base64,{_of(source, 'data', at)}"
            case "url":
                url = _of(source, "url", at)
            case kind:
                self._found.only_here[at] = f"image by {str(kind)[:64]!r}"
                return []
        return [_marked({"type": "image_url", "image_url": {"url": url}}, block)]

    def _document(self, block: Block, where: str) -> list[Block]:
        source, at, title = _source(block, where), f"{where}.source", block.get("title")
        named = title if isinstance(title, str) and title else None
        if isinstance(block.get("citations"), dict) and block["citations"].get("enabled"):
            self._found.lose("messages.content.citations")
        context = block.get("context")
        before = [_said(text) for text in (context,) if isinstance(text, str) and text]
        match source["type"]:
            case "base64":
                data = f"data:{_of(source, 'media_type', at)};base64,{_of(source, 'data', at)}"
                file = {"filename": named or "document.pdf", "file_data": data}
            case "url":
                file = {"file_data": _of(source, "url", at), **({"filename": named} if named else {})}
            case "text":
                text = _of(source, "data", at)
                return [*before, _marked(_said(f"{named}\n{text}" if named else text), block)]
            case "content":
                return [*before, *self._content(source, at)]
            case kind:
                self._found.only_here[at] = f"document by {str(kind)[:64]!r}"
                return []
        return [*before, _marked({"type": "file", "file": file}, block)]

    def _content(self, source: Block, where: str) -> list[Block]:
        """The blocks that a document consists of: texts and images."""
        content = source.get("content")
        if isinstance(content, str):
            return [_said(content)]
        parts: list[Block] = []
        for place, inner in enumerate(_objects(content, f"{where}.content")):
            at = f"{where}.content.{place}"
            parts += self._image(inner, at) if inner.get("type") == "image" else [self._text(inner, at)]
        return parts

    # --- the assistant ------------------------------------------------------------------------------------------------

    def _answer(self, blocks: list[Block], where: str) -> None:
        texts: list[Block] = []
        calls: list[dict[str, Any]] = []
        thoughts: list[dict[str, Any]] = []
        thought: list[str] = []
        places: tuple[list[str], list[str]] = ([], [])  # of texts and calls
        for place, block in enumerate(blocks):
            at = f"{where}.{place}"
            match kind := block.get("type"):
                case "text":
                    texts.append(self._text(block, at))
                    places[0].append(at)
                case "thinking":
                    self._thought(block, at, thoughts, thought, len(calls))
                case "redacted_thinking":
                    kept = {"type": kind, "data": _of(block, "data", at)}
                    thoughts.append({**kept, "after_calls": len(calls)} if calls else kept)
                case "tool_use":
                    calls.append(self._call(block, at))
                    places[1].append(at)
                case "compaction" if isinstance(block.get("content"), str):
                    texts.append(_said(block["content"]))
                    places[0].append(at)
                case "server_tool_use":
                    self._found.lose(f"messages.content.{kind}")
                case str() if kind.endswith(_DONE):
                    self._found.lose(f"messages.content.{kind}")
                case str():
                    self._found.only_here[at] = f"content of the type {kind[:64]!r}"
                case _:
                    raise BadRequest("Expected a text.", param=f"{at}.type")
        made: dict[str, Any] = {"role": "assistant", "content": _joined(texts)}
        if calls:
            made["tool_calls"] = calls
            made["content"] = made["content"] or None
        if thoughts:
            made["thinking_blocks"] = thoughts
        if thought:
            made["reasoning_content"] = BETWEEN.join(thought)
        self._say(made, Origin(where.removesuffix(".content"), *places))

    def _thought(self, block: Block, where: str, signed: list[Block], texts: list[str], calls: int) -> None:
        text, signature = _of(block, "thinking", where), block.get("signature")
        if signature is not None and not isinstance(signature, str):
            raise BadRequest("Expected a text.", param=f"{where}.signature")
        if text:
            texts.append(text)
        if not signature or signature.startswith(MARK):
            self.has_foreign |= bool(signature)
            return
        kept = {"type": "thinking", "thinking": text, "signature": signature}
        signed.append({**kept, "after_calls": calls} if calls else kept)

    def _call(self, block: Block, where: str) -> dict[str, Any]:
        call_id, name, given = _of(block, "id", where), _of(block, "name", where), block.get("input")
        if not call_id:
            raise BadRequest("Expected an id.", param=f"{where}.id")
        if not isinstance(given, dict):
            raise BadRequest("Expected an object.", param=f"{where}.input")
        self._called.add(call_id)
        self._found.loaded.add(name)
        self.has_foreign |= _ID.fullmatch(call_id) is None
        function = {"name": name, "arguments": text_of(given)}
        return _marked({"id": call_id, "type": "function", "function": function}, block)


def is_foreign_source(citation: object) -> bool:
    """True for a citation from another vendor's answer."""
    return isinstance(citation, dict) and str(citation.get("encrypted_index")).startswith(MARK)


def _said(text: str) -> Block:
    return {"type": "text", "text": text}


def _marked(made: Block, block: Block) -> Block:
    """The part with the cache mark of its block, which only some vendors read."""
    mark = block.get("cache_control")
    return made if mark is None else {**made, "cache_control": mark}


def _plain(parts: list[Block]) -> str | list[Block]:
    """A single text without a mark as OpenAI's clients write it."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else parts


def _joined(parts: list[Block]) -> str | list[Block]:
    """The texts of an answer, which citations split into blocks, joined to one text."""
    if any("cache_control" in part for part in parts):
        return parts
    return "".join(part["text"] for part in parts)


def _objects(content: Any, where: str) -> list[Block]:
    if not isinstance(content, list):
        raise BadRequest("Expected a list of content blocks.", param=where)
    for place, block in enumerate(content):
        if not isinstance(block, dict):
            raise BadRequest("Expected a content block: an object.", param=f"{where}.{place}")
    return content


def _source(block: Block, where: str) -> Block:
    source = block.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("type"), str):
        raise BadRequest("Expected an object with a `type`.", param=f"{where}.source")
    return source


def _of(block: Block, name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise BadRequest("Expected a text.", param=f"{where}.{name}")
    return value
