"""Usage as vendors and servers write it: names, places and types differ; what is shown and billed does not."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple

from proxy.metering.prices import Rates
from proxy.metering.pricing import ModelPrice
from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Provider
from proxy.providers.base.usage import input_usage_of, read
from proxy.providers.openai import OpenAI
from proxy.schema.fold import Fold
from proxy.schema.records import MAX_TOKENS, Tokens
from proxy.schema.sse import Event
from proxy.schema.usage import UsageReport, believable
from tests.providers.asking import answered, folded, request
from tests.providers.recordings import OWN_WIRES

OPENAI = OpenAI()
SHOWN = {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
OURS = {"provider_cost"}
DETAILS = {
    *("cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens", "image_tokens", "text_tokens"),
    *("video_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"),
}


def parts(report: UsageReport | None) -> tuple[int, int, Tokens]:
    assert report is not None
    shown = report.shown
    assert shown["total_tokens"] == shown["prompt_tokens"] + shown["completion_tokens"]
    return shown["prompt_tokens"], shown["completion_tokens"], report.billed


# --- OpenAI's shape ---------------------------------------------------------------------------------------------------

PLAIN = {"prompt_tokens": 90, "completion_tokens": 7, "total_tokens": 97}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (PLAIN, (90, 7, Tokens(input=90, output=7))),
        ({"input_tokens": 90, "output_tokens": 7, "total_tokens": 97}, (90, 7, Tokens(input=90, output=7))),
        ({"input_tokens": 90, "output_tokens": 7}, (90, 7, Tokens(input=90, output=7))),
        *(
            (raw, (90, 7, Tokens(input=60, cache_read=30, output=7, reasoning=4)))
            for raw in (
                {"promptTokens": 90, "completionTokens": 7, "cachedTokens": 30, "reasoningTokens": 4},
                {"Input_Tokens": 90, "Output_Tokens": 7, "Cached_Tokens": 30, "Reasoning_Tokens": 4},
                {"input_token_count": 90, "output_token_count": 7, "cachedInputTokens": 30, "thinkingTokens": 4},
                {"num_input_tokens": 90, "num_output_tokens": 7, "num_cached_tokens": 30, "reasoning_tokens": 4},
                {
                    "PromptTokens": 90,
                    "CompletionTokens": 7,
                    "TotalTokens": 97,
                    "PromptTokensDetails": {"CachedTokens": 30},
                    "CompletionTokensDetails": {"ReasoningTokens": 4},
                },
                {
                    "promptTokenCount": 90,
                    "candidatesTokenCount": 3,
                    "totalTokenCount": 97,
                    "cachedContentTokenCount": 30,
                    "thoughtsTokenCount": 4,
                },
            )
        ),
        ({"prompt_tokens": 90.0, "completion_tokens": 7.0}, (90, 7, Tokens(input=90, output=7))),
        ({"prompt_tokens": "90", "completion_tokens": "7"}, (90, 7, Tokens(input=90, output=7))),
        ({"prompt_tokens": 90, "total_tokens": 97}, (90, 7, Tokens(input=90, output=7))),
        ({"completion_tokens": 7, "total_tokens": 97}, (90, 7, Tokens(input=90, output=7))),
        ({"prompt_tokens": 0, "completion_tokens": 7, "total_tokens": 97}, (90, 7, Tokens(input=90, output=7))),
        ({**PLAIN, "total_tokens": 3}, (90, 7, Tokens(input=90, output=7))),
        ({"completion_tokens": 7}, (0, 7, Tokens(output=7))),
        ({"prompt_tokens": 90, "completion_tokens": None}, (90, 0, Tokens(input=90))),
        ({"prompt_tokens": 90, "completion_tokens": 10**18}, (90, 0, Tokens(input=90))),
        ({"prompt_tokens": 90, "input_tokens": 0, "completion_tokens": 7}, (90, 7, Tokens(input=90, output=7))),
        ({"prompt_tokens": 0, "input_tokens": 90, "output_tokens": 7}, (90, 7, Tokens(input=90, output=7))),
    ],
)
def test_counts_are_read_under_either_name_and_as_any_number(raw: Any, expected: Any) -> None:
    """What was counted is kept; what is missing is estimated later, see `believable`."""
    assert parts(read(raw)) == expected


CACHED = Tokens(input=50, cache_read=40, output=7)


@pytest.mark.parametrize(
    "more",
    [
        {"prompt_tokens_details": {"cached_tokens": 40}},
        {"input_tokens_details": {"cached_tokens": 40}},
        {"cached_tokens": 40},
        {"num_cached_tokens": 40},
        {"prompt_cache_hit_tokens": 40, "prompt_cache_miss_tokens": 50},
        {"cache_read_input_tokens": 40},
        {"cached_tokens": "40"},
        {"prompt_tokens_details": {"cached_tokens": 0}, "cache_read_input_tokens": 40},
        {"prompt_tokens_details": {"cached_tokens": 40}, "cached_tokens": 0},
        {"prompt_tokens_details": {"cached_tokens": 40, "text_tokens": None}, "completion_tokens_details": None},
        {"prompt_tokens_details": {"cached_tokens": 40}, "input_tokens_details": {"cached_tokens": 12}},
    ],
)
def test_cached_tokens_are_read_under_every_name(more: Any) -> None:
    """Of several spellings the largest counts. Clients look for them in one place."""
    report = read({**PLAIN, **more})
    assert parts(report) == (90, 7, CACHED)
    assert report is not None
    assert report.shown["prompt_tokens_details"]["cached_tokens"] == 40
    assert not {"cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens"} & set(report.shown)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            {
                **PLAIN,
                "prompt_tokens_details": {"cached_tokens": 40, "cache_creation_tokens": 30},
                "cache_read_input_tokens": 40,
                "cache_creation_input_tokens": 30,
            },
            Tokens(input=20, cache_read=40, cache_write=30, output=7),
        ),
        (
            {**PLAIN, "cache_creation_input_tokens": 30, "cache_creation": {"ephemeral_1h_input_tokens": 10}},
            Tokens(input=60, cache_write=30, cache_write_1h=10, output=7),
        ),
        (
            {
                **PLAIN,
                "prompt_tokens_details": {
                    "cache_creation_tokens": 30,
                    "cache_creation_token_details": {"ephemeral_1h_input_tokens": 10},
                },
            },
            Tokens(input=60, cache_write=30, cache_write_1h=10, output=7),
        ),
        # The vendor's own object, handed through: its input is without the cache.
        (
            {"input_tokens": 20, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 30, "output_tokens": 7},
            Tokens(input=20, cache_read=40, cache_write=30, output=7),
        ),
        (
            {"input_tokens": 90, "cache_read_input_tokens": 40, "output_tokens": 7, "total_tokens": 97},
            Tokens(input=50, cache_read=40, output=7),
        ),
        # Cached tokens cannot be in a smaller prompt.
        (
            {"prompt_tokens": 24, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 66}},
            Tokens(input=24, cache_read=66, output=7),
        ),
        (
            {"prompt_tokens": 50, "completion_tokens": 7, "total_tokens": 97, "cache_read_input_tokens": 40},
            Tokens(input=50, cache_read=40, output=7),
        ),
    ],
)
def test_what_a_gateway_says_of_the_cache_is_billed(raw: Any, expected: Tokens) -> None:
    """Reads and writes have prices of their own."""
    prompt, output, billed = parts(read(raw))
    assert billed == expected
    assert (prompt, output) == (90, 7)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({**PLAIN, "completion_tokens_details": {"reasoning_tokens": 5}}, (7, 5)),
        ({**PLAIN, "output_tokens_details": {"reasoning_tokens": 5}}, (7, 5)),
        ({**PLAIN, "reasoning_tokens": 5}, (7, 5)),
        ({**PLAIN, "reasoning_tokens": 9}, (7, 7)),
        ({**PLAIN, "total_tokens": 102, "reasoning_tokens": 5}, (12, 5)),
        ({"prompt_tokens": 90, "completion_tokens": 7, "reasoning_tokens": 20}, (27, 20)),
        ({"prompt_tokens": 90, "reasoning_tokens": 20}, (20, 20)),
    ],
)
def test_reasoning_is_part_of_the_output(raw: Any, expected: tuple[int, int]) -> None:
    """Where the total says so; without one, it cannot be in an output that is smaller."""
    report = read(raw)
    assert report is not None
    assert (report.billed.output, report.billed.reasoning) == expected
    assert report.shown["completion_tokens_details"] == {"reasoning_tokens": expected[1]}


@pytest.mark.parametrize("raw", [None, {}, [], "x", 7, {"usage": 1}, {"prompt_tokens": None}])
def test_an_object_that_counts_nothing_is_none(raw: Any) -> None:
    """An empty object, null, other kinds."""
    assert read(raw) is None
    assert input_usage_of(raw) is None


def test_what_a_server_adds_beside_the_counts_stays() -> None:
    """As every field of a server that speaks OpenAI's shape; its cost has a name of its own."""
    report = read({**PLAIN, "queue_time": 0.5, "x_tokens": "4", "y_tokens": -1, "cost": {"total_cost": 0.25}})
    assert report is not None
    assert report.shown == {**PLAIN, "queue_time": 0.5, "x_tokens": 4, "provider_cost": 0.25}
    searched = read({**PLAIN, "num_search_queries": 3, "cost": True})
    assert searched is not None
    assert (searched.shown, searched.billed.searches) == ({**PLAIN, "num_search_queries": 3}, 3)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"prompt_tokens": 5}, 5),
        ({"input_tokens": "5"}, 5),
        ({"total_tokens": 5.0}, 5),
        ({"prompt_tokens": 0, "total_tokens": 5}, 5),
        ({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}, 5),
    ],
)
def test_inputs_have_no_output(raw: Any, expected: int) -> None:
    """Embeddings and rankings; the total alone counts the prompt."""
    assert parts(input_usage_of(raw)) == (expected, 0, Tokens(input=expected))


