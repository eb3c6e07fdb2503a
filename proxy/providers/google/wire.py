"""Translates: the vendor's answers from bytes into Structs, which declare only the fields that are read (SDK
google-genai 3.3).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from proxy.providers.base.answers import BROKEN_OFF, decoded
from proxy.schema.errors import UpstreamError, UpstreamTruncated


class PartialArg(Struct, rename="camel"):
    """A piece of a call's arguments; `json_path` is its position."""

    json_path: str = "$"
    string_value: str | None = None
    number_value: int | float | None = None
    bool_value: bool | None = None


class FunctionCall(Struct, rename="camel"):
    name: str | None = None
    id: str | None = None
    args: dict[str, Any] | None = None
    partial_args: list[PartialArg] | None = None
    will_continue: bool | None = None


class Blob(Struct, rename="camel"):
    mime_type: str = ""
    data: str = ""


class Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: FunctionCall | None = None
    inline_data: Blob | None = None
    executable_code: dict[str, Any] | None = None
    code_execution_result: dict[str, Any] | None = None
    tool_call: dict[str, Any] | None = None
    tool_response: dict[str, Any] | None = None


class Content(Struct):
    parts: list[Part] | None = None


class Token(Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class Top(Struct):
    candidates: list[Token] | None = None


class Logprobs(Struct, rename="camel"):
    chosen_candidates: list[Token] | None = None
    top_candidates: list[Top] | None = None


class Candidate(Struct, rename="camel"):
    """One choice, or a piece of one. An index of 0 may be missing."""

    index: int | None = None
    content: Content | None = None
    finish_reason: Any = None
    finish_message: str | None = None
    safety_ratings: list[Any] | None = None
    citation_metadata: dict[str, Any] | None = None
    grounding_metadata: dict[str, Any] | None = None
    url_context_metadata: dict[str, Any] | None = None
    logprobs_result: Logprobs | None = None
    continuation_token: str | None = None


class PromptFeedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class Answer(Struct, rename="camel"):
    """A whole answer, or one event of a stream."""

    candidates: list[Candidate] | None = None
    prompt_feedback: PromptFeedback | None = None
    usage_metadata: Any = None  # read by `usage_of`
    model_version: str | None = None
    response_id: str | None = None
    error: Any = None


_answer: msgspec.json.Decoder[Answer | list[Answer]] = msgspec.json.Decoder(Answer | list[Answer])


def read(data: bytes) -> Answer:
    """The answer. Raises UpstreamTruncated for an incomplete one, UpstreamError for an invalid one.

    Errors of streams without framing arrive as a list with one error, which is returned.
    """
    try:
        value = decoded(data, _answer)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        if str(error) == BROKEN_OFF:
            raise UpstreamTruncated("The provider's answer broke off in the middle.") from None
        raise _no_answer() from None
    if isinstance(value, Answer):
        return value
    failed = next((answer for answer in value if answer.error), None)
    if failed is None:
        raise _no_answer()
    return failed


def _no_answer() -> UpstreamError:
    return UpstreamError("The provider's answer does not follow its API.", retryable=True, upstream_status=200)
