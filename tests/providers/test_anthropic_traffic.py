"""Rules that recorded traffic of Anthropic's API taught: what the vendor and the gateways before it do beside its
documentation.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from anthropic.types import MessageCreateParams
from msgspec.structs import replace

from proxy.providers.base.contract import HTTPResponse
from proxy.schema.chat import KeptReasoning
from proxy.schema.errors import BadRequest, UpstreamError, UpstreamTruncated
from proxy.schema.json import encode
from proxy.schema.records import Tokens
from proxy.schema.sse import Event
from proxy.server.formats.chat import decode_chat
from tests.providers.corpus import asked, call, result, tool, user
from tests.providers.sdk_types import wrong
from tests.providers.test_anthropic import ALWAYS, ANTHROPIC, BUDGET, LATER, NEW, built, sent
from tests.providers.test_anthropic_answers import COUNTS, decoded, message, parsed, restreamed, use, words

SIGNED = {"type": "thinking", "thinking": "One.", "signature": "a"}
STOP = {"type": "message_stop"}
OLDEST = "claude-3-5-haiku-20241022"  # does not think


# --- streams ----------------------------------------------------------------------------------------------------------


def start(body: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message_start", "message": body}


def test_a_stream_may_be_a_whole_answer_in_its_start():
    """So come the calls that the vendor's code execution makes: with their content, their end and their counts."""
    body = message(use(arguments={"city": "Oslo"}), stop="tool_use", container={"id": "c"})
    assert decoded([start(body), STOP]) == parsed(body)
    assert decoded([start(body), STOP])["choices"][0]["finish_reason"] == "tool_calls"
    with pytest.raises(UpstreamTruncated):
        decoded([start(body)])
    assert decoded([start(message(words("a"), stop=None)), STOP])["choices"][0]["finish_reason"] == "stop"
    with pytest.raises(UpstreamTruncated):
        decoded([start(message(stop=None)), STOP])


def test_a_second_answer_inside_a_stream_is_an_error():
    """A gateway that tries again leaves half a call behind: neither of the two is whole. The same start is no harm."""
    events = restreamed(message(use(arguments={"city": "Oslo"}), stop="tool_use"))
    again = {**events[0], "message": {**events[0]["message"], "id": "msg_2"}}
    with pytest.raises(UpstreamError) as caught:
        decoded([*events[:4], again, *events[1:]])
    assert caught.value.retryable
    assert decoded([*events[:4], events[0], *events[4:]]) == decoded(events)


def test_the_last_signature_of_a_thought_counts():
    """As in the vendor's own client; an empty one changes nothing."""
    events = restreamed(message(SIGNED, words("a")))
    place = next(n for n, event in enumerate(events) if event.get("delta", {}).get("type") == "signature_delta")
    more = [{**events[place], "delta": {"type": "signature_delta", "signature": each}} for each in ("z", "a", "")]
    assert decoded([*events[:place], *more, *events[place + 1 :]]) == decoded(events)


# --- what is billed ---------------------------------------------------------------------------------------------------


def test_what_it_took_to_summarize_the_conversation_is_billed():
    """The vendor leaves it out of its counts, and so does the usage that is shown."""
    own = {"type": "message", "input_tokens": 3, "output_tokens": 2}
    compaction = {
        "type": "compaction",
        "input_tokens": 100,
        "output_tokens": 20,
        "cache_creation_input_tokens": 50,
        "cache_read_input_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
    }
    passes = [compaction, own]
    body = message(words("a"), usage={**COUNTS, "iterations": passes})
    for answer in (parsed(body), decoded(restreamed(body))):
        usage: Any = answer["usage"]
        assert (usage.shown["prompt_tokens"], usage.shown["completion_tokens"]) == (3, 2)
        billed = Tokens(input=103, output=22, cache_write=50, cache_read=7, cache_write_1h=30)
        assert usage.billed == billed
    odd: Any = parsed(message(words("a"), usage={**COUNTS, "iterations": [{"type": "compaction"}, 1]}))["usage"]
    assert odd.billed == Tokens(input=3, output=2)


