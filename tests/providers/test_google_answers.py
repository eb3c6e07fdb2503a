"""Rules of Gemini's answers: whole and streamed ones agree, and hold what the vendor's own SDK reads in them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.genai import types as google_types
from msgspec import structs

from proxy.providers.base.contract import HTTPResponse
from proxy.providers.google import Google
from proxy.providers.google.own_parts import MOST_BYTES
from proxy.providers.google.stream import GoogleStreamDecoder
from proxy.schema.chat import ChatResponse, KeptReasoning
from proxy.schema.errors import UpstreamError, UpstreamTruncated
from proxy.schema.fold import Fold
from proxy.schema.json import encode
from proxy.schema.sse import Event, EventFraming
from proxy.schema.usage import believable
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import tool, user
from tests.providers.recordings import FIXTURES
from tests.upstream.google_wire import GoogleWire
from tests.upstream.http1 import Request
from tests.upstream.modes import parse as script_of
from tests.upstream.wire import Ask

GOOGLE = Google()
ALL = {path.name: json.loads(path.read_text())["response"] for path in sorted((FIXTURES / "google").glob("*.json"))}
WHOLE = [name for name, response in ALL.items() if "candidates" in response.get("json", {})]
STREAMED = [name for name, response in ALL.items() if "stream" in response or "events" in response]
PIECES = "pair_google-stream-tool-call-array-arguments-missing-terminal-function-call.events.json"


def parsed(body: Any, status: int = 200) -> ChatResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return GOOGLE.parse_response(HTTPResponse(status, {"content-type": "application/json"}, data))


def decoded(events: list[Any], n: int = 1) -> ChatResponse:
    decoder, fold = GoogleStreamDecoder(n), Fold()
    for event in events:
        framed = event if isinstance(event, Event) else Event("", json.dumps(event).encode())
        for chunk in decoder.feed(framed):
            fold.add(chunk)
    decoder.close()
    assert decoder.finished
    return fold.response()


def recorded_events(name: str) -> list[dict[str, Any]]:
    response = ALL[name]
    if "events" in response:
        return list(response["events"])
    framing = EventFraming()
    return [json.loads(event.data) for event in framing.feed(response["stream"].encode()) + framing.close()]


def restreamed(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The answer as the vendor would have streamed it: texts in pieces, calls whole, the finish behind them."""
    head = {name: value for name, value in body.items() if name not in ("candidates", "usageMetadata")}
    events: list[dict[str, Any]] = []
    for candidate in body["candidates"]:
        index = {"index": candidate["index"]} if "index" in candidate else {}
        for part in candidate.get("content", {}).get("parts", []):
            words = part.get("text") or ""
            pieces = [{**part, "text": words[at : at + 7]} for at in range(0, len(words), 7)] if words else [part]
            events += [{**head, "candidates": [{"content": {"parts": [piece]}, **index}]} for piece in pieces]
        last = {name: value for name, value in candidate.items() if name != "content"}
        events.append({**head, "candidates": [{"content": {"parts": [{"text": ""}]}, **last}]})
    events[-1]["usageMetadata"] = body["usageMetadata"]
    return events


def candidate(*parts: dict[str, Any], finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **more}
    return found | ({"finishReason": finish} if finish else {})


