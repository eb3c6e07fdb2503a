"""Translates: OpenAI's messages into `system` and `messages`.

The vendor is strict about turns. Tool results come first in the user turn right after the calls, one for each call. No
block is empty. A later system message goes between a user turn and an assistant turn.
"""

from __future__ import annotations

import re
from typing import Any

from proxy.providers.anthropic.media import BREAKPOINTS, block_of, cache_mark
from proxy.providers.anthropic.models import Traits, same_model
from proxy.providers.anthropic.names import Names
from proxy.providers.base.answers import listed, objects
from proxy.providers.base.content import ECHOES, Part, arguments, parts, refuse
from proxy.providers.base.fields import Fields
from proxy.providers.base.names import FreeNames
from proxy.providers.base.tools import called_function, needed_id
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest

DIALECT = "anthropic"  # the `type`, with which stored reasoning is marked
PLACEHOLDER = "."  # for a required turn without content
GO_ON = "Continue."
_NOT_RUN = "This tool was not run."
_EARLIER = "The result of an earlier tool call:"
_WRONG_ID = re.compile(r"[^a-zA-Z0-9_-]")
_MAX_ID = 2**31  # the vendor has no limit
_THOUGHTS = ("thinking", "redacted_thinking")
AFTER = "after_calls"  # of a thinking block: how many calls of its message come before it; left out if none
_READ = {"role", "content", "refusal", "name", "tool_calls", "tool_call_id", "is_error", *BREAKPOINTS, *ECHOES}

Block = dict[str, Any]


