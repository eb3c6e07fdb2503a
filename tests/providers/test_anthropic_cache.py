"""`cache: auto`: which blocks are marked for Anthropic's prompt cache, and which requests are left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.config.load import load
from proxy.metering.prices import Rates
from proxy.providers.anthropic import Anthropic
from proxy.providers.anthropic.cache import auto_marks, markable
from proxy.providers.anthropic.models import traits_of
from proxy.providers.base.building import build
from proxy.providers.base.contract import Provider
from proxy.schema.records import Tokens
from proxy.schema.request import NativeBody
from tests.providers.asking import built, request, sent

AUTO, OFF = Anthropic(cache="auto"), Anthropic()
MODEL = "claude-sonnet-5"  # caches prefixes of 1024 tokens
LONG = "Words of a rule. " * 400  # 1700 tokens as they are estimated
HOUR, MINUTES = {"type": "ephemeral", "ttl": "1h"}, {"type": "ephemeral"}
SYSTEM: dict[str, Any] = {"role": "system", "content": LONG}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "description": LONG, "parameters": {"type": "object", "properties": {}}},
}
ROOT = Path(__file__).parents[2]
SHIPPED = load(ROOT / "routing_rules.yaml", ROOT / "pricing.yaml", {}).pricing.models
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "sig"}


def said(*texts: str) -> list[dict[str, Any]]:
    """A conversation; the user begins."""
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(texts)]


def marks(body: dict[str, Any]) -> list[tuple[str, Any]]:
    """Where the marks of a body are, and what they say."""
    named = [("tools", body.get("tools", [])), ("system", body.get("system", []))]
    named += [(f"messages.{place}", turn["content"]) for place, turn in enumerate(body["messages"])]
    return [
        (f"{where}.{place}", block["cache_control"])
        for where, blocks in named
        for place, block in enumerate(blocks)
        if "cache_control" in block
    ]


def test_a_conversation_has_its_head_for_an_hour_and_its_two_latest_ends() -> None:
    """Four marks at most, those of an hour first; it is reported."""
    fields = {"tools": [TOOL], "messages": [SYSTEM, *said("a", "b", "c", "d", "e")]}
    assert marks(sent(AUTO, MODEL, **fields)) == [
        ("tools.0", HOUR),
        ("system.0", HOUR),
        ("messages.2.0", MINUTES),
        ("messages.4.0", MINUTES),
    ]
    assert built(AUTO, MODEL, **fields).adapted == ["cache_control"]


@pytest.mark.parametrize("turns", range(1, 9))
def test_marks_move_and_nothing_else_does(turns: int) -> None:
    """Without marks each request begins with all of the one before, and one of its marks is where that one ended."""
    texts = [f"text {place}" for place in range(2 * turns + 1)]
    common = {"tools": [TOOL]}
    before = sent(AUTO, MODEL, messages=[SYSTEM, *said(*texts[:-2])], **common)
    after = sent(AUTO, MODEL, messages=[SYSTEM, *said(*texts)], **common)
    last = len(before["messages"]) - 1
    assert (f"messages.{last}.0", MINUTES) in marks(before)
    assert (f"messages.{last}.0", MINUTES) in marks(after)
    for body in (before, after):
        for block in markable(body):
            block.pop("cache_control", None)
    assert after["messages"][: last + 1] == before["messages"]
    assert (after["tools"], after["system"]) == (before["tools"], before["system"])


def test_an_agents_results_are_marked_and_its_thoughts_are_not() -> None:
    """The turn of the user's side ends with a tool's result; the vendor refuses marks on thinking."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        SYSTEM,
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call], "thinking_blocks": [THOUGHT]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ]
    body = sent(AUTO, MODEL, messages=messages, tools=[TOOL])
    assert marks(body)[2:] == [("messages.0.0", MINUTES), ("messages.2.0", MINUTES)]
    assert body["messages"][2]["content"][0]["type"] == "tool_result"
    assert THOUGHT in body["messages"][1]["content"]


