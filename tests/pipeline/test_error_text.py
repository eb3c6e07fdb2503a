"""What is kept of a provider's error message: what explains the error, and nothing that the request says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.pipeline.error_text import LEFT_OUT, MAX_KEPT, MAX_SEARCHED, kept
from proxy.schema.chat import ChatRequest
from proxy.schema.json import encode
from proxy.schema.request import NativeBody

PROMPT = "My secret is Rumpelstiltskin, card 4111 1111 5555. Is the user wrong or not? Write quickly to Ann."


def request_of(prompt: str = PROMPT, **fields: Any) -> ChatRequest:
    body = {"model": "fake/m-1", "messages": [{"role": "user", "content": prompt}], **fields}
    return ChatRequest(model="fake/m-1", messages=[], fields=body)


REQUEST = request_of()
EXPLAINING = (
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 10013 tokens.",
    "messages.0.content: all messages must have non-empty content except for the optional final assistant message",
    "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to purchase credits.",
    "Rate limit reached for m-1 in organization [redacted] on tokens per min (TPM): Limit 30000, Used 29500.",
    "The model `m-1` does not exist or you do not have access to it.",
    "The request timed out: no first token within 60 s.",
    "Overloaded",
)


@pytest.mark.parametrize("message", EXPLAINING)
def test_what_explains_an_error_stays(message: str) -> None:
    """Names of parameters and of the model, limits, and the vendor's own words."""
    assert kept(message, REQUEST, ("m-1",)) == message


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('Invalid content: "My secret is" at messages.0.content', "Invalid content: [...] at messages.0.content"),
        ("Invalid content: 'my secret, never closed", "Invalid content: [...]"),
        ("Flagged: RUMPELSTILTSKIN and 4111.", "Flagged: [...] and [...]"),
        ("Flagged: rumpelst...", "Flagged: [...]"),
        ("Flagged: 'quickly'", "Flagged: [...]"),
        ("You said: is the user wrong or not and more", "You said: [...] and more"),
        ('Cannot parse tool call: {"note": "of the answer"} as JSON', "Cannot parse tool call: [...] as JSON"),
        ("Not valid: " + "QUJD" * 20, "Not valid: [...]"),
        ("“Ann” and «Rumpel»: refused", "[...] and [...]: refused"),
    ],
)
def test_what_may_be_from_the_request_is_left_out(message: str, said: str) -> None:
    """Quotations, its words in any case and cut anywhere, and runs of ordinary words."""
    assert kept(message, REQUEST) == said


def test_the_words_of_tools_and_of_nested_values_count(
    message: str = "Invalid schema for look_up_patient: no type",
) -> None:
    """Not only those of messages; the names of members too."""
    tools = [{"type": "function", "function": {"name": "look_up_patient", "parameters": {"type": "object"}}}]
    assert kept(message, request_of(tools=tools)) == "Invalid schema for [...] no type"
    assert kept(message, request_of(metadata={"look_up_patient": "1"})) == "Invalid schema for [...] no type"


def test_a_body_that_goes_upstream_as_it_came_counts() -> None:
    """It may have fields that were not read."""
    native = NativeBody("anthropic", "/v1/messages", encode({"thing": [{"deep": "Ann's diary"}]}))
    assert kept("No diary is allowed.", replace(REQUEST, native=native)) == "No [...] is allowed."


@pytest.mark.parametrize("prompt", ["word " * (MAX_SEARCHED // 4), "{}"])
def test_of_a_request_that_is_too_long_to_look_ordinary_words_stay(prompt: str) -> None:
    """And numbers of three digits; or of a short one, every word it does not have."""
    said = kept("The maximum length is 200 tokens, Rumpelstiltskin.", request_of(prompt))
    assert said == f"The maximum length is 200 tokens, {LEFT_OUT if prompt != '{}' else 'Rumpelstiltskin.'}"


def test_a_message_is_capped() -> None:
    """A page of HTML in place of an error is no explanation."""
    said = kept("no limit " * 500, REQUEST)
    assert len(said) == MAX_KEPT and said.endswith("…")


@given(
    st.lists(st.from_regex(r"[qxzjk]{4,12}|[0-9]{4,12}|[ößñ日本]{2,6}", fullmatch=True), min_size=1, max_size=12),
    st.lists(st.sampled_from(["Invalid value", "near", "\n", "\t", ",", "'", '"', "{", "«", "(", "at position 12"])),
    st.integers(0, 100),
    st.randoms(use_true_random=False),
)
def test_no_word_of_a_prompt_stays(words: list[str], others: list[str], cut: int, mixed: Any) -> None:
    """However the vendor mixes them with its own words, and where it cuts them."""
    mine = [each[: max(4, cut)] for each in words]
    pieces = [*mine, *others]
    mixed.shuffle(pieces)
    said = kept(" ".join(pieces), request_of("; ".join(words))).lower()
    assert not any(word.lower() in said for word in mine if len(word) >= 4 or not word.isascii())
