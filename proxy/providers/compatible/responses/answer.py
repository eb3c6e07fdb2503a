"""Translates: a whole answer of the Responses API into OpenAI's chat shape, with parts that streams share."""

from __future__ import annotations

from math import isfinite
from typing import Any, ClassVar, cast

from proxy.providers.base.answers import arguments_text, call_id, listed, mapping, objects, whole_arguments
from proxy.providers.base.call_ids import CallIds, Offer
from proxy.providers.base.errors import ErrorRules, build
from proxy.providers.base.finish import at_limit, derived_finish
from proxy.providers.base.usage import SHOWN, read
from proxy.providers.compatible.errors import error_in
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.errors import UpstreamError
from proxy.schema.usage import Usage, UsageReport

Item = dict[str, Any]

_ANSWERED = ("completed", "incomplete", "requires_action")
_FAILED = ("failed", "cancelled")
_RUNNING = ("in_progress", "queued")
CALLS = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}  # in an item, in a call


class Reader:
    """Reads the answers of one vendor. Whole answers and streams go through the same methods; vendors override them
    for their additions to OpenAI's chat shape.

    `text_joint` joins messages (an announcement, then the answer), `thought_joint` the pieces of the reasoning.
    """

    text_joint: ClassVar[str] = "\n\n"
    thought_joint: ClassVar[str] = "\n\n"

    def __init__(self, rules: ErrorRules, request: ChatRequest | None = None) -> None:
        self.rules = rules
        self._request = request
        self._ids = CallIds(Offer(request))

    def parse(self, body: dict[str, Any]) -> ChatResponse:
        """The answer. Raises UpstreamError for a 200 that failed, or is not an answer."""
        error = error_in(body, self.rules)
        if error is not None:
            raise error
        items = items_of(body)
        self.refuse_unfinished(body, is_over=False, is_empty=not items)
        text, annotations = self.text_of(items)
        refusal = refusal_of(items) or None
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": refusal, "annotations": annotations}
        thoughts = self.thoughts_of(items)
        if thoughts:
            message["reasoning_content"] = thoughts
        calls = [self.call(item, place) for place, item in enumerate(calls_in(items))]
        if calls:
            message["tool_calls"] = calls
        message["content"] = text or (None if calls or refusal else "")
        message |= self.more_of(items)
        usage = self.usage_of(body, items)
        choice = {"index": 0, "message": message, "logprobs": None, **self.ending(body, bool(calls), usage)}
        if spoken := logprobs_of(items):
            choice["logprobs"] = {"content": spoken}
        answer = {**envelope(body), "object": "chat.completion", "choices": [choice], **self.beside(items)}
        if usage is not None:
            answer["usage"] = usage
        return cast(ChatResponse, answer)

    def refuse_unfinished(self, body: dict[str, Any], *, is_over: bool, is_empty: bool) -> None:
        """Raises UpstreamError for a 200 with the status `failed`, or one that is still running. `is_over`: it is not
        running, whatever its status. `is_empty`: it has no content, so only its status can show that it is an answer.
        """
        status, has_output = body.get("status"), isinstance(body.get("output"), list)
        is_refused = status in _FAILED or (status in _RUNNING and not is_over)
        message = f"The provider's answer has the status {str(status)[:32]!r}."
        if is_refused:
            raise build({"message": message}, 502, {}, self.rules)
        if is_empty if status not in _ANSWERED else not has_output:
            message = message if status is not None else "The provider's answer has neither a status nor an output."
            raise UpstreamError(message, retryable=True)

    def ending(self, body: dict[str, Any], has_calls: bool, usage: UsageReport | None) -> dict[str, Any]:
        """The finish_reason, from the content if the status gives none."""
        if body.get("status") in _ANSWERED:
            return {"finish_reason": self.finish(body, has_calls)}
        reason, native = derived_finish("tool_calls" if has_calls else None, at_limit(self._request, usage))
        return {"finish_reason": reason, **native}

    def finish(self, body: dict[str, Any], has_calls: bool) -> str:
        """The finish_reason."""
        if body.get("status") == "incomplete":
            reason = mapping(body.get("incomplete_details")).get("reason")
            return "content_filter" if reason == "content_filter" else "length"
        return "tool_calls" if has_calls or body.get("status") == "requires_action" else "stop"

    def text_of(self, items: list[Item]) -> tuple[str, list[dict[str, Any]]]:
        """The text of all messages, and its sources as `url_citation`s with positions in that text."""
        texts: list[str] = []
        length = 0
        annotations: list[dict[str, Any]] = []
        for item in items:
            parts = [part for part in _parts([item], "output_text") if part["text"]]
            if parts and texts:
                texts.append(self.text_joint)
                length += len(self.text_joint)
            for part in parts:
                found = [citation(raw, length) for raw in listed(part.get("annotations"))]
                annotations += [each for each in found if each is not None]
                texts.append(part["text"])
                length += len(part["text"])
        return "".join(texts), annotations

    def thoughts_of(self, items: list[Item]) -> str:
        """The text of all reasoning."""
        return self.thought_joint.join(text for item in items for text in self.thoughts_in(item))

    def thoughts_in(self, item: Item) -> list[str]:
        """The texts of a `reasoning` item: its summary, or the reasoning itself."""
        if item.get("type") != "reasoning":
            return []
        pieces = [*objects(item.get("summary")), *objects(item.get("content"))]
        return [piece["text"] for piece in pieces if isinstance(piece.get("text"), str) and piece["text"]]

    def call(self, item: Item, place: int) -> dict[str, Any]:
        """A tool call in OpenAI's shape. Raises UpstreamError for one without a name."""
        kind, field = CALLS[item["type"]]
        if not isinstance(item.get("name"), str) or not item["name"]:
            raise UpstreamError("The provider's answer has a tool call without a function name.", retryable=True)
        given = call_id(item.get("call_id")) or call_id(item.get("id")) or f"call_{place}"
        text = (whole_arguments if kind == "function" else arguments_text)(item.get(field))
        return {"id": self._ids.unique(given, place), "type": kind, kind: {"name": item["name"], field: text}}

    def more_of(self, items: list[Item]) -> dict[str, Any]:
        """Further fields of the message; in a stream they are the last delta."""
        return {}

    def beside(self, items: list[Item]) -> dict[str, Any]:
        """Further fields beside the choices; in a stream they are in the last chunk."""
        return {}

    def usage_of(self, body: dict[str, Any], items: list[Item]) -> UsageReport | None:
        """The usage, under OpenAI's names."""
        return shown_alone(read(body.get("usage")))


