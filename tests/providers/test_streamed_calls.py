"""Streamed tool calls of OpenAI-shaped servers, however they are cut, numbered and named: what the `openai` package
puts together from our stream is what the model called, and folding it equals the whole answer.
"""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import UpstreamError
from proxy.schema.fold import Fold
from proxy.schema.json import encode
from proxy.schema.sse import Event
from tests.providers.asking import USER, answered, event, request
from tests.providers.test_streams_property import as_the_sdk_has_it

KINDS = ["openai", "groq", "mistral", "together", "ollama", "vllm", "lmstudio", "localai", "embedded", "perplexity"]
NAMES = ["get_weather", "get_time", "get", "note"]
TOOLS = [{"type": "function", "function": {"name": name}} for name in NAMES]
ROME, OSLO = '{"city":"Rome"}', '{"city":"Oslo"}'
Said = list[tuple[str, str]]


def asked(**fields: Any) -> ChatRequest:
    return request(stream=True, **{"tools": TOOLS, **fields})


def entry(name: Any = ..., arguments: Any = ..., index: Any = 0, **more: Any) -> dict[str, Any]:
    """One entry of `tool_calls`; `...` leaves a field out."""
    said = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not ...}
    call = {**more, **({"function": said} if said else {})}
    return call if index is ... else {"index": index, **call}


def stream(deltas: list[dict[str, Any]], finish: Any = "tool_calls", answer_id: Any = "chatcmpl-1") -> list[Event]:
    chunks = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    ends = [{"index": 0, "delta": {}, "finish_reason": finish}]
    return [*(event({"id": answer_id, "choices": [each]}) for each in [*chunks, *ends]), Event("", b"[DONE]")]


def read(events: list[Event], kind: str = "openai", ask: ChatRequest | None = None) -> Any:
    """The choice that the client's library has, which is what the fold has."""
    decoder, fold = PROVIDERS[kind]().stream_decoder(ask or asked()), Fold()
    chunks = [chunk for each in events for chunk in decoder.feed(each)]
    chunks += decoder.close()
    for chunk in chunks:
        fold.add(json.loads(encode(chunk)))
    folded: Any = fold.response()["choices"][0]
    choice = as_the_sdk_has_it(chunks).choices[0]
    calls = [call.model_dump(exclude={"index"}, exclude_unset=True) for call in choice.message.tool_calls or []]
    for call in calls:
        call["function"].pop("parsed_arguments", None)
    assert calls == [{**call, "function": dict(call["function"])} for call in folded["message"].get("tool_calls", [])]
    assert choice.finish_reason == folded["finish_reason"]
    return folded


def calls_in(choice: Any) -> Said:
    """Name and arguments of each call; ids differ."""
    calls = choice["message"].get("tool_calls", [])
    assert len({call["id"] for call in calls}) == len(calls)
    assert all(call["id"] and call["type"] == "function" for call in calls)
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


def check(entries: list[list[dict[str, Any]]], said: Said, kind: str = "openai") -> None:
    """Each list is one chunk. A finish of `stop` is `tool_calls` too."""
    choice = read(stream([{"tool_calls": each} for each in entries], "stop"), kind)
    assert (calls_in(choice), choice["finish_reason"]) == (said, "tool_calls")


# --- names ------------------------------------------------------------------------------------------------------------

WEATHER = [("get_weather", ROME)]
LATE: dict[str, list[list[dict[str, Any]]]] = {
    "absent": [[entry(arguments="", id="a")], [entry("get_weather")], [entry(arguments=ROME)]],
    "empty": [[entry("", "", id="a")], [entry("get_weather")], [entry(arguments=ROME)]],
    "null": [[entry(None, "", id="a")], [entry("get_weather")], [entry(arguments=ROME)]],
    "no function": [[{"index": 0, "id": "a", "function": None}], [entry("get_weather", ROME)]],
    "after arguments": [[entry(arguments='{"city"', id="a")], [entry(arguments=':"Rome"}')], [entry("get_weather")]],
    "with the last": [[entry("", '{"city":', id="a")], [entry("get_weather", '"Rome"}')]],
    "without id": [[entry(arguments="")], [entry("get_weather", ROME)]],
    "without index": [[entry("", "", index=..., id="a")], [entry("get_weather", ROME, index=...)]],
    "id late too": [[entry("get_weather")], [entry(id="a")], [entry(arguments=ROME)]],
}
PIECES: dict[str, list[list[dict[str, Any]]]] = {
    "two": [[entry("get_", "", id="a")], [entry("weather", "")], [entry(arguments=ROME)]],
    "letters": [[entry(letter, id="a")] for letter in "get_weather"] + [[entry(arguments=ROME)]],
    "a shorter tool first": [[entry("get", "", id="a")], [entry("_weather", ROME)]],
    "whole again": [[entry("get_weather", "", id="a")], [entry("get_weather", ROME)]],
    "whole again each time": [[entry("get_weather", piece, id="a")] for piece in ("", '{"city"', ':"Rome', '"}', "")],
    "so far each time": [[entry("get_", "", id="a")], [entry("get_weather", "")], [entry(arguments=ROME)]],
    "with arguments": [[entry("get_", '{"city":', id="a")], [entry("weather", '"Rome"}')]],
    "after the arguments": [[entry("get_", ROME, id="a")], [entry("weather")]],
    "no id": [[entry("get_")], [entry("weather")], [entry(arguments=ROME)]],
    "one chunk": [[entry("get_"), entry("weather")], [entry(arguments=ROME)]],
}


