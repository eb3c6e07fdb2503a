"""Words for a finish at the OpenAI-shaped dialects: known ones in any spelling; else the content tells."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Provider
from proxy.providers.openai import OpenAI
from proxy.schema.errors import UpstreamError, UpstreamTruncated
from proxy.schema.sse import Event
from tests.providers.asking import answered, event, folded, request

KINDS = ("groq", "mistral", "together", "ollama", "vllm", "lmstudio", "localai", "embedded")
SHAPED: dict[str, Provider] = {
    "openai": OpenAI(base_url="https://other.example/v1"),
    **{kind: PROVIDERS[kind]() for kind in KINDS},
}
DONE = Event("", b"[DONE]")
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def usage(written: int) -> dict[str, int]:
    return {"prompt_tokens": 10, "completion_tokens": written, "total_tokens": 10 + written}


def finish(word: Any, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {}, "finish_reason": word}], **more}


def text(index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": "x", **delta}, "finish_reason": None}]}


def stream(word: Any, counted: dict[str, int], place: str, calls: list[Any]) -> list[Event]:
    """The events of an answer whose usage comes in the given place."""
    first = text(tool_calls=calls) if calls else text()
    by_place: dict[str, list[dict[str, Any]]] = {
        "before": [{**first, "usage": counted}, finish(word)],
        "beside": [first, finish(word, usage=counted)],
        "after": [first, finish(word), {"choices": [], "usage": counted}],
    }
    return [event(each) for each in by_place[place]]


@pytest.mark.parametrize(
    ("written", "limit", "calls", "expected"),
    [
        (20, None, [], "stop"),
        (20, 30, [], "stop"),
        (30, 30, [], "length"),
        (31, 30, [], "length"),
        (30, 30, [CALL], "tool_calls"),
        (3, 30, [CALL], "tool_calls"),
    ],
)
@pytest.mark.parametrize("kind", SHAPED)
def test_a_word_that_nobody_knows_leaves_the_finish_to_the_content(
    kind: str, written: int, limit: int | None, calls: list[Any], expected: str
):
    """Whole and streamed, wherever the usage comes, with an end marker and without; the word stands beside it."""
    provider = SHAPED[kind]
    fields: dict[str, Any] = {} if limit is None else {"max_tokens": limit}
    said = {"role": "assistant", "content": "x", **({"tool_calls": calls} if calls else {})}
    for word in ("bored", "BUDGET_EXHAUSTED", "the end"):
        body = {"choices": [{"index": 0, "message": said, "finish_reason": word}], "usage": usage(written)}
        choice: Any = provider.parse_response(answered(200, body), request(**fields))["choices"][0]
        found = [choice]
        for place in ("before", "beside", "after"):
            for end in ([], [DONE]):
                events = [*stream(word, usage(written), place, calls), *end]
                found.append(folded(provider, events, **fields)["choices"][0])
        for each in found:
            assert each["finish_reason"] == expected
            assert (each["native_finish_reason"], each["finish_reason_adapted"]) == (word, True)


def test_the_last_count_tells_whether_the_limit_was_reached():
    """Servers that count in every event count on after the finish."""
    for kind in SHAPED:
        events = stream("bored", usage(30), "after", [])
        assert folded(SHAPED[kind], events, max_tokens=30)["choices"][0]["finish_reason"] == "length"
        assert folded(SHAPED[kind], events[:2], max_tokens=30)["choices"][0]["finish_reason"] == "stop"


def test_each_of_several_choices_has_its_finish():
    """One with a word that is known, one without any, one with a call; the limit is that of each."""
    provider = SHAPED["vllm"]
    events = [text(0), text(1), text(2, tool_calls=[CALL]), finish("bored", 0), finish("length", 1), finish("bored", 2)]
    for written, expected in ((90, "length"), (89, "stop")):
        counted = {"choices": [], "usage": usage(written)}
        answer = folded(provider, [*map(event, [*events, counted]), DONE], max_tokens=30, n=3)
        assert [each["finish_reason"] for each in answer["choices"]] == [expected, "length", "tool_calls"]


@pytest.mark.parametrize("kind", SHAPED)
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("eos_token", "stop"),
        ("COMPLETE", "stop"),
        ("MAX_TOKENS", "length"),
        ("Length", "length"),
        ("SAFETY", "content_filter"),
        ("sensitive", "content_filter"),
        ("tool_use", "tool_calls"),
    ],
)
def test_words_of_other_vendors_are_read_in_any_spelling(kind: str, word: str, expected: str):
    """Gateways pass on what the model's own vendor said; it was said, so nothing is adapted."""
    provider = SHAPED[kind]
    body = {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": word}]}
    whole: Any = provider.parse_response(answered(200, body), request())["choices"][0]
    streamed: Any = folded(provider, [event(text()), event(finish(word))])["choices"][0]
    for choice in (whole, streamed):
        assert (choice["finish_reason"], choice["native_finish_reason"]) == (expected, word)
        assert "finish_reason_adapted" not in choice


@pytest.mark.parametrize("word", ["error", "ERROR", "abort", "insufficient_system_resource", "network_error"])
def test_words_for_an_interrupted_answer_are_errors(word: str):
    """It is not complete, and another try may be."""
    body = {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": word}]}
    with pytest.raises(UpstreamError, match="in the middle") as raised:
        SHAPED["openai"].parse_response(answered(200, body), request())
    assert raised.value.retryable
    with pytest.raises(UpstreamError, match="in the middle"):
        folded(SHAPED["openai"], [event(text()), event(finish(word))])


def test_a_filter_that_took_the_whole_answer_may_say_so_in_its_own_word():
    """Azure's way, and that of gateways before Google's models."""
    for word in ("content_filter", "SAFETY"):
        body = {"choices": [{"index": 0, "finish_reason": word}]}
        choice = SHAPED["openai"].parse_response(answered(200, body), request())["choices"][0]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", "")


def test_a_continued_message_that_has_no_finish_loses_nothing():
    """What was withheld as a repetition comes at the end, when it was none."""
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Once upon a time"}]
    events = [event({"choices": [{"index": 0, "delta": {"content": "Once up"}, "finish_reason": None}]})]
    for word, end in ((None, [DONE]), ("bored", [DONE]), ("bored", [])):
        answer = folded(SHAPED["mistral"], [*events, event(finish(word)), *end], messages=said)
        assert answer["choices"][0]["message"]["content"] == "Once up"


def test_a_stream_without_a_word_and_without_an_end_marker_broke_off():
    """An unknown word is a finish; no word is none."""
    for kind in SHAPED:
        with pytest.raises(UpstreamTruncated):
            folded(SHAPED[kind], [event(text()), Event("", json.dumps(finish("null")).encode())])
