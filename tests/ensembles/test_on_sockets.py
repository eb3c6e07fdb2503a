"""Ranking, fusion and verification as users meet them: the openai SDK and a real server, over real sockets."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.modes import says

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: fake/ok}}
ensembles:
  ranking: {{strategy: ranking, members: [fake/a, fake/b, fake/c], judge: fake/judge}}
  offline: {{strategy: ranking, members: [fake/a, fake/b, fake/c]}}
  fusion: {{strategy: fusion, members: [fake/a, {{use: fake/b, weight: 2}}, fake/c], judge: fake/judge}}
  itself: {{strategy: fusion, members: [fake/a, fake/a, fake/a], judge: fake/judge}}
  verification: {{strategy: verification, generator: fake/a, validator: fake/judge}}
  nested: {{strategy: ranking, members: ["ensemble:verification", fake/b], judge: fake/judge}}
  judged: {{strategy: fusion, members: [fake/a, fake/b], judge: "ensemble:itself"}}
  several: {{strategy: verification, generator: [fake/a, {{use: fake/b, temperature: 0.1}}], validator: fake/judge}}
"""
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
_SHOWN = re.compile(r"<answer ([A-P]) \w{16}>\n(.*?)\n</answer", re.DOTALL)


class Scene:
    """A proxy with ensembles, the upstream behind it, and what the upstream's models say."""

    def __init__(self, server: Server, upstream: FakeUpstream) -> None:
        self.server = server
        self.upstream = upstream

    async def ask(self, model: str, **fields: Any) -> ChatCompletion:
        create: Any = self.server.client.chat.completions.create
        return cast(ChatCompletion, await create(model=model, messages=QUESTION, **fields))

    async def stream(self, model: str, **fields: Any) -> tuple[list[str], Any]:
        """The pieces of text, and `routing.ensemble` of the last chunk."""
        stream = await self.server.client.chat.completions.create(
            model=model, messages=QUESTION, stream=True, stream_options={"include_usage": True}, **fields
        )
        texts, last = [], None
        async for chunk in stream:
            texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]
            last = chunk
        return texts, report_of(last)

    def asked(self) -> list[str]:
        return [seen.model for seen in self.upstream.ledger]


def report_of(answer: Any) -> dict[str, Any]:
    return dict(answer.model_extra["routing"]["ensemble"])


def text_of(answer: ChatCompletion) -> str:
    return answer.choices[0].message.content or ""


@asynccontextmanager
async def scene(folder: Path, **lines: Any) -> AsyncIterator[Scene]:
    """`lines`: what models say: a text, or a function of the request's body."""
    async with FakeUpstream() as upstream:
        upstream.modes.update({name: says(line) for name, line in lines.items() if isinstance(line, str)})
        upstream.speakers.update({name: line for name, line in lines.items() if callable(line)})
        async with serving(write_files(folder, upstream.url, ROUTING)) as server:
            yield Scene(server, upstream)


def prefers(best: str) -> Any:
    """A judge that gives the answer `best` 9 points and the others 2."""

    def judge(body: dict[str, Any]) -> str:
        shown = _SHOWN.findall(body["messages"][-1]["content"])
        return json.dumps({"scores": {label: 9 if text == best else 2 for label, text in shown}})

    return judge


def verdicts(*confidences: float) -> Any:
    left = [*confidences]
    return lambda body: json.dumps(
        {"correct": True, "complete": True, "confidence": left.pop(0), "issues": ["It may be wrong."]}
    )