class Conversation:
    """Converts the messages of one request; `system` and `turns` are the result."""

    def __init__(self, request: ChatRequest, model: str, traits: Traits, names: Names, fields: Fields) -> None:
        self._kept = request.kept
        self._model = model
        self._traits = traits
        self._names = names
        self._fields = fields
        self._ids: dict[str, str] = {}  # the client's tool call id -> the id last sent for it
        # Two calls with one id are refused, and some clients count from 0 in each turn.
        self._free = FreeNames(set(), _MAX_ID)
        self._waiting: dict[str, None] = {}  # ids of calls without a result yet, as sent, in order
        self._results: list[Block] = []
        self._said: list[Block] = []
        self._instructions: list[list[Block]] = []
        self.system: list[Block] = []
        self.lead = 0  # blocks of `system` before the first turn; later instructions may be added to them
        self.turns: list[dict[str, Any]] = []
        for place, message in enumerate(request.fields["messages"]):
            self._message(message, f"messages.{place}")
        self._end_turn()
        if not self.turns or self.turns[0]["role"] == "assistant":
            fields.adapt("messages")
            self.turns.insert(0, {"role": "user", "content": [{"type": "text", "text": PLACEHOLDER}]})

    @property
    def called(self) -> list[str]:
        """The names of the tools called in the history."""
        return [block["name"] for turn in self.turns for block in turn["content"] if block["type"] == "tool_use"]

    @property
    def has_thoughts(self) -> bool:
        return any(block["type"] in _THOUGHTS for turn in self.turns for block in turn["content"])

    @property
    def lacks_thoughts(self) -> bool:
        """True if the last assistant turn calls tools or is a prefill, and does not begin with thinking. Models with a
        thinking budget refuse such a turn.
        """
        last = next((turn for turn in reversed(self.turns) if turn["role"] == "assistant"), None)
        return (
            last is not None
            and last["content"][0]["type"] not in _THOUGHTS
            and (last is self.turns[-1] or any(block["type"] == "tool_use" for block in last["content"]))
        )

    def strip_thoughts(self) -> None:
        """Removes thinking blocks: a model that does not think ignores them."""
        for turn in self.turns:
            turn["content"] = [block for block in turn["content"] if block["type"] not in _THOUGHTS]

    def end(self, prefills: bool) -> None:
        """Makes the user speak last, unless the model continues an assistant message."""
        last = self.turns[-1]
        if last["role"] != "assistant":
            return
        if prefills:
            text = last["content"][-1]["text"].rstrip()
            if text != last["content"][-1]["text"]:
                self._fields.adapt("messages.content")
            last["content"][-1]["text"] = text
        else:
            self._fields.adapt("messages")
            self._say("user", [{"type": "text", "text": GO_ON}])

    # --- messages -----------------------------------------------------------------------------------------------------

    def _message(self, message: dict[str, Any], where: str) -> None:
        role = message["role"]
        if message.get("name") is not None and role != "tool":
            self._fields.drop("messages.name")
        for name, value in message.items():
            if value is not None and name not in _READ:
                self._fields.drop(f"messages.{name}"[:96])
        if role in ("system", "developer"):
            self._instruct(self._marked(self._texts(message, where), message))
        elif role == "user":
            self._said += self._marked(self._blocks(message, where), message)
        elif role == "tool":
            self._result(message, where)
        elif role == "assistant":
            self._end_turn()
            self._answer(message, where)
        else:
            known = "system, developer, user, assistant, tool"
            raise BadRequest(f"Unknown role {str(role)[:64]!r}. Known: {known}.", param=f"{where}.role")

    def _instruct(self, blocks: list[Block]) -> None:
        if not self.turns and not self._said and not self._results:
            self.system += blocks
            self.lead = len(self.system)
        elif blocks:
            self._instructions.append(blocks)

    def _end_turn(self) -> None:
        """Ends the user turn: tool results, then content; later system messages follow it."""
        for call_id in self._waiting:
            self._fields.adapt("messages.tool_calls")
            missing = {"type": "tool_result", "tool_use_id": call_id, "content": _NOT_RUN, "is_error": True}
            self._results.append(missing)
        self._say("user", [*self._results, *self._said])
        after_result = bool(self._results) and not self._said
        stays = self._traits.later_system and bool(self.turns) and self.turns[-1]["role"] == "user"
        stays = stays and not (after_result and self._traits.mistakes_system)
        for blocks in self._instructions:
            if stays:
                self.turns.append({"role": "system", "content": blocks})
            else:
                self._fields.adapt("messages.role")
                self.system += blocks
        self._waiting, self._results, self._said, self._instructions = {}, [], [], []

    def _answer(self, message: dict[str, Any], where: str) -> None:
        blocks = self._texts(message, where)
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal.strip() and not blocks:
            blocks = [{"type": "text", "text": refusal}]
        calls = message.get("tool_calls") or []
        thoughts = self._thoughts(message, calls)
        before: dict[int, list[Block]] = {}  # index of a call -> the thoughts before it
        for after, thought in thoughts:
            before.setdefault(after, []).append(thought)
        first = before.pop(0, [])
        for place, call in enumerate(calls):
            blocks += before.get(place, ())
            blocks.append(self._call(call, f"{where}.tool_calls.{place}"))
        blocks = self._marked(blocks, message)
        if blocks:  # an empty message is refused
            self._say("assistant", [*first, *blocks])

    def _say(self, role: str, blocks: list[Block]) -> None:
        """Merges consecutive turns of one role."""
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        elif blocks:
            self.turns.append({"role": role, "content": blocks})

    # --- content ------------------------------------------------------------------------------------------------------

    def _blocks(self, message: dict[str, Any], where: str) -> list[Block]:
        """The blocks of the parts. A mark on a blank text goes to the block before it."""
        blocks: list[Block] = []
        for part in self._parts(message, where):
            block = block_of(part, self._model, self._fields)
            if block is not None:
                blocks.append(block)
            else:
                self._marked(blocks, part.raw)
        return blocks

    def _marked(self, blocks: list[Block], raw: dict[str, Any]) -> list[Block]:
        """The blocks, the last of which carries the mark of `raw`; a mark without a block is reported."""
        mark = cache_mark(raw, self._fields)
        last = next((block for block in reversed(blocks) if block["type"] not in _THOUGHTS), None)
        if mark is not None and last is not None:
            last.setdefault("cache_control", mark)
        elif mark is not None:
            self._fields.drop("cache_control")
        return blocks

    def _texts(self, message: dict[str, Any], where: str) -> list[Block]:
        for part in self._parts(message, where):
            if part.kind not in ("text", "refusal"):
                raise refuse(part, self._model, f"messages with the role {message['role']} accept only text")
        return self._blocks(message, where)

    def _parts(self, message: dict[str, Any], where: str) -> list[Part]:
        """Content parts without thoughts, which some clients send as parts of the content."""
        content = message.get("content")
        if message["role"] == "assistant" and isinstance(content, list):
            content = [_silent(part) if part.get("type") in _THOUGHTS else part for part in content]
        return parts(content, f"{where}.content")

    # --- calls and results --------------------------------------------------------------------------------------------

    def _call(self, call: dict[str, Any], where: str) -> Block:
        name, given = called_function(call, where), needed_id(call, where)
        sent = self._free.take(_WRONG_ID.sub("_", given))
        self._ids[given] = sent
        self._waiting[sent] = None
        input_ = self._names.keys_of(name).sent(arguments(call))
        used = {"type": "tool_use", "id": sent, "name": self._names.sent(name), "input": input_}
        return self._marked([used], call)[0]

    def _result(self, message: dict[str, Any], where: str) -> None:
        """The vendor refuses the result of an unknown call; such a result becomes text of the user."""
        blocks = self._blocks(message, where)
        sent = self._ids.get(message["tool_call_id"])
        if sent is None or sent not in self._waiting:
            self._fields.adapt("messages.tool_call_id")
            self._said += self._marked([{"type": "text", "text": _EARLIER}, *blocks], message)
            return
        del self._waiting[sent]
        marks = [block.pop("cache_control") for block in blocks if "cache_control" in block]
        content: Any = blocks
        if len(blocks) <= 1 and all(block["type"] == "text" for block in blocks):
            content = blocks[0]["text"] if blocks else ""
        result = {"type": "tool_result", "tool_use_id": sent, "content": content}
        if message.get("is_error") is True:
            result["is_error"] = True
        if marks:
            result["cache_control"] = marks[-1]
        self._results += self._marked([result], message)

    def _thoughts(self, message: dict[str, Any], calls: list[dict[str, Any]]) -> list[tuple[int, Block]]:
        """The thinking blocks of a message, each with its `AFTER`: those in the message, else those kept for its calls.
        Only the model that wrote them can read them.
        """
        kept = next((found for call in calls if (found := self._kept.get(str(call.get("id")))) is not None), None)
        if kept is not None and not (kept.dialect == DIALECT and same_model(kept.model, self._model)):
            return []
        name, own = "thinking_blocks", listed(message.get("thinking_blocks"))
        if not own:
            name = "content.thinking"
            own = [part for part in objects(message.get("content")) if part.get("type") in _THOUGHTS]
        thoughts = [clean for block in own if (clean := _thought(block)) is not None]
        if len(thoughts) < len(own):
            self._fields.drop(f"messages.{name}")
        if thoughts or kept is None:
            return thoughts
        return [clean for block in listed(kept.state.get("thinking_blocks")) if (clean := _thought(block)) is not None]


def _silent(part: dict[str, Any]) -> dict[str, Any]:
    """An empty part, with the cache mark of the one it replaces."""
    return {"type": "text", "text": "", **{name: part[name] for name in BREAKPOINTS if name in part}}


def _thought(block: object) -> tuple[int, Block] | None:
    """A thinking block that the vendor accepts back: signed, or redacted. Its text may be empty."""
    if not isinstance(block, dict):
        return None
    fields = ("thinking", "signature") if block.get("type") == "thinking" else ("data",)
    if block.get("type") not in _THOUGHTS or not all(isinstance(block.get(name), str) for name in fields):
        return None
    if not block[fields[-1]]:
        return None
    after = block.get(AFTER)
    clean = {"type": block["type"], **{name: block[name] for name in fields}}
    return (after if isinstance(after, int) else 0), clean
