"""`/v1/completions` as bytes: what is read and refused, and that a stream adds up to the whole answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion

from proxy.pipeline.emulate import seats
from proxy.providers import PROVIDERS
from proxy.providers.base.building import build
from proxy.providers.base.contract import Provider
from proxy.providers.openai import OpenAI
from proxy.schema.chat import ChatChunk, TextChunk
from proxy.schema.errors import BadRequest
from proxy.schema.usage import Usage
from proxy.server.formats.chat import MAX_CHOICES
from proxy.server.formats.completions import OF_CHATS, TextWriter, decode_completion, old_logprobs

USAGE: Usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
HEAD = {"id": "cmpl-1", "object": "text_completion", "created": 17, "model": "openai/m"}


def decoded(prompt: Any = "hi", **fields: Any) -> Any:
    return decode_completion(json.dumps({"model": "m", "prompt": prompt, **fields}).encode())


def test_a_prompt_becomes_a_chat() -> None:
    """Options keep their names; without `max_tokens` there is no limit, as in a chat."""
    request = decoded(temperature=0, stop=["\n"], top_k=5, user=None, echo=False, suffix="", logprobs=None, best_of=1)
    assert request.fields == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "stop": ["\n"],
        "top_k": 5,
    }
    assert (request.max_tokens, request.n, request.questions) == (None, 1, 1)
    assert decoded(max_tokens=7).max_tokens == 7
    assert (decoded(max_tokens=-1).unlimited, decoded(["hi"]).fields) == (True, decoded().fields)


def test_several_prompts_are_questions_of_their_own() -> None:
    """Each with its own choices, and with no more of the body than its own prompt."""
    request = decoded(["one", "ünö"], n=2, seed=5, max_tokens=3)
    first, second = request.apart()
    assert (request.questions, request.n, first.n, first.questions) == (2, 4, 2, 1)
    assert [each.fields["messages"][0]["content"] for each in (first, second)] == ["one", "ünö"]
    assert [message.content for message in second.messages] == ["ünö"]
    assert first.size + second.size > request.size > first.size
    assert request.output_limit(None) == first.output_limit(None) + second.output_limit(None) == 12


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"best_of": 2}, "best_of"),
    ({"best_of": 1, "n": 2}, "best_of"),
    *(({name: [{}]}, name) for name in OF_CHATS),
]


@pytest.mark.parametrize(("fields", "name"), REFUSED)
def test_what_no_chat_can_do_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    """The message says what to do instead."""
    with pytest.raises(BadRequest) as error:
        decoded(**fields)
    assert (error.value.param, error.value.code) == (name, "unsupported_parameter")
    assert error.value.message.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt.1"),
        ({"prompt": None}, "prompt"),
        ({"prompt": {}}, "prompt.id"),
        ({"prompt": [1, "a"]}, "prompt.0"),
        ({"prompt": ["a", []]}, "prompt.1"),
        ({"prompt": ["a"] * (MAX_CHOICES + 1)}, "prompt"),
        ({"prompt": ["a", "b"], "n": MAX_CHOICES}, "prompt"),
        ({"n": MAX_CHOICES + 1}, "n"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"model": " "}, "model"),
        ({"Prompt": "x"}, "Prompt"),
    ],
)
def test_a_wrong_value_is_named(fields: dict[str, Any], name: str) -> None:
    """Before anything is sent."""
    with pytest.raises(BadRequest) as error:
        decoded(**fields)
    assert error.value.param == name


def test_a_missing_prompt_is_named() -> None:
    """Chats have none either."""
    with pytest.raises(BadRequest) as error:
        decode_completion(b'{"model": "m"}')
    assert error.value.param == "prompt"


@pytest.mark.parametrize(
    "client", sorted(path.name for path in (Path(__file__).parent / "bodies").glob("completions-*.json"))
)
def test_what_clients_send_is_read(client: str) -> None:
    """Bodies as these clients sent them."""
    request = decode_completion((Path(__file__).parent / "bodies" / client).read_bytes())
    assert request.messages[0].content


# --- as it came -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 0}, "logprobs"),
        ({"logprobs": 5}, "logprobs"),
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": ["a", [1, 2]]}, "prompt.1"),
    ],
)
@pytest.mark.parametrize("vendor", ["anthropic", "groq", "perplexity", "ollama"])
def test_what_an_upstream_lacks_is_refused_by_name(fields: dict[str, Any], name: str, vendor: str) -> None:
    """Before anything is sent."""
    if (vendor, name) == ("ollama", "logprobs"):
        pytest.skip("its chat API has them")
    with pytest.raises(BadRequest) as error:
        build(PROVIDERS[vendor](), decoded(**fields), "m")
    assert (error.value.param, error.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize("provider", [PROVIDERS["vllm"](), OpenAI(completions=True)])
def test_a_server_that_has_the_endpoint_gets_the_body_as_it_came(provider: Provider) -> None:
    """But for the model's name and our own hints. Unknown fields go too."""
    body = b'{"model": "x/m",  "prompt": [[1, 2]], "echo": true, "suffix": "s", "logprobs": 2, "new": [1.50]}'
    built = build(provider, decode_completion(body), "m")
    assert built.http.path.endswith("/completions") and "chat" not in built.http.path
    assert (built.dropped, built.adapted) == ([], [])
    assert built.http.body == b'{"model":"m","prompt":[[1, 2]],"echo":true,"suffix":"s","logprobs":2,"new":[1.50]}'
    same = body.replace(b"x/m", b"m")
    assert build(provider, decode_completion(same), "m").http.body == same
    hinted = decode_completion(b'{"model": "m", "prompt": "a", "routing": {"trace": true}, "stream": true}')
    sent = json.loads(build(provider, hinted, "m").http.body)
    assert sent == {"model": "m", "prompt": "a", "stream": True, "stream_options": {"include_usage": True}}


