"""Translates: a whole answer of `/v2/chat` into OpenAI's shape; also the common part of whole and streamed answers."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, cast

from proxy.providers.base.answers import listed, objects, text, tool_call
from proxy.providers.base.call_ids import CallIds, Offer
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.finish import at_limit, derived_finish, names_finish, native_finish
from proxy.providers.cohere.errors import body_of, error_said
from proxy.providers.cohere.usage import usage_of
from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.errors import UpstreamError, UpstreamTruncated

_FINISH = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "ERROR_LIMIT": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
BETWEEN = "\n\n"  # between a model's thoughts and its plan for the tools


def parse(response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
    """A whole answer. Raises UpstreamError if it is an error in a 200, has no message, or an empty one."""
    body = body_of(response)
    message = body.get("message")
    if not isinstance(message, dict):
        raise UpstreamError("The provider's answer has no message.", retryable=True, upstream_status=response.status)
    answer_id = text(body.get("id"))
    calls = _calls(listed(message.get("tool_calls")), answer_id, CallIds(Offer(request)))
    if not names_finish(body.get("finish_reason")) and message.get("content") is None and not calls:
        raise UpstreamTruncated("The provider's answer has neither content nor finish_reason.")
    usage = usage_of(body.get("usage"))
    reason, native = finish_reason(body.get("finish_reason"), bool(calls), at_limit(request, usage))
    choice = {
        "index": 0,
        "message": _message(message, calls),
        "logprobs": logprobs(listed(body.get("logprobs"))),
        "finish_reason": reason,
        **native,
    }
    answer: dict[str, Any] = {"object": "chat.completion", "choices": [choice]}
    if answer_id:
        answer["id"] = answer_id
    if usage is not None:
        answer["usage"] = usage
    return cast(ChatResponse, answer)


def _message(raw: dict[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any]:
    content = raw.get("content")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else listed(content)
    texts = [text_of(block, "text") for block in blocks]
    starts = dict(enumerate(accumulate(map(len, texts), initial=0)))
    thinking = "".join(text_of(block, "thinking") for block in blocks)
    reasoning = BETWEEN.join(filter(None, [thinking, text(raw.get("tool_plan"))]))
    content = "".join(texts)
    citations = objects(raw.get("citations"))
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content or (None if calls else ""),
        "refusal": None,
        "annotations": [each for citation in citations for each in url_citations(citation, starts)],
    }
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    if citations:
        message["citations"] = citations
    return message


def spare_id(answer_id: str, place: int) -> str:
    """The id of a call that came without one: the same for whole and streamed answers."""
    return f"call_{answer_id}_{place}" if answer_id else f"call_{place}"


def _calls(raw: list[Any], answer_id: str, ids: CallIds) -> list[dict[str, Any]]:
    calls = []
    for place, each in enumerate(raw):
        call = tool_call(each, spare_id(answer_id, place))
        said = {name: call["function"][name] for name in ("name", "arguments")}
        calls.append({"id": ids.unique(call["id"], place), "type": "function", "function": said})
    return calls


def text_of(block: object, name: str) -> str:
    """The text (`text`) or the thinking (`thinking`) of one content block, or of a piece of one."""
    return text(block.get(name)) if isinstance(block, dict) else ""


def finish_reason(
    value: object, has_calls: bool, is_cut: bool, error: object = None, error_type: object = None
) -> tuple[str, dict[str, Any]]:
    """One of OpenAI's five words, with the vendor's own beside it. A complete answer without a word gets one.

    Raises UpstreamError for an answer that ended in an error, which `error` and `error_type` may name.
    """
    if isinstance(error, str) and error:
        raise error_said(error, 504 if value == "TIMEOUT" else 500, {}, error_type)
    if value == "ERROR":
        raise error_said("The provider stopped with an error in the middle of its answer.", 500, {})
    if value == "TIMEOUT":
        raise error_said("The provider took too long for this answer and stopped.", 504, {})
    reason = _FINISH.get(value) if isinstance(value, str) else None
    if reason is None:
        return derived_finish("tool_calls" if has_calls else None, is_cut, value)
    if has_calls and reason == "stop":
        reason = "tool_calls"
    elif reason == "tool_calls" and not has_calls:
        reason = "stop"
    return reason, native_finish(value)


def url_citations(citation: dict[str, Any], starts: dict[int, int]) -> list[dict[str, Any]]:
    """The `url_citation`s of one citation: one for each source that has a link. `starts`: where in the content the text
    of each block begins.

    The vendor counts from the start of a block, OpenAI from the start of the content. Citations inside a plan or a
    thought have no place in it.
    """
    start, end = citation.get("start"), citation.get("end")
    if citation.get("type") not in (None, "TEXT_CONTENT") or not isinstance(start, int) or not isinstance(end, int):
        return []
    block = citation.get("content_index")
    before = starts.get(block, 0) if isinstance(block, int) else 0
    found = []
    for source in listed(citation.get("sources")):
        document = source.get("document") or source.get("tool_output") if isinstance(source, dict) else None
        url = document.get("url") if isinstance(document, dict) else None
        if isinstance(document, dict) and isinstance(url, str) and url:
            title = document.get("title")
            place = {"start_index": before + start, "end_index": before + end}
            where = {"title": title if isinstance(title, str) else "", "url": url}
            found.append({"type": "url_citation", "url_citation": place | where})
    return found


def logprobs(items: list[Any]) -> dict[str, Any] | None:
    """OpenAI's log probabilities. One item of the vendor is a piece of text of one or more tokens, with the sum of
    their log probabilities.
    """
    found = []
    for item in items:
        text, values = (item.get("text"), item.get("logprobs")) if isinstance(item, dict) else (None, None)
        numbers = [value for value in listed(values) if isinstance(value, int | float) and not isinstance(value, bool)]
        if isinstance(text, str) and numbers:
            place = {"token": text, "logprob": sum(numbers), "bytes": list(text.encode("utf-8", "replace"))}
            found.append({**place, "top_logprobs": []})
    return {"content": found} if found else None