def body(*parts: dict[str, Any], finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    return {"candidates": [candidate(*parts, finish=finish, **more)], "usageMetadata": usage, "responseId": "r1"}


def counts(prompt: int, total: int, **others: int) -> dict[str, int]:
    more = {f"{name}TokenCount": count for name, count in others.items()}
    return {"promptTokenCount": prompt, "totalTokenCount": total, **more}


CALL = {"functionCall": {"name": "weather", "args": {"city": "Paris"}}}


# --- recordings -------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_folds_from_its_stream(name: str):
    """The fold law on recorded answers, streamed again in pieces."""
    given = ALL[name]["json"]
    assert decoded(restreamed(given)) == parsed(given)


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.sampled(4)
def test_a_stream_is_the_same_wherever_its_bytes_are_cut(name: str):
    """At every byte of the shorter ones, and in steps that meet all remainders of the longer ones."""
    seen = recorded_events(name)
    data = b"".join(b"data: " + json.dumps(each, ensure_ascii=False).encode() + b"\r\n\r\n" for each in seen)
    expected = decoded(seen)
    steps = range(1, len(data)) if len(data) < 3000 else (1, 2, 3, 7, 64, 1021)
    for cut in steps:
        framing = EventFraming()
        pieces = (
            [data[:cut], data[cut:]] if len(data) < 3000 else [data[at : at + cut] for at in range(0, len(data), cut)]
        )
        events = [event for piece in pieces for event in framing.feed(piece)] + framing.close()
        assert decoded(events) == expected


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_holds_what_the_vendors_sdk_reads_in_it(name: str):
    """Text, thoughts, calls and usage, as google-genai understands them."""
    given = ALL[name]["json"]
    known = {key: value for key, value in given["usageMetadata"].items() if key != "serviceTier"}
    sdk = google_types.GenerateContentResponse.model_validate({**given, "usageMetadata": known})
    _same_as_sdk(parsed(given), sdk, [sdk])


@pytest.mark.parametrize("name", [name for name in STREAMED if name != PIECES])
def test_a_stream_holds_what_the_vendors_sdk_reads_in_it(name: str):
    """Over all of its events; the last usage counts."""
    models = []
    for event in recorded_events(name):
        known = {key: value for key, value in event["usageMetadata"].items() if key != "serviceTier"}
        models.append(google_types.GenerateContentResponse.model_validate({**event, "usageMetadata": known}))
    _same_as_sdk(decoded(recorded_events(name)), models[-1], models)


def _same_as_sdk(
    answer: ChatResponse,
    last: google_types.GenerateContentResponse,
    models: list[google_types.GenerateContentResponse],
) -> None:
    parts = [part for model in models for each in model.candidates or [] for part in _sdk_parts(each)]
    message = answer["choices"][0]["message"]
    assert (message["content"] or "") == "".join(part.text or "" for part in parts if not part.thought)
    assert message.get("reasoning_content", "") == "".join(part.text or "" for part in parts if part.thought)
    calls = [part.function_call for part in parts if part.function_call]
    ours = [call["function"] for call in message.get("tool_calls") or []]
    assert [(each["name"], json.loads(each["arguments"])) for each in ours] == [(c.name, c.args or {}) for c in calls]
    usage, counted = answer["usage"], last.usage_metadata
    assert counted is not None
    assert usage.shown["total_tokens"] == counted.total_token_count
    prompt = (counted.prompt_token_count or 0) + (counted.tool_use_prompt_token_count or 0)
    assert usage.shown["prompt_tokens"] == prompt
    assert usage.shown["prompt_tokens_details"]["cached_tokens"] == (counted.cached_content_token_count or 0)
    assert usage.shown["completion_tokens_details"]["reasoning_tokens"] == (counted.thoughts_token_count or 0)


def _sdk_parts(each: google_types.Candidate) -> list[google_types.Part]:
    return list(each.content.parts or []) if each.content is not None else []


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", [*WHOLE, *STREAMED])
def test_the_parts_of_usage_sum_to_its_total(name: str):
    """The usage law on all recordings."""
    answer = parsed(ALL[name]["json"]) if name in WHOLE else decoded(recorded_events(name))
    tokens, shown = answer["usage"].billed, answer["usage"].shown
    assert tokens.total == shown["total_tokens"] == shown["prompt_tokens"] + shown["completion_tokens"]
    assert tokens.prompt == shown["prompt_tokens"]
    assert tokens.reasoning <= tokens.output


def test_citations_of_recorded_answers_quote_the_content():
    """The vendor counts bytes, OpenAI characters; degrees and dashes are longer than one byte."""
    cited = 0
    for name in [*WHOLE, *STREAMED]:
        answer = parsed(ALL[name]["json"]) if name in WHOLE else decoded(recorded_events(name))
        choice: dict[str, Any] = dict(answer["choices"][0])
        supports = choice.get("groundingMetadata", {}).get("groundingSupports", [])
        quotes = {support["segment"]["text"] for support in supports}
        for annotation in choice["message"]["annotations"]:
            found = annotation["url_citation"]
            assert choice["message"]["content"][found["start_index"] : found["end_index"]] in quotes
            assert found["url"].startswith("https://") and found["title"]
            cited += 1
    assert cited > 30


def test_arguments_that_come_in_pieces_are_put_together():
    """A recorded stream: paths and values, and no end mark behind the last of them."""
    message = decoded(recorded_events(PIECES))["choices"][0]["message"]
    function = message["tool_calls"][0]["function"]
    assert function["name"] == "writeItems"
    assert json.loads(function["arguments"]) == {
        "operations": [
            {"action": "add", "description": "Fresh red apple", "itemid": "apple_001", "price": 0.5},
            {"action": "add", "description": "Ripe yellow banana", "itemid": "banana_001", "price": 0.3},
        ]
    }


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_stop_with_calls_is_tool_calls_whenever_the_call_came():
    """The vendor says STOP, in a later event than the call's."""
    events = [body(CALL, finish=None), body({"text": ""})]
    choice = decoded(events)["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["native_finish_reason"] == "STOP"  # type: ignore[typeddict-item]
    assert choice["message"]["content"] is None
    assert parsed(body(CALL, finish="MAX_TOKENS"))["choices"][0]["finish_reason"] == "length"


def test_ids_of_calls_are_the_vendors_or_made_of_the_answers():
    """The same whole and streamed, each its own, other ones in another answer."""
    bare = {"functionCall": {"name": "now"}}
    given = parsed(body({"functionCall": {"name": "now", "id": "abc"}}, bare, bare))
    calls = given["choices"][0]["message"]["tool_calls"]
    assert [call["id"] for call in calls] == ["abc", "call_r1_0_1", "call_r1_0_2"]
    assert [call["function"]["arguments"] for call in calls] == ["{}"] * 3
    nameless = [{**body({**CALL, "thoughtSignature": mark}), "responseId": None} for mark in ("a", "b")]
    ids = {parsed(each)["choices"][0]["message"]["tool_calls"][0]["id"] for each in nameless}
    assert len(ids) == 2


def test_signatures_go_out_with_their_calls_and_come_back():
    """As extra content of the call, as state to keep, and in the next request on the same part."""
    parallel = {"functionCall": {"name": "time", "args": {}}}
    whole = body(
        {"text": "Let me see.", "thoughtSignature": "dGV4dA=="}, {**CALL, "thoughtSignature": "c2ln"}, parallel
    )
    for answer in (parsed(whole), decoded(restreamed(whole))):
        message = answer["choices"][0]["message"]
        first, second = message["tool_calls"]
        assert first["extra_content"] == {"google": {"thought_signature": "c2ln"}}  # type: ignore[typeddict-item]
        assert "extra_content" not in second
        assert GOOGLE.reasoning_state(message) == {first["id"]: {"thought_signature": "c2ln"}}
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in (first, second)]
        request = decode_chat(encode({"model": "x", "messages": [user(), message, *results], "tools": [tool()]}))
        built = json.loads(GOOGLE.build_request(request, "gemini-3.8-flash").http.body)
        said = built["contents"][1]["parts"]
        assert [part.get("thoughtSignature") for part in said] == ["dGV4dA==", "c2ln", None]
        assert [part["functionCall"]["name"] for part in said[1:]] == ["weather", "time"]
        assert len(built["contents"][2]["parts"]) == 2


@pytest.mark.parametrize(
    "paths",
    [["$"], ["operations"], ["$.a[5]"], ["$.a[0]", "$.a.b"], ["$.a", "$.a[0]"], ["$..a"], ["$.a[-1]"]],
)
def test_pieces_of_arguments_without_a_place_are_an_error(paths: list[str]):
    """No list of five nothings, no crash."""
    pieces = [{"jsonPath": path, "stringValue": "x"} for path in paths]
    part = {"functionCall": {"name": "f", "partialArgs": pieces}}
    with pytest.raises(UpstreamError) as caught:
        decoded([body(part)])
    assert caught.value.status == 502


def test_pieces_of_arguments_of_every_kind():
    """Texts grow, quoted names are names, true and null are values, and the next call begins behind them."""
    pieces = [
        {"jsonPath": "$.a", "stringValue": "x", "willContinue": True},
        {"jsonPath": "$.a", "stringValue": "y"},
        {"jsonPath": "$['b c']", "boolValue": False},
        {"jsonPath": '$["d"].e', "nullValue": "NULL_VALUE"},
        {"jsonPath": "$.f[0]", "numberValue": 1},
        {"jsonPath": "$.f[1]", "numberValue": 2},
    ]
    opening: dict[str, Any] = {"functionCall": {"name": "f", "willContinue": True}}
    parts: list[dict[str, Any]] = [{"functionCall": {"partialArgs": [piece], "willContinue": True}} for piece in pieces]
    end: dict[str, Any] = {"functionCall": {}}
    events = [body(part, finish=None) for part in (opening, *parts, end, end, CALL)] + [body({"text": ""})]
    first, second = decoded(events)["choices"][0]["message"]["tool_calls"]
    expected = {"a": "xy", "b c": False, "d": {"e": None}, "f": [1, 2]}
    assert json.loads(first["function"]["arguments"]) == expected
    assert json.loads(second["function"]["arguments"]) == {"city": "Paris"}


# --- finish -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        *[
            (word, "content_filter")
            for word in ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "OTHER", "LANGUAGE")
        ],
        *[(word, "content_filter") for word in ("IMAGE_SAFETY", "NO_IMAGE", "MODEL_ARMOR", "PUP_LIMITED_DISABLED")],
        *[(word, "stop") for word in ("FINISH_REASON_UNSPECIFIED", "MALFORMED_RESPONSE", "SOMETHING_NEW")],
    ],
)
def test_finish_reasons(word: str, reason: str):
    """One of OpenAI's five, the vendor's own beside it where it is another word; the list is open."""
    choice: dict[str, Any] = dict(parsed(body({"text": "Hi."}, finish=word))["choices"][0])
    assert choice["finish_reason"] == reason
    assert choice.get("native_finish_reason") == (None if word == "STOP" else word)


