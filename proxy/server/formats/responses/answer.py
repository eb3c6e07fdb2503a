"""Translates: a call into its Response object: the request, and the state of its answer."""

from __future__ import annotations

from typing import Any, cast

from proxy.pipeline.call import Call
from proxy.pipeline.native import NativeAnswer
from proxy.pipeline.reasoning_state import MAX_STATE_BYTES
from proxy.pipeline.trace import trace
from proxy.providers.base.answers import mapping
from proxy.schema.errors import ProxyError
from proxy.schema.usage import Usage
from proxy.server.formats.responses.references import answer_name, kept
from proxy.server.formats.responses.request import ResponsesRequest

_ECHOED = (
    *("instructions", "max_output_tokens", "max_tool_calls", "metadata", "prompt_cache_key", "safety_identifier"),
    "user",
)
# OpenAI's defaults. The published schema of this API has numbers there (November 2026).
_NUMBERS = {"temperature": 1.0, "top_p": 1.0, "top_logprobs": 0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_OF_TOOLS = {"description": None, "parameters": None, "strict": None}
# Our error codes -> codes that clients of this API check.
_CODES = {"rate_limit_exceeded": "rate_limit_exceeded", "insufficient_quota": "insufficient_quota"}
_CODES |= {"context_length_exceeded": "context_length_exceeded"}


def response_id(call: Call) -> str:
    return answer_name(call.id)


def native_of(call: Call) -> NativeAnswer | None:
    """The vendor's own answer, if that is the answer; an ensemble has none."""
    return call.answering.native if call.seated is None and call.attempts else None


class Envelope:
    """The Response object of one call, in each of its states."""

    def __init__(self, call: Call) -> None:
        self._call = call
        request = call.request
        self._asked = request.asked if isinstance(request, ResponsesRequest) else {}

    def begun(self) -> dict[str, Any]:
        """The object before any output."""
        return self._response("in_progress", [])

    def ended(
        self, output: list[dict[str, Any]], reason: str | None, usage: Usage, extras: Any, size: int
    ) -> dict[str, Any]:
        """The object at the end. `reason`: the finish_reason. `extras`: fields of the vendor's own answer. `size`: of
        the output, about how many bytes.
        """
        why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reason or "")
        response = self._response("incomplete" if why else "completed", output)
        response["incomplete_details"] = {"reason": why} if why else None
        response["completed_at"] = None if why else int(self._call.clock.unix_ns() // 1_000_000_000)
        response["usage"] = usage_of(usage)
        if self._asked.get("store") is not False and len(data := kept(output, size)) <= MAX_STATE_BYTES:
            self._call.referable = answer_name(self._call.id), data
        if isinstance(extras.get("service_tier"), str):
            response["service_tier"] = extras["service_tier"]
        return {**response, **trace(self._call)}

    def failed(self, output: list[dict[str, Any]], error: ProxyError) -> dict[str, Any]:
        code = _CODES.get(error.code or "", "server_error")
        return {**self._response("failed", output), "error": {"code": code, "message": error.message}}

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        call, asked = self._call, self._asked
        text, reasoning = mapping(asked.get("text")), mapping(asked.get("reasoning"))
        parallel = asked.get("parallel_tool_calls")
        return {
            "id": response_id(call),
            "object": "response",
            "created_at": call.created,
            "status": status,
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": call.shown_model if call.attempts else call.request.model,
            "output": output,
            "parallel_tool_calls": True if parallel is None else parallel,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None, **reasoning},
            "service_tier": asked.get("service_tier") or "auto",
            "store": False,
            "text": {**text, "format": text.get("format") or {"type": "text"}},
            "tool_choice": asked.get("tool_choice") or "auto",
            "tools": [_told(tool) for tool in asked.get("tools") or ()],
            "truncation": "disabled",
            "usage": None,
            **{name: asked.get(name) for name in _ECHOED},
            **{name: usual if asked.get(name) is None else asked[name] for name, usual in _NUMBERS.items()},
        }


def _told(tool: dict[str, Any]) -> dict[str, Any]:
    """A function in full, in OpenAI's form."""
    return {**_OF_TOOLS, **tool} if tool.get("type") == "function" and "name" in tool else tool


def usage_of(usage: Usage) -> dict[str, Any]:
    """Usage in this API's fields, with the cost as in all endpoints."""
    read, wrote = mapping(usage.get("prompt_tokens_details")), mapping(usage.get("completion_tokens_details"))
    told: dict[str, Any] = {
        "input_tokens": usage.get("prompt_tokens") or 0,
        "input_tokens_details": {
            "cached_tokens": read.get("cached_tokens") or 0,
            "cache_write_tokens": read.get("cache_write_tokens") or 0,
        },
        "output_tokens": usage.get("completion_tokens") or 0,
        "output_tokens_details": {"reasoning_tokens": wrote.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens") or 0,
    }
    known = cast("dict[str, Any]", usage)
    return told | {name: known[name] for name in ("cost", "cost_details", "estimated") if name in known}
