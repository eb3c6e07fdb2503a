"""Voting and the cascade as clients meet them: OpenAI's SDK, the server and the fake upstream, over real sockets."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.ensembles.test_voting import PRODUCT
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.modes import makes_calls, says
from tests.waiting import eventually

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
models:
  other: {{use: fake/broken, fallback: [fake/m0]}}
ensembles:
  voting: {{strategy: voting, members: [fake/m0, fake/m1, fake/m2]}}
  early: {{strategy: voting, members: [fake/m0, fake/m1, fake/m2], early_stop: true}}
  strict: {{strategy: voting, members: [fake/m0, fake/m1], min_agreement: 1, below: error}}
  judged: {{strategy: voting, members: [fake/m0, fake/m1], min_agreement: 1, below: judge, judge: fake/judge}}
  cascade: {{strategy: voting, members: [fake/m0, fake/m1], below: escalate, escalate_to: fake/strong}}
  shared: {{strategy: voting, members: [fake/m0, other], below: escalate, escalate_to: fake/strong}}
  nested: {{strategy: voting, members: ["ensemble:voting", fake/m0], below: escalate, escalate_to: fake/strong}}
"""
QUESTION: list[Any] = [{"role": "user", "content": "How much is it?"}]
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("price_of", "rate")
]


class World:
    """A server before a fake upstream, where `m0`, `m1`... are members that say what they are told to."""

    def __init__(self, server: Server, upstream: FakeUpstream, folder: Path) -> None:
        self.server, self.upstream, self.folder = server, upstream, folder

    def say(self, *texts: str, **others: str) -> None:
        self.upstream.modes |= {f"m{place}": says(each) for place, each in enumerate(texts)}
        self.upstream.modes |= {name: says(each) for name, each in others.items()}

    async def ask(self, model: str, **fields: Any) -> Any:
        fields = {"messages": QUESTION, **fields}
        return await self.server.client.chat.completions.create(model=f"ensemble:{model}", **fields)

    async def streamed(self, model: str, **fields: Any) -> tuple[str, dict[str, Any], list[Any]]:
        """The text, `routing.ensemble`, and all chunks."""
        chunks = [chunk async for chunk in await self.ask(model, stream=True, **fields)]
        text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
        return text, report_of(chunks[-1]), chunks

    def attempts(self) -> list[tuple[str, str]]:
        """Model and outcome of each attempt, as the database has them."""
        with sqlite3.connect(self.folder / "usage.db") as database:
            return sorted(database.execute("SELECT model, outcome FROM attempts"))

    def calls(self) -> list[tuple[int, int]]:
        """How many attempts each call had, and whether one fell back."""
        with sqlite3.connect(self.folder / "usage.db") as database:
            return list(
                database.execute("SELECT attempts, fallback FROM calls WHERE closed_ns IS NOT NULL ORDER BY id")
            )

    def asked(self) -> list[str | None]:
        return [seen.model for seen in self.upstream.ledger]