def test_every_finish_of_the_vendors_sdk_has_a_meaning():
    """Only what says nothing falls back to stop."""
    falls_back = set()
    for word in (each.value for each in google_types.FinishReason):
        choice: dict[str, Any] = dict(parsed(body({"text": "Hi."}, finish=word))["choices"][0])
        if choice["finish_reason"] == "stop" and choice.get("native_finish_reason"):
            falls_back.add(word)
    failures = {"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS"}
    assert falls_back == failures | {"MISSING_THOUGHT_SIGNATURE", "FINISH_REASON_UNSPECIFIED"}


def test_an_answer_to_be_continued_holds_what_continues_it():
    """The request's field of that name takes it."""
    choice: dict[str, Any] = dict(
        parsed(body({"text": "Hi."}, finish="CONTINUATION", continuationToken="dG9r"))["choices"][0]
    )
    assert choice["continuationToken"] == "dG9r"
    request = decode_chat(encode({"model": "x", "messages": [user()], "continuationToken": "dG9r"}))
    assert json.loads(GOOGLE.build_request(request, "gemini-4-argon").http.body)["continuationToken"] == "dG9r"


@pytest.mark.parametrize(
    ("word", "retryable"),
    [("MALFORMED_FUNCTION_CALL", True), ("UNEXPECTED_TOOL_CALL", True), ("MISSING_THOUGHT_SIGNATURE", False)],
)
def test_a_failure_of_the_model_is_no_empty_answer(word: str, retryable: bool):
    """Nothing was said: another try, or another model, may do better."""
    for give in (lambda each: parsed(each), lambda each: decoded([each])):
        with pytest.raises(UpstreamError, match=word) as caught:
            give(body(finish=word, finishMessage="Malformed function call: f("))
        assert (caught.value.status, caught.value.retryable) == (502, retryable)