def shown_alone(report: UsageReport | None) -> UsageReport | None:
    """The report, without fields of the vendor's usage that OpenAI's does not have."""
    if report is None:
        return None
    shown = {name: value for name, value in report.shown.items() if name in SHOWN}
    return UsageReport(cast(Usage, shown), report.billed, report.absurd, report.cost_nano, report.service)


def envelope(body: dict[str, Any]) -> dict[str, Any]:
    """Metadata of the answer under OpenAI's names."""
    created = body.get("created_at")
    named = {
        "id": body.get("id"),
        "created": int(created) if isinstance(created, float) and isfinite(created) else created,
    }
    named |= {"model": body.get("model"), "service_tier": body.get("service_tier")}
    return {name: value for name, value in named.items() if isinstance(value, str | int)}


def is_call(item: Item) -> bool:
    kind = item.get("type")
    return isinstance(kind, str) and kind in CALLS


def calls_in(items: list[Item]) -> list[Item]:
    return [item for item in items if is_call(item)]


def refusal_of(items: list[Item]) -> str:
    return "".join(part["text"] for part in _parts(items, "refusal"))


def items_of(body: dict[str, Any]) -> list[Item]:
    """The items of an answer; some servers send only the text, which the SDK adds to OpenAI's answers."""
    items = objects(body.get("output"))
    said = body.get("output_text")
    return items or ([{"type": "message", "content": said}] if isinstance(said, str) and said else [])


def _parts(items: list[Item], kind: str) -> list[dict[str, Any]]:
    """Content parts of all messages with a text; a refusal's is in `refusal`. Bare texts count as parts."""
    contents = [item.get("content") for item in items if item.get("type") == "message"]
    lists = [[{"type": "output_text", "text": each}] if isinstance(each, str) else objects(each) for each in contents]
    parts = [part for each in lists for part in each]
    found = [part for part in parts if part.get("type") == kind]
    named = [{**part, "text": part.get("text", part.get("refusal"))} for part in found]
    return [part for part in named if isinstance(part["text"], str)]


def citation(raw: object, offset: int) -> dict[str, Any] | None:
    """A source in OpenAI's chat shape, its positions moved by `offset`; None for other annotations."""
    if not isinstance(raw, dict) or not isinstance(raw.get("url"), str):
        return None
    start, end, title = raw.get("start_index"), raw.get("end_index"), raw.get("title")
    cited = {
        "start_index": offset + (start if isinstance(start, int) else 0),
        "end_index": offset + (end if isinstance(end, int) else 0),
        "title": title if isinstance(title, str) else "",
        "url": raw["url"],
    }
    return {"type": "url_citation", "url_citation": cited}


def logprobs_of(items: list[Item]) -> list[dict[str, Any]]:
    return [each for part in _parts(items, "output_text") for each in logprobs(part.get("logprobs"))]


def logprobs(raw: object) -> list[dict[str, Any]]:
    """Tokens in the chat API's shape: streams leave out the bytes."""
    return [
        {**_with_bytes(each), "top_logprobs": [_with_bytes(other) for other in objects(each.get("top_logprobs"))]}
        for each in objects(raw)
    ]


def _with_bytes(token: dict[str, Any]) -> dict[str, Any]:
    text = token.get("token")
    return {
        **token,
        "bytes": token.get("bytes") or list(text.encode(errors="replace") if isinstance(text, str) else b""),
    }