async def test_ranking_whole_and_streamed_give_the_same_answer(tmp_path):
    """The winner arrives in full, all scores and all asks in the report, and every ask is paid."""
    async with scene(tmp_path, a="Lyon, I think.", b="Paris.", c="Nice", judge=prefers("Paris.")) as at:
        whole = await at.ask("ensemble:ranking")
        assert (text_of(whole), whole.model) == ("Paris.", "ensemble:ranking")
        report = report_of(whole)
        assert report["scores"][0] == {"rank": 1, "score": 0.9, "models": ["fake/b"]}
        assert [each["role"] for each in report["members"]] == ["member"] * 3 + ["judge"] * 2
        assert whole.usage is not None
        assert whole.usage.model_extra is not None
        assert set(whole.usage.model_extra["cost_details"]["by_model"]) == {"fake/a", "fake/b", "fake/c", "fake/judge"}
        texts, streamed = await at.stream("ensemble:ranking")
        assert "".join(texts) == "Paris."
        assert streamed["scores"] == report["scores"]
        assert len(at.asked()) == 10


async def test_all_outputs_are_returned_on_request(tmp_path):
    async with scene(tmp_path, a="Lyon", b="Paris", c="Nice", judge=prefers("Paris")) as at:
        report = report_of(await at.ask("ensemble:ranking", extra_body={"routing": {"ensemble": {"return_all": True}}}))
        assert sorted(line["message"]["content"] for line in report["scores"]) == ["Lyon", "Nice", "Paris"]


async def test_ranking_needs_no_judge(tmp_path):
    async with scene(tmp_path, a="la " * 300, b="The capital of France is Paris.", c="") as at:
        whole = await at.ask("ensemble:offline")
        assert text_of(whole) == "The capital of France is Paris."
        assert report_of(whole)["scored_by"] == "offline"


async def test_fusion_streams_the_judge_live(tmp_path):
    """Delta by delta, as the judge writes, and with the drafts in its request."""
    asked: list[dict[str, Any]] = []

    def judge(body: dict[str, Any]) -> str:
        asked.append(body)
        return "It is Paris, on the Seine."

    async with scene(tmp_path, a="Paris.", b="It lies on the Seine.", c="Lyon", judge=judge) as at:
        texts, report = await at.stream("ensemble:fusion")
        assert "".join(texts) == "It is Paris, on the Seine."
        assert len(texts) > 3
        assert (report["method"], report["judge"], len(report["drafts"])) == ("written", {"model": "fake/judge"}, 3)
        assert asked[0]["stream"] is True
        assert all(draft in asked[0]["messages"][-1]["content"] for draft in ("Paris.", "Seine", "Lyon"))
        whole = await at.ask("ensemble:fusion")
        assert text_of(whole) == "It is Paris, on the Seine."


async def test_fusion_merges_objects(tmp_path):
    said = [
        {"name": "Kettle", "price": price, "tags": tags} for price, tags in ((49.99, ["a"]), (49.99, []), (59, ["b"]))
    ]
    wanted = {
        "type": "json_schema",
        "json_schema": {
            "name": "product",
            "schema": {
                "type": "object",
                "properties": {"price": {"type": "number"}, "tags": {"type": "array"}},
                "required": ["name", "price", "tags"],
            },
        },
    }
    async with scene(tmp_path, **dict(zip("abc", map(json.dumps, said), strict=True))) as at:
        ensemble = {"ensemble": {"members": ["fake/a", "fake/b", "fake/c"]}}
        whole = await at.ask("ensemble:fusion", response_format=wanted, extra_body={"routing": ensemble})
        found = json.loads(text_of(whole))
        assert (found["price"], sorted(found["tags"])) == (49.99, ["a", "b"])
        assert report_of(whole)["fields"]["price"]["agreement"] == 0.6667
        texts, _ = await at.stream("ensemble:fusion", response_format=wanted, extra_body={"routing": ensemble})
        assert json.loads("".join(texts)) == found
        assert "judge" not in at.asked()


async def test_one_model_is_fused_with_itself(tmp_path):
    """Its seats have different seeds, so that it does not say the same three times."""
    seeds: list[Any] = []

    def draft(body: dict[str, Any]) -> str:
        seeds.append((body.get("seed"), body.get("temperature")))
        return f"draft with seed {body.get('seed')}"

    async with scene(tmp_path, a=draft, judge="fused") as at:
        assert text_of(await at.ask("ensemble:itself")) == "fused"
        assert len(set(seeds)) == 3