@pytest.mark.parametrize("case", [*LATE.items(), *PIECES.items()], ids=lambda case: case[0])
def test_a_name_may_come_late_or_in_pieces(case: tuple[str, list[list[dict[str, Any]]]]):
    """It reaches the client whole, once."""
    check(case[1], WEATHER)


def test_names_in_pieces_that_nobody_offered_are_joined_too():
    """Models invent names; a piece that repeats the whole name is none."""
    check([[entry("in", "", id="a")], [entry("vented", "")], [entry(arguments="{}")]], [("invented", "{}")])
    check([[entry("x", "", id="a")], [entry("x", ROME)]], [("x", ROME)])


@pytest.mark.parametrize(
    "entries",
    [
        [[entry("", "", id="a")]],
        [[entry(arguments=ROME)]],
        [[entry("note", "{}", id="a")], [entry(arguments="{}", index=1)]],
    ],
)
def test_a_call_that_never_has_a_name_is_an_error(entries: list[list[dict[str, Any]]]):
    """At the end, not before."""
    *events, end, _ = stream([{"tool_calls": each} for each in entries])
    decoder = PROVIDERS["vllm"]().stream_decoder(asked())
    for each in events:
        decoder.feed(each)
    with pytest.raises(UpstreamError, match="without a function name"):
        decoder.feed(end)


def test_padding_is_no_call():
    """Empty entries, and an empty call after another."""
    padding: list[Any] = [None, [], {}, [{}], [None], [{"index": 0, "function": None}], "", [[]]]
    choice = read(stream([{"content": "hi", "tool_calls": each} for each in padding], "stop"))
    assert (choice["message"]["content"], choice["finish_reason"]) == ("hi" * 8, "stop")
    whole = PROVIDERS["vllm"]().parse_response(
        answered(200, {"choices": [{"message": {"content": "hi", "tool_calls": [{}, None]}, "finish_reason": "stop"}]})
    )
    assert "tool_calls" not in whole["choices"][0]["message"]
    check([[entry("note", ROME, id="a")], [entry(id="b", function=None)]], [("note", ROME)])


# --- parallel calls ---------------------------------------------------------------------------------------------------

TWO = [("get_weather", ROME), ("get_time", OSLO)]
SAME = [("get_weather", ROME), ("get_weather", OSLO)]
BARE = [("get_weather", "{}"), ("get_time", "{}")]


def both(first: dict[str, Any], second: dict[str, Any], said: Said) -> list[list[list[dict[str, Any]]]]:
    """Two calls in two chunks, in one, and each with its arguments in pieces."""
    one, two = ({"name": name, "arguments": text} for name, text in said)
    pieces = [
        [[entry(name, text[:9], **given)], [entry(arguments=text[9:], index=given.get("index", ...))]]
        for (name, text), given in zip(said, (first, second), strict=True)
    ]
    openings = [
        [[entry(name, "", **given)], [entry(arguments=text, index=given.get("index", ...))]]
        for (name, text), given in zip(said, (first, second), strict=True)
    ]
    calls = [{**first, "function": one}, {**second, "function": two}]
    return [[[calls[0]], [calls[1]]], [calls], [*pieces[0], *pieces[1]], [*openings[0], *openings[1]]]