def test_what_another_model_used_for_the_answer_is_told_apart():
    """An advisor's passes are billed at its own price, and are in none of the vendor's counts."""
    own = {"type": "message", "input_tokens": 3, "output_tokens": 2}
    advice = {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 50, "output_tokens": 7}
    usage: Any = parsed(message(words("a"), usage={**COUNTS, "iterations": [own, advice, advice, own]}))["usage"]
    assert (usage.shown["prompt_tokens"], usage.shown["completion_tokens"]) == (3, 2)
    found = usage.billed
    assert found == Tokens(input=3, output=2, others=(("claude-opus-4-8", Tokens(input=50, output=7)),) * 2)
    assert (found.prompt, found.total) == (3, 5)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{"message": "Input is too long."}, {"error": "Input is too long."}])
def test_clouds_say_their_errors_in_other_forms(body: Any):
    """Without an `error` object: what they say is what the client reads."""
    error = ANTHROPIC.parse_error(HTTPResponse(400, {}, json.dumps(body).encode()))
    assert (error.message, error.code, error.status) == ("Input is too long.", "context_length_exceeded", 400)


def test_an_organizations_id_does_not_leave_and_the_word_does():
    """As the vendor says them when its limits are reached."""
    said = "exceeds your organization's limit (org: 00000000-1111-2222-3333-444444444444, model: x)"
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": said}}
    error = ANTHROPIC.parse_error(HTTPResponse(429, {}, json.dumps(body).encode()))
    assert error.message == "exceeds your organization's limit (org: [redacted], model: x)"


# --- thinking, in the vendor's own words ------------------------------------------------------------------------------

ENABLED = {"type": "enabled", "budget_tokens": 3000}


@pytest.mark.parametrize(
    ("model", "given", "expected", "adapted"),
    [
        (BUDGET, ENABLED, ENABLED, []),
        (BUDGET, {"type": "enabled"}, {"type": "enabled", "budget_tokens": 2048}, ["thinking"]),
        (BUDGET, {"type": "enabled", "budget_tokens": 10}, {"type": "enabled", "budget_tokens": 1024}, ["thinking"]),
        (BUDGET, {"type": "enabled", "budget_tokens": 9000}, {"type": "enabled", "budget_tokens": 4000}, ["thinking"]),
        (BUDGET, {"type": "adaptive"}, {"type": "enabled", "budget_tokens": 2048}, ["thinking"]),
        (BUDGET, {"type": "disabled"}, {"type": "disabled"}, []),
        ("claude-sonnet-4-6", ENABLED, ENABLED, []),
        (LATER, ENABLED, {"display": "summarized", "type": "adaptive"}, ["thinking"]),
        (NEW, {**ENABLED, "display": "omitted"}, {"display": "omitted", "type": "adaptive"}, ["thinking"]),
        (NEW, {"type": "disabled"}, {"type": "disabled"}, []),
        (ALWAYS, {"type": "disabled"}, None, ["thinking"]),
        (OLDEST, {"type": "disabled"}, None, []),
    ],
)
def test_thinking_goes_out_as_the_model_takes_it(model: str, given: Any, expected: Any, adapted: list[str]):
    """Some refuse a budget, others want one with room for the answer, some cannot stop."""
    answer = built(model=model, thinking=given, max_tokens=8000)
    body = json.loads(answer.http.body)
    assert (body.get("thinking"), answer.adapted, answer.dropped) == (expected, adapted, [])
    assert wrong(body, MessageCreateParams) == []


def test_options_of_thinking_that_the_vendor_lacks_are_dropped():
    """Also where nothing else is said; what other vendors' models take is theirs to know."""
    answer = built(model=NEW, thinking={"type": "adaptive", "clear_thinking": False})
    assert json.loads(answer.http.body)["thinking"] == {"type": "adaptive"}
    assert answer.dropped == ["thinking.clear_thinking"]
    nothing = built(model=NEW, thinking={"clear_thinking": False}, reasoning_effort="low")
    assert json.loads(nothing.http.body)["output_config"] == {"effort": "low"}
    assert nothing.dropped == ["thinking"]
    assert built(model=OLDEST, thinking=ENABLED).dropped == ["thinking"]
    assert sent(model="glm-5", thinking={"type": "x", "y": 1})["thinking"] == {"type": "x", "y": 1}
    for odd in ({"type": "x"}, {"type": [1]}, {"type": "enabled", "budget_tokens": "x"}):
        with pytest.raises(BadRequest) as caught:
            built(model=BUDGET, thinking=odd)
        assert str(caught.value.param).startswith("thinking.")