async def test_the_judge_of_a_fusion_calls_the_clients_tools(tmp_path):
    tool: Any = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
    async with scene(tmp_path, a="Sunny.", b="Rain.", c="Snow.") as at:
        at.upstream.modes["judge"] = "tools(n=1)"
        whole = await at.ask("ensemble:fusion", tools=[tool])
        assert whole.choices[0].finish_reason == "tool_calls"
        calls = whole.choices[0].message.tool_calls or []
        assert [json.loads(call.function.arguments) for call in calls if call.type == "function"]
        stream = await at.server.client.chat.completions.create(
            model="ensemble:fusion", messages=QUESTION, tools=[tool], stream=True
        )
        names = [
            call.function.name
            async for chunk in stream
            for choice in chunk.choices
            for call in choice.delta.tool_calls or []
            if call.function and call.function.name
        ]
        assert len(names) == 1


async def answers_despite(at: Scene, mode: str) -> None:
    at.upstream.modes["judge"] = mode
    for model, expected in (
        ("ensemble:ranking", "The capital of France is Paris."),
        ("ensemble:fusion", "The capital of France is Paris."),
        ("ensemble:verification", "Paris."),
    ):
        texts, _ = await at.stream(model)
        assert ("".join(texts), text_of(await at.ask(model))) == (expected, expected)


async def test_a_judge_that_fails_leaves_an_answer(tmp_path):
    async with scene(tmp_path, a="Paris.", b="The capital of France is Paris.", c="la " * 200) as at:
        for mode in ("e503", "cut_rst(k=0)", "html_502", "empty_200"):
            await answers_despite(at, mode)


@pytest.mark.slow
async def test_a_judge_that_never_answers_leaves_an_answer(tmp_path):
    async with scene(tmp_path, a="Paris.", b="The capital of France is Paris.", c="la " * 200) as at:
        await answers_despite(at, "blackhole")


async def test_a_fusion_cut_off_in_the_middle_ends_with_an_error(tmp_path):
    """Nobody else continues what the judge began."""
    async with scene(tmp_path, a="Paris.", b="Lyon.", c="Nice.") as at:
        at.upstream.modes["judge"] = "cut_rst(k=3)"
        with pytest.raises(openai.APIError):
            await at.stream("ensemble:fusion")
        assert text_of(await at.ask("ensemble:fusion"))


async def test_verification_revises_a_doubted_answer(tmp_path):
    asked: list[str] = []

    def generator(body: dict[str, Any]) -> str:
        asked.append(body["messages"][-1]["content"])
        return "Paris." if len(asked) > 1 else "Lyon."

    async with scene(tmp_path, a=generator, judge=verdicts(0.2, 0.95)) as at:
        whole = await at.ask("ensemble:verification")
        assert text_of(whole) == "Paris."
        assert "It may be wrong." in asked[1]
        report = report_of(whole)
        assert (report["confidence"], report["agreed"]) == (0.95, True)
        assert [each["model"] for each in report["rounds"]] == ["fake/a", "fake/a"]
        assert at.asked() == ["a", "judge", "a", "judge"]


async def test_verification_asks_the_next_generator(tmp_path):
    async with scene(tmp_path, a="Lyon.", b="Paris.", judge=verdicts(0.2, 0.95)) as at:
        assert text_of(await at.ask("ensemble:several")) == "Paris."
        assert at.asked() == ["a", "judge", "b", "judge"]


