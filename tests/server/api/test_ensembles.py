"""What all ensembles share, through real sockets: names, members, money, streams, errors. `First` decides."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.ensembles.first import STRATEGIES
from tests.server.api.raw import Answer, chat, post
from tests.server.api.rows import calls, row_of
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

TEN = " ".join(f"tok{place}" for place in range(10))  # what the mode `ok` says
PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, max_output: 4096}
  other/*: {input: 2.00, output: 10.00, max_output: 4096}
  fake/dear: {input: 200.00, output: 1000.00, max_output: 4096}
  fake/blind: {input: 2.00, output: 10.00, supports: []}
"""
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  other: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  off: {{type: openai, base_url: "https://off.example/v1", api_key_env: NOBODY_HAS_THIS_KEY}}
router: {{default_model: fake/ok, fallback: [other/ok]}}
models:
  panel: {{use: "ensemble:pair"}}
  off: off/x
aliases: {{alias: "ensemble:pair"}}
ensembles:
  enabled: true
  pair: {{strategy: first, members: [fake/ok, {{use: other/echo, weight: 2, temperature: 0.5, max_tokens: 40}}]}}
  outer: {{strategy: first, members: ["ensemble:pair", panel, fake/ok]}}
  picked: {{strategy: first}}
  gone: {{strategy: first, members: [off/x, off, fake/echo]}}
  tail: {{strategy: first, members: [fake/ok, other/ok], last: fake/echo}}
  limited: {{strategy: first, members: [fake/ok, other/ok], max_cost_usd: 0.01}}
rules:
  - {{name: careful, when: {{accuracy_critical: true}}, use: {{ensemble: pair}}}}