def test_a_budget_that_is_given_up_is_reported_under_its_own_name():
    """And no budget fits into a limit as small as the smallest."""
    forced = built(model=BUDGET, thinking=ENABLED, tools=[tool()], tool_choice="required")
    small = built(model=BUDGET, thinking=ENABLED, max_tokens=1024)
    for answer in (forced, small):
        assert "thinking" not in json.loads(answer.http.body)
        assert answer.adapted == ["thinking"]


def test_a_version_may_have_a_point():
    """Gateways write it so: the model takes what it takes."""
    for model in ("claude-haiku-4-5", "anthropic/claude-haiku-4.5"):
        body = sent(model=model, temperature=0.5, reasoning_effort="low", max_tokens=9000)
        assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert sent(model="claude-haiku-4.5", temperature=0.5)["temperature"] == 0.5


# --- history ----------------------------------------------------------------------------------------------------------


def blocks_of(*messages: Any, kept: dict[str, Any] | None = None, **fields: Any) -> list[dict[str, Any]]:
    """Those of the first assistant turn."""
    request = decode_chat(encode({"model": "x", "messages": list(messages), "tools": [tool()], **fields}))
    states = {name: KeptReasoning("anthropic", NEW, state) for name, state in (kept or {}).items()}
    body = json.loads(ANTHROPIC.build_request(replace(request, kept=states), NEW).http.body)
    found: list[dict[str, Any]] = body["messages"][1]["content"]
    return found


def test_a_thought_between_two_calls_goes_back_between_them():
    """Whether the client sends it back or not: its signature is valid only there."""
    second = {"type": "thinking", "thinking": "Two.", "signature": "b"}
    hidden = {"type": "redacted_thinking", "data": "c"}
    other = use(id="toolu_2")
    body = message(SIGNED, words("So."), use(), second, hidden, other, stop="tool_use")
    for answer in (parsed(body), decoded(restreamed(body))):
        said: Any = answer["choices"][0]["message"]
        plain = {name: said[name] for name in ("role", "content", "tool_calls")}
        results = [result("toolu_1"), result("toolu_2")]
        echoed = blocks_of(user("x"), said, *results)
        assert echoed == blocks_of(user("x"), plain, *results, kept=ANTHROPIC.reasoning_state(said))
        assert echoed == [SIGNED, words("So."), use(), second, hidden, other]
        fewer = {**said, "tool_calls": said["tool_calls"][:1]}
        assert blocks_of(user("x"), fewer, results[0]) == [SIGNED, words("So."), use()]


def test_thoughts_in_the_content_are_read_where_they_are_signed():
    """Some clients send them so; those of other vendors are dropped, and the parts after them keep their places."""
    parts: list[dict[str, Any]] = [SIGNED, {"type": "text", "text": "So."}]
    mine = {**asked(call("a")), "content": parts}
    assert [block["type"] for block in blocks_of(user("x"), mine, result("a"))] == ["thinking", "text", "tool_use"]
    theirs = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    answer = built(user("x"), {**mine, "content": [theirs, parts[1]]}, result("a"), model=NEW, tools=[tool()])
    assert json.loads(answer.http.body)["messages"][1]["content"][0] == words("So.")
    assert answer.dropped == ["messages.content.thinking"]
    with pytest.raises(BadRequest) as caught:
        built(user("x"), {"role": "assistant", "content": [SIGNED, {"type": "audio"}]}, user("y"), model=NEW)
    assert caught.value.param == "messages.1.content.1.type"


def test_what_a_message_says_beyond_its_role_is_reported():
    """Echoes of our own answers are no loss."""
    said = {"role": "assistant", "content": "a", "weight": 1, "audio": {"id": "x"}, "reasoning_content": "b"}
    answer = built(user("x"), {**said, "annotations": []}, user("y"), model=NEW)
    assert answer.dropped == ["messages.weight", "messages.audio"]


def test_a_documents_own_options_go_with_it():
    """Its citations come back in the answer."""
    pdf = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"}}
    body = sent(user([{**pdf, "citations": {"enabled": True}, "context": "From 2026."}]), model=NEW)
    block = body["messages"][0]["content"][0]
    assert (block["title"], block["context"], block["citations"]) == ("a.pdf", "From 2026.", {"enabled": True})
    assert wrong(body, MessageCreateParams) == []


