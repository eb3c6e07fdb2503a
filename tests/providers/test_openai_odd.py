"""What is not as promised: answers with wrong types anywhere, requests with odd values. An error, never a crash."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.openai import OpenAI
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.schema.fold import Fold
from proxy.schema.sse import Event
from proxy.schema.usage import UsageReport
from proxy.server.formats.chat import decode_chat
from tests.providers.asking import answered, event, folded, request
from tests.providers.corpus import CORPUS
from tests.providers.recordings import answer, events, load
from tests.providers.test_perplexity import ANSWERS, streamed_events

OPENAI = OpenAI()
KINDS = ["openai", "groq", "mistral", "together", "perplexity", "ollama", "vllm", "lmstudio", "localai"]
JUNK: list[Any] = [None, True, -1, 2.5, "", "x", [], [None], [[]], {}, {"x": 1}, {"text": [{"text": {}}]}, 10**30]
RECORDED = [
    "mistral/pair_mistral-reasoning.json.json",
    "groq/tool_choice_matrix_required-groq_.a831f7.json.json",
    "compatible/pair_xai-text.json.json",
    "perplexity/pair_perplexity-citations.json.json",
    "openai/multiple_agent_tool_calls.fc47b9.json.json",
]
STREAMS = ["mistral/pair_mistral-reasoning.events.json", "groq/tool_use_failed_error_streaming.e8061c.stream.json"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to every value inside a value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def spoiled(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The value with `junk` at a path; None there takes the key away."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = junk
    return copy


def attempts(value: Any, seed: str) -> Iterator[Any]:
    """Each place spoiled in a few ways."""
    dice = random.Random(seed)
    for path in places(value):
        for junk in dice.sample(JUNK, 4):
            yield spoiled(value, path, junk)


def outcome(read: Callable[[], object]) -> str:
    """Anything else than these two is a crash."""
    try:
        read()
    except UpstreamError:
        return "refused"
    return "read"


@pytest.mark.parametrize("name", RECORDED)
def test_an_answer_spoiled_anywhere_is_read_or_an_upstream_error(name: str) -> None:
    """And what is read can be counted."""
    provider = PROVIDERS[name.partition("/")[0].replace("compatible", "openai")]()
    bodies = attempts(json.loads(answer(name).body), name)
    assert {outcome(partial(parse, provider, body)) for body in bodies} == {"read", "refused"}


def parse(provider: Any, body: Any) -> None:
    found = provider.parse_response(HTTPResponse(200, {}, json.dumps(body).encode()))
    assert_counted(found.get("usage"))


def feed(provider: Any, all_events: list[Event]) -> None:
    decoder, fold = provider.stream_decoder(request(stream=True)), Fold()
    for each in all_events:
        for chunk in decoder.feed(each):
            fold.add(chunk)
    for chunk in decoder.close():
        fold.add(chunk)
    assert_counted(fold.response().get("usage"))


def assert_counted(report: UsageReport | None) -> None:
    """Whatever the usage said, counts are whole numbers from 0 on, and add up."""
    if report is None:
        return
    shown: Any = report.shown
    counts = [*shown.items()]
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        counts += shown.get(name, {}).items()
    assert all(type(count) is int and count >= 0 for name, count in counts if name.endswith("_tokens"))
    assert min(count for count in structs.astuple(report.billed) if isinstance(count, int)) >= 0
    assert shown["total_tokens"] == shown["prompt_tokens"] + shown["completion_tokens"] or report.billed.total == 0


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_spoiled_anywhere_is_read_or_an_upstream_error(name: str) -> None:
    """One event at a time, at its beginning, in its middle and at its end."""
    provider, seen = PROVIDERS[name.partition("/")[0]](), events(name)
    chunks = [place for place, each in enumerate(seen) if each.data.startswith(b"{")]
    told = {
        outcome(partial(feed, provider, [*seen[:place], event(body), *seen[place + 1 :]]))
        for place in (chunks[0], chunks[len(chunks) // 2], chunks[-1])
        for body in attempts(json.loads(seen[place].data), name)
    }
    assert told <= {"read", "refused"}


@pytest.mark.parametrize("name", ["searched", "annotated", "called", "thought"])
def test_an_answer_of_the_agent_api_spoiled_anywhere(name: str) -> None:
    """Whole and as the last event of a stream."""
    provider = PROVIDERS["perplexity"]()
    bodies = list(attempts(ANSWERS[name], name))
    lasts = [[event({"type": "response.completed", "response": body})] for body in bodies]
    parts = [[event(body)] for each in streamed_events(ANSWERS[name]) for body in attempts(json.loads(each.data), name)]
    assert {outcome(partial(parse, provider, body)) for body in bodies} == {"read", "refused"}
    assert {outcome(partial(feed, provider, last)) for last in lasts} == {"read", "refused"}
    assert {outcome(partial(feed, provider, part)) for part in parts} == {"read", "refused"}


@pytest.mark.parametrize("name", ["reasoned.json", "search.json", "custom.json"])
def test_an_answer_of_the_responses_api_spoiled_anywhere(name: str) -> None:
    """Whole and as the last event of a stream."""
    provider = OpenAI()
    bodies = list(attempts(load(f"responses/{name}.json")["json"], name))
    lasts = [[event({"type": "response.completed", "response": body})] for body in bodies]
    assert {outcome(partial(parse, provider, body)) for body in bodies} == {"read", "refused"}
    assert {outcome(partial(feed, provider, last)) for last in lasts} == {"read", "refused"}


@pytest.mark.parametrize("name", ["reasoning", "custom"])
def test_a_stream_of_the_responses_api_with_any_event_spoiled(name: str) -> None:
    """One event at a time: what still comes is read, or the stream is refused."""
    provider, told = OpenAI(), load(f"responses/{name}.events.json")["events"]
    sampled = random.Random(name).sample(range(len(told)), min(8, len(told)))
    for place in {*sampled, len(told) - 1}:
        for body in list(attempts(told[place], f"{name} {place}"))[:60]:
            outcome(partial(feed, provider, [event(each) for each in [*told[:place], body, *told[place + 1 :]]]))


def test_a_request_for_the_responses_api_spoiled_anywhere_is_built_or_refused() -> None:
    """400 with a field, never a crash."""
    provider, dice = OpenAI(api="responses"), random.Random(1)
    for name in sorted(CORPUS):
        body = {"model": "m", **CORPUS[name]}
        paths = list(places(body))
        for path in dice.sample(paths, min(5, len(paths))):
            try:
                asked = decode_chat(json.dumps(spoiled(body, path, dice.choice(JUNK))).encode())
                built = provider.build_request(asked, dice.choice(["gpt-6-sol", "m", "gpt-4.1"]))
            except BadRequest as error:
                assert error.status == 400
                continue
            json.loads(built.http.body)


def test_what_a_search_found_counts_where_only_its_own_event_says_it() -> None:
    """The last event of a stream may be without it."""
    told = [json.loads(each.data) for each in streamed_events(ANSWERS["searched"])]
    told[-1]["response"]["output"] = [item for item in told[-1]["response"]["output"] if item["type"] == "message"]
    found: Any = folded(PROVIDERS["perplexity"](), [event(each, each["type"]) for each in told])
    whole: Any = PROVIDERS["perplexity"]().parse_response(answered(200, ANSWERS["searched"]))
    for name in ("search_results", "citations", "choices"):
        assert found[name] == whole[name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_spoiled_anywhere_is_built_or_refused(kind: str) -> None:
    """Whatever passes the door: 400 with a field, never a crash."""
    provider, dice = PROVIDERS[kind](), random.Random(kind)
    names = dice.sample(sorted(CORPUS), 30)
    for name in names:
        body = {"model": "m", **CORPUS[name]}
        paths = list(places(body))
        for path in dice.sample(paths, min(12, len(paths))):
            for junk in dice.sample(JUNK, 3):
                try:
                    asked = decode_chat(json.dumps(spoiled(body, path, junk)).encode())
                    built = provider.build_request(asked, dice.choice(["gpt-5", "m", "sonar", "qwen/qwen3-32b"]))
                except BadRequest as error:
                    assert error.status == 400
                    continue
                json.loads(built.http.body)


# --- tool calls in streams --------------------------------------------------------------------------------------------


def calls_of(*deltas: list[dict[str, Any]]) -> list[Any]:
    """The calls that a stream with these deltas spells."""
    pieces = [event({"choices": [{"index": 0, "delta": {"tool_calls": each}}]}) for each in deltas]
    end = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    found: list[Any] = folded(OPENAI, [*pieces, end])["choices"][0]["message"].get("tool_calls", [])
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in found]


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    """Some servers count from zero in each chunk."""
    one, two = ({"index": 0, "id": each, "function": {"name": each, "arguments": "{}"}} for each in "ab")
    assert calls_of([one], [two]) == [("a", "a", "{}"), ("b", "b", "{}")]
    assert calls_of([one, two]) == [("a", "a", "{}"), ("b", "b", "{}")]
    more = {"index": 0, "function": {"arguments": " "}}
    assert calls_of([one], [two], [more]) == [("a", "a", "{}"), ("b", "b", "{} ")]


def test_calls_without_index_and_id_begin_with_a_name() -> None:
    """And go on without one."""
    deltas = [{"function": {"name": "f", "arguments": "{"}}, {"function": {"name": "", "arguments": "}"}}]
    other = {"function": {"name": "g", "arguments": "{}"}}
    assert calls_of(*[[each] for each in deltas], [other]) == [("call_0_0", "f", "{}"), ("call_0_1", "g", "{}")]


def test_custom_tools_stream_their_input() -> None:
    """Of OpenAI's only; id, type and name once."""
    first = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "grep", "input": ""}}
    decoder = OPENAI.stream_decoder(request(stream=True, tools=[{"type": "custom", "custom": {"name": "grep"}}]))
    chunks = [
        chunk
        for call in (first, {"index": 0, "custom": {"input": "a b"}})
        for chunk in decoder.feed(event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))
    ]
    found = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in chunks]
    assert found == [first, {"index": 0, "custom": {"input": "a b"}}]