def report_of(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.model_extra["routing"]["ensemble"]
    return found


@asynccontextmanager
async def _world(folder: Path) -> AsyncIterator[World]:
    async with FakeUpstream() as upstream, serving(write_files(folder, upstream.url, ROUTING)) as server:
        yield World(server, upstream, folder)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with _world(tmp_path) as world:
        yield world


async def test_three_members_that_say_the_same(world: World) -> None:
    """The reference case, whole and streamed: the answer, its confidence and its votes."""
    world.say("$49.99", "$49.99", "$49.99")
    answer = await world.ask("voting")
    assert (answer.choices[0].message.content, answer.model) == ("$49.99", "ensemble:voting")
    report = report_of(answer)
    assert (report["confidence"], report["agreed"], report["votes"]) == (1.0, True, {"$49.99": 3})
    for member in report["members"]:
        assert (member["vote"], member["dissents"], member["outcome"]) == ("$49.99", False, "ok")
        assert member["weight"] == 1
        assert member["latency_ms"] > 0
    assert answer.usage.prompt_tokens == 3 * 4
    text, report, chunks = await world.streamed("voting")
    assert (text, report["votes"], report["confidence"]) == ("$49.99", {"$49.99": 3}, 1.0)
    assert chunks[-1].usage.completion_tokens == 3


async def test_the_text_of_a_stream_is_exact(world: World) -> None:
    """With white space, line ends and other scripts."""
    words = "  Zuerst:\n\n\t* é漢😀 — `x  y`\r\nfertig. "
    world.say(words, words, "no")
    whole = (await world.ask("voting")).choices[0].message.content
    text, _, _ = await world.streamed("voting")
    assert text == whole
    assert text.strip() == words.strip()


async def test_progress_is_told_to_clients_that_ask_for_it(world: World) -> None:
    """As reasoning, which is not part of the text."""
    world.say("$5", "5 USD", "$6")
    _, _, chunks = await world.streamed("voting", extra_body={"routing": {"progress": True}})
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    told = "".join((delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas)
    assert "2 of 3 agree: " in told
    assert "".join(delta.content or "" for delta in deltas) in ("$5", "5 USD")


@pytest.mark.slow
async def test_a_client_hears_something_before_it_gives_up(tmp_path: Path) -> None:
    """Headers and a comment after ten seconds, long before a slow member is done. No client shows a comment."""
    timeouts = "{connect: 2, first_token: 60, idle: 60, total: 90}"
    async with (
        FakeUpstream() as upstream,
        serving(write_files(tmp_path, upstream.url, ROUTING, timeouts=timeouts)) as at,
    ):
        world = World(at, upstream, tmp_path)
        world.say("42", "42")
        upstream.modes["m2"] = "delay_whole(s=14)"
        body = {"model": "ensemble:voting", "messages": QUESTION, "stream": True}
        async with (
            httpx.AsyncClient(timeout=90) as client,
            client.stream("POST", f"{at.base_url}/chat/completions", json=body) as answer,
        ):
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b": ping\n\n"
            assert upstream.open == 1
            assert (b"".join([each async for each in pieces])).endswith(b"data: [DONE]\n\n")


async def test_a_cascade_asks_the_strong_model_only_where_needed(world: World) -> None:
    world.say("42", "Answer: 42.", strong="43")
    answer = await world.ask("cascade")
    assert report_of(answer)["agreed"]
    assert "strong" not in world.asked()
    world.say("42", "41", strong="43")
    answer = await world.ask("cascade")
    assert (answer.choices[0].message.content, world.asked().count("strong")) == ("43", 1)
    report = report_of(answer)
    assert (report["agreed"], report["confidence"], report["decided_by"]) == (False, 0.5, "escalation")
    assert [member["role"] for member in report["members"]] == ["member", "member", "escalation"]
    assert answer.usage.prompt_tokens == 3 * 4


async def test_the_strong_model_of_a_cascade_streams_live(world: World) -> None:
    """Its first words are there long before its last ones."""
    world.say("42", "41")
    world.upstream.modes["strong"] = says("one two three") + "-ok(pace=0.2)"
    loop = asyncio.get_running_loop()
    times: list[float] = []
    text = ""
    async for chunk in await world.ask("cascade", stream=True):
        if chunk.choices and (piece := chunk.choices[0].delta.content):
            times.append(loop.time())
            text += piece
    assert text == "one two three"
    assert len(times) == 3
    assert times[-1] - times[0] > 0.3


async def test_members_that_fell_back_to_one_deployment_do_not_agree(world: World) -> None:
    """What answered counts, not what was asked first."""
    world.upstream.modes["broken"] = "e503"
    world.say("42", strong="43")
    report = report_of(await world.ask("shared"))
    assert report["same_deployment"] == ["fake/m0"]
    assert report["decided_by"] == "escalation"


async def test_members_are_no_fallbacks_of_each_other(world: World) -> None:
    """But a member that another model answered for is one."""
    world.say("42", "42", "42", strong="42")
    await world.ask("voting")
    await world.ask("shared")
    await eventually(lambda: len(world.calls()) == 2)
    assert world.calls() == [(3, 0), (4, 1)]


async def test_an_ensemble_may_be_a_member(world: World) -> None:
    """It shares a deployment with the other member, so the two do not agree in a cascade."""
    world.say("42", "42", "42", strong="43")
    answer = await world.ask("nested")
    report = report_of(answer)
    assert (answer.choices[0].message.content, report["same_deployment"]) == ("43", ["fake/m0"])
    assert report["members"][0]["ensemble"]["votes"] == {"42": 3}


async def test_a_straggler_is_cancelled_by_an_early_stop(world: World) -> None:
    """Within moments, and metered."""
    world.say("42", "42")
    world.upstream.modes["m2"] = "blackhole"
    async with asyncio.timeout(4):  # the member's own time-out is 5 s
        report = report_of(await world.ask("early"))
    assert (report["cancelled"], report["agreed"]) == (["fake/m2"], True)
    assert [member["outcome"] for member in report["members"]] == ["ok", "ok", "cancelled"]
    await world.upstream.until(lambda: world.upstream.open == 0)
    assert world.attempts() == [("m0", "ok"), ("m1", "ok"), ("m2", "cancelled")]


BROKEN = ["e500", "cut_rst(k=1)", "empty_200", "html_502", "json_in_200_error", "cut_clean(k=2)", "e401"]


@pytest.mark.parametrize(
    "broken", [BROKEN, pytest.param(["blackhole", "stall_after(k=2)", "slow_body(s=1)"], marks=pytest.mark.slow)]
)
async def test_a_member_that_fails_does_not_fail_the_call(world: World, broken: list[str]) -> None:
    """However it fails: its row and its outcome are in the report."""
    world.say("42", "42")
    for count, mode in enumerate(broken, 1):
        world.upstream.modes["m2"] = mode
        answer = await world.ask("voting")
        report = report_of(answer)
        assert (answer.choices[0].message.content, report["confidence"]) == ("42", 1.0)
        assert [member["outcome"] == "ok" for member in report["members"]] == [True, True, False], mode
        assert len(world.attempts()) == 3 * count


async def test_members_that_do_not_agree_are_an_error_if_configured(world: World) -> None:
    world.say("42", "41")
    with pytest.raises(openai.InternalServerError) as error:
        await world.ask("strict")
    body: Any = error.value.body
    assert (error.value.status_code, body["code"]) == (502, "ensemble_no_agreement")
    assert (body["votes"], body["confidence"]) == ({"41": 1, "42": 1}, 0.5)


async def test_the_judge_chooses(world: World) -> None:
    world.say("42", "41", judge='{"best": "A"}')
    report = report_of(await world.ask("judged"))
    assert (report["decided_by"], report["agreed"]) == ("judge", False)
    assert report["members"][-1]["role"] == "judge"


async def test_the_client_may_change_the_settings(world: World) -> None:
    """Within what makes sense: a 400 names what does not."""
    world.say("42", "42", "41")
    report = report_of(await world.ask("voting", extra_body={"routing": {"ensemble": {"min_agreement": 0.9}}}))
    assert not report["agreed"]
    for given, why in (
        ({"min_agreement": 2}, "min_agreement"),
        ({"below": "judge"}, "needs `judge`"),
        ({"below": "perhaps"}, "below"),
    ):
        with pytest.raises(openai.BadRequestError, match=why):
            await world.ask("voting", extra_body={"routing": {"ensemble": given}})


async def test_fields_of_three_members_that_disagree(world: World) -> None:
    """Structured extraction: name, price and rating by majority."""
    world.say(
        '{"name": "Lamp", "price": 49.99, "rating": 4.0}',
        '{"name": "Lamp", "price": 50, "rating": 4.5}',
        '{"name": "Light", "price": 49.99, "rating": 4.5}',
    )
    schema = {"type": "json_schema", "json_schema": {"name": "product", "schema": PRODUCT}}
    answer = await world.ask("voting", response_format=schema)
    assert json.loads(answer.choices[0].message.content) == {"name": "Lamp", "price": 49.99, "rating": 4.5}
    assert {name: field["agreement"] for name, field in report_of(answer)["fields"].items()} == dict.fromkeys(
        ("name", "price", "rating"), 0.6667
    )
    text, report, _ = await world.streamed("voting", response_format=schema)
    assert json.loads(text) == {"name": "Lamp", "price": 49.99, "rating": 4.5}
    assert report["decided_by"] == "fields"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_agent_loop_with_two_tools(world: World, stream: bool) -> None:
    """An unmodified client calls what most members call, and sends the results back."""
    both = [("price_of", '{"item": "lamp"}'), ("rate", '{"to": "EUR"}')]
    calls = [makes_calls(*both), makes_calls(*both[::-1]), makes_calls(both[0])]
    world.upstream.modes |= {f"m{place}": mode for place, mode in enumerate(calls)}
    messages = [*QUESTION]
    for turn in range(2):
        message = await _turn(world, messages, stream)
        if not message.get("tool_calls"):
            break
        assert turn == 0
        assert sorted(call["function"]["name"] for call in message["tool_calls"]) == ["price_of", "rate"]
        assert len({call["id"] for call in message["tool_calls"]}) == 2
        messages.append(message)
        for call in message["tool_calls"]:
            assert json.loads(call["function"]["arguments"]) in ({"item": "lamp"}, {"to": "EUR"})
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": "45"})
        world.say("45 EUR", "€45.00", "$45")
    assert message["content"] in ("45 EUR", "€45.00")


async def _turn(world: World, messages: list[Any], stream: bool) -> dict[str, Any]:
    if not stream:
        answer = await world.ask("voting", messages=messages, tools=TOOLS)
        return dict(answer.choices[0].message.model_dump(exclude_none=True))
    async with world.server.client.chat.completions.stream(
        model="ensemble:voting", messages=messages, tools=TOOLS
    ) as events:
        final = await events.get_final_completion()
    message = final.choices[0].message.model_dump(exclude_none=True, exclude={"parsed"})
    for call in message.get("tool_calls", []):
        call["function"].pop("parsed_arguments", None)
    return dict(message)


@pytest.mark.parametrize("phase", ["members", "judge", "escalation", "escalation streams"])
@pytest.mark.sampled(3)
async def test_a_client_that_leaves_ends_everything(world: World, phase: str) -> None:
    """In each phase; each seat has its row."""
    world.say("42", "41", "40")
    ensemble = {"members": "voting", "judge": "judged"}.get(phase, "cascade")
    slow = {"members": "m1", "judge": "judge"}.get(phase, "strong")
    world.upstream.modes[slow] = "stall_after(k=2)" if phase == "escalation streams" else "blackhole"
    task = asyncio.create_task(world.streamed(ensemble))
    await world.upstream.until(lambda: slow in world.asked() and world.upstream.open == 1)
    if phase == "escalation streams":
        await asyncio.sleep(0.05)
    task.cancel()
    loop = asyncio.get_running_loop()
    left = loop.time()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.upstream.until(lambda: world.upstream.open == 0, timeout_s=1.5)
    print(f"{phase}: {(loop.time() - left) * 1000:.0f} ms")
    asked = len(world.asked())
    await eventually(lambda: all(outcome != "open" for _, outcome in world.attempts()))
    rows = world.attempts()
    assert len(rows) == asked
    assert {outcome for model, outcome in rows if model == slow} <= {"cancelled", "client_closed"}
