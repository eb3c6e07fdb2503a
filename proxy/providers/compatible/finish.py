"""Translates: OpenAI-shaped servers' words for the reason why an answer ended."""

from __future__ import annotations

from typing import Any

from proxy.providers.base.errors import scrub
from proxy.providers.base.finish import names_finish, native_finish
from proxy.schema.chat import FINISH_REASONS
from proxy.schema.errors import UpstreamError

CALLED = ("tool_calls", "function_call")  # fields of a message; each implies the finish_reason of the same name
_PLAIN_ENDS = ("stop", *CALLED)
# In lower case. Servers pass on the words of the backends behind them: Anthropic's, Google's, Bedrock's, TGI's,
# Zhipu's.
_WORDS = {
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence", "complete"), "stop"),
    **dict.fromkeys(("max_tokens", "max_output_tokens", "max_completion_tokens", "max_new_tokens"), "length"),
    **dict.fromkeys(("max_length", "model_length", "model_context_window_exceeded"), "length"),
    **dict.fromkeys(("tool_use", "tool_call"), "tool_calls"),
    **dict.fromkeys(("safety", "recitation", "refusal", "sensitive", "prohibited_content"), "content_filter"),
    **dict.fromkeys(
        ("blocklist", "spii", "image_safety", "content_filtered", "guardrail_intervened"), "content_filter"
    ),
}
_BROKEN = ("error", "abort", "insufficient_system_resource", "network_error")  # the answer is not complete


def finish_reason(value: object, called: str | None) -> tuple[str | None, dict[str, Any]]:
    """One of OpenAI's five words, with the server's own word beside it if it differs; None for a missing or
    unknown one. `called`: the one that the answer's calls imply.
    """
    if isinstance(value, str) and value in FINISH_REASONS:
        return (called if called and value in _PLAIN_ENDS else value), {}
    if not names_finish(value):
        return None, {}
    word = value.lower()
    if word in _BROKEN:
        said = "" if word == "error" else f" ({scrub(word)})"
        message = f"The provider stopped with an error in the middle of its answer{said}."
        raise UpstreamError(message, retryable=True)
    reason = word if word in FINISH_REASONS else _WORDS.get(word)
    if reason is None:
        return None, {}
    return (called if called and reason in _PLAIN_ENDS else reason), native_finish(value)
