"""Translates: a whole answer of the Agent API into OpenAI's shape, with pieces that streams share."""

from __future__ import annotations

import re
from typing import Any, cast

from msgspec.structs import replace

from proxy.providers.base.answers import arguments_text, call_id, listed, mapping, objects
from proxy.providers.base.errors import ErrorRules, build
from proxy.providers.base.usage import SHOWN, read
from proxy.providers.compatible.errors import error_in
from proxy.schema.chat import ChatResponse
from proxy.schema.errors import UpstreamError
from proxy.schema.usage import NOTHING, Usage, UsageReport, count, counted

# The texts carry the numbers of the search results they lean on: their ids, or, after `web:`, their places among all.
_MARKER = re.compile(r"\[(web:)?(\d{1,4})\]")
_SEARCHES = ("search_web", "web_search")  # the first is what it says, the second what it is asked for
_ANSWERED = ("completed", "incomplete", "requires_action")


def parse(body: dict[str, Any], rules: ErrorRules) -> ChatResponse:
    """The answer. Raises UpstreamError for a 200 that failed, or is no answer."""
    error = error_in(body, rules)
    if error is not None:
        raise error
    refuse_unfinished(body, rules)
    items = objects(body.get("output"))
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    text, annotations = text_of(items)
    message["refusal"] = refusal_of(items) or None
    message["annotations"] = annotations
    thoughts = "".join(thoughts_of(item) for item in items)
    if thoughts:
        message["reasoning_content"] = thoughts
    calls = [tool_call(item, place) for place, item in enumerate(i for i in items if i.get("type") == "function_call")]
    if calls:
        message["tool_calls"] = calls
    message["content"] = text or (None if calls or message["refusal"] else "")
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason(body, bool(calls))}
    answer: dict[str, Any] = {**envelope(body), "object": "chat.completion", "choices": [choice], **sources(items)}
    usage = usage_of(body, items)
    if usage is not None:
        answer["usage"] = usage
    return cast(ChatResponse, answer)


def refuse_unfinished(body: dict[str, Any], rules: ErrorRules) -> None:
    """Raises UpstreamError for a 200 with the status `failed`, or one that is still running."""
    status = body.get("status")
    if status not in _ANSWERED or not isinstance(body.get("output"), list):
        said = {"message": f"The provider's answer has the status {str(status)[:32]!r}."}
        raise build(said, 502, {}, rules)


def envelope(body: dict[str, Any]) -> dict[str, Any]:
    """Metadata of the answer under OpenAI's names."""
    named = {"id": body.get("id"), "created": body.get("created_at"), "model": body.get("model")}
    named["service_tier"] = body.get("service_tier")
    return {name: value for name, value in named.items() if isinstance(value, str | int)}


def finish_reason(body: dict[str, Any], has_calls: bool) -> str:
    """The API does not mark truncated answers: an answer that uses its whole token limit was truncated."""
    if has_calls or body.get("status") == "requires_action":
        return "tool_calls"
    written, limit = count(mapping(body.get("usage")).get("output_tokens")), body.get("max_output_tokens")
    if isinstance(limit, int) and written >= limit > 0:
        return "length"
    if body.get("status") == "incomplete":
        details = body.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        return "content_filter" if reason == "content_filter" else "length"
    return "stop"


def text_of(items: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The text of all messages, and its sources as `url_citation`s with positions in that text."""
    texts: list[str] = []
    length = 0
    annotations: list[dict[str, Any]] = []
    for part in _parts(items, "output_text"):
        for raw in listed(part.get("annotations")):
            citation = _citation(raw, length)
            if citation is not None:
                annotations.append(citation)
        texts.append(part["text"])
        length += len(part["text"])
    text = "".join(texts)
    return text, annotations or _marked(text, results_of(items))


def refusal_of(items: list[dict[str, Any]]) -> str:
    return "".join(part["text"] for part in _parts(items, "refusal"))


def _parts(items: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Content parts of all messages that have a text; a refusal's is in `refusal`."""
    parts = [part for item in items if item.get("type") == "message" for part in objects(item.get("content"))]
    found = [part for part in parts if part.get("type") == kind]
    named = [{**part, "text": part.get("text", part.get("refusal"))} for part in found]
    return [part for part in named if isinstance(part["text"], str)]


def _citation(raw: object, offset: int) -> dict[str, Any] | None:
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


def _marked(text: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Citations from the markers in the text, for answers that list none."""
    by_id = {result.get("id"): result for result in results if isinstance(result.get("id"), int)}
    by_place = dict(enumerate(results, 1))
    found = []
    for match in _MARKER.finditer(text):
        result = (by_place if match[1] else by_id).get(int(match[2]))
        if result is not None:
            place = {"start_index": match.start(), "end_index": match.end()}
            found.append(_citation({**result, **place}, 0))
    return [citation for citation in found if citation is not None]


def results_of(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All search results, in order."""
    return [each for item in items if item.get("type") == "search_results" for each in objects(item.get("results"))]


def sources(items: list[dict[str, Any]]) -> dict[str, Any]:
    """`citations` and `search_results` beside the choices, as in the older API; {} without a search."""
    results = results_of(items)
    if not results:
        return {}
    urls = dict.fromkeys(result["url"] for result in results if isinstance(result.get("url"), str))
    return {"citations": list(urls), "search_results": results}


def thoughts_of(item: dict[str, Any]) -> str:
    """The text of a `reasoning` item, wherever it is."""
    if item.get("type") != "reasoning":
        return ""
    if isinstance(item.get("thought"), str):
        return str(item["thought"])
    pieces = [*listed(item.get("summary")), *listed(item.get("content"))]
    return "".join(piece["text"] for piece in pieces if isinstance(piece, dict) and isinstance(piece.get("text"), str))


def tool_call(item: dict[str, Any], place: int) -> dict[str, Any]:
    """A `function_call` item; its thought signature has the place that Google's OpenAI-compatible API gives it."""
    if not isinstance(item.get("name"), str) or not item["name"]:
        raise UpstreamError("The provider's answer has a tool call without a function name.", retryable=True)
    call: dict[str, Any] = {
        "id": call_id(item.get("call_id")) or call_id(item.get("id")) or f"call_{place}",
        "type": "function",
        "function": {"name": item["name"], "arguments": arguments_text(item.get("arguments")) or "{}"},
    }
    if isinstance(item.get("thought_signature"), str):
        call["extra_content"] = {"google": {"thought_signature": item["thought_signature"]}}
    return call


def usage_of(body: dict[str, Any], items: list[dict[str, Any]]) -> UsageReport | None:
    """What it used. Web searches are billed separately."""
    raw = mapping(body.get("usage"))
    calls = mapping(raw.get("tool_calls_details"))
    found = [counted(mapping(calls.get(name)).get("invocation")) for name in _SEARCHES]
    listed_here = sum(item.get("type") == "search_results" for item in items)
    searches = next((number for number in found if number is not None), listed_here)
    report = read(raw) or (NOTHING if searches else None)
    if report is None:
        return None
    shown = {name: value for name, value in report.shown.items() if name in SHOWN}
    return replace(report, shown=cast(Usage, shown), billed=replace(report.billed, searches=searches))
