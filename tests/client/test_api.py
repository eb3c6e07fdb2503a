"""The Python client against the product: the same answers from a server and from a proxy in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.client.errors import BadRequest, BudgetSpent, MultiModelError, NotFound, RateLimited, ServerFailed
from tests.client.scene import IN_PROCESS, ROUTING, SERVER, Scene, scene

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOTH = [SERVER, IN_PROCESS]
QUESTION = "Extract product price from: <b>$49.99</b>"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BOTH)
async def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(request.param, tmp_path_factory.mktemp("client")) as open_scene:
        yield open_scene


# --- one model --------------------------------------------------------------------------------------------------------


async def test_an_answer_has_its_text_model_usage_and_cost(asked: Scene) -> None:
    """All of it typed. The cost is that of the price list: 2 USD and 10 USD for a million tokens."""
    answer = await asked.api.generate(QUESTION, model="fake/a")
    assert (answer.text, answer.model, answer.finish_reason) == ("$49.99", "fake/a", "stop")
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens > 0
    assert answer.cost == pytest.approx(answer.usage.input_tokens * 2e-6 + answer.usage.output_tokens * 10e-6)
    assert (answer.routing.model, answer.routing.provider, answer.routing.attempts) == ("fake/a", "fake", 1)
    assert answer.request_id and answer.id.endswith(answer.request_id)


@pytest.mark.parametrize(
    ("options", "model", "rule"),
    [
        ({"task_type": "chat"}, "fake/a", None),
        ({"task_type": "reasoning"}, "fake/b", None),
        ({"task_type": "chat", "priority": "high"}, "fake/b", "urgent"),
        ({"model": "gpt-4o-mini"}, "fake/a", None),
        ({"model": "big"}, "fake/b", None),
    ],
)
async def test_without_a_model_the_router_picks(asked: Scene, options, model: str, rule: str | None) -> None:
    """By the task and the priority; names of the file and aliases work as well."""
    answer = await asked.api.generate(QUESTION, **options)
    assert (answer.model, answer.routing.rule) == (model, rule)


async def test_the_options_reach_the_model(asked: Scene) -> None:
    """As OpenAI's API has them; hints do not."""
    form = {"type": "json_object"}
    answer = await asked.api.generate(
        "And now?",
        model="fake/actor",
        system="Be short.",
        messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
        max_tokens=50,
        temperature=0.5,
        response_format=form,
        tags=["night"],
        routing={"trace": True},
    )
    assert answer.text == '{"name": "Rex", "age": 3, "tags": []}'
    assert [each["model"] for each in answer.routing.trace["attempts"]] == ["fake/actor"]


async def test_a_tool_call_is_an_answer(asked: Scene) -> None:
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    answer = await asked.api.generate("Look it up.", model="fake/actor", tools=tools)
    assert [call["function"]["name"] for call in answer.tool_calls] == ["look_up"]
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_adds_up_to_the_whole_answer(asked: Scene) -> None:
    """The same text, usage and cost as without one."""
    stream = asked.api.generate_stream(QUESTION, model="fake/ok")
    texts = [chunk.text async for chunk in stream]
    whole = await asked.api.generate(QUESTION, model="fake/ok")
    assert len([text for text in texts if text]) > 3
    assert ("".join(texts), stream.answer.text) == (whole.text, whole.text)
    assert (stream.answer.usage, stream.answer.cost) == (whole.usage, whole.cost)
    assert (stream.answer.model, stream.answer.finish_reason) == ("fake/ok", "stop")


async def test_a_stream_is_closed_by_its_block(asked: Scene) -> None:
    """What came so far is known."""
    async with asked.api.generate_stream(QUESTION, model="fake/stall_after(k=3)") as stream:
        async for chunk in stream:
            if "tok2" in chunk.text:
                break
        assert stream.answer.text == "tok0 tok1 tok2"
    await asked.upstream.until(lambda: asked.upstream.open == 0)


async def leave(asked: Scene) -> None:
    async for chunk in asked.api.generate_stream(QUESTION, model="fake/stall_after(k=3)"):
        if "tok2" in chunk.text:
            break