async def test_a_verified_stream_flows_before_the_verdict(tmp_path):
    """The client has the whole text while the validator still reads; the verdict comes in the last chunk."""
    async with scene(tmp_path, a="Lyon is the capital.", judge=verdicts(0.2)) as at:
        texts, report = await at.stream("ensemble:verification")
        assert "".join(texts) == "Lyon is the capital."
        assert (report["confidence"], report["agreed"]) == (0.2, False)
        assert "not revised" in report["note"]
        assert at.asked() == ["a", "judge"]
        at.upstream.speakers.pop("judge")
        at.upstream.modes["judge"] = "blackhole"
        stream = await at.server.client.chat.completions.create(
            model="ensemble:verification", messages=QUESTION, stream=True
        )
        text = ""
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            if text == "Lyon is the capital.":
                break
        await stream.close()
        await at.upstream.until(lambda: at.upstream.open == 0)
        assert at.asked() in (["a", "judge", "a", "judge"], ["a", "judge", "a"])


async def test_every_ask_of_a_client_that_leaves_is_stopped(tmp_path):
    """While the judge reads, and while it writes."""
    async with scene(tmp_path, a="Paris.", b="Lyon.", c="Nice.") as at:
        for model, mode in (
            ("ensemble:ranking", "blackhole"),
            ("ensemble:fusion", "stall_after(k=2)"),
            ("ensemble:verification", "blackhole"),
        ):
            at.upstream.reset()
            at.upstream.modes["judge"] = mode
            task = asyncio.create_task(at.stream(model))
            await at.upstream.until(lambda: "judge" in at.asked())
            task.cancel()
            await at.upstream.until(lambda: at.upstream.open == 0)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"quality_metric": "beauty"}, "routing.ensemble.quality_metric"),
    ({"judge": " "}, "routing.ensemble.judge"),
    ({"strategy": "fusion", "prefer": "loudest"}, "routing.ensemble.prefer"),
    ({"strategy": "verification", "min_confidence": 2}, "routing.ensemble.min_confidence"),
    ({"strategy": "verification", "max_revisions": 6}, "routing.ensemble.max_revisions"),
    ({"strategy": "verification", "generator": [], "validator": "fake/judge"}, "routing.ensemble"),
    ({"strategy": "verification", "generator": "fake/a", "models": ["fake/b"]}, "routing.ensemble"),
    ({"strategy": "ranking", "generator": "fake/a"}, "routing.ensemble.generator"),
]


async def test_a_wrong_key_is_refused_by_its_name(tmp_path):
    async with scene(tmp_path, a="a", b="b", c="c", judge="{}") as at:
        for given, field in WRONG:
            with pytest.raises(openai.BadRequestError) as error:
                await at.ask("ensemble:ranking", extra_body={"routing": {"ensemble": given}})
            assert error.value.param == field
        assert at.asked() == []


async def test_any_model_can_be_verified_by_a_hint(tmp_path):
    """`generator` or `models` name who answers, else the requested model does."""
    async with scene(tmp_path, a="A", b="B", judge=verdicts(*[0.9] * 9)) as at:
        hint: dict[str, Any] = {"strategy": "verification", "validator": "fake/judge"}
        for more, expected in (({}, "A"), ({"generator": "fake/b"}, "B"), ({"models": ["fake/b"]}, "B")):
            whole = await at.ask("fake/a", extra_body={"routing": {"ensemble": {**hint, **more}}})
            assert text_of(whole) == expected
            replaced = await at.ask(
                "ensemble:verification", extra_body={"routing": {"ensemble": more}} if more else None
            )
            assert text_of(replaced) == expected


@pytest.mark.parametrize("limit", [None, 1, 100])
@pytest.mark.slow
async def test_the_bound_covers_what_judges_and_revisions_cost(tmp_path, limit):
    """Also where the client allows members less than a judge needs."""
    fields = {} if limit is None else {"max_tokens": limit}
    long = "word " * 300
    lines = {"a": f"A {long}", "b": f"B {long}", "judge": lambda body: f"{verdicts(0.1)(body)} {long}"}
    async with scene(tmp_path, c="C", **lines) as at:
        for name in ("ranking", "fusion", "verification", "several", "nested", "judged"):
            _, streamed = await at.stream(f"ensemble:{name}", **fields)
            for report in (report_of(await at.ask(f"ensemble:{name}", **fields)), streamed):
                paid = sum(each["cost_usd"] for each in report["members"])
                assert 0 < paid <= report["bound_usd"]