# --- the vendor's own tools -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "native",
    [
        {"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"},
        {"type": "tool_search_tool_regex", "name": "tool_search_tool_regex"},
        {"type": "mcp_toolset", "mcp_server_name": "x"},
        {"type": "memory_20250818", "name": "memory"},
    ],
)
def test_the_vendors_own_tools_pass_as_they_are(native: dict[str, Any]):
    """Also those whose type has no date, or digits before it."""
    assert sent(model=NEW, tools=[tool(), native])["tools"][1] == native


def test_the_calls_of_the_vendors_own_tools_keep_their_names():
    """The client runs some of them. A function of the same name has another one."""
    memory = {"type": "memory_20250818", "name": "memory"}
    history = (user("x"), asked(call("a", name="memory")), result("a"))
    assert sent(*history, model=NEW, tools=[memory])["messages"][1]["content"][0]["name"] == "memory"
    both = sent(*history, model=NEW, tools=[memory, tool("memory")])
    assert [each["name"] for each in both["tools"]] == ["memory", "memory_2"]
    chosen = {"type": "function", "function": {"name": "memory"}}
    assert sent(model=NEW, tools=[memory], tool_choice=chosen)["tool_choice"] == {"type": "tool", "name": "memory"}


# --- schemas that are too large ---------------------------------------------------------------------------------------


def strict(name: str, optional: int = 0, unions: int = 0) -> dict[str, Any]:
    properties = {f"o{n}": {"type": "string"} for n in range(optional)}
    nullable = {f"u{n}": {"type": ["string", "null"]} for n in range(unions)}
    schema = {"type": "object", "properties": properties | nullable, "required": list(nullable)}
    return {"type": "function", "function": {"name": name, "strict": True, "parameters": schema}}


OPEN = strict("open")
OPEN["function"]["parameters"] = {"type": "object", "properties": {"any": {}}, "required": ["any"]}


@pytest.mark.parametrize(
    ("tools", "kept"),
    [
        ([strict(each, optional=8, unions=5) for each in "abc"], ["a", "b", "c"]),
        ([strict(each, optional=10) for each in "abc"] + [strict("d", optional=4)], ["a", "b", "d"]),
        ([strict("a", unions=15), strict("b", unions=2), strict("c", unions=1)], ["a", "c"]),
        ([strict("a", unions=16), strict("b", optional=11), strict("c")], ["c"]),
        ([strict("a", unions=1), OPEN], ["a"]),
        ([strict(f"t{n}") for n in range(21)], [f"t{n}" for n in range(20)]),
    ],
)
def test_more_strict_tools_than_the_vendor_compiles_are_not_all_strict(tools: list[Any], kept: list[str]):
    """ "Schemas contains too many optional parameters", "Schema is too complex": as many stay strict as it takes."""
    answer = built(model=NEW, tools=tools)
    found = json.loads(answer.http.body)["tools"]
    assert [each["name"] for each in found if each.get("strict")] == kept
    assert len(found) == len(tools)
    assert answer.dropped == (["tools.strict"] if len(kept) < len(tools) else [])


def test_a_format_that_is_too_large_is_asked_for_in_words():
    """And checked by others. A smaller one stands above strict tools, whose limits it shares."""
    large = {"name": "x", "schema": strict("x", unions=17)["function"]["parameters"]}
    answer = built(model=NEW, response_format={"type": "json_schema", "json_schema": large})
    body = json.loads(answer.http.body)
    assert "output_config" not in body
    assert "u16" in body["system"][0]["text"]
    assert (answer.adapted, answer.unchecked_json) == (["response_format"], True)
    small: dict[str, Any] = {
        "name": "x",
        "schema": {"type": "object", "properties": {"items": {"type": "array", "items": {}}}},
    }
    small["schema"]["properties"]["items"]["items"] = strict("x", unions=10)["function"]["parameters"]
    shared = built(
        model=NEW, response_format={"type": "json_schema", "json_schema": small}, tools=[strict("a", unions=7)]
    )
    body = json.loads(shared.http.body)
    assert "format" in body["output_config"]
    assert "strict" not in body["tools"][0]
    assert shared.dropped == ["tools.strict"]


def test_an_event_may_say_its_type_in_its_name_alone():
    """The end of a stream as some gateways write it."""
    events = restreamed(message(words("a")))
    bare = [Event(str(event["type"]), json.dumps({**event, "type": None}).encode()) for event in events]
    assert decoded(bare) == decoded(events)
