"""Translates: the events of one answer into canonical chunks. A whole answer is a stream of one event."""

from __future__ import annotations

from typing import Any, cast

from msgspec.structs import replace

from proxy.providers.base.answers import mapping, text
from proxy.providers.base.call_ids import CallIds, Offer
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.envelopes import says_something
from proxy.providers.base.errors import scrub
from proxy.providers.base.finish import at_limit, names_finish
from proxy.providers.base.stream import EventDecoder
from proxy.providers.google.choice import ChoiceDecoder
from proxy.providers.google.errors import error_in
from proxy.providers.google.models import searches_billed
from proxy.providers.google.usage import usage_of
from proxy.providers.google.wire import Answer, PromptFeedback, read
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse
from proxy.schema.errors import UpstreamError, UpstreamTruncated
from proxy.schema.fold import Fold
from proxy.schema.usage import NOTHING, UsageReport

_TIERS = {"standard": "default", "flex": "flex", "priority": "priority"}


class GoogleStreamDecoder(EventDecoder):
    """Decodes one answer. There are no event names, and no end marker except from proxies: it ends after the finish of
    a candidate.
    """

    def __init__(self, expected: int = 1, request: ChatRequest | None = None) -> None:
        self._expected = expected
        self._request = request
        self._offer = Offer(request)
        self._usage: UsageReport | None = None  # the last one
        self._choices: dict[int, ChoiceDecoder] = {}
        self._blocked = False

    @property
    def finished(self) -> bool:
        done = sum(choice.finished for choice in self._choices.values())
        return self._blocked or (done >= self._expected and done == len(self._choices))

    @property
    def _is_cut(self) -> bool:
        return at_limit(self._request, self._usage, len(self._choices))

    def read(self, data: bytes, name: str) -> list[ChatChunk]:
        return [self.add(read(data))]

    def add(self, answer: Answer) -> ChatChunk:
        """The chunk of an event. Raises UpstreamError for an error in its place."""
        if answer.error and says_something(answer.error):
            raise error_in(answer.error)
        entries: list[dict[str, Any]] = []
        if any(names_finish(candidate.finish_reason) for candidate in answer.candidates or []):
            self._usage = usage_of(answer.usage_metadata, 0) or self._usage
        for candidate in answer.candidates or []:
            index = candidate.index or 0
            if index not in self._choices:
                ids = CallIds(self._offer, answer.response_id, index)
                self._choices[index] = ChoiceDecoder(index, answer.response_id or "", ids)
            entries += self._choices[index].add(candidate, self._is_cut)
        if answer.prompt_feedback is not None and not self._choices:
            entries += self._refused(answer.prompt_feedback)
        return self._chunk(answer, entries)

    def at_end_marker(self) -> list[ChatChunk]:
        """The finish of each choice that has none although the answer is complete."""
        unfinished = [each for each in self._choices.values() if each.has_content and not each.finished]
        entries = [entry for each in unfinished for entry in each.end(self._is_cut)]
        return [cast(ChatChunk, {"choices": entries})] if entries else []

    def close(self) -> list[ChatChunk]:
        """Raises UpstreamTruncated unless every choice that began has finished."""
        begun = self._choices.values()
        if not self._blocked and not (begun and all(choice.finished for choice in begun)):
            raise UpstreamTruncated("The provider's answer ended without a finish reason.")
        return []

    def _refused(self, feedback: PromptFeedback) -> list[dict[str, Any]]:
        """The choices of an answer to a blocked prompt: no candidate will come."""
        if not feedback.block_reason:
            return []
        self._blocked = True
        reason = scrub(feedback.block_reason)[:64]
        said = feedback.block_reason_message
        refusal = scrub(said) if said else f"The prompt was blocked by the provider: {reason}."
        finish = {"finish_reason": "content_filter", "native_finish_reason": reason}
        return [
            {"index": 0, "delta": {"refusal": refusal}, "finish_reason": None},
            {"index": 0, "delta": {}, **finish},
        ]

    def _chunk(self, answer: Answer, entries: list[dict[str, Any]]) -> ChatChunk:
        chunk: dict[str, Any] = {"object": "chat.completion.chunk", "created": 0, "choices": entries}
        if answer.response_id:
            chunk["id"] = f"chatcmpl-{answer.response_id}"
        if answer.model_version:
            chunk["model"] = answer.model_version
        searched = sum(choice.queries for choice in self._choices.values())
        usage = usage_of(answer.usage_metadata, searches_billed(searched, answer.model_version))
        if self._blocked:
            usage = replace(usage or NOTHING, wrote_nothing=True)
        if usage is not None:
            chunk["usage"] = self._usage = usage
        tier = _TIERS.get(text(mapping(answer.usage_metadata).get("serviceTier")))
        if tier is not None:
            chunk["service_tier"] = tier
        return cast(ChatChunk, chunk)


def parse(response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
    """A whole answer. Raises UpstreamError if it is an error, has no candidate, or one without content or finish."""
    decoder, fold = GoogleStreamDecoder(request=request), Fold()
    answer = read(response.body)
    for chunk in [decoder.add(answer), *decoder.at_end_marker()]:
        fold.add(chunk)
    if not answer.candidates and not decoder.finished:
        message = "The provider's answer has no candidates."
        raise UpstreamError(message, retryable=True, upstream_status=response.status)
    decoder.close()
    return fold.response()