def test_each_of_several_prompts_goes_as_it_came() -> None:
    """With as many choices as the server gives at once."""
    request = decoded(["one", [7, 8]], n=2, seed=5)
    sent = [json.loads(build(PROVIDERS["vllm"](), seat, "m").http.body) for seat in seats(request, 1)]
    assert [(each["prompt"], each.get("n"), each["seed"]) for each in sent] == [
        ("one", None, 5),
        ("one", None, 6),
        ([7, 8], None, 5),
        ([7, 8], None, 6),
    ]


def test_log_probabilities_have_the_shape_of_this_endpoint() -> None:
    """Their places count on over the pieces of a stream; the first token of a repeated prompt has none."""
    content = [
        {"token": "a", "logprob": -9999.0, "top_logprobs": []},
        {"token": "bc", "logprob": -0.5, "top_logprobs": [{"token": "bc", "logprob": -0.5}]},
    ]
    assert old_logprobs({"content": content}) == {
        "tokens": ["a", "bc"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"bc": -0.5}],
        "text_offset": [0, 1],
    }
    assert (old_logprobs(None), old_logprobs({"content": []}, 3)) == (
        None,
        {name: [] for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")},
    )


# --- streams ----------------------------------------------------------------------------------------------------------


def chunk(finish_reason: str | None = None, index: int = 0, **delta: Any) -> ChatChunk:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish_reason}]}  # type: ignore[typeddict-item]


CHUNKS: list[Any] = [
    chunk(role="assistant", content=""),
    chunk(reasoning_content="hm"),
    TextChunk(0, "He"),
    TextChunk(1, "B"),
    chunk(index=1, content="ye", finish_reason="tool_calls"),
    chunk("length", content="y"),
    chunk(index=2, refusal="No."),
    chunk("content_filter", index=2),
    {"choices": [], "usage": USAGE},
]


def events_of(cuts: list[list[Any]], include_usage: bool = False, extras: Any = dict) -> list[Any]:
    out = TextWriter(lambda: HEAD, include_usage, extras)
    frames = b"".join(out.write(chunks) for chunks in cuts) + out.tail(USAGE)
    assert frames.endswith(b"data: [DONE]\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in frames.decode().split("\n\n")[:-2]]


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream_adds_up_to_the_whole_answer(include_usage: bool) -> None:
    """However its chunks arrive; every event is one for OpenAI's SDK."""
    for at in range(len(CHUNKS) + 1):
        texts: dict[int, str] = {}
        reasons: dict[int, str] = {}
        thoughts = ""
        events = events_of([CHUNKS[:at], CHUNKS[at:]], include_usage)
        for event in events:
            typed = {**event, "choices": [choice | {"finish_reason": "stop"} for choice in event["choices"]]}
            assert Completion.model_validate(typed).object == "text_completion"  # null is the wire's, not the type's
            assert {name: event[name] for name in HEAD} == HEAD
            for choice in event["choices"]:
                index = choice["index"]
                texts[index] = texts.get(index, "") + choice["text"]
                thoughts += choice.get("reasoning_content", "")
                if choice["finish_reason"]:
                    assert reasons.setdefault(index, choice["finish_reason"]) == choice["finish_reason"]
        assert (texts, thoughts) == ({0: "Hey", 1: "Bye", 2: "No."}, "hm")
        assert reasons == {0: "length", 1: "stop", 2: "content_filter"}
        assert [event.get("usage") for event in events if event["choices"]] == [None] * (len(events) - include_usage)
        assert (events[-1].get("usage"), events[-1]["choices"] == []) == (USAGE, True) or not include_usage


def test_extras_that_nobody_asked_for_come_with_the_finish() -> None:
    """Clients read the first choice of every chunk."""
    *_, last = events_of([CHUNKS[:3], [chunk("stop")]], extras=lambda: {"routing": {"ensemble": {}}})
    assert (last["choices"][0]["finish_reason"], last["usage"], last["routing"]) == ("stop", USAGE, {"ensemble": {}})
