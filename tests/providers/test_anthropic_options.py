"""Rules of the options of requests to Anthropic: limits, sampling, JSON, thinking, and what is lost on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.providers.anthropic import Anthropic
from proxy.providers.anthropic.request import BINDING_BETA
from proxy.providers.base.contract import Built
from proxy.schema.chat import KeptReasoning
from proxy.schema.json import encode
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import RICH, SCHEMA, asked, call, result, tool, user
from tests.providers.test_anthropic import (
    ALWAYS,
    ANTHROPIC,
    BUDGET,
    FORMAT,
    LATER,
    NEW,
    OLD,
    SAMPLED,
    THOUGHT,
    built,
    sent,
    turns,
)

LOOP = (user("x"), asked(call("a")), result("a"))


# --- limits and sampling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "most"),
    [
        (ALWAYS, 128_000),
        ("claude-sonnet-4-6", 128_000),
        (BUDGET, 64_000),
        ("claude-opus-4-20250514", 32_000),
        ("claude-3-haiku-20240307", 4096),
        ("another-model", 8192),
    ],
)
def test_the_limit_that_the_vendor_requires_is_the_models_own(model: str, most: int):
    """Unless the client, or else the operator, has one."""
    assert sent(model=model)["max_tokens"] == most
    assert sent(model=model, max_tokens=7)["max_tokens"] == 7
    assert sent(model=model, max_completion_tokens=9, max_tokens=7)["max_tokens"] == 9
    provider = Anthropic(parameters={"max_tokens": 100})
    assert sent(model=model, provider=provider)["max_tokens"] == 100
    assert sent(model=model, provider=provider, max_completion_tokens=200)["max_tokens"] == 200


def test_a_limit_above_the_models_own_is_lowered_and_said():
    """By the name under which it came."""
    for name in ("max_tokens", "max_completion_tokens"):
        fields: Any = {name: 100_000}
        answer = built(model=BUDGET, **fields)
        assert json.loads(answer.http.body)["max_tokens"] == 64_000
        assert answer.adapted == [name]


def test_a_long_prompt_leaves_less_room_for_the_answer():
    """Prompt and limit together must fit the context; that nobody asked for so much is no fault of the client's."""
    assert sent(user("word " * 100_000), model=BUDGET)["max_tokens"] == 200_000 - 500_000 // 3
    assert sent(user("word " * 1_000_000), model=BUDGET)["max_tokens"] == 1024


@pytest.mark.parametrize("model", [LATER, NEW, ALWAYS, "claude-opus-4-7", "claude-haiku-5-5", "claude-opus-7"])
def test_newer_models_are_not_steered(model: str):
    """Sampling is dropped and said, but for values that change nothing."""
    answer = built(model=model, temperature=0.7, top_p=0.9, top_k=5)
    assert not {"temperature", "top_p", "top_k"} & set(json.loads(answer.http.body))
    assert answer.dropped == ["temperature", "top_p", "top_k"]
    assert built(model=model, temperature=1, top_p=1).dropped == []


def test_older_models_are_steered_within_the_vendors_range():
    """Temperatures end at 1; some take one of two."""
    body = sent(model=SAMPLED, temperature=0.2, top_p=0.9, top_k=5)
    assert (body["temperature"], body["top_p"], body["top_k"]) == (0.2, 0.9, 5)
    hot = built(model=SAMPLED, temperature=1.7)
    assert json.loads(hot.http.body)["temperature"] == 1
    assert hot.adapted == ["temperature"]
    for model in (BUDGET, "claude-opus-4-1", "claude-sonnet-4-5"):
        one = built(model=model, temperature=0.2, top_p=0.9)
        assert "top_p" not in json.loads(one.http.body)
        assert one.dropped == ["top_p"]
        assert sent(model=model, top_p=0.9)["top_p"] == 0.9


def test_stops_without_words_are_looked_for_here():
    """The vendor refuses them."""
    answer = built(stop=["END", "\n\n", " "])
    assert json.loads(answer.http.body)["stop_sequences"] == ["END"]
    assert answer.stops == ["\n\n", " "]
    assert "stop_sequences" not in sent(stop=["\n"])
    assert sent(stop="END")["stop_sequences"] == ["END"]