NUMBERED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all at index 0": ({"index": 0}, {"index": 0}),
    "index 0, no ids": ({"index": 0, "id": ""}, {"index": 0, "id": None}),
    "index 0, own ids": ({"index": 0, "id": "a"}, {"index": 0, "id": "b"}),
    "index 0, one id": ({"index": 0, "id": "a"}, {"index": 0, "id": "a"}),
    "index 0, one with an id": ({"index": 0, "id": "a"}, {"index": 0}),
    "own indexes, one id": ({"index": 0, "id": "a"}, {"index": 1, "id": "a"}),
    "from 1": ({"index": 1, "id": "a"}, {"index": 2, "id": "b"}),
    "sparse": ({"index": 7}, {"index": 3}),
    "text": ({"index": "0", "id": "a"}, {"index": "1", "id": "b"}),
    "null": ({"index": None, "id": "a"}, {"index": None, "id": "b"}),
    "neither": ({"index": ...}, {"index": ...}),
    "numbers as ids": ({"index": 0, "id": 1}, {"index": 1, "id": 2}),
}
NUMBERED["neither"] = ({}, {})


@pytest.mark.parametrize("said", [TWO, SAME], ids=["two tools", "one tool"])
@pytest.mark.parametrize("numbers", NUMBERED)
def test_parallel_calls_stay_apart_whatever_their_numbers(numbers: str, said: Said):
    """Never two objects in one call's arguments, never a lost call."""
    for entries in both(*NUMBERED[numbers], said):
        check(entries, said)


def test_calls_without_arguments_stay_apart_by_name():
    """Nothing is complete there but the names."""
    texts: list[Any] = ["", None, "{}", "null", {}, ...]
    for text in texts:
        check([[entry("get_weather", text)], [entry("get_time", text)]], BARE)
        check([[entry("get_weather", text), entry("get_time", text)]], BARE)
        check([[entry("get_weather", text), entry("get_weather", text)]], [BARE[0]] * 2)


def test_parallel_calls_may_take_turns():
    """By index; or at one index, by id."""
    for index, keys in ((1, ("a", "b")), (0, ("a", "b"))):
        pieces = [(ROME[:9], OSLO[:9]), (ROME[9:], OSLO[9:])]
        opening = [[entry("get_weather", "", id="a")], [entry("get_time", "", index=index, id="b")]]
        turns = [
            [entry(arguments=text, index=place, id=key)]
            for texts in pieces
            for text, place, key in zip(texts, (0, index), keys, strict=True)
        ]
        check([*opening, *turns], TWO)


def test_a_later_call_waits_for_the_name_of_an_earlier_one():
    """OpenAI's SDK takes indexes in order only."""
    entries = [entry("", "", id="a"), entry("get_time", OSLO, index=1, id="b"), entry("get_weather", ROME)]
    check([[each] for each in entries], TWO)


def test_calls_after_a_finish_are_not_lost():
    """Some servers finish with each call."""
    for text, expected in ((ROME, ROME), ("", "{}")):
        deltas = [{"tool_calls": [entry(name, text, index=place)]} for place, name in enumerate(("note", "get"))]
        ends = [{"index": 0, "delta": delta, "finish_reason": "tool_calls"} for delta in deltas]
        choice = read([event({"choices": [each]}) for each in ends])
        assert calls_in(choice) == [("note", expected), ("get", expected)]
    late = [*stream([{"tool_calls": [entry("note", "")]}])[:2], *stream([{"tool_calls": [entry("get", "")]}])[::2]]
    assert calls_in(read(late)) == [("note", "{}"), ("get", "{}")]


def test_the_whole_call_once_more_at_its_end_is_no_call():
    """Some servers repeat it in their last chunk."""
    pieces = [[entry("get_weather", ROME[:5], id="a")], [entry(arguments=ROME[5:])]]
    check([*pieces, [entry(arguments=ROME)]], WEATHER)
    check([*pieces, [entry("get_weather", ROME, id="a")]], WEATHER)