def test_a_lone_question_has_only_its_instructions_marked_for_minutes() -> None:
    """It may be the only one of its kind: what only it says is not written, and nothing for an hour."""
    assert marks(sent(AUTO, MODEL, messages=[SYSTEM, *said(LONG)])) == [("system.0", MINUTES)]
    assert marks(sent(AUTO, MODEL, messages=said(LONG))) == []


LEFT_ALONE: list[dict[str, Any]] = [
    {"messages": [{"role": "system", "content": "Short."}, *said("a", "b", "c")]},
    {"messages": [{**SYSTEM, "cache_control": MINUTES}, *said("a", "b", "c")]},
    {"messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": MINUTES}]}]},
    {"messages": [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "a", "prompt_cache_breakpoint": {}}]}]},
    {"messages": [SYSTEM, *said("a", "b", "c")], "tools": [{**TOOL, "cache_control": HOUR}]},
    {"messages": [SYSTEM, *said("a", "b", "c")], "cache_control": MINUTES},
    {"messages": [{**SYSTEM, "cache_control": {"type": "forever"}}, *said("a", "b", "c")]},  # dropped, and meant
]


@pytest.mark.parametrize("fields", LEFT_ALONE)
def test_a_short_prompt_and_one_with_a_mark_are_left_alone(fields: dict[str, Any]) -> None:
    """A client's own marks, wherever they are, keep the proxy from adding any."""
    assert built(AUTO, MODEL, **fields).http.body == built(OFF, MODEL, **fields).http.body
    assert "cache_control" not in built(AUTO, MODEL, **fields).adapted


def test_the_operators_parameters_are_a_mark_too() -> None:
    """As are requests that want nothing changed, and models of others behind this API."""
    messages = [SYSTEM, *said("a", "b", "c")]
    own = Anthropic(cache="auto", parameters={"cache_control": HOUR})
    assert marks(sent(own, MODEL, messages=messages)) == []
    assert marks(sent(AUTO, "kimi-k3", messages=messages)) == []
    assert marks(sent(OFF, MODEL, messages=messages)) == []


def test_each_mark_needs_a_prefix_that_the_model_caches() -> None:
    """What is before it counts, not what is after it."""
    middling = {"role": "system", "content": LONG[: 4 * 600]}
    small = {**TOOL, "function": {**TOOL["function"], "description": LONG[: 4 * 600]}}
    talk = said("a", LONG, "c")
    assert [where for where, _ in marks(sent(AUTO, MODEL, messages=[middling, *talk]))] == ["messages.2.0"]
    both = marks(sent(AUTO, MODEL, messages=[middling, *talk], tools=[small]))
    assert [where for where, _ in both] == ["system.0", "messages.0.0", "messages.2.0"]
    assert marks(sent(AUTO, "claude-haiku-4-5", messages=[middling, *talk], tools=[small])) == []
    assert len(marks(sent(AUTO, "claude-opus-5-5", messages=[middling, *talk], tools=[small]))) == 4


def test_what_the_next_request_may_change_is_after_the_marks() -> None:
    """Instructions of the proxy's own, and later system messages where they join the first one."""
    later = [SYSTEM, *said("a", "b"), {"role": "system", "content": "Be brief."}, {"role": "user", "content": "c"}]
    body = sent(AUTO, "claude-sonnet-4-6", messages=later, response_format={"type": "json_object"})
    assert len(body["system"]) == 3
    assert [where for where, _ in marks(body)] == ["system.0", "messages.0.0", "messages.2.0"]