def test_a_blocked_prompt_is_a_refusal():
    """There is no candidate; OpenAI's clients see content_filter."""
    feedback = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": counts(4, 4)}
    for answer in (parsed(feedback), decoded([feedback])):
        choice: dict[str, Any] = dict(answer["choices"][0])
        assert choice["finish_reason"] == "content_filter"
        assert choice["native_finish_reason"] == "PROHIBITED_CONTENT"
        assert choice["message"]["content"] is None
        assert "PROHIBITED_CONTENT" in choice["message"]["refusal"]
        assert answer["usage"].shown["prompt_tokens"] == 4


@pytest.mark.parametrize(("said", "prompt"), [(counts(4, 4), 4), ({}, 40), (None, 40)])
def test_the_words_of_a_blocked_prompt_are_not_paid(said: dict[str, int] | None, prompt: int):
    """The proxy wrote them. What the vendor counted stands; the prompt alone is estimated where it did not."""
    feedback = {"promptFeedback": {"blockReason": "SAFETY"}, **({} if said is None else {"usageMetadata": said})}
    for answer in (parsed(feedback), decoded([feedback])):
        found, is_estimated = believable(answer["usage"], 12, lambda: 40)
        assert (found.billed.prompt, found.billed.output, is_estimated) == (prompt, 0, prompt == 40)


def test_an_answer_of_thoughts_alone_is_empty():
    """The limit was spent before a word; a common surprise, but no error."""
    given = {"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}], "responseId": "r"}
    choice = parsed(given)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


@pytest.mark.parametrize("events", [[], [body({"text": "Hi."}, finish=None)], [{"usageMetadata": {}}]])
def test_a_stream_without_a_finish_is_truncated(events: list[dict[str, Any]]):
    """The connection's end is no finish."""
    with pytest.raises(UpstreamTruncated):
        decoded(events)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_error_without_framing_ends_a_stream(end: str, indent: int | None):
    """Streams that fail in the middle end in the error's JSON as it is, in one line or many."""
    failed = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    for last in (failed, [failed]):
        said = [f"data: {json.dumps(body({'text': 'Hi'}, finish=None))}", "", json.dumps(last, indent=indent)]
        framing, decoder = EventFraming(), GoogleStreamDecoder()
        stream = end.join(said).replace("\r\n", "\n").replace("\n", end).encode()
        first, second = [*framing.feed(stream), *framing.close()]
        decoder.feed(first)
        with pytest.raises(UpstreamError, match="overloaded") as caught:
            decoder.feed(second)
        assert (caught.value.status, caught.value.upstream_status) == (503, 503)


def test_choices_are_told_apart_by_their_index():
    """One without an index is the first."""
    first = {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}
    second = {"content": {"parts": [{"text": "b"}]}, "index": 1}
    decoder = GoogleStreamDecoder(2)
    decoder.feed(Event("", json.dumps({"candidates": [first, second]}).encode()))
    assert not decoder.finished
    with pytest.raises(UpstreamTruncated):
        decoder.close()
    done = decoded([{"candidates": [first, second]}, {"candidates": [{"finishReason": "STOP", "index": 1}]}], n=2)
    assert [choice["message"]["content"] for choice in done["choices"]] == ["a", "b"]


# --- what stands beside the text --------------------------------------------------------------------------------------


def told_again(message: dict[str, Any], kept: dict[str, Any], *tools: dict[str, Any]) -> list[dict[str, Any]]:
    """The model's turn of the next request, in which `message` and a result for each of its calls stand."""
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in message.get("tool_calls", [])]
    given = {"model": "x", "messages": [user(), message, *results, user()], "tools": list(tools)}
    states = {name: KeptReasoning("google", "gemini-3.8-flash", state) for name, state in kept.items()}
    request = structs.replace(decode_chat(encode(given)), kept=states)
    built = json.loads(GOOGLE.build_request(request, "gemini-3.8-flash").http.body)
    return [part for content in built["contents"] if content["role"] == "model" for part in content["parts"]]