async def be_cancelled(asked: Scene) -> None:
    reached = asyncio.Event()

    async def read() -> None:
        async for chunk in asked.api.generate_stream(QUESTION, model="fake/stall_after(k=3)"):
            if "tok2" in chunk.text:
                reached.set()

    task = asyncio.create_task(read())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def be_cancelled_whole(asked: Scene) -> None:
    task = asyncio.create_task(asked.api.generate(QUESTION, model="fake/stall_after(k=-1)"))
    await asked.upstream.until(lambda: asked.upstream.open == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("end", [leave, be_cancelled, be_cancelled_whole], ids=lambda end: end.__name__)
async def test_a_call_that_nobody_waits_for_ends_at_the_provider(asked: Scene, end) -> None:
    """At once: the provider's own time-outs would take 2 s."""
    asked.upstream.reset()
    await end(asked)
    await asked.upstream.until(lambda: asked.upstream.open == 0)
    (seen,) = asked.upstream.ledger
    assert seen.peer_closed_early


async def test_a_stream_that_fails_raises_its_error(asked: Scene) -> None:
    """After the first piece there is no other status than that of the answer: the error says what it was."""
    stream = asked.api.generate_stream(QUESTION, model="fake/cut_fin(k=3)")
    with pytest.raises(ServerFailed) as raised:
        async for _ in stream:
            pass
    assert (raised.value.status, raised.value.code) == (None, "upstream_truncated")
    assert raised.value.request_id
    assert stream.answer.text.startswith("tok0")


# --- several models ---------------------------------------------------------------------------------------------------


async def test_voting_says_how_sure_it_is(asked: Scene) -> None:
    """Two of three say the same in other words."""
    found = await asked.api.generate_ensemble(
        "Extract all prices", strategy="voting", models=["fake/a", "fake/b", "fake/c"]
    )
    assert found.result in ("$49.99", "49.99 USD")
    assert found.confidence == pytest.approx(2 / 3, abs=0.001)
    assert found.votes is not None and sorted(found.votes.values()) == [1, 2]
    assert (found.strategy, found.agreed, len(found.members)) == ("voting", True, 3)
    assert found.usage.total_tokens and found.cost == pytest.approx(sum(each["cost_usd"] for each in found.members))


async def test_ranking_lists_all_answers_the_best_first(asked: Scene) -> None:
    """Each with its model, its output and its score."""
    found = await asked.api.generate_ensemble("Rank", strategy="ranking", models=["fake/a", "fake/c", "fake/ok"])
    assert found.ranking is not None
    assert {line["model"]: line["output"] for line in found.ranking}["fake/a"] == "$49.99"
    scores = [line["quality_score"] for line in found.ranking]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert found.ranking[0]["output"] == found.result


async def test_fusion_merges_objects(asked: Scene) -> None:
    """The merged object is an object; text that a judge wrote is text."""
    found = await asked.api.generate_ensemble("Extract", strategy="fusion", models=["fake/x", "fake/y"])
    assert found.merged == {"name": "Rex", "price": 5, "colour": "red"}
    written = await asked.api.generate_ensemble(
        "Write", strategy="fusion", models=["fake/a", "fake/c"], judge="fake/ok"
    )
    assert written.merged == written.result == "tok0 tok1 tok2 tok3 tok4 tok5 tok6 tok7 tok8 tok9"


async def test_verification_has_output_verdict_and_confidence(asked: Scene) -> None:
    found = await asked.api.generate_ensemble(
        "Check", strategy="verification", models=["fake/a"], validator="fake/checks", min_confidence=0.5
    )
    assert found.verification is not None
    assert (found.output, found.verification["correct"], found.confidence) == ("$49.99", True, 0.93)


async def test_a_configured_ensemble_answers_by_its_name(asked: Scene) -> None:
    """Arguments change what they name."""
    found = await asked.api.generate_ensemble("Prices", name="careful")
    assert (found.model, found.confidence) == ("ensemble:careful", 1.0)
    changed = await asked.api.generate_ensemble("Prices", name="careful", models=["fake/a", "fake/c"])
    assert (changed.confidence, changed.agreed) == (0.5, False)


async def test_without_models_the_router_picks_the_members(asked: Scene) -> None:
    found = await asked.api.generate_ensemble("Extract all prices")
    assert found.strategy == "voting" and found.members


# --- books ------------------------------------------------------------------------------------------------------------


async def test_explain_says_what_generate_would_do(asked: Scene) -> None:
    """And asks nobody."""
    asked.upstream.reset()
    found = await asked.api.explain(QUESTION, task_type="reasoning")
    assert (found.requested, found.chosen, found.task) == ("auto", "fake/b", "reasoning")
    assert asked.upstream.ledger == []


async def test_usage_and_feedback(asked: Scene) -> None:
    """An answer is rated by itself or by its id."""
    answer = await asked.api.generate(QUESTION, model="fake/a", tags=["rated"])
    rating = await asked.api.feedback(answer, success=False, comment="Wrong price.")
    assert (rating.id, rating.success, rating.comment) == (answer.request_id, False, "Wrong price.")
    assert (await asked.api.feedback(answer.id, score=0.5)).score == 0.5
    usage = await asked.api.usage(group_by=["tag"])
    assert {group["tag"]: group["calls"] for group in usage.groups}["rated"] == 1
    assert usage.total["calls"] >= 1 and usage.total["cost_usd"] > 0


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "status", "code", "param"),
    [
        ({"model": "nobody/knows"}, NotFound, 404, "model_not_found", "model"),
        ({"model": "fake/a", "extra_body": {"n": 0}}, BadRequest, 400, "invalid_value", "n"),
        (
            {"model": "fake/a", "routing": {"preferred": "x"}},
            BadRequest,
            400,
            "unsupported_parameter",
            "routing.preferred",
        ),
        ({"model": "fake/a", "max_cost_usd": 0.0}, BudgetSpent, 402, None, "routing.max_cost_usd"),
        ({"model": "fake/e500"}, ServerFailed, 502, "upstream_error", None),
    ],
)
async def test_an_error_has_its_class_and_fields(asked: Scene, options, kind, status, code, param) -> None:
    """One base class has them all."""
    with pytest.raises(MultiModelError) as raised:
        await asked.api.generate(QUESTION, **options)
    error = raised.value
    assert (type(error), error.status, error.param) == (kind, status, param)
    assert code is None or error.code == code
    assert error.request_id and str(error) and error.body["message"] == str(error)


async def test_a_rating_of_an_unknown_call_is_not_found(asked: Scene) -> None:
    with pytest.raises(NotFound):
        await asked.api.feedback("chatcmpl-nobody", success=True)


@pytest.mark.parametrize("how", BOTH)
async def test_a_rate_limit_names_the_time_to_wait(how: str, tmp_path: Path) -> None:
    """Of more than a minute's quarter the client does not wait, if it may not repeat."""
    limits = "rate_limits: {{default: {{requests_per_minute: 2}}, keyless: {{requests_per_minute: 2}}}}\n"
    async with scene(how, tmp_path, ROUTING + limits, max_retries=0) as open_scene:
        with pytest.raises(RateLimited) as raised:
            for _ in range(5):
                await open_scene.api.generate(QUESTION, model="fake/a")
    assert raised.value.retry_after is not None and raised.value.retry_after >= 1
    assert (raised.value.status, raised.value.code) == (429, "rate_limit_exceeded")