# --- everything else --------------------------------------------------------------------------------------------------


def test_who_asks_is_an_opaque_id():
    """An address or a number of a person is never sent."""
    assert sent(user="u-1")["metadata"] == {"user_id": "u-1"}
    assert sent(safety_identifier="s", user="u")["metadata"] == {"user_id": "s"}
    assert sent(metadata={"user_id": "u"})["metadata"] == {"user_id": "u"}
    for name, value in (("user", "ada@example.com"), ("user", "+44 20 7946 0000"), ("safety_identifier", "x" * 513)):
        fields: Any = {name: value}
        answer = built(**fields)
        assert "metadata" not in json.loads(answer.http.body)
        assert answer.dropped == [name]
    assert built(metadata={"team": "blue"}).dropped == ["metadata"]


@pytest.mark.parametrize(
    ("tier", "expected"), [("auto", "auto"), ("default", "standard_only"), ("flex", None), ("priority", None)]
)
def test_tiers_that_the_vendor_has_are_asked_for(tier: str, expected: str | None):
    """Others are dropped."""
    answer = built(service_tier=tier)
    assert json.loads(answer.http.body).get("service_tier") == expected
    assert answer.dropped == ([] if expected else ["service_tier"])


def test_what_the_vendor_lacks_is_dropped_and_said():
    """Values that change nothing are no loss; fields of the vendor's own pass."""
    lacks: Any = {
        "seed": 1,
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"1": 1},
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "prediction": {"type": "content", "content": "x"},
        "store": True,
        "verbosity": "low",
        "prompt_cache_key": "k",
        "prompt_cache_retention": "24h",
        "unheard": 1,
        "n": 2,
    }
    answer = built(**lacks)
    assert sorted(answer.dropped) == sorted(lacks)
    assert set(json.loads(answer.http.body)) == {"model", "max_tokens", "messages"}
    nothing: Any = {
        "logprobs": False,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "store": False,
        "verbosity": "medium",
    }
    assert built(**nothing, n=1, parallel_tool_calls=True, modalities=["text"]).dropped == []
    own: Any = {"container": "c", "inference_geo": "eu", "speed": "fast", "cache_control": {"type": "ephemeral"}}
    assert {name: sent(**own)[name] for name in own} == own