# --- where it stands --------------------------------------------------------------------------------------------------

ZERO = dict.fromkeys(PLAIN, 0)


def chunk(text: str | None = None, finish: str | None = None, inside: Any = None, **fields: Any) -> Event:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    choices = [choice | ({"usage": inside} if inside else {})] if text or finish else []
    return Event("", json.dumps({"choices": choices, **fields}).encode())


@pytest.mark.parametrize(
    "events",
    [
        [chunk("a"), chunk(finish="stop", usage=PLAIN)],
        [chunk("a"), chunk(finish="stop"), chunk(usage=PLAIN)],
        [chunk("a", usage=PLAIN), chunk(finish="stop", usage=None)],
        [chunk("a", usage=PLAIN), chunk("b"), chunk(finish="stop", usage={})],
        [chunk("a"), chunk(finish="stop", x_groq={"usage": PLAIN})],
        [chunk("a"), chunk(finish="stop", inside=PLAIN)],
        [chunk("a"), chunk(finish="stop", inside=PLAIN, usage=ZERO)],
        [chunk("a"), chunk(finish="stop", usage=ZERO, x_groq={"usage": PLAIN})],
        [chunk("a"), chunk(finish="stop", usage=PLAIN), chunk(usage=ZERO)],
        [chunk("a"), chunk(finish="stop", usage=PLAIN), chunk(usage={"completion_tokens": 0}), chunk()],
        [chunk("a", usage={**ZERO, "prompt_tokens": 90}), chunk(finish="stop", usage={**ZERO, "completion_tokens": 7})],
        [chunk("a", usage={**PLAIN, "completion_tokens": 1}), chunk("b", usage=PLAIN), chunk(finish="stop")],
    ],
)
def test_usage_is_found_in_any_chunk_and_zeros_erase_nothing(events: list[Event]) -> None:
    """With an end marker and without; it stays out of the choices."""
    for end in ([], [Event("", b"[DONE]")]):
        found: Any = folded(OPENAI, events + end)
        assert parts(found["usage"]) == (90, 7, Tokens(input=90, output=7))
        assert set(found["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}


@pytest.mark.parametrize(
    "where", [{"usage": PLAIN}, {"x_groq": {"usage": PLAIN}}, {"usage": ZERO, "x_groq": {"usage": PLAIN}}]
)
def test_a_whole_answer_has_its_usage_where_the_server_put_it(where: Any) -> None:
    """At the top, in `x_groq`, in a choice."""
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    found: Any = OPENAI.parse_response(answered(200, {"choices": [choice], **where}))
    inside: Any = OPENAI.parse_response(answered(200, {"choices": [{**choice, "usage": PLAIN}]}))
    assert found["usage"] == inside["usage"] == read(PLAIN)
    assert inside["choices"] == found["choices"]


@pytest.mark.parametrize(
    "where",
    [
        {"usage_metadata": PLAIN},
        *({name: PLAIN} for name in ("token_usage", "tokenUsage", "usageMetadata", "Usage")),
        {"usage": [PLAIN]},
        {"usage": {"usage": PLAIN}},
        *({name: {"usage": PLAIN}} for name in ("message", "response", "result", "metadata", "meta", "data")),
        {"usage": {"promptTokens": 90, "completionTokens": 7, "totalTokens": 97}},
        {"usage": {"inputTokens": 90, "outputTokens": 7}},
        {"usage": {"prompt_eval_count": 90, "eval_count": 7}},
        {"usage": {"promptTokenCount": 90, "candidatesTokenCount": 7, "totalTokenCount": 97}},
        {"usage": {"prompt_tokens": 90, "generated_tokens": 7}},
        {"usage": ZERO, "metadata": {"usage": PLAIN}},
    ],
)
def test_gateways_put_usage_anywhere(where: Any) -> None:
    """Whole and streamed; what they count is taken before an estimate."""
    end = {"index": 0, "finish_reason": "stop"}
    whole_answer: Any = OPENAI.parse_response(
        answered(200, {"choices": [{**end, "message": {"content": "a"}}], **where})
    )
    streamed: Any = folded(OPENAI, [chunk("a"), chunk(finish="stop", **where)])
    for found in (whole_answer, streamed):
        assert parts(found["usage"]) == (90, 7, Tokens(input=90, output=7))


def test_usage_in_a_message_stays_out_of_it() -> None:
    """It is no part of what the model said."""
    end = {"index": 0, "finish_reason": "stop"}
    said = {"content": "a", "usage": PLAIN}
    whole_answer: Any = OPENAI.parse_response(answered(200, {"choices": [{**end, "message": said}]}))
    events = [Event("", json.dumps({"choices": [{**end, "delta": said}]}).encode())]
    for found in (whole_answer, folded(OPENAI, events)):
        assert parts(found["usage"])[:2] == (90, 7)
        assert "usage" not in found["choices"][0]["message"]


def test_the_cache_of_bedrocks_converse_is_beside_its_input() -> None:
    """In names of its own."""
    raw = {"inputTokens": 20, "outputTokens": 7, "cacheReadInputTokens": 40, "cacheWriteInputTokens": 30}
    for total in ({}, {"totalTokens": 97}):
        assert parts(read({**raw, **total})) == (90, 7, Tokens(input=20, cache_read=40, cache_write=30, output=7))


# --- every vendor -----------------------------------------------------------------------------------------------------

KINDS = sorted(PROVIDERS)


def whole(kind: str, usage: Any) -> Any:
    """One vendor's whole answer with this usage."""
    if kind == "anthropic":
        return {
            "type": "message",
            "content": [{"type": "text", "text": "hello"}],
            "stop_reason": "end_turn",
            "usage": usage,
        }
    if kind == "google":
        candidate = {"content": {"parts": [{"text": "hello"}]}, "finishReason": "STOP"}
        return {"candidates": [candidate], "usageMetadata": usage}
    if kind == "cohere":
        return {
            "message": {"content": [{"type": "text", "text": "hello"}]},
            "finish_reason": "COMPLETE",
            "usage": usage,
        }
    if kind == "perplexity":
        output = [{"type": "message", "content": [{"type": "output_text", "text": "hello"}]}]
        return {"status": "completed", "output": output, "usage": usage}
    return {"choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}], "usage": usage}


def said(kind: str, prompt: Any, output: Any) -> Any:
    """The vendor's own names for these counts; None: left out."""
    names = {"anthropic": ("input_tokens", "output_tokens"), "google": ("promptTokenCount", "candidatesTokenCount")}
    names |= dict.fromkeys(("cohere", "perplexity"), ("input_tokens", "output_tokens"))
    pair = zip(names.get(kind, ("prompt_tokens", "completion_tokens")), (prompt, output), strict=True)
    counts = {name: value for name, value in pair if value is not None}
    return {"billed_units": counts, "tokens": counts} if kind == "cohere" else counts


def usage_of(kind: str, usage: Any) -> UsageReport | None:
    provider: Provider = PROVIDERS[kind]()
    report: UsageReport | None = provider.parse_response(answered(200, whole(kind, usage)), request()).get("usage")
    return report


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("prompt", "output", "expected"),
    [
        (90, 7, (Tokens(input=90, output=7), False)),
        (90.0, 7.0, (Tokens(input=90, output=7), False)),
        ("90", "7", (Tokens(input=90, output=7), False)),
        (None, 7, (Tokens(input=40, output=7), True)),
        (0, 7, (Tokens(input=40, output=7), True)),
        (90, None, (Tokens(input=90, output=2), True)),
        (90, 0, (Tokens(input=90, output=2), True)),
        (0, 0, (Tokens(input=40, output=2), True)),
        (10**18, 7, (Tokens(input=40, output=7), True)),
        (90, -7, (Tokens(input=90, output=2), True)),
        (float(MAX_TOKENS) * 2, None, (Tokens(input=40, output=2), True)),
    ],
)
def test_every_vendor_is_believed_alike(kind: str, prompt: Any, output: Any, expected: Any) -> None:
    """What was counted is kept, what is missing or cannot be true is estimated."""
    found, is_estimated = believable(usage_of(kind, said(kind, prompt, output)), 2, lambda: 40)
    assert (found.billed, is_estimated) == expected
    assert (found.shown["prompt_tokens"], found.shown["completion_tokens"]) == (
        found.billed.prompt,
        found.billed.output,
    )


RICH: dict[str, Any] = {
    "anthropic": {
        "input_tokens": 3,
        "output_tokens": 2,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 4,
        "cache_creation": {"ephemeral_1h_input_tokens": 4},
        "server_tool_use": {"web_search_requests": 2},
        "iterations": [{"type": "advisor_message", "model": "m", "input_tokens": 1, "output_tokens": 1}],
    },
    "google": {
        "promptTokenCount": 8,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 3,
        "cachedContentTokenCount": 4,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 8}, {"modality": "X", "tokenCount": 8}, 3],
        "trafficType": "ON_DEMAND",
    },
    "cohere": {
        "billed_units": {"input_tokens": 3, "output_tokens": 2, "search_units": 1, "classifications": 1},
        "tokens": {"input_tokens": 9, "output_tokens": 4},
        "cached_tokens": 5,
    },
    "perplexity": {
        "input_tokens": 8,
        "output_tokens": 2,
        "input_tokens_details": {"cache_read_input_tokens": 3, "cache_creation_input_tokens": 1},
        "tool_calls_details": {"search_web": {"invocation": 2, "cost_usd": 0.01}},
        "cost": {"currency": "USD", "total_cost": 0.02},
    },
}