def test_searches_of_the_vendors_own_come_back_in_their_places():
    """What they found is in their signatures; kept here for clients that drop it, sent only where it may be."""
    search = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "s", "args": {}}, "thoughtSignature": "czE="}
    found = {"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "id": "s", "response": {}}, "thoughtSignature": "czI="}
    first, second = ({**CALL["functionCall"], "id": name} for name in ("a", "b"))
    said: list[dict[str, Any]] = [
        {"text": "I seé."},
        {"functionCall": first, "thoughtSignature": "Yw=="},
        search,
        found,
        {"text": "There."},
        {"functionCall": second},
    ]
    for answer in (parsed(body(*said)), decoded(restreamed(body(*said)))):
        message: dict[str, Any] = json.loads(encode(answer["choices"][0]["message"]))
        state = GOOGLE.reasoning_state(answer["choices"][0]["message"])
        assert set(state) == {"a"}
        assert told_again(message, {}, tool(), {"googleSearch": {}}) == said
        bare = {name: message[name] for name in ("role", "content")}
        bare["tool_calls"] = [{k: v for k, v in call.items() if k != "extra_content"} for call in message["tool_calls"]]
        assert told_again(bare, state, tool(), {"googleSearch": {}}) == said
        assert [part for part in told_again(message, state, tool()) if "text" in part] == [{"text": "I seé.There."}]


def test_states_too_large_to_keep_leave_the_signatures():
    """The signature of the call is what the vendor asks for."""
    found = {"toolResponse": {"id": "s", "response": {}}, "thoughtSignature": "A" * MOST_BYTES}
    message = parsed(body(found, {**CALL, "thoughtSignature": "Yw=="}))["choices"][0]["message"]
    assert list(GOOGLE.reasoning_state(message).values()) == [{"thought_signature": "Yw=="}]


def test_code_that_ran_comes_back_where_code_may_run():
    """Between the texts it stood between, the signature of the message on the last of them."""
    said: list[dict[str, Any]] = [
        {"text": "Look:"},
        {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "czE="},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"text": "One.", "thoughtSignature": "czI="},
    ]
    message: dict[str, Any] = json.loads(encode(parsed(body(*said))["choices"][0]["message"]))
    assert told_again(message, {}, {"codeExecution": {}}) == said
    assert told_again(message, {}) == [{"text": "Look:One.", "thoughtSignature": "czI="}]
    edited = told_again({**message, "content": "1"}, {}, {"codeExecution": {}})
    assert edited == [{"text": "1", "thoughtSignature": "czI="}, *said[1:3]]


@pytest.mark.parametrize("note", [None, {}, {"part": []}, {"part": {"text": "a"}}, {"after_calls": "x", "part": {}}])
def test_notes_that_are_none_are_left_out(note: Any):
    """They come from the client."""
    message = {"role": "assistant", "content": "Hi.", "extra_content": {"google": {"parts": [note]}}}
    assert told_again(message, {}, {"codeExecution": {}}) == [{"text": "Hi."}]


def test_pictures_that_the_model_drew_come_back_signed():
    """The next turn may ask to change them; a link to one is reported."""
    picture = {"inlineData": {"mimeType": "image/png", "data": "iVBO"}, "thoughtSignature": "czE="}
    message: dict[str, Any] = json.loads(encode(parsed(body({"text": "Here."}, picture))["choices"][0]["message"]))
    assert told_again(message, {}) == [{"text": "Here."}, picture]
    linked = {**message, "images": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}
    request = decode_chat(encode({"model": "x", "messages": [user(), linked, user()]}))
    assert GOOGLE.build_request(request, "gemini-3.8-flash").dropped == ["messages.images"]


def test_what_comes_behind_the_finish_is_told_once():
    """Some servers finish every event, and tell in the last what the answer rests on."""
    web = {"web": {"uri": "https://x.test", "title": "x"}}
    support = {"segment": {"endIndex": 2, "text": "Hi"}, "groundingChunkIndices": [0]}
    picture = {"inlineData": {"mimeType": "image/png", "data": "iVBO"}}
    grounded = {"index": 0, "groundingMetadata": {"groundingChunks": [web], "groundingSupports": [support]}}
    events = [body({"text": "Hi"}, picture), body({"text": " there"}), {"candidates": [grounded]}]
    decoder = GoogleStreamDecoder()
    chunks = [chunk for event in events for chunk in decoder.feed(Event("", json.dumps(event).encode()))]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert sum("images" in delta for delta in deltas) == 1
    choice: dict[str, Any] = dict(decoded(events)["choices"][0])
    cited = {"start_index": 0, "end_index": 2, "title": "x", "url": "https://x.test"}
    assert choice["message"]["annotations"] == [{"type": "url_citation", "url_citation": cited}]
    assert choice["groundingMetadata"] == grounded["groundingMetadata"]
    assert choice["finish_reason"] == "stop"


def test_pictures_and_sounds_stand_beside_the_text():
    """Pictures as data URLs; one sound of all its pieces, in OpenAI's shape."""
    halves = [base64.b64encode(each).decode() for each in (b"abcd", b"efg")]
    parts = [{"inlineData": {"mimeType": "audio/L16;rate=24000", "data": half}} for half in halves]
    picture = {"inlineData": {"mimeType": "image/png", "data": "iVBO"}}
    thought = {**picture, "thought": True}
    whole = body(*parts, picture, thought)
    for answer in (parsed(whole), decoded(restreamed(whole))):
        message: dict[str, Any] = dict(answer["choices"][0]["message"])
        assert base64.b64decode(message["audio"]["data"]) == b"abcdefg"
        assert message["images"] == [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}]