keys:
  narrow: {{models: ["fake/*"]}}
  by_name: {{models: ["ensemble:pair"]}}
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ensembles") / "usage.db"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    """Keyless, with ensembles of the strategy `first`."""
    files = write_files(database.parent, upstream_of_module.url, ROUTING, PRICING)
    async with serving(files, strategies=STRATEGIES) as running:
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(server: Server, model: str = "ensemble:pair", panel: dict[str, Any] | None = None, **fields: Any) -> Any:
    """The answer of an ensemble; `panel`: keys of the hint `ensemble`."""
    routing = {**fields.pop("routing", {}), **({"ensemble": panel} if panel is not None else {})}
    return await post(
        server.port, chat(model, **{"max_tokens": 20, **fields}, **({"routing": routing} if routing else {}))
    )


def members(*names: Any, **keys: Any) -> dict[str, Any]:
    return {"strategy": "first", "models": [*names], **keys}


def said(answer: Answer) -> dict[str, Any]:
    """`routing.ensemble`, of a whole answer or at the end of a stream."""
    assert answer.status == 200, answer.bytes[-900:]
    last = answer.events[-2] if answer.headers("content-type")[0].startswith("text/event") else answer.json
    return dict(last["routing"]["ensemble"])


def outcomes(answer: Answer) -> list[tuple[str, str]]:
    return [(each["model"], each["outcome"]) for each in said(answer)["members"]]


def text_of(answer: Answer) -> str:
    """The text that the chunks of a stream add up to."""
    deltas = [chunk["choices"][0]["delta"] for chunk in answer.events[:-1] if chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ensemble:pair", "alias", "panel"])
async def test_an_ensemble_answers_by_each_name_that_leads_to_it(server: Server, name: str) -> None:
    """`model` is the name that was asked for."""
    answer = await ask(server, name)
    assert outcomes(answer) == [("fake/ok", "ok"), ("other/echo", "ok")]
    assert answer.json["model"] == name
    assert answer.json["choices"][0]["message"]["content"] == TEN


async def test_the_list_of_models_has_the_ensembles(server: Server) -> None:
    """Beside the other virtual names."""
    listed = await server.client.models.list()
    names = [each.id for each in listed.data]
    assert {"ensemble:pair", "ensemble:picked", "alias", "panel"} <= {*names}
    card: Any = await server.client.models.retrieve("ensemble:pair")
    assert (card.owned_by, card.asks, card.pricing) == ("ensemble", ["fake/ok", "other/echo"], None)


async def test_an_unknown_ensemble_is_refused_with_all_that_exist(server: Server, upstream: FakeUpstream) -> None:
    """404, as for a model."""
    answer = await ask(server, "ensemble:pare")
    error = answer.error()
    assert (answer.status, error["code"]) == (404, "model_not_found")
    assert "Did you mean ensemble:pair?" in error["message"]
    assert "Ensembles: ensemble:pair, ensemble:outer, ensemble:picked" in error["message"]
    assert upstream.ledger == []


async def test_an_ensemble_may_be_a_member(server: Server, upstream: FakeUpstream) -> None:
    """By its name, and by one that leads to it. The report nests, and every ask has a seat of its own."""
    answer = await ask(server, "ensemble:outer")
    report = said(answer)
    assert [each["outcome"] for each in report["members"]] == ["ok"] * 3
    inner = report["members"][0]["ensemble"]
    assert [each["model"] for each in inner["members"]] == ["fake/ok", "other/echo"]
    assert inner["strategy"] == "first"
    assert len(upstream.ledger) == 5
    assert report["members"][0]["cost_usd"] == pytest.approx(sum(each["cost_usd"] for each in inner["members"]))


async def test_a_rule_chooses_an_ensemble(server: Server, database: Path) -> None:
    """For `auto`; the row names rule, ensemble and strategy."""
    answer = await ask(server, "auto", routing={"accuracy_critical": True})
    row = await row_of(database, answer)
    assert (row["rule"], row["ensemble"], row["strategy"]) == ("careful", "pair", "first")
    assert answer.json["model"] == "auto"
    assert answer.headers("x-proxy-strategy") == ["first"]


# --- members ----------------------------------------------------------------------------------------------------------


async def test_a_member_has_its_own_parameters(server: Server, upstream: FakeUpstream) -> None:
    """They replace those of the request; the limit of the answer never rises. Hints and `stream` are not handed on."""
    panel = members({"use": "fake/echo", "temperature": 0.5, "seed": 3, "max_tokens": 9, "weight": 2}, "other/echo")
    answer = await ask(server, panel=panel, temperature=1.0, max_tokens=2000, top_p=0.5)
    sent = json.loads(answer.json["choices"][0]["message"]["content"])
    assert (sent["temperature"], sent["seed"], sent["top_p"]) == (0.5, 3, 0.5)
    assert sent.get("max_tokens") == 9
    assert not {"routing", "stream", "n"} & set(sent)
    assert [each["weight"] for each in said(answer)["members"]] == [2.0, 1.0]


async def test_a_model_with_several_seats_answers_differently_in_each(server: Server) -> None:
    """Other seeds and temperatures, unless they are given. The report says that it is one model."""
    answer = await ask(server, panel=members(*["fake/echo"] * 3, min_answers=3))
    assert said(answer)["same_deployment"] == ["fake/echo"]
    picked = await ask(server, panel=members("fake/echo", {"use": "fake/echo"}, min_answers=2), seed=7)
    assert said(picked)["members"][1]["outcome"] == "ok"


async def test_without_members_the_router_picks_diverse_ones(server: Server) -> None:
    """Other providers first; then the same again."""
    report = said(await ask(server, "ensemble:picked"))
    assert [each["deployment"] for each in report["members"]] == ["fake/ok", "other/ok", "fake/ok"]


async def test_members_that_cannot_be_called_are_replaced(server: Server) -> None:
    """And named, with the reason and what has their place."""
    report = said(await ask(server, "ensemble:gone"))
    assert [each["deployment"] for each in report["members"]] == ["fake/echo", "fake/ok", "other/ok"]
    assert [(each["model"], each["instead"]) for each in report["left_out"]] == [
        ("off/x", "fake/ok"),
        ("off", "other/ok"),
    ]
    assert "NOBODY_HAS_THIS_KEY" in report["left_out"][0]["why"]
    report = said(await ask(server, panel={"models": ["off/x", "fake/echo"]}))
    assert [each["deployment"] for each in report["members"]] == ["fake/echo", "fake/ok"]


async def test_a_model_can_be_its_own_panel(server: Server) -> None:
    """Any other name with the hint `ensemble`: it has all seats."""
    answer = await ask(server, "fake/ok", {"strategy": "first", "size": 2})
    assert outcomes(answer) == [("fake/ok", "ok")] * 2
    assert answer.json["model"] == "fake/ok"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"panel": {"strategy": "frist"}}, "routing.ensemble.strategy", "Did you mean first?"),
        ({"panel": {"enuogh": 1}}, "routing.ensemble.enuogh", "Did you mean enough"),
        ({"panel": {"size": 0}}, "routing.ensemble.size", "expected `int` >= 1"),
        ({"panel": {"members": [{"usee": "x"}]}}, "routing.ensemble.members.0", "usee"),
        ({"panel": {"members": [" "]}}, "routing.ensemble.members.0", "must not be empty"),
        ({"panel": {"models": ["a"], "members": ["b"]}}, "routing.ensemble.models", "a synonym"),
        ({"panel": {"models": ["fake/ok"] * 17}}, "routing.ensemble.models", "at most 16"),
        ({"panel": {"models": ["fake/ok", "nowhere/x"]}}, "routing.ensemble", "'nowhere/x' does not exist"),
        ({"panel": {"models": ["ensemble:piar"]}}, "routing.ensemble", "Did you mean ensemble:pair?"),
        ({"panel": {"models": [{"use": "auto:fast"}]}}, "routing.ensemble", "There is no route 'auto:fast'"),
        ({"panel": {"last": "nowhere/judge"}}, "routing.ensemble", "'nowhere/judge' does not exist"),
        ({"model": "auto", "panel": members("nowhere/x")}, "routing.ensemble", "'nowhere/x' does not exist"),
        ({"panel": members("fake/ok", "other/ok", min_answers=3)}, "routing.ensemble.min_answers", "there are 2 seats"),
        ({"model": "fake/ok", "panel": {}}, "routing.ensemble.strategy", "is missing"),
        ({"n": 2}, "n", "one answer"),
        ({"n": 2, "stream": True}, "n", "one answer"),
        ({"routing": {"fallback": ["fake/ok"]}}, "routing.fallback", "is an ensemble"),
        (
            {"model": "auto", "routing": {"preferred_model": "ensemble:pair"}},
            "routing.preferred_model",
            "is an ensemble",
        ),
    ],
)
async def test_bad_input_is_refused_and_named(
    server: Server, upstream: FakeUpstream, fields: dict[str, Any], param: str, message: str
) -> None:
    """400, before anything is asked."""
    answer = await ask(server, **fields)
    error = answer.error()
    assert (answer.status, error["param"]) == (400, param), error
    assert message in error["message"]
    assert upstream.ledger == []


async def test_a_member_without_a_capability_is_refused_by_name(server: Server, upstream: FakeUpstream) -> None:
    """Images, tools and JSON schemas, by what pricing.yaml says."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}]}]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    for fields in ({"tools": tools}, {"messages": picture}, {"response_format": schema}):
        answer = await ask(server, panel=members("fake/ok", "fake/blind"), **fields)
        assert (answer.status, answer.error()["code"]) == (400, "unsupported_content")
        assert "its member fake/blind does not" in answer.error()["message"]
    assert upstream.ledger == []