@pytest.mark.parametrize("kind", RICH)
def test_only_openais_names_are_shown_for_a_vendor_of_another_shape(kind: str) -> None:
    """What else the vendor says is for the bill alone."""
    report = usage_of(kind, RICH[kind])
    assert report is not None
    assert set(report.shown) <= SHOWN | OURS
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        assert set(report.shown.get(name, {})) <= DETAILS  # type: ignore[call-overload]
    assert report.billed.searches == {"anthropic": 2, "google": 0, "cohere": 1, "perplexity": 2}[kind]


NUMBER: st.SearchStrategy[Any] = st.one_of(
    st.integers(0, 300),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 300).map(str),
    st.sampled_from([None, True, "x", [], {}, 10**18]),
)
NAMES = st.sampled_from(
    [
        *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens"),
        *("reasoning_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "audio_tokens"),
        *("image_tokens", "text_tokens"),
        *("promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtsTokenCount"),
        *("cachedContentTokenCount", "toolUsePromptTokenCount", "num_search_queries", "search_units"),
    ]
)
COUNTS = st.dictionaries(NAMES, NUMBER, max_size=6)
INSIDE = st.sampled_from(
    [
        *("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"),
        *("billed_units", "tokens", "cache_creation", "server_tool_use"),
    ]
)
MODALITIES = st.lists(
    st.fixed_dictionaries({"modality": st.sampled_from(["TEXT", "AUDIO", "IMAGE", "VIDEO", 7]), "tokenCount": NUMBER}),
    max_size=3,
)
LISTS = st.dictionaries(
    st.sampled_from(
        ["promptTokensDetails", "cacheTokensDetails", "candidatesTokensDetails", "toolUsePromptTokensDetails"]
    ),
    MODALITIES,
    max_size=3,
)
ANY_USAGE = st.builds(
    lambda flat, deep, lists: flat | deep | lists, COUNTS, st.dictionaries(INSIDE, COUNTS, max_size=3), LISTS
)
RATES = Rates.of(
    ModelPrice(
        *(2, 10, 0.5, 2.5, 4),
        audio_input=32,
        cached_audio_input=2.5,
        audio_output=64,
        image_input=3,
        image_output=30,
        per_search=0.01,
    )
)


def nano(count: int, usd: float) -> int:
    """The price of so many tokens; whole, with the prices of RATES."""
    return count * round(usd * 1000)


def check_cost(billed: Tokens) -> None:
    """The cost is the sum of its parts, and each part that of its own tokens: nothing is billed twice or missed."""
    found = RATES.cost(billed)
    assert found is not None
    text = billed.input - billed.input_audio - billed.input_image
    made = billed.output - billed.output_audio - billed.output_image
    short = billed.cache_write - billed.cache_write_1h
    parts = (
        nano(text, 2) + nano(billed.input_audio, 32) + nano(billed.input_image, 3),
        nano(billed.cache_read - billed.cache_read_audio, 0.5) + nano(billed.cache_read_audio, 2.5),
        nano(short, 2.5) + nano(billed.cache_write_1h, 4),
        nano(made, 10) + nano(billed.output_audio, 64) + nano(billed.output_image, 30),
    )
    assert (found.input, found.cache_read, found.cache_write, found.output) == parts
    assert found.total == sum(parts) + billed.searches * 10_000_000


def check(report: UsageReport | None) -> None:
    """Shown counts are whole numbers from 0 on that add up, and so are billed ones."""
    if report is None:
        return
    shown: Any = report.shown
    counts = [*shown.items()]
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        counts += shown.get(name, {}).items()
    assert all(type(count) is int and count >= 0 for name, count in counts if name.endswith("_tokens"))
    billed = report.billed
    assert min(part for part in astuple(billed) if isinstance(part, int)) >= 0
    assert billed.input_audio + billed.input_image <= billed.input
    assert billed.cache_read_audio <= billed.cache_read
    assert billed.output_audio + billed.output_image <= billed.output
    assert billed.reasoning <= billed.output
    assert billed.cache_write_1h <= billed.cache_write
    assert billed.input + billed.cache_read + billed.cache_write + billed.output == billed.total
    assert shown["total_tokens"] == shown["prompt_tokens"] + shown["completion_tokens"] or billed.total == 0
    check_cost(billed)


@pytest.mark.parametrize("kind", [*(each for each in OWN_WIRES if each in PROVIDERS), "openai"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(usage=ANY_USAGE)
@pytest.mark.slow
def test_whatever_a_usage_says_its_parts_add_up(kind: str, usage: dict[str, Any]) -> None:
    """The usage law, for every vendor."""
    report = usage_of(kind, usage)
    check(report)
    check(believable(report, 2, lambda: 40)[0])


# --- streams of vendors with shapes of their own ----------------------------------------------------------------------


def stream(kind: str, usages: list[Any]) -> UsageReport | None:
    """The usage of a stream that reports again and again."""
    decoder, fold = PROVIDERS[kind]().stream_decoder(request(stream=True)), Fold()
    if kind == "anthropic":
        first, *others = usages
        events: list[Any] = [{"type": "message_start", "message": {"id": "m", "content": [], "usage": first}}]
        events += [{"type": "message_delta", "delta": {}, "usage": usage} for usage in others]
        events += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]
    else:
        candidate = {"content": {"parts": [{"text": "a"}]}}
        events = [{"candidates": [candidate], "usageMetadata": usage} for usage in usages]
        events.append({"candidates": [{"finishReason": "STOP"}]})
    for event in events:
        for piece in decoder.feed(Event("", json.dumps(event).encode())):
            fold.add(piece)
    return fold.response().get("usage")


ANTHROPIC_TRUTH = {
    "input_tokens": 9,
    "cache_read_input_tokens": 5,
    "cache_creation_input_tokens": 4,
    "output_tokens": 7,
    "server_tool_use": {"web_search_requests": 2},
}
GOOGLE_TRUTH = {"promptTokenCount": 9, "cachedContentTokenCount": 5, "candidatesTokenCount": 7, "thoughtsTokenCount": 3}


@pytest.mark.parametrize(("kind", "truth"), [("anthropic", ANTHROPIC_TRUTH), ("google", GOOGLE_TRUTH)])
@pytest.mark.parametrize("seed", range(20))
def test_a_report_that_leaves_counts_out_erases_none(kind: str, truth: dict[str, Any], seed: int) -> None:
    """Null, 0, or no mention, before or after the true ones."""
    dice = random.Random(seed)
    empty: list[Any] = [None, {}, dict.fromkeys(truth, 0), dict.fromkeys(truth)]
    usages = [truth, *dice.choices(empty, k=3)]
    dice.shuffle(usages)
    if kind == "anthropic":
        usages.insert(0, {"input_tokens": 0, "output_tokens": 1})  # its output is a placeholder
    assert stream(kind, usages) == usage_of(kind, truth)


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        ([{"input_tokens": 500, "output_tokens": 1}], Tokens(input=500)),
        ([{"input_tokens": 43, "output_tokens": 1}, {"input_tokens": 61, "output_tokens": 5}], Tokens(61, output=5)),
        (
            [{"input_tokens": 100, "output_tokens": 1}, {"input_tokens": 20, "cache_read_input_tokens": 80}],
            Tokens(input=20, cache_read=80),
        ),
        (
            [{"input_tokens": 20, "cache_read_input_tokens": 80}, {"input_tokens": 30, "output_tokens": 5}],
            Tokens(input=30, cache_read=80, output=5),
        ),
        ([{"input_tokens": 3}, {"output_tokens": 5}, {"output_tokens": 0}], Tokens(input=3, output=5)),
    ],
)
def test_a_message_counts_its_output_at_its_end(usages: list[Any], expected: Tokens) -> None:
    """The start holds the prompt and a placeholder for the output; what corrects the prompt may move its parts."""
    report = stream("anthropic", usages)
    assert report is not None
    assert report.billed == expected


def test_searches_are_billed_where_nothing_else_was_counted() -> None:
    """The rest is estimated."""
    tool = {"server_tool_use": {"web_search_requests": 2}}
    found, is_estimated = believable(usage_of("anthropic", tool), 2, lambda: 40)
    assert (found.billed, is_estimated) == (Tokens(input=40, output=2, searches=2), True)
