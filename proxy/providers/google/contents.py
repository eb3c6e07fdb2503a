"""Translates: OpenAI's messages into `systemInstruction` and `contents`.

The vendor is strict about turns: one content right after the calls holds their results, exactly one for each.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec import Struct

from proxy.providers.base.answers import json_or_none, mapping
from proxy.providers.base.content import CACHE_MARKS, Part, arguments, parts, refuse
from proxy.providers.base.fields import Fields
from proxy.providers.base.tools import called_function
from proxy.providers.google.media import media_part, result_part
from proxy.providers.google.models import Traits
from proxy.providers.google.own_parts import interleaved, notes_in
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.errors import BadRequest

# The vendor's own value for calls whose signature was lost or never existed: base64 of
# `skip_thought_signature_validator`.
UNSIGNED = "c2tpcF90aG91Z2h0X3NpZ25hdHVyZV92YWxpZGF0b3I="
DIALECT = "google"  # the `type`, with which stored reasoning is marked
_BLANK = {"text": " "}  # a content must not be empty, nor hold only media
_LOST = ("audio", "function_call")


class _Turn(Struct):
    """One message with its raw form; `where` is its dotted path."""

    message: Message
    raw: dict[str, Any]
    where: str


class Conversation:
    """Converts the messages of one request; `system` and `contents` are the result.

    `names`: the vendor's own parts that the request may hold.
    """

    def __init__(self, request: ChatRequest, traits: Traits, fields: Fields, names: Collection[str]) -> None:
        self._kept = request.kept
        self._traits = traits
        self._fields = fields
        self._names = names
        self.system: list[dict[str, Any]] = []
        self.contents: list[dict[str, Any]] = []
        raws = request.fields["messages"]
        turns = [_Turn(each, raws[place], f"messages.{place}") for place, each in enumerate(request.messages)]
        rest: list[_Turn] = []
        for turn in turns:
            self._note_lost(turn)
            if turn.message.role in ("system", "developer"):
                self.system += self._instructions(turn)
            else:
                rest.append(turn)
        self._walk(rest)
        if not self.contents or self.contents[0]["role"] == "model":
            self.contents.insert(0, {"role": "user", "parts": [_BLANK]})

    def _note_lost(self, turn: _Turn) -> None:
        if turn.message.name is not None and turn.message.role not in ("tool", "function"):
            self._fields.drop("messages.name")
        for name in (*_LOST, *CACHE_MARKS):
            if turn.raw.get(name) is not None:
                self._fields.drop(f"messages.{name}")
            if any(call.get(name) is not None for call in turn.message.tool_calls or []):
                self._fields.drop(f"messages.tool_calls.{name}")

    def _walk(self, turns: list[_Turn]) -> None:
        place = 0
        while place < len(turns):
            role = turns[place].message.role
            run = place
            while run < len(turns) and turns[run].message.role == role:
                run += 1
            if role == "user":
                for turn in turns[place:run]:
                    self._say("user", self._user(turn))
            elif role == "tool":
                self._orphans(turns[place:run])
            elif role == "assistant":
                results = run
                while results < len(turns) and turns[results].message.role == "tool":
                    results += 1
                self._model_turn(turns[place:run], turns[run:results])
                run = results
            else:
                raise BadRequest(f"Unknown role {role[:64]!r}.", param=f"{turns[place].where}.role")
            place = run

    def _say(self, role: str, said: list[dict[str, Any]]) -> None:
        """Merges consecutive contents of one role, except tool results, which stay separate."""
        last = self.contents[-1] if self.contents else None
        if last is not None and last["role"] == role and "functionResponse" not in last["parts"][-1]:
            last["parts"] += said
        elif said:
            self.contents.append({"role": role, "parts": said})

    # --- what was said ------------------------------------------------------------------------------------------------

    def _instructions(self, turn: _Turn) -> list[dict[str, Any]]:
        found = self._parts(turn)
        for part in found:
            if part.kind != "text":
                raise refuse(part, self._traits.model, "instructions are text")
        return [{"text": part.text} for part in found if part.text]

    def _user(self, turn: _Turn) -> list[dict[str, Any]]:
        said = [self._part(part) for part in self._parts(turn) if part.text or part.kind not in ("text", "refusal")]
        return said if any("text" in part for part in said) else [*said, _BLANK]

    def _part(self, part: Part) -> dict[str, Any]:
        if part.kind in ("text", "refusal"):
            return {"text": part.text}
        return media_part(part, self._traits, self._fields)

    def _parts(self, turn: _Turn) -> list[Part]:
        found = parts(turn.message.content, f"{turn.where}.content")
        for marker in CACHE_MARKS:
            if any(part.raw.get(marker) is not None for part in found):
                self._fields.drop(f"messages.content.{marker}")
        return found

    # --- calls and results --------------------------------------------------------------------------------------------

    def _model_turn(self, turns: list[_Turn], results: list[_Turn]) -> None:
        said: list[dict[str, Any]] = []
        calls: list[tuple[str, str]] = []
        for turn in turns:
            texts = [
                self._part(part) for part in self._parts(turn) if part.text or part.kind not in ("text", "refusal")
            ]
            refusal = turn.raw.get("refusal")
            if isinstance(refusal, str) and refusal and not texts:
                texts = [{"text": refusal}]
            made = [self._call(turn, place, calls) for place in range(len(turn.message.tool_calls or []))]
            said += self._spoken(turn, texts, made)
        first = next((part for part in said if "functionCall" in part), None)
        if first is not None and self._traits.is_three and "thoughtSignature" not in first:
            first["thoughtSignature"] = UNSIGNED
            self._fields.adapt("messages.tool_calls")
        self._say("model", said)
        if calls:
            self._answers(calls, results)
        else:
            self._orphans(results)

    def _spoken(self, turn: _Turn, texts: list[dict[str, Any]], made: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One message of the model: its texts, images and calls, and the vendor's own parts between them."""
        kept = (self._kept.get(str(call.get("id"))) for call in turn.message.tool_calls or [])
        states = [each.state.get("parts") for each in kept if each is not None and each.dialect == DIALECT]
        notes = notes_in(turn.raw) or next((each for each in states if isinstance(each, list)), [])
        spoken = interleaved(texts, made, notes, self._names)
        place = next((place for place, part in enumerate(spoken) if "functionCall" in part), len(spoken))
        spoken[place:place] = self._pictures(turn)
        signature = _signature(turn.raw)
        last = next((part for part in reversed(spoken) if "text" in part), made[0] if made else {})
        if signature and "thoughtSignature" not in last:
            last["thoughtSignature"] = signature
        return spoken

    def _pictures(self, turn: _Turn) -> list[dict[str, Any]]:
        """Images that the model generated, in the form of our answers: the next turn may refer to them."""
        images = turn.raw.get("images")
        found: list[dict[str, Any]] = []
        for place, image in enumerate(images) if isinstance(images, list) else ():
            inner = image.get("image_url") if isinstance(image, dict) else None
            url = inner.get("url") if isinstance(inner, dict) else None
            if not isinstance(url, str) or not url.startswith("data:"):
                self._fields.drop("messages.images")
                continue
            where = f"{turn.where}.images.{place}"
            drawn = self._part(parts([{"type": "image_url", "image_url": {"url": url}}], where)[0])
            signature = _signature(image)
            found.append({**drawn, "thoughtSignature": signature} if signature else drawn)
        return found

    def _call(self, turn: _Turn, place: int, calls: list[tuple[str, str]]) -> dict[str, Any]:
        call = (turn.message.tool_calls or [])[place]
        name = called_function(call, f"{turn.where}.tool_calls.{place}")
        identity = call["id"] if isinstance(call.get("id"), str) else ""
        calls.append((identity, name))
        made: dict[str, Any] = {"name": name, "args": arguments(call)}
        part = {"functionCall": self._with_id(made, identity)}
        kept = self._kept.get(identity)
        state = kept.state.get("thought_signature") if kept is not None and kept.dialect == DIALECT else None
        signature = _signature(call) or (state if isinstance(state, str) else None)
        return {**part, "thoughtSignature": signature} if signature else part

    def _with_id(self, value: dict[str, Any], identity: str) -> dict[str, Any]:
        return {"id": identity, **value} if identity and self._traits.is_three else value

    def _answers(self, calls: list[tuple[str, str]], results: list[_Turn]) -> None:
        """One result for each call, in their order; a call without a result gets an empty one."""
        waiting = dict(enumerate(results))
        by_id: dict[str | None, list[int]] = {}
        for place in reversed(waiting):
            by_id.setdefault(results[place].message.tool_call_id, []).append(place)
        answers: list[dict[str, Any]] = []
        beside: list[dict[str, Any]] = []
        for identity, name in calls:
            places = by_id.get(identity)
            if not places:
                self._fields.adapt("messages.tool_calls")
                said: dict[str, Any] = {"name": name, "response": {"output": ""}}
            else:
                turn = waiting.pop(places.pop())
                held, others = self._media(turn)
                said = {"name": name, "response": self._response(turn)} | ({"parts": held} if held else {})
                beside += others
            answers.append({"functionResponse": self._with_id(said, identity)})
        self.contents.append({"role": "user", "parts": answers})
        if beside:
            self.contents.append({"role": "user", "parts": [*beside, _BLANK]})
        self._orphans(list(waiting.values()))

    def _media(self, turn: _Turn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Images and files of a tool result: those that may stay in it, and those that must follow the results."""
        held: list[dict[str, Any]] = []
        beside: list[dict[str, Any]] = []
        for part in self._parts(turn):
            if part.kind not in ("text", "refusal"):
                sent = self._part(part)
                inner = result_part(sent, self._fields) if self._traits.is_three else None
                (beside if inner is None else held).append(inner or sent)
        return held, beside

    def _response(self, turn: _Turn) -> dict[str, Any]:
        """The result as the object that the vendor requires: the result itself, or one around its text."""
        text = "\n".join(part.text for part in self._parts(turn) if part.kind in ("text", "refusal"))
        value = json_or_none(text) if text.lstrip().startswith("{") else None
        return value if isinstance(value, dict) else {"output": text}

    def _orphans(self, results: list[_Turn]) -> None:
        """The vendor refuses the result of an unknown call; such a result becomes text of the user."""
        for turn in results:
            self._fields.adapt("messages.tool_call_id")
            self._say("user", [{"text": "The result of an earlier tool call:"}, *self._user(turn)])


def _signature(raw: dict[str, Any]) -> str | None:
    """`extra_content.google.thought_signature`, as the vendor's OpenAI-compatible endpoint writes it."""
    signature = mapping(mapping(raw.get("extra_content")).get("google")).get("thought_signature")
    return signature if isinstance(signature, str) and signature else None