def test_log_probabilities_have_openais_shape():
    """With the bytes of each token."""
    chosen = [{"token": "é", "tokenId": 1, "logProbability": -0.5}]
    result = {"chosenCandidates": chosen, "topCandidates": [{"candidates": [*chosen, {"token": "e"}]}]}
    logprobs = parsed(body({"text": "é"}, logprobsResult=result))["choices"][0]["logprobs"]
    first = {"token": "é", "bytes": [195, 169], "logprob": -0.5}
    other = {"token": "e", "bytes": [101], "logprob": 0.0}
    assert logprobs == {"content": [{**first, "top_logprobs": [first, other]}]}


def test_code_that_ran_and_ratings_keep_the_vendors_names():
    """They are no text of the answer."""
    code, ran = {"language": "PYTHON", "code": "1"}, {"outcome": "OUTCOME_OK", "output": "1"}
    ratings = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]
    whole = body({"executableCode": code}, {"codeExecutionResult": ran}, {"text": "One."}, safetyRatings=ratings)
    for answer in (parsed(whole), decoded(restreamed(whole))):
        choice: dict[str, Any] = dict(answer["choices"][0])
        assert choice["message"]["content"] == "One."
        assert choice["message"]["executableCode"] == [code]
        assert choice["message"]["codeExecutionResult"] == [ran]
        assert choice["safetyRatings"] == ratings


@pytest.mark.parametrize(("model", "searches"), [("gemini-3.8-flash", 2), ("gemini-2.5-flash", 1)])
def test_searches_are_counted_as_they_are_billed(model: str, searches: int):
    """Each query since Gemini 3, each prompt before; an empty query is none."""
    grounding = {"webSearchQueries": ["a", "", "b"]}
    answer = parsed({**body({"text": "Hi."}, groundingMetadata=grounding), "modelVersion": model})
    assert answer["usage"].billed.searches == searches
    assert answer["choices"][0]["groundingMetadata"] == grounding  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    "grounding",
    [
        {
            "groundingChunks": [1, {"web": 2}, {"web": {"uri": 3}}],
            "groundingSupports": [{"groundingChunkIndices": [0, 9]}],
        },
        {"groundingChunks": 5, "groundingSupports": "x", "webSearchQueries": 7},
        {"groundingChunks": [{"web": {"uri": "https://a"}}], "groundingSupports": [{"segment": {"endIndex": "x"}}, 4]},
    ],
)
def test_odd_grounding_is_no_crash(grounding: dict[str, Any]):
    """What cannot be cited is not; it stays as it came."""
    choice = parsed(body({"text": "Hi."}, groundingMetadata=grounding))["choices"][0]
    assert choice["message"]["annotations"] == []


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (counts(18, 133, candidates=80, thoughts=35), (18, 115, 35)),
        (counts(18, 98, candidates=80, thoughts=35), (18, 80, 35)),
        (counts(17, 137, candidates=1, toolUsePrompt=119), (136, 1, 0)),
        (counts(15, 17, thoughts=2), (15, 2, 2)),
        (counts(35, 109, candidates=12), (35, 74, 0)),
        (counts(8, 8), (8, 0, 0)),
        ({"promptTokenCount": 8, "candidatesTokenCount": 3}, (8, 3, 0)),
    ],
)
def test_usage_counts_thoughts_and_tools_once(meta: dict[str, int], expected: tuple[int, int, int]):
    """Thoughts are output, whether the candidates hold them or not; what tools read is prompt."""
    usage = parsed({**body({"text": "Hi."}), "usageMetadata": meta})["usage"]
    reasoning = usage.shown["completion_tokens_details"]["reasoning_tokens"]
    assert (usage.shown["prompt_tokens"], usage.shown["completion_tokens"], reasoning) == expected
    assert usage.shown["total_tokens"] == expected[0] + expected[1]


def test_cached_tokens_are_part_of_the_prompt_and_kinds_are_told():
    """The normal form takes them apart."""
    meta = {
        "promptTokenCount": 3520,
        "cachedContentTokenCount": 3512,
        "candidatesTokenCount": 2,
        "totalTokenCount": 3522,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}, {"modality": "AUDIO", "tokenCount": 3500}],
        "serviceTier": "standard",
    }
    answer: dict[str, Any] = dict(parsed({**body({"text": "Hi."}), "usageMetadata": meta}))
    assert answer["usage"].shown["prompt_tokens_details"] == {
        "cached_tokens": 3512,
        "text_tokens": 20,
        "audio_tokens": 3500,
    }
    tokens = answer["usage"].billed
    assert (tokens.input, tokens.cache_read, tokens.cache_write, tokens.output) == (8, 3512, 0, 2)
    assert answer["service_tier"] == "default"


@pytest.mark.parametrize("meta", [{"trafficType": "PROVISIONED_THROUGHPUT"}, {}])
def test_usage_that_counts_nothing_is_none(meta: dict[str, Any]):
    """An answer that was not counted is not free: it is estimated."""
    assert "usage" not in parsed({**body({"text": "Hi."}), "usageMetadata": meta})