@pytest.mark.parametrize(
    ("said", "status", "retryable"),
    [
        ({"type": "invalid_request_error"}, 400, False),
        ({"code": "rate_limit_exceeded"}, 429, True),
        ({"code": "insufficient_quota"}, 429, False),
        ({"type": "overloaded_error"}, 503, True),
        ({"code": "context_length_exceeded"}, 400, False),
        ({"type": "server_error"}, 502, True),
        ({"code": 503}, 503, True),
        ({"code": "content_filter"}, 400, False),
        ({"code": "bad_region", "status": 403}, 403, False),
        ({"code": "odd", "status": "FAILED"}, 502, True),
    ],
)
def test_an_error_inside_a_200_has_the_status_that_its_words_mean(
    said: dict[str, Any], status: int, retryable: bool
) -> None:
    """Nothing else says it there."""
    with pytest.raises(UpstreamError) as caught:
        OPENAI.parse_response(HTTPResponse(200, {}, json.dumps({"error": {"message": "no", **said}}).encode()))
    assert (caught.value.status, caught.value.retryable) == (status, retryable)


def test_an_answer_that_stopped_with_an_error_is_one() -> None:
    """Some servers say it in place of a reason to finish; whole and streamed, to be tried again."""
    end = {"index": 0, "finish_reason": "error"}
    for read in (
        lambda: OPENAI.parse_response(answered(200, {"choices": [{**end, "message": {"content": "a"}}]})),
        lambda: folded(OPENAI, [event({"choices": [{**end, "delta": {"content": "a"}}]})]),
    ):
        with pytest.raises(UpstreamError, match="stopped with an error") as caught:
            read()
        assert caught.value.retryable