def test_one_call_brings_one_choice():
    """The vendor has no n."""
    assert ANTHROPIC.max_choices(NEW) == 1


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [BUDGET, SAMPLED, NEW, ALWAYS])
def test_a_schema_is_enforced_by_models_that_have_formats(model: str):
    """Without name and strict; what the vendor does not enforce is said in words."""
    answer = built(model=model, response_format=FORMAT)
    assert json.loads(answer.http.body)["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert (answer.adapted, answer.unchecked_json) == ([], False)
    rich = {"type": "json_schema", "json_schema": {"name": "p", "schema": RICH, "description": "A person."}}
    levelled = built(model=model, response_format=rich)
    schema = json.loads(levelled.http.body)["output_config"]["format"]["schema"]
    assert levelled.adapted == ["response_format"]
    assert schema["properties"]["home"]["anyOf"][1]["additionalProperties"] is False
    assert schema["description"] == "A person."
    assert "maxItems: 3" in schema["properties"]["pets"]["description"]
    assert schema["properties"]["pets"]["minItems"] == 1


def test_older_models_answer_json_by_a_tool():
    """The only one, or one of all where the client has its own. Nobody enforces it, so it is checked."""
    answer = built(model=OLD, response_format=FORMAT)
    body = json.loads(answer.http.body)
    assert body["tool_choice"] == {"type": "tool", "name": "json_tool_call"}
    assert body["tools"][0]["input_schema"] == SCHEMA
    assert (answer.adapted, answer.unchecked_json) == (["response_format"], True)
    with_tool = sent(model=OLD, response_format=FORMAT, tools=[tool("json_tool_call")])
    assert [each["name"] for each in with_tool["tools"]] == ["json_tool_call", "json_tool_call_2"]
    assert with_tool["tool_choice"] == {"type": "any"}
    forced = sent(model=OLD, response_format=FORMAT, tools=[tool()], tool_choice="required")
    assert [each["name"] for each in forced["tools"]] == ["weather"]


def test_where_no_tool_can_be_forced_json_is_asked_for_in_words():
    """With a budget for thoughts, where no tool may be called, for what is no object."""
    a_list = {"type": "json_schema", "json_schema": {"name": "l", "schema": {"type": "array"}}}
    for fields in (
        {"response_format": FORMAT, "reasoning_effort": "low"},
        {"response_format": FORMAT, "tools": [tool()], "tool_choice": "none"},
        {"response_format": a_list},
    ):
        answer = built(model=OLD, **fields)
        assert "valid against this JSON schema" in json.loads(answer.http.body)["system"][-1]["text"]
        assert answer.unchecked_json


def test_any_json_object_is_asked_for_in_words():
    """The vendor has no such format."""
    for model in (OLD, NEW):
        answer = built(model=model, response_format={"type": "json_object"})
        assert "single valid JSON object" in json.loads(answer.http.body)["system"][-1]["text"]
        assert (answer.adapted, answer.unchecked_json) == (["response_format"], True)
    assert built(response_format={"type": "text"}).adapted == []


# --- thinking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "effort", "level", "adapted"),
    [
        (NEW, "minimal", "low", True),
        (NEW, "low", "low", False),
        (NEW, "medium", "medium", False),
        (NEW, "high", "high", False),
        (NEW, "xhigh", "xhigh", False),
        (NEW, "max", "max", False),
        (SAMPLED, "xhigh", "max", True),
        ("claude-haiku-5-5", "high", "high", False),
    ],
)
def test_newer_models_think_by_effort_and_show_it(model: str, effort: str, level: str, adapted: bool):
    """Left to itself the vendor shows nothing. Levels that a model lacks become the next one."""
    answer = built(model=model, reasoning_effort=effort)
    body = json.loads(answer.http.body)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": level}
    assert answer.adapted == (["reasoning_effort"] if adapted else [])


@pytest.mark.parametrize(
    ("effort", "budget"), [("minimal", 1024), ("low", 1024), ("medium", 2048), ("high", 4096), ("max", 16_384)]
)
def test_older_models_think_by_budget(effort: str, budget: int):
    """Which is not the same, so it is said."""
    for model in (BUDGET, OLD, "claude-opus-4-5-20251101"):
        answer = built(model=model, reasoning_effort=effort)
        body = json.loads(answer.http.body)
        assert body["thinking"] == {"type": "enabled", "budget_tokens": budget}
        assert "output_config" not in body
        assert answer.adapted == ["reasoning_effort"]


def test_a_budget_leaves_room_for_the_answer_and_none_is_too_small():
    """The limit of the request is never raised: what it may cost was bounded by it."""
    assert sent(model=BUDGET, reasoning_effort="high", max_tokens=5000)["thinking"]["budget_tokens"] == 2500
    assert sent(model=BUDGET, reasoning_effort="high", max_tokens=1025)["thinking"]["budget_tokens"] == 1024
    small = built(model=BUDGET, reasoning_effort="high", max_tokens=1024)
    assert "thinking" not in json.loads(small.http.body)
    assert small.adapted == ["reasoning_effort"]
    assert built(model="claude-3-haiku-20240307", reasoning_effort="high").dropped == ["reasoning_effort"]


@pytest.mark.parametrize(
    ("model", "thinking", "effort", "adapted"),
    [
        (BUDGET, None, None, False),
        (SAMPLED, None, None, False),
        (LATER, None, None, False),
        (NEW, {"type": "disabled"}, None, False),
        ("claude-haiku-5-5", {"type": "disabled"}, None, False),
        ("claude-sonnet-5-5", {"type": "between_tools"}, "low", True),
        (ALWAYS, None, "low", True),
        ("claude-fable-5", None, "low", True),
    ],
)
def test_thinking_is_switched_off_as_far_as_it_can_be(model: str, thinking: Any, effort: str | None, adapted: bool):
    """Else it is as little as can be."""
    answer = built(model=model, reasoning_effort="none")
    body = json.loads(answer.http.body)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort
    assert answer.adapted == (["reasoning_effort"] if adapted else [])