# --- errors -----------------------------------------------------------------------------------------------------------

RPC = "type.googleapis.com/google.rpc."
BAD_KEY = {"@type": f"{RPC}ErrorInfo", "reason": "API_KEY_INVALID"}
RETRY = {"@type": f"{RPC}RetryInfo", "retryDelay": "34.4s"}
MINUTE = {"@type": f"{RPC}QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}
DAY = {"@type": f"{RPC}QuotaFailure", "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
LONG = "The input token count (3475108) exceeds the maximum number of tokens allowed (1048576)."
NO_DAY = {"@type": f"{RPC}ErrorInfo", "metadata": {"quota_limit": "GenerateContentRequestsPerDayPerProject"}}
NO_PLAN = "Quota exceeded for metric: free_tier_requests, limit: 0, model: x. Please retry in 25.4s."
LONGER = "The input token count is 1250074 but model only supports up to 1048576."
GONE = "models/gemini-3.6-flahs is not found for API version v1beta, or is not supported for generateContent."


@pytest.mark.parametrize(
    ("status", "word", "message", "details", "expected"),
    [
        (400, "INVALID_ARGUMENT", "Your key is not what it was.", [BAD_KEY], (401, "invalid_api_key", False)),
        (
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            [],
            (401, "invalid_api_key", False),
        ),
        (400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", [], (401, "invalid_api_key", False)),
        (400, "INVALID_ARGUMENT", "contents.parts must not be empty.", [], (400, "invalid_value", False)),
        (400, "INVALID_ARGUMENT", LONG, [], (400, "context_length_exceeded", False)),
        (400, "INVALID_ARGUMENT", LONGER, [], (400, "context_length_exceeded", False)),
        (400, "FAILED_PRECONDITION", "User location is not supported.", [], (403, "failed_precondition", False)),
        (
            401,
            "UNAUTHENTICATED",
            "Request had invalid authentication credentials.",
            [],
            (401, "invalid_api_key", False),
        ),
        (403, "PERMISSION_DENIED", "Your API key was reported as leaked.", [], (403, "permission_denied", False)),
        (403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.", [], (401, "invalid_api_key", False)),
        (404, "NOT_FOUND", GONE, [], (404, "model_not_found", False)),
        (404, "NOT_FOUND", "Requested entity was not found.", [], (404, "not_found", False)),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded.", [MINUTE, RETRY], (429, "rate_limit_exceeded", True)),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded.", [DAY, RETRY], (429, "insufficient_quota", False)),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded.", [NO_DAY], (429, "insufficient_quota", False)),
        (429, "RESOURCE_EXHAUSTED", NO_PLAN, [MINUTE, RETRY], (429, "insufficient_quota", False)),
        (429, "RESOURCE_EXHAUSTED", "Tokens a minute, limit: 0.5.", [MINUTE], (429, "rate_limit_exceeded", True)),
        (429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", [], (429, "insufficient_quota", False)),
        (429, "RESOURCE_EXHAUSTED", "It is over its monthly spending cap.", [], (429, "insufficient_quota", False)),
        (402, "PAYMENT_REQUIRED", "Add money.", [], (429, "insufficient_quota", False)),
        (499, "CANCELLED", "The operation was cancelled.", [], (502, "upstream_error", False)),
        (500, "INTERNAL", "An internal error has occurred.", [], (502, "upstream_error", True)),
        (503, "UNAVAILABLE", "The model is overloaded.", [], (503, "upstream_unavailable", True)),
        (504, "DEADLINE_EXCEEDED", "Deadline expired.", [], (504, "upstream_timeout", True)),
    ],
)
def test_errors(status: int, word: str, message: str, details: list[Any], expected: tuple[int, str, bool]):
    """One table: bare, in a list, and inside a stream."""
    given = {"error": {"code": status, "message": message, "status": word, "details": details}}
    headers = {"content-type": "text/event-stream"}
    found = [
        GOOGLE.parse_error(HTTPResponse(status, headers, json.dumps(shape).encode())) for shape in (given, [given])
    ]
    for shape in (given, [given]):
        with pytest.raises(UpstreamError) as caught:
            decoded([shape])
        found.append(caught.value)
    with pytest.raises(UpstreamError) as caught:
        parsed(given)
    for error in [*found, caught.value]:
        assert (error.status, error.code, error.retryable) == expected
        assert error.upstream_status == status
        assert error.message == message


def test_a_limit_says_when_to_come_back():
    """In its details, for there is no such header; a limit of a day says nothing of use."""
    answers = {}
    for details in (MINUTE, DAY):
        given = {
            "error": {"code": 429, "message": "Quota.", "status": "RESOURCE_EXHAUSTED", "details": [details, RETRY]}
        }
        error = GOOGLE.parse_error(HTTPResponse(429, {}, json.dumps(given).encode()))
        answers[error.code] = (error.retry_after_s, error.headers.get("retry-after"))
    assert answers == {"rate_limit_exceeded": (34.4, "35"), "insufficient_quota": (None, None)}
    prose = {"error": {"code": 429, "message": "Please retry in 7.25s.", "status": "RESOURCE_EXHAUSTED"}}
    assert GOOGLE.parse_error(HTTPResponse(429, {}, json.dumps(prose).encode())).retry_after_s == 7.25


@pytest.mark.parametrize(
    "data", [b"", b"<html>secret</html>", b'{"error": {"mess', b"[]", b"7", b'{"error": 5}', b"\xff"]
)
@pytest.mark.parametrize(("status", "ours"), [(500, 502), (502, 502), (503, 503), (429, 429), (404, 404)])
def test_errors_without_a_body_of_the_vendors_leak_nothing(data: bytes, status: int, ours: int):
    """Pages of servers in between."""
    error = GOOGLE.parse_error(HTTPResponse(status, {"content-type": "text/html; charset=UTF-8"}, data))
    assert (error.status, error.upstream_status) == (ours, status)
    assert error.code and "secret" not in error.message


def test_keys_in_errors_are_scrubbed():
    """Some errors quote what they were sent."""
    given = {
        "error": {"code": 403, "message": "Key AIzaSyA1234567890abcdef is blocked.", "status": "PERMISSION_DENIED"}
    }
    assert "AIza" not in GOOGLE.parse_error(HTTPResponse(403, {}, json.dumps(given).encode())).message


_SOUND = {"inlineData": {"mimeType": "audio/wav", "data": "?"}}
ODD = [
    b"",
    b"null",
    b"[]",
    b"[{}]",
    b"7",
    b'"text"',
    b"<html></html>",
    b'{"candidates": [',
    b'{"candidates": 5}',
    b'{"candidates": [5]}',
    b'{"candidates": []}',
    b"{}",
    b'{"candidates": [{"content": "x", "finishReason": "STOP"}]}',
    b'{"candidates": [{"content": {"parts": {}}, "finishReason": "STOP"}]}',
    b'{"candidates": [{"content": {"parts": [{"text": 5}]}, "finishReason": "STOP"}]}',
    b'{"candidates": [{"content": {"parts": [{"functionCall": {}}]}, "finishReason": "STOP"}]}',
    b'{"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": "x"}}]}, "finishReason": "STOP"}]}',
    json.dumps({"candidates": [{"content": {"parts": [_SOUND]}, "finishReason": "STOP"}]}).encode(),
    b'{"candidates": [{"content": {"parts": []}, "finishReason": 5}]}',
    b'{"promptFeedback": {}}',
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("data", ODD, ids=range(len(ODD)))
def test_answers_that_are_not_what_they_promise_are_upstream_errors(data: bytes):
    """Whatever they hold, whole and streamed: never a crash, never an answer."""
    with pytest.raises(UpstreamError) as caught:
        parsed(data)
    assert caught.value.status == 502
    decoder = GoogleStreamDecoder()
    with pytest.raises(UpstreamError):
        decoder.feed(Event("", data))
        decoder.close()


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_embeddings_keep_their_order():
    """With usage where the vendor tells it."""
    given = {"embeddings": [{"values": [0.5, 1]}, {"values": [2, 3]}], "usageMetadata": {"promptTokenCount": 7}}
    found = GOOGLE.parse_embeddings(HTTPResponse(200, {}, json.dumps(given).encode()))
    assert found["embeddings"] == [[0.5, 1], [2, 3]]
    assert (found["usage"].shown["prompt_tokens"], found["usage"].shown["total_tokens"]) == (7, 7)
    bare = GOOGLE.parse_embeddings(HTTPResponse(200, {}, json.dumps({"embeddings": given["embeddings"]}).encode()))
    assert "usage" not in bare


@pytest.mark.parametrize("data", [b"", b"{}", b'{"embeddings": []}', b'{"embeddings": [{"values": []}]}', b"<html>"])
def test_embeddings_that_are_none_are_upstream_errors(data: bytes):
    """An error inside a 200 keeps its own status."""
    with pytest.raises(UpstreamError) as caught:
        GOOGLE.parse_embeddings(HTTPResponse(200, {}, data))
    assert caught.value.status == 502
    said = json.dumps({"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}}).encode()
    with pytest.raises(UpstreamError) as caught:
        GOOGLE.parse_embeddings(HTTPResponse(200, {}, said))
    assert caught.value.status == 429


# --- the fake vendor --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode",
    ["ok", "reasoning(n=3)", "tools(n=3)", "reasoning-tools(n=2)", "refusal", "cached(n=2)", "finish(reason=length)"],
)
def test_both_forms_of_the_fake_vendors_answers_agree(mode: str):
    """The fold law on answers that were written from the vendor's rules."""
    wire, script = GoogleWire(), script_of(mode)
    body = {"model": "x", "messages": [user("one two three")], "tools": [tool(), tool("time")]}
    request = GOOGLE.build_request(decode_chat(encode(body)), "ok").http
    asked = wire.ask(_request(request.path, request.body), 1)
    ask = Ask("ok", True, asked.body, request.body, 1)
    framing = EventFraming()
    events = [event for frame in wire.frames(ask, script) for event in framing.feed(frame.data)]
    assert decoded(events) == parsed(wire.whole(ask, script).data)


def _request(path: str, data: bytes) -> Request:
    return Request("POST", path, {}, {}, data)