async def test_a_judgement_is_held_for_by_its_own_length(tmp_path):
    """A judge writes little, however long the answers may be: of four thousand tokens each it is held for half."""
    async with scene(tmp_path, a="A", b="B", c="C", judge="{}") as at:
        bounds = {
            name: report_of(await at.ask(f"ensemble:{name}"))["bound_usd"] for name in ("offline", "ranking", "fusion")
        }
        price = 10 / 1_000_000
        judged, fused = bounds["ranking"] - bounds["offline"], bounds["fusion"] - bounds["offline"]
        assert judged - 2 * 2048 * price == pytest.approx(2 * (fused - 4096 * price), rel=0.01)


async def test_ensembles_may_stand_inside_each_other(tmp_path):
    """A verified answer competes with a plain one; a fusion is written by a fusion, live."""
    both = lambda body: prefers("A")(body) if "scores" in body["messages"][0]["content"] else verdicts(0.9)(body)  # noqa: E731 - one line
    async with scene(tmp_path, a="A", b="B", judge=both) as at:
        whole = await at.ask("ensemble:nested")
        assert text_of(whole) == "A"
        assert [each.get("ensemble", {}).get("strategy") for each in report_of(whole)["members"][:2]] == [
            "verification",
            None,
        ]
        at.upstream.speakers["judge"] = lambda body: "fused"
        at.upstream.speakers["a"] = lambda body: f"draft {body.get('seed')}"
        texts, report = await at.stream("ensemble:judged")
        assert "".join(texts) == "fused"
        assert report["members"][-1]["ensemble"]["method"] == "written"


@pytest.mark.parametrize("streams", [False, True])
async def test_an_agents_loop_runs_on_each_strategy(tmp_path, streams):
    """Tools in, calls out, results back, and at last an answer: what the SDK sends is what it got."""
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool,
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            },
        }
        for tool in ("weather", "time")
    ]
    async with scene(tmp_path) as at:
        at.upstream.modes.update(dict.fromkeys(("a", "b", "c", "judge"), "actor"))
        for name in ("ranking", "offline", "fusion", "verification"):
            assert await agent(at, f"ensemble:{name}", tools, streams) == "The tools say: 20 C"


async def agent(at: Scene, model: str, tools: Any, streams: bool) -> str:
    """The last words of an agent that asks for the weather, as the SDK's users write one."""
    messages: list[Any] = [{"role": "user", "content": "Weather in Bern?"}]
    completions: Any = at.server.client.chat.completions
    for _ in range(3):
        if streams:
            async with completions.stream(model=model, messages=messages, tools=tools) as stream:
                answer = await stream.get_final_completion()
        else:
            answer = await completions.create(model=model, messages=messages, tools=tools)
        message = answer.choices[0].message
        if not message.tool_calls:
            break
        assert [call.function.name for call in message.tool_calls] == ["weather"]
        messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "20 C"} for call in message.tool_calls]
    assert [each["role"] for each in messages] == ["user", "assistant", "tool"]
    return str(message.content)


async def test_a_client_that_asks_for_it_sees_how_far_the_panel_is(tmp_path):
    """As reasoning, which is not part of the answer."""
    async with scene(tmp_path, a="Lyon.", b="Paris.", c="Nice.", judge=prefers("Paris.")) as at:
        stream = await at.server.client.chat.completions.create(
            model="ensemble:ranking", messages=QUESTION, stream=True, extra_body={"routing": {"progress": True}}
        )
        told, text = "", ""
        async for chunk in stream:
            for choice in chunk.choices:
                told += (choice.delta.model_extra or {}).get("reasoning_content") or ""
                text += choice.delta.content or ""
        assert told.splitlines() == [
            "1 of 3 answered.",
            "2 of 3 answered.",
            "3 of 3 answered.",
            "fake/judge compares 3 answers.",
        ]
        assert text == "Paris."