def test_another_id_for_each_fragment_is_no_other_call():
    """As long as the arguments go on."""
    check([[entry("get_weather", ROME[:5], id="a")], [entry(arguments=ROME[5:], id="b")]], WEATHER)
    check([[entry("get_weather", ROME[:5], id="a")], [entry("get_weather", ROME[5:], id="b")]], WEATHER)


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", None, ..., "null", " null\n", "  ", "{}", {}])
def test_no_arguments_are_an_empty_object_before_the_finish(kind: str, text: Any):
    """At every dialect, whole and streamed, also in pieces."""
    call = entry("note", text, id="abcdefghi")
    check([[call]], [("note", "{}")], kind)
    whole: Any = PROVIDERS[kind]().parse_response(
        answered(200, {"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "stop"}]}), asked()
    )
    assert calls_in(whole["choices"][0]) == [("note", "{}")]
    if isinstance(text, str):
        check(
            [[entry("note", id="abcdefghi")], *([entry(arguments=letter)] for letter in text)], [("note", "{}")], kind
        )


def test_a_placeholder_before_the_arguments_is_not_part_of_them():
    """Gateways to Anthropic open a call with `{}`."""
    starts: list[Any] = ["{}", "null", {}]
    for start in starts:
        check(
            [[entry("get_weather", start, id="a")], [entry(arguments=ROME[:3])], [entry(arguments=ROME[3:])]], WEATHER
        )


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (['{"a":"\ud83d', '\ude00"}'], '{"a":"\U0001f600"}'),
        (['{"a":"x\ud83d', "\ude00\ud83d", '\ude01"}'], '{"a":"x\U0001f600\U0001f601"}'),
        (['{"a":"\ud83d', 'b"}'], '{"a":"\ufffdb"}'),
        (['{"a":"', '\ude00b"}'], '{"a":"\ufffdb"}'),
        (['{"a":"\ud83d'], '{"a":"\ufffd'),
    ],
)
@pytest.mark.parametrize("kind", ["openai", "mistral", "vllm"])
def test_halves_of_characters_in_arguments_are_joined(kind: str, pieces: list[str], expected: str):
    """Lone ones are replaced; also where the arguments wait for a late name."""
    first, *more = pieces
    rest = [[entry(arguments=piece)] for piece in more]
    check([[entry("note", first, id="a")], *rest], [("note", expected)], kind)
    check([[entry(arguments=first, id="a")], *rest, [entry("note")]], [("note", expected)], kind)


def test_arguments_may_be_values():
    """An object becomes its text; texts that only look odd stay."""
    check([[entry("note", {"a": [1]}, id="a")]], [("note", '{"a":[1]}')])
    for text in ('{"a":"}{\\"\\\\"}', '{"a":{"b":{}}}', '{"a":"null"}', '{"a":[]} ', '[{"a":1}]'):
        for size in (1, 2, 3):
            pieces = [text[at : at + size] for at in range(0, len(text), size)]
            check([[entry("note", "", id="a")], *([entry(arguments=piece)] for piece in pieces)], [("note", text)])
            entries = [[entry("note", piece)] for piece in pieces] + [[entry("note", ROME)]]
            if size > 1:
                check(entries, [("note", text), ("note", ROME)])


def test_a_call_may_be_flat_or_alone():
    """Without `function` around it; without a list around it."""
    flat = {"index": 0, "id": "a", "type": "function", "name": "note", "arguments": ROME}
    check([[flat]], [("note", ROME)])
    for call in (flat, entry("note", ROME, id="a")):
        choice = read(stream([{"tool_calls": call}]))
        whole: Any = PROVIDERS["vllm"]().parse_response(
            answered(200, {"choices": [{"message": {"tool_calls": call}, "finish_reason": "stop"}]}), asked()
        )
        assert calls_in(choice) == calls_in(whole["choices"][0]) == [("note", ROME)]