def test_an_answer_that_a_filter_took_whole_has_no_message() -> None:
    """Azure says the reason and nothing else; it is an empty answer, not a fault to try again."""
    usage = {"prompt_tokens": 4, "completion_tokens": 9, "total_tokens": 13}
    body = {"choices": [{"index": 0, "finish_reason": "content_filter"}], "usage": usage}
    found = OPENAI.parse_response(answered(200, body))
    choice = found["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "content_filter")
    assert found["usage"].shown["completion_tokens"] == 9
    for reason in ("stop", None):
        with pytest.raises(UpstreamError, match="without a message"):
            OPENAI.parse_response(answered(200, {"choices": [{"index": 0, "finish_reason": reason}]}))


@pytest.mark.parametrize(
    ("told", "ours", "native"),
    [("flex", "flex", None), ("reserved", None, "reserved"), ("", None, None), (None, None, None)],
)
def test_a_tier_of_an_answer_that_openai_has_no_word_for_is_kept_beside(
    told: str | None, ours: str | None, native: str | None
) -> None:
    """Typed clients know OpenAI's words only; whole and streamed say the same."""
    end = {"index": 0, "finish_reason": "stop"}
    whole: Any = OPENAI.parse_response(
        answered(200, {"choices": [{**end, "message": {"content": "a"}}], "service_tier": told})
    )
    stream: Any = folded(OPENAI, [event({"choices": [{**end, "delta": {"content": "a"}}], "service_tier": told})])
    for found in (whole, stream):
        assert (found["service_tier"], found.get("native_service_tier")) == (ours, native)