async def test_a_member_may_be_a_route(server: Server) -> None:
    """The router decides for each seat. A conversation does not hold the seats anywhere."""
    answer = await ask(server, panel=members("auto", "auto:code", "other/ok"), prompt_cache_key="one conversation")
    assert [each["deployment"] for each in said(answer)["members"]] == ["fake/ok", "fake/ok", "other/ok"]


async def test_a_rule_cannot_lead_an_ensemble_to_itself(server: Server, upstream: FakeUpstream) -> None:
    """A seat of `auto` is answered by a model, whatever rule its question matches."""
    panel = members("auto", "other/ok")
    answer = await ask(server, "auto", panel, routing={"accuracy_critical": True})
    assert [each["deployment"] for each in said(answer)["members"]] == ["fake/ok", "other/ok"]
    assert len(upstream.ledger) == 2


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "code"),
    [
        ("e500", "upstream_error"),
        ("cut_fin", "upstream_truncated"),
        ("json_in_200_error", "upstream_error"),
        ("stall_after(k=0)", "upstream_timeout"),
        ("e429", "rate_limit_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.sampled(4)
async def test_one_member_that_fails_does_not_fail_the_call(
    server: Server, database: Path, mode: str, code: str, stream: bool
) -> None:
    """As long as the quorum stands. What it used is in its own row."""
    panel = members(f"fake/{mode}", "other/ok", "fake/ok", member_timeout_s=3 if mode.startswith("stall") else 30)
    answer = await ask(server, panel=panel, stream=stream)
    assert outcomes(answer) == [(f"fake/{mode}", code), ("other/ok", "ok"), ("fake/ok", "ok")]
    row = await row_of(database, answer)
    assert (row["outcome"], row["attempts"]) == ("ok", 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_missed_quorum_lists_each_reason(server: Server, database: Path, stream: bool) -> None:
    """502 before the headers are out. What was used is metered."""
    panel = members("fake/e500", "other/cut_fin", "fake/ok", min_answers=2)
    answer = await ask(server, panel=panel, stream=stream)
    error = answer.error()
    assert (answer.status, error["code"]) == (502, "ensemble_quorum_missed")
    reasons = {(each["model"], each["code"]) for each in error["members"]}
    assert reasons == {("fake/e500", "upstream_error"), ("other/cut_fin", "upstream_truncated")}
    row = await row_of(database, answer)
    assert (row["error_code"], row["outcome"], row["attempts"]) == ("ensemble_quorum_missed", "upstream_error", 3)
    assert row["cost_nano"] > 0


async def test_a_missed_quorum_is_the_last_frame_once_headers_are_out(server: Server) -> None:
    """Progress has been sent by then."""
    panel = members("fake/e500", "other/e503", "fake/ok", min_answers=2)
    answer = await ask(server, panel=panel, stream=True, routing={"progress": True})
    assert answer.status == 200
    assert answer.events[-1]["error"]["code"] == "ensemble_quorum_missed"
    assert len(answer.events[-1]["error"]["members"]) == 2


async def test_a_request_that_all_members_refuse_is_a_bad_request(server: Server, upstream: FakeUpstream) -> None:
    """Another panel would refuse it as well."""
    answer = await ask(server, panel=members("fake/context_length", "other/context_length"))
    assert (answer.status, answer.error()["code"]) == (400, "context_length_exceeded")
    assert len(upstream.ledger) == 2


@pytest.mark.parametrize(
    ("last", "stream", "status", "code"),
    [
        ("fake/e500", False, 502, "upstream_error"),
        ("fake/e500", True, 502, "upstream_error"),
        ("fake/cut_fin(k=0)", True, 502, "upstream_truncated"),
        ("fake/cut_fin(k=4)", True, 200, "upstream_truncated"),
        ("fake/sse_error(k=4)", True, 200, "upstream_error"),
    ],
)
async def test_a_last_model_that_fails_ends_the_answer(
    server: Server, database: Path, last: str, stream: bool, status: int, code: str
) -> None:
    """With its own status before its first delta; after it as the last frame, without a finish. All is metered."""
    answer = await ask(server, panel=members("fake/ok", "other/ok", last=last), stream=stream)
    assert answer.status == status
    error = answer.error() if status != 200 else answer.events[-1]["error"]
    assert error["code"] == code
    if status == 200:
        assert text_of(answer).startswith("tok0 tok1 tok2")
        assert b"[DONE]" not in answer.body
    row = await row_of(database, answer)
    assert (row["error_code"], row["attempts"]) == (code, 3)
    assert row["cost_nano"] >= 2 * 100_000


async def test_members_no_longer_needed_are_cancelled(server: Server, upstream: FakeUpstream, database: Path) -> None:
    """Within 250 ms, with a row of their own."""
    answer = await ask(server, panel=members("fake/ok", "other/ok", "fake/blackhole", enough=2))
    assert outcomes(answer)[2] == ("fake/blackhole", "cancelled")
    await upstream.until(lambda: upstream.open == 0)
    row = await row_of(database, answer)
    assert (row["outcome"], row["attempts"]) == ("ok", 3)


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_decided_answer_streams_to_its_exact_text(server: Server) -> None:
    """As OpenAI's SDK puts it together. Each chunk has a choice if no usage chunk was asked for: the report comes with
    the finish.
    """
    options: Any = {"model": "ensemble:pair", "messages": [{"role": "user", "content": "one two three"}]}
    async with server.client.beta.chat.completions.stream(**options) as events:
        chunks: list[Any] = [event.chunk async for event in events if event.type == "chunk"]
        final = await events.get_final_completion()
    assert final.choices[0].message.content == TEN
    assert final.choices[0].finish_reason == "stop"
    assert {chunk.model for chunk in chunks} == {"ensemble:pair"}
    assert {len(chunk.choices) for chunk in chunks} == {1}
    assert chunks[-1].usage.completion_tokens > 10
    assert chunks[-1].routing["ensemble"]["name"] == "ensemble:pair"


async def test_a_long_answer_and_tool_calls_stream_as_they_are(server: Server) -> None:
    """The stream of an ensemble adds up to its whole answer."""
    for mode in ("echo", "tools(n=2)-dup_ids", "reasoning(n=3)", "refusal"):
        panel = members(f"fake/{mode}", f"fake/{mode}")
        fields: Any = {"messages": [{"role": "user", "content": "word ä " * 1500}], "max_tokens": 4000}
        if mode.startswith("tools"):
            fields["tools"] = [{"type": "function", "function": {"name": "say", "parameters": {"type": "object"}}}]
        whole = await ask(server, panel=panel, **fields)
        options = {**fields, "extra_body": {"routing": {"ensemble": panel}}}
        async with server.client.beta.chat.completions.stream(model="ensemble:pair", **options) as events:
            async for _ in events:
                pass
            streamed: Any = await events.get_final_completion()
        choice, message = whole.json["choices"][0], streamed.choices[0].message
        assert streamed.choices[0].finish_reason == choice["finish_reason"]
        assert (message.content or "") == (choice["message"]["content"] or "")
        assert (message.refusal or "") == (choice["message"].get("refusal") or "")
        called = [(call.id, call.function.arguments) for call in message.tool_calls or []]
        assert called == [(c["id"], c["function"]["arguments"]) for c in choice["message"].get("tool_calls") or []]


async def test_a_follower_streams_its_own_deltas(server: Server) -> None:
    """They are passed on as they come, in several chunks."""
    answer = await ask(server, "ensemble:tail", stream=True, max_tokens=50)
    assert outcomes(answer)[2] == ("fake/echo", "ok")
    assert json.loads(text_of(answer))["model"] == "echo"
    assert len([chunk for chunk in answer.events[:-1] if chunk["choices"]]) > 3
    whole = await ask(server, "ensemble:tail", max_tokens=50)
    assert json.loads(whole.json["choices"][0]["message"]["content"])["model"] == "echo"


async def test_progress_is_told_as_reasoning_when_asked_for(server: Server) -> None:
    """It is no part of the answer's text, nor of what is counted."""
    quiet = await ask(server, stream=True)
    told = await ask(server, stream=True, routing={"progress": True})
    thoughts = [chunk["choices"][0]["delta"].get("reasoning_content") for chunk in told.events[:-1] if chunk["choices"]]
    assert "".join(each for each in thoughts if each) == "1 of 2 answered\n2 of 2 answered\n"
    assert "reasoning_content" not in quiet.body.decode()
    assert text_of(told) == text_of(quiet) == TEN
    assert told.events[-2]["usage"]["cost"] == quiet.events[-2]["usage"]["cost"]


# --- money ------------------------------------------------------------------------------------------------------------


async def test_usage_adds_up_all_asks(server: Server, database: Path) -> None:
    """Losers and failures included; `by_model` tells what each model cost."""
    answer = await ask(server, panel=members("fake/ok", "other/ok(n_tokens=15)", "fake/ok"))
    usage = answer.json["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (9, 35)
    by_model = usage["cost_details"]["by_model"]
    assert by_model == pytest.approx({"fake/ok": 2 * (3 * 2e-6 + 10 * 1e-5), "other/ok(n_tokens=15)": 3 * 2e-6 + 15e-5})
    assert usage["cost"] == pytest.approx(sum(by_model.values()))
    assert sum(each["cost_usd"] for each in said(answer)["members"]) == pytest.approx(usage["cost"])
    row = await row_of(database, answer)
    assert (row["cost_nano"], row["output_tokens"]) == (round(usage["cost"] * 1e9), 35)


async def test_the_trace_has_every_ask_with_its_cost(server: Server) -> None:
    """The costs of its leaves add up to that of the answer. What an ask caused stands below it."""
    answer = await ask(server, "ensemble:tail", routing={"trace": True})
    attempts = answer.json["routing"]["attempts"]
    assert sum(each["cost_usd"] for each in attempts) == pytest.approx(answer.json["usage"]["cost"])
    assert answer.json["routing"]["ensemble"]["name"] == "ensemble:tail"
    groups = [each for each in attempts if "attempts" in each]
    assert [leaf["seat"] for group in groups for leaf in group["attempts"]][-1] == 2


async def test_usage_can_be_grouped_by_ensemble(server: Server) -> None:
    """Calls of no ensemble have none."""
    await ask(server, "ensemble:picked")
    answer: Any = await server.client.get("/usage?group_by=ensemble", cast_to=object)
    assert "picked" in {group["ensemble"] for group in answer["groups"]}


async def test_the_panel_shrinks_to_what_it_may_cost(server: Server, upstream: FakeUpstream) -> None:
    """The least weight first, then the dearest; what was left out is told."""
    light = {"use": "fake/ok", "weight": 0.5}
    panel = members(light, "fake/dear", "other/ok", "other/echo", max_cost_usd=0.01)
    answer = await ask(server, panel=panel)
    assert [model for model, _ in outcomes(answer)] == ["other/ok", "other/echo"]
    assert [each["model"] for each in said(answer)["left_out"]] == ["fake/ok", "fake/dear"]
    assert said(answer)["bound_usd"] <= 0.01
    assert len(upstream.ledger) == 2


async def test_the_request_limits_the_panel_as_well(server: Server) -> None:
    """`routing.max_cost_usd`. An answer without a limit gets one first, and the header says so."""
    answer = await ask(server, panel=members("fake/ok", "other/ok", "other/echo"), routing={"max_cost_usd": 0.02})
    assert len(outcomes(answer)) == 3
    capped = await ask(server, panel=members("fake/ok", "other/ok"), routing={"max_cost_usd": 0.05}, max_tokens=None)
    assert capped.headers("x-proxy-adapted-params") == ["max_completion_tokens"]
    assert said(capped)["bound_usd"] <= 0.05


async def test_a_panel_that_cannot_be_small_enough_is_refused(server: Server, upstream: FakeUpstream) -> None:
    """402, with the least that it may cost. A client cannot raise the limit of the file."""
    answer = await ask(server, panel=members("fake/ok", "other/ok"), routing={"max_cost_usd": 0.0001})
    assert (answer.status, answer.error()["code"]) == (402, "max_cost_exceeded")
    raised = await ask(server, "ensemble:limited", {"max_cost_usd": 5}, max_tokens=3000)
    assert (raised.status, raised.error()["code"]) == (402, "max_cost_exceeded")
    assert upstream.ledger == []


async def test_an_explanation_shows_the_panel(server: Server, upstream: FakeUpstream) -> None:
    """Its members, the bound and the usual cost. Nothing is asked."""
    answer = await post(server.port, chat("ensemble:pair", max_tokens=100), "/v1/route/explain")
    told = answer.json
    assert told["chosen"] == "ensemble:pair"
    panel = told["ensemble"]
    assert [(each["model"], each["weight"]) for each in panel["members"]] == [("fake/ok", 1.0), ("other/echo", 2.0)]
    assert panel["bound_usd"] == pytest.approx(sum(each["bound_usd"] for each in panel["members"]))
    cost = told["estimated_cost_usd"]
    assert 0 < cost["low"] < cost["high"] <= panel["bound_usd"]
    assert upstream.ledger == []


async def test_refusals_are_metered(server: Server, database: Path) -> None:
    """As for models."""
    before = len(calls(database))
    row = await row_of(database, await ask(server, "ensemble:nobody"))
    assert (row["requested_model"], row["outcome"]) == ("ensemble:nobody", "rejected")
    assert len(calls(database)) > before