# --- ids --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_of_the_conversation_is_not_given_again(kind: str):
    """Servers count their calls from 0 in each answer, or have no ids; results are found by them."""
    used = ("call_0", "call_0_0")
    before = [{"type": "function", "id": each, "function": {"name": "note", "arguments": "{}"}} for each in used]
    results = [{"role": "tool", "tool_call_id": each, "content": "done"} for each in used]
    ask = asked(messages=[USER, {"role": "assistant", "content": None, "tool_calls": before}, *results])
    calls = [entry("note", ROME, id="call_0"), entry("note", OSLO, index=1)]
    streamed = read(stream([{"tool_calls": [call]} for call in calls], answer_id=None), kind, ask)
    whole: Any = PROVIDERS[kind]().parse_response(
        answered(200, {"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]}), ask
    )
    ids = [call["id"] for call in streamed["message"]["tool_calls"]]
    assert ids == [call["id"] for call in whole["choices"][0]["message"]["tool_calls"]]
    assert len({*ids, *used}) == 4


# --- other places -----------------------------------------------------------------------------------------------------


def test_a_message_in_place_of_a_delta_has_calls_too():
    """Alone, beside an empty delta, or at the end; and what deltas said is not said again."""
    message = {"role": "assistant", "content": "hi", "tool_calls": [entry("note", ROME, id="a")]}
    end = {"index": 0, "finish_reason": "stop"}
    said = event({"choices": [{"index": 0, "delta": {"content": "hi"}}]})
    called = event({"choices": [{"index": 0, "delta": {"tool_calls": message["tool_calls"]}}]})
    for events in (
        [event({"choices": [{**end, "message": message}]})],
        [event({"choices": [{**end, "delta": {}, "message": message}]})],
        [said, event({"choices": [{**end, "delta": {"content": ""}, "message": message}]})],
        [said, event({"choices": [{**end, "message": message}]})],
        [said, called, event({"choices": [{**end, "delta": {}, "message": message}]})],
    ):
        choice = read(events)
        assert (calls_in(choice), choice["message"]["content"], choice["finish_reason"]) == (
            [("note", ROME)],
            "hi",
            "tool_calls",
        )


def test_the_deprecated_function_call_is_a_call_of_a_tool():
    """Where the client asked with `tools`; else it stays what it is, put together."""
    deltas = [
        {"function_call": each} for each in ({"name": "note", "arguments": ""}, *({"arguments": c} for c in ROME))
    ]
    for finish in ("function_call", "stop", "tool_calls", None):
        choice = read(stream(deltas, finish))
        whole = {"message": {"function_call": {"name": "note", "arguments": ROME}}, "finish_reason": finish}
        parsed: Any = PROVIDERS["vllm"]().parse_response(
            answered(200, {"id": "chatcmpl-1", "choices": [whole]}), asked()
        )
        for each in (choice, parsed["choices"][0]):
            assert (calls_in(each), each["finish_reason"]) == ([("note", ROME)], "tool_calls")
        old = asked(tools=None, functions=[{"name": "note"}])
        parsed = PROVIDERS["vllm"]().parse_response(answered(200, {"choices": [whole]}), old)
        for each in (read(stream(deltas, finish), ask=old), parsed["choices"][0]):
            assert each["message"]["function_call"] == {"name": "note", "arguments": ROME}
            assert (calls_in(each), each["finish_reason"]) == ([], "function_call")
    bare = read(stream([{"function_call": {"name": "note"}}]), ask=asked(tools=None))
    assert bare["message"]["function_call"] == {"name": "note", "arguments": "{}"}


# --- everything together ----------------------------------------------------------------------------------------------


def cut(dice: random.Random, text: str) -> list[str]:
    cuts = sorted(dice.sample(range(len(text) + 1), min(len(text), dice.randint(0, 4))))
    return [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def written(dice: random.Random, said: Said) -> list[dict[str, Any]]:
    """The calls in one of the ways of servers, cut at random."""
    numbers = dice.choice([name for name in NUMBERED if name != "index 0, one with an id"])
    names_cut, late = dice.random() < 0.5, dice.random() < 0.3
    found: list[dict[str, Any]] = []
    for place, (name, arguments) in enumerate(said):
        given = dict(NUMBERED[numbers][min(place, 1)])
        if "index" in given and given["index"] and place > 1:
            given["index"] = str(place) if isinstance(given["index"], str) else place + 10
        if given.get("id") not in (None, "", "a") or (place and given.get("id") == "b"):
            given["id"] = place + 1 if isinstance(given["id"], int) else f"b{place}"
        keyed = "index" in given and given["index"] is not None
        names = cut(dice, name) if names_cut and keyed and (given.get("id") or place == 0) else [name]
        fragments = [entry(piece, **given) for piece in names if piece]
        if late and keyed:
            fragments.insert(0, entry("", "", **given))
        again = {"index": given["index"]} if keyed else {"index": ...}
        if dice.random() < 0.3 and given.get("id"):
            again["id"] = given["id"]
        fragments += [entry(arguments=piece, **again) for piece in cut(dice, arguments)]
        found += fragments
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_was_called_arrives_cut_anywhere(kind: str):
    """Random calls, ways to write them, cuts of names and arguments, entries together in chunks."""
    dice = random.Random(kind)
    for _ in range(20):
        values = ["}", '{"', "\\", 1, {}, "\u20ac"]
        arguments = [json.dumps({"a": [place, dice.choice(values)]}) for place in range(dice.randint(1, 4))]
        said = [(dice.choice(NAMES), text) for text in arguments]
        entries = written(dice, said)
        chunks: list[list[dict[str, Any]]] = []
        for each in entries:
            if chunks and dice.random() < 0.2:
                chunks[-1].append(each)
            else:
                chunks.append([each])
        finish = dice.choice(["stop", "tool_calls", None])
        choice = read(stream([{"tool_calls": each} for each in chunks], finish), kind)
        assert calls_in(choice) == said, json.dumps(chunks)


def test_a_call_that_is_named_once_more_does_not_hold_up_the_next():
    """Both are open before the finish."""
    decoder = PROVIDERS["vllm"]().stream_decoder(asked())
    entries = [entry("get_weather", ROME), entry("get_weather", ""), entry("get_time", "", index=1)]
    chunks = [
        chunk for each in stream([{"tool_calls": [each]} for each in entries])[:3] for chunk in decoder.feed(each)
    ]
    found = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [(call["index"], call["function"]["name"]) for call in found] == [(0, "get_weather"), (1, "get_time")]


# --- vendors with other wires -----------------------------------------------------------------------------------------


def cohere_call(arguments: Any, identity: str = "a", index: Any = 0) -> list[dict[str, Any]]:
    call = {"id": identity, "type": "function", "function": {"name": "note", "arguments": ""}}
    more = {"function": {"arguments": arguments}}
    return [
        {"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": call}}},
        {"type": "tool-call-delta", "index": index, "delta": {"message": {"tool_calls": more}}},
    ]


def anthropic_call(arguments: Any, identity: str = "a", index: Any = 0) -> list[dict[str, Any]]:
    block = {"type": "tool_use", "id": identity, "name": "note", "input": {}}
    piece = {"type": "input_json_delta", "partial_json": arguments}
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        {"type": "content_block_delta", "index": index, "delta": piece},
    ]