@pytest.mark.parametrize(
    ("model", "least"),
    [
        ("claude-opus-5-5", 512),
        ("claude-sonnet-5-5", 512),
        ("claude-haiku-5-5", 512),
        ("claude-fable-5-1", 512),
        ("claude-opus-5", 512),
        ("claude-sonnet-5", 1024),
        ("claude-opus-4-8", 1024),
        ("claude-opus-4-7", 2048),
        ("claude-mythos-preview", 2048),
        ("claude-opus-4-6", 4096),
        ("claude-sonnet-4-6", 1024),
        ("claude-opus-4-5-20251101", 4096),
        ("claude-sonnet-4-5", 1024),
        ("claude-haiku-4-5", 4096),
        ("claude-3-5-haiku-20241022", 2048),
        ("claude-nobody-knows-9", 4096),
        ("glm-5", None),
    ],
)
def test_the_shortest_prefix_is_the_models_own(model: str, least: int | None) -> None:
    """The vendor's table of November 2026; of models that are newer the most is assumed."""
    assert traits_of(model).least_cached == least


def test_a_body_in_the_vendors_own_shape_is_marked_too() -> None:
    """Texts in place of blocks, tools that are looked up later; the given body stays as it is."""
    deferred = {"name": "later", "input_schema": {}, "defer_loading": True}
    body = {
        "system": LONG,
        "tools": [{"name": "look", "description": LONG, "input_schema": {}}, deferred],
        "messages": [{"role": "user", "content": "a"}],
    }
    before = json.dumps(body)
    found = auto_marks(body, 1024)
    assert json.dumps(body) == before
    assert marks({**body, **found}) == [("tools.0", HOUR), ("system.0", HOUR), ("messages.0.0", MINUTES)]
    assert found["messages"][0]["content"] == [{"type": "text", "text": "a", "cache_control": MINUTES}]
    inner = {"type": "tool_result", "content": [{"type": "text", "text": "x", "cache_control": MINUTES}]}
    assert auto_marks({**body, "messages": [{"role": "user", "content": [inner]}]}, 1024) == {}
    assert auto_marks({"messages": []}, 1024) == auto_marks({}, 1) == {}


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("anthropic/claude-")])
def test_the_bound_of_every_shipped_price_covers_a_write_for_an_hour(name: str) -> None:
    """It costs twice the input; of models that are gone the list has no such price."""
    price = SHIPPED[name]
    if price.retired is not None:
        return
    assert price.input is not None
    assert (price.cache_write_1h, price.cache_write) == (2 * price.input, 1.25 * price.input)
    rates = Rates.of(price)
    for size in (2_000, 150_000):
        cost = rates.cost(Tokens(cache_write=size, cache_write_1h=size, output=10))
        assert cost is not None
        assert (rates.upper_bound(size, 10, may_search=False) or 0) >= cost.total


def test_a_route_turns_it_on_for_providers_that_have_it() -> None:
    """Others are as they were."""
    other = Provider()
    assert (OFF.caching("auto"), other.caching("auto")) == (AUTO, other)


def test_what_a_client_of_messages_sends_is_marked_too() -> None:
    """It is the client's otherwise. One with a mark of its own, and one that only counts tokens, stay as they are."""
    body = {"model": "x", "max_tokens": 9, "odd": [1.50], "system": LONG, "messages": said("a", "b", "c")}

    def asked(provider: Provider, path: str = "/messages", **more: Any) -> tuple[dict[str, Any], list[str]]:
        raw = json.dumps(body | more).encode()
        native = NativeBody(dialect="anthropic", path=path, body=raw)
        found = build(provider, replace(request(), native=native, size=len(raw)), MODEL)
        return json.loads(found.http.body), found.adapted

    marked, adapted = asked(AUTO)
    assert marks(marked) == [("system.0", HOUR), ("messages.0.0", MINUTES), ("messages.2.0", MINUTES)]
    assert adapted == ["cache_control"]
    assert {**marked, "system": LONG, "messages": body["messages"]} == {**body, "model": MODEL}
    own = [{"type": "text", "text": LONG, "cache_control": MINUTES}]
    for provider, path, more in (
        (OFF, "/messages", {}),
        (AUTO, "/messages", {"system": own}),
        (AUTO, "/messages", {"system": "short"}),
        (AUTO, "/messages/count_tokens", {}),
    ):
        assert asked(provider, path, **more) == ({**body, **more, "model": MODEL}, [])