def test_who_thinks_is_not_steered():
    """Temperatures but 1, and shares below 0.95, are refused with it."""
    for model in (BUDGET, SAMPLED):
        answer = built(model=model, reasoning_effort="low", temperature=0.2, top_p=0.9, top_k=3)
        assert not {"temperature", "top_p", "top_k"} & set(json.loads(answer.http.body))
        assert answer.dropped == ["temperature", "top_p", "top_k"]
        assert sent(model=model, reasoning_effort="low", top_p=0.97)["top_p"] == 0.97


def test_a_forced_tool_stands_above_a_budget():
    """The vendor refuses both together."""
    answer = built(model=BUDGET, reasoning_effort="high", tools=[tool()], tool_choice="required")
    body = json.loads(answer.http.body)
    assert body["tool_choice"] == {"type": "any"}
    assert "thinking" not in body
    assert answer.adapted == ["reasoning_effort"]


def test_the_vendors_own_words_for_thinking_stand_above_the_effort():
    """As they are, in `thinking` and `output_config`."""
    native = {"type": "enabled", "budget_tokens": 3000}
    answer = built(model=BUDGET, thinking=native, reasoning_effort="low", output_config={"effort": "high"})
    body = json.loads(answer.http.body)
    assert (body["thinking"], body["output_config"]) == (native, {"effort": "high"})
    assert answer.dropped == ["reasoning_effort"]


# --- thoughts that come back ------------------------------------------------------------------------------------------


def looped(model: str, kept: KeptReasoning | None = None, provider: Anthropic = ANTHROPIC, **fields: Any) -> Built:
    body = {"model": "x", "messages": list(fields.pop("messages", LOOP)), "tools": [tool()], **fields}
    request = decode_chat(encode(body))
    return provider.build_request(replace(request, kept={"a": kept} if kept else {}), model)


def first_block(answer: Built) -> dict[str, Any]:
    block: dict[str, Any] = json.loads(answer.http.body)["messages"][1]["content"][0]
    return block


def kept_by(model: str, dialect: str = "anthropic") -> KeptReasoning:
    return KeptReasoning(dialect, model, {"thinking_blocks": [THOUGHT]})


@pytest.mark.parametrize("model", [BUDGET, LATER, NEW, ALWAYS])
def test_thoughts_stand_before_the_calls_they_led_to(model: str):
    """Those of the message, else those that were kept for its calls."""
    own = (user("x"), asked(call("a"), thinking_blocks=[THOUGHT]), result("a"))
    assert first_block(looped(model, messages=own, reasoning_effort="low")) == THOUGHT
    assert first_block(looped(model, kept_by(model), reasoning_effort="low")) == THOUGHT
    assert first_block(looped(model, kept_by(f"{model}-20260101"), reasoning_effort="low")) == THOUGHT
    redacted = {"type": "redacted_thinking", "data": "eA=="}
    blocks = [{**THOUGHT, "thinking": ""}, redacted]
    both = (user("x"), asked(call("a"), content="So.", thinking_blocks=blocks), result("a"))
    found = json.loads(looped(model, messages=both, reasoning_effort="low").http.body)["messages"][1]["content"]
    assert [block["type"] for block in found] == ["thinking", "redacted_thinking", "text", "tool_use"]


def test_thoughts_of_another_model_are_left_out():
    """Also those that came with the message, where it is known who thought them."""
    own = (user("x"), asked(call("a"), thinking_blocks=[THOUGHT]), result("a"))
    for kept in (kept_by("claude-opus-4-8"), kept_by(NEW, "google")):
        assert first_block(looped(NEW, kept))["type"] == "tool_use"
        assert first_block(looped(NEW, kept, messages=own))["type"] == "tool_use"


def test_thoughts_that_nobody_signed_are_dropped():
    """Other vendors' have no signature: they would be refused."""
    own = (user("x"), asked(call("a"), thinking_blocks=[{"type": "thinking", "thinking": "x"}, 1]), result("a"))
    answer = looped(NEW, messages=own)
    assert first_block(answer)["type"] == "tool_use"
    assert answer.dropped == ["messages.thinking_blocks"]