def google_call(arguments: Any, identity: str = "a", index: Any = 0) -> list[dict[str, Any]]:
    call = {"name": "note", "args": json.loads(arguments) if isinstance(arguments, str) else arguments, "id": identity}
    return [{"candidates": [{"content": {"parts": [{"functionCall": call}]}}]}]


def responses_call(arguments: Any, identity: str = "a", index: Any = 0) -> list[dict[str, Any]]:
    item = {"type": "function_call", "call_id": identity, "name": "note", "arguments": arguments}
    added = {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": ""}}
    text = arguments if isinstance(arguments, str) else ""
    return [
        added,
        {"type": "response.function_call_arguments.delta", "output_index": index, "delta": text},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


COMPLETED = {"type": "response.completed", "response": {"status": "completed", "output": []}}
OTHERS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "cohere": (cohere_call, [{"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}]),
    "anthropic": (anthropic_call, [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}]),
    "google": (google_call, [{"candidates": [{"finishReason": "STOP"}]}]),
    "perplexity": (responses_call, [COMPLETED]),
    "openai": (responses_call, [COMPLETED]),
}


def other(kind: str, calls: list[tuple[Any, str]], ask: ChatRequest | None = None, same_index: bool = True) -> Any:
    """The calls of one stream in the vendor's own words; all at one index where the wire has any."""
    write, end = OTHERS[kind]
    places = [0 if same_index and kind in ("cohere", "anthropic") else place for place in range(len(calls))]
    bodies = [body for place, (text, name) in zip(places, calls, strict=True) for body in write(text, name, place)]
    return read([event(body) for body in [*bodies, *end]], kind, ask)


@pytest.mark.parametrize("kind", OTHERS)
def test_calls_of_other_wires_stay_apart_and_have_ids_of_their_own(kind: str):
    """All at one index, with one id, or an id that an earlier call of the conversation has."""
    before = [{"id": "b", "type": "function", "function": {"name": "note", "arguments": "{}"}}]
    result = {"role": "tool", "tool_call_id": "b", "content": "done"}
    ask = asked(messages=[USER, {"role": "assistant", "content": None, "tool_calls": before}, result])
    for same_index in (True, False):
        choice = other(kind, [(ROME, "a"), (OSLO, "a"), (ROME, "b")], ask, same_index)
        assert calls_in(choice) == [("note", ROME), ("note", OSLO), ("note", ROME)]
        assert choice["finish_reason"] == "tool_calls"
        assert "b" not in [call["id"] for call in choice["message"]["tool_calls"]]


@pytest.mark.parametrize("kind", OTHERS)
def test_no_arguments_are_an_empty_object_on_other_wires_too(kind: str):
    """Missing, or `null`."""
    values: list[Any] = [None, {}] if kind == "google" else ["", None]
    if kind not in ("google", "anthropic"):
        values.append("null")
    for value in values:
        assert calls_in(other(kind, [(value, "a")])) == [("note", "{}")]
    assert calls_in(other(kind, [({"a": 1} if kind != "openai" else '{"a":1}', "a")])) == [("note", '{"a":1}')]