def test_a_budget_without_the_thoughts_it_asks_for_is_given_up():
    """ "Expected `thinking` or `redacted_thinking`, but found `tool_use`": for this request there is no thinking."""
    answer = looped(BUDGET, reasoning_effort="high")
    assert "thinking" not in json.loads(answer.http.body)
    assert answer.adapted == ["reasoning_effort"]
    done = (*LOOP, {"role": "assistant", "content": "Sunny."}, user("Thanks."))
    assert "thinking" in json.loads(looped(BUDGET, messages=done, reasoning_effort="high").http.body)
    assert "thinking" in json.loads(looped(NEW, reasoning_effort="high").http.body)
    prefilled = built(user("x"), {"role": "assistant", "content": "So"}, model=BUDGET, reasoning_effort="high")
    assert "thinking" not in json.loads(prefilled.http.body)


def test_without_thinking_no_thoughts_go_back():
    """They would only be paid for."""
    cases: list[tuple[str, Any]] = [(BUDGET, {}), (NEW, {"reasoning_effort": "none"}), (LATER, {})]
    for model, fields in cases:
        assert first_block(looped(model, kept_by(model), **fields))["type"] == "tool_use"
    assert first_block(looped(NEW, kept_by(NEW))) == THOUGHT  # it thinks unasked


def test_thoughts_bound_to_a_conversation_are_let_go_where_it_changed():
    """The vendor's own address knows the control; its beta joins those that the operator asks for."""
    answer = looped(ALWAYS, kept_by(ALWAYS))
    body = json.loads(answer.http.body)
    assert body["thinking"] == {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
    assert answer.http.headers["anthropic-beta"] == BINDING_BETA
    operator = Anthropic(headers={"Anthropic-Beta": "fast-mode-2026-02-01"})
    joined = looped(ALWAYS, kept_by(ALWAYS), operator, reasoning_effort="low")
    assert joined.http.headers["anthropic-beta"] == f"fast-mode-2026-02-01,{BINDING_BETA}"
    assert json.loads(joined.http.body)["thinking"]["display"] == "summarized"
    elsewhere = looped(ALWAYS, kept_by(ALWAYS), Anthropic(base_url="https://proxy.example.com"))
    for plain in (elsewhere, looped(ALWAYS), looped(NEW, kept_by(NEW))):
        assert "anthropic-beta" not in plain.http.headers
        assert "thinking" not in json.loads(plain.http.body)


def test_an_answers_thoughts_are_kept_for_each_of_its_calls():
    """For clients that do not send them back."""
    message: Any = {"tool_calls": [call("a"), call("b")], "thinking_blocks": [THOUGHT]}
    state = {"thinking_blocks": [THOUGHT]}
    assert ANTHROPIC.reasoning_state(message) == {"a": state, "b": state}
    plain: Any = {"tool_calls": [call("a")]}
    assert ANTHROPIC.reasoning_state(plain) == {}


def test_the_operators_parameters_stand_in_where_the_client_said_nothing():
    """And are no loss where they do not fit."""
    provider = Anthropic(parameters={"reasoning_effort": "low", "temperature": 0.3, "seed": 1})
    answer = built(provider=provider)
    assert json.loads(answer.http.body)["output_config"] == {"effort": "low"}
    assert answer.dropped == ["temperature"]
    assert sent(provider=provider, reasoning_effort="high")["output_config"] == {"effort": "high"}


def test_the_same_words_make_the_same_bytes():
    """A longer conversation begins with the bytes of the shorter one: its cache is hit."""
    short = built(user("a"), tools=[tool()], model=NEW).http.body
    longer = built(user("a"), {"role": "assistant", "content": "b"}, user("c"), tools=[tool()], model=NEW).http.body
    start = short[: short.index(b'"messages"')]
    assert longer.startswith(start)
    assert turns(user("a"))[0] == turns(user("a"), {"role": "assistant", "content": "b"}, user("c"))[0]
