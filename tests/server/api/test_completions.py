"""`/v1/completions` through real sockets: prompts, choices, streams, money, ensembles; with OpenAI's unmodified SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import BadRequestError

from tests.server.api.raw import Answer, post
from tests.server.api.rows import row_of, row_with_id
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/v1/completions"
TEN = " ".join(f"tok{place}" for place in range(10))  # what the mode `ok` says
INPUT_NANO, OUTPUT_NANO = 2_000, 10_000

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  one: {{type: groq, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  raw: {{type: openai, completions: true, base_url: "{upstream}", allow_private: true, price: null}}
  claude: {{type: anthropic, base_url: "{upstream}", allow_private: true, price: null, timeout_s: {timeouts}}}
models:
  either: {{use: one/e503, fallback: [fake/ok]}}
router: {{default_model: fake/ok}}
ensembles:
  pair: {{strategy: fusion, members: [fake/ok, one/ok], judge: fake/ok}}
"""
PRICING = """
version: 1
models:
  one/*: {input: 2.00, output: 10.00, max_output: 4096}
  fake/*: {input: 2.00, output: 10.00, max_output: 4096}
  raw/*: {input: 2.00, output: 10.00, max_output: 4096}
  claude/*: {input: 2.00, output: 10.00, max_output: 4096}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def old(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    async with serving(write_files(database.parent, upstream_of_module.url, ROUTING, PRICING)) as running:
        yield running


async def ask(server: Server, model: str = "fake/ok", prompt: Any = "one two three", **fields: Any) -> Answer:
    body = json.dumps({"model": model, "prompt": prompt, **fields}).encode()
    return await post(server.port, body, path=PATH)


def texts_of(answer: Answer) -> dict[int, str]:
    """The text of each choice of a stream."""
    texts: dict[int, str] = {}
    for event in answer.events:
        for choice in event["choices"] if event != "[DONE]" else ():
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


@pytest.mark.parametrize("model", ["fake/ok", "one/ok", "claude/ok", "auto", "auto:chat", "either"])
async def test_the_sdk_gets_a_completion(old: Server, upstream: FakeUpstream, database: Path, model: str) -> None:
    """From every vendor, by name, by the router and by a fallback; metered like a chat."""
    upstream.modes["e503"] = "e503"
    client: Any = old.client
    raw = await client.completions.with_raw_response.create(model=model, prompt="one two three")
    answer = raw.parse()
    assert [(each.text, each.index, each.finish_reason, each.logprobs) for each in answer.choices] == [
        (TEN, 0, "stop", None)
    ]
    assert (answer.object, answer.id) == ("text_completion", f"cmpl-{raw.headers['x-request-id']}")
    assert answer.model == raw.headers["x-proxy-model"]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 10, 13)
    row = await row_with_id(database, raw.headers["x-request-id"])
    assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("ok", 3, 10)
    assert row["cost_nano"] == 3 * INPUT_NANO + 10 * OUTPUT_NANO == round(answer.usage.cost * 1e9)


@pytest.mark.parametrize("model", ["fake/ok", "one/ok", "claude/ok", "auto", "either", "fake/chunk_split"])
async def test_the_sdk_reads_a_stream(old: Server, upstream: FakeUpstream, model: str) -> None:
    """Its pieces add up to the whole answer; the usage comes last, if asked for."""
    upstream.modes["e503"] = "e503"
    client: Any = old.client
    options = {"model": model, "prompt": "one two three", "stream": True}
    chunks = [each async for each in await client.completions.create(**options, stream_options={"include_usage": True})]
    *pieces, finish, last = chunks
    assert "".join(each.choices[0].text for each in pieces) == TEN
    assert [each.choices[0].finish_reason for each in (*pieces, finish)] == [None] * len(pieces) + ["stop"]
    assert (last.choices, last.usage.total_tokens) == ([], 13)
    assert {(each.object, each.id, each.model) for each in chunks} == {("text_completion", last.id, last.model)}
    bare = [each async for each in await client.completions.create(**options)]
    assert (len(bare), {each.usage for each in bare}) == (len(chunks) - 1, {None})


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", ["fake", "one"])
async def test_several_prompts_get_n_choices_each(
    old: Server, upstream: FakeUpstream, database: Path, provider: str, stream: bool
) -> None:
    """In the order of the prompts, as attempts of one call; each prompt is a chat of its own."""
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    answer = await ask(old, f"{provider}/echo", ["one", "two", "three"], n=2, stream=stream, max_tokens=50, **usage)
    if stream:
        texts, total = texts_of(answer), answer.events[-2]["usage"]
        finishes = [c for event in answer.events[:-1] for c in event["choices"] if c["finish_reason"]]
        assert sorted(each["index"] for each in finishes) == list(range(6))
    else:
        texts, total = {each["index"]: each["text"] for each in answer.json["choices"]}, answer.json["usage"]
        assert [each["index"] for each in answer.json["choices"]] == list(range(6))
    asked = [json.loads(texts[place])["messages"] for place in range(6)]
    assert asked == [[{"role": "user", "content": word}] for word in ("one", "two", "three") for _ in range(2)]
    row = await row_of(database, answer)
    assert row["attempts"] == len(upstream.ledger) == (3 if provider == "fake" else 6)
    assert (row["outcome"], row["total_tokens"], row["cost_nano"]) == (
        "ok",
        total["total_tokens"],
        round(total["cost"] * 1e9),
    )


async def test_a_budget_is_asked_once_for_all_prompts(tmp_path: Path, upstream: FakeUpstream) -> None:
    """Nothing is sent if they do not all fit, and nothing stays held."""
    routing = ROUTING + "budget: {{daily_usd: 0.003, when_spent: reject}}\n"
    async with serving(write_files(tmp_path, upstream.url, routing, PRICING)) as tight:
        refused = await ask(tight, "one/ok", ["a", "b", "c"], max_tokens=20)
        assert (refused.status, refused.error()["code"]) == (429, "insufficient_quota")
        assert upstream.ledger == []
        assert tight.runtime.ledger.state.reserved_nano == 0
        assert (await ask(tight, "one/ok", ["a"], max_tokens=20)).status == 200


async def test_one_failure_fails_all_prompts(old: Server, upstream: FakeUpstream) -> None:
    """One status for one answer."""
    upstream.modes["sometimes"] = "flap(p=0.0)"
    answer = await ask(old, "one/sometimes", ["a", "b"])
    assert (answer.status, answer.error()["code"]) == (502, "upstream_error")


async def test_an_ensemble_completes_one_prompt(old: Server, upstream: FakeUpstream) -> None:
    """It gives one answer, so a list is refused by name."""
    answer = await ask(old, "ensemble:pair", max_tokens=60)
    assert (answer.status, answer.json["model"]) == (200, "ensemble:pair")
    assert answer.json["choices"][0]["text"]
    assert answer.json["routing"]["ensemble"]
    streamed = await ask(old, "ensemble:pair", max_tokens=60, stream=True)
    assert texts_of(streamed) == {0: answer.json["choices"][0]["text"]}
    assert streamed.events[-2]["choices"][0]["finish_reason"] == "stop"
    refused = await ask(old, "ensemble:pair", ["a", "b"])
    assert (refused.status, refused.error()["param"]) == (400, "prompt")


@pytest.mark.parametrize("path", ["/completions", "/openai/v1/completions", "/v1/v1/completions"])
async def test_it_is_served_wherever_chats_are(old: Server, path: str) -> None:
    """Base URLs with and without /v1, and Azure's."""
    body = json.dumps({"model": "fake/ok", "prompt": "x"}).encode()
    assert (await post(old.port, body, path=path)).json["object"] == "text_completion"
    azure = await post(old.port, b'{"prompt": "x"}', path="/openai/deployments/fake/ok/completions")
    assert azure.json["object"] == "text_completion"


async def test_errors_are_openais(old: Server, upstream: FakeUpstream, database: Path) -> None:
    """Refused before anything is sent; the row says so."""
    client: Any = old.client
    with pytest.raises(BadRequestError) as error:
        await client.completions.create(model="fake/ok", prompt="x", suffix="y")
    assert (error.value.param, error.value.code) == ("suffix", "unsupported_parameter")
    refused = await ask(old, echo=True)
    assert (await row_of(database, refused))["outcome"] == "rejected"
    assert upstream.ledger == []
    broken = await ask(old, "fake/cut_clean(k=2)", stream=True)
    assert broken.events[-1]["error"]["code"] == "upstream_truncated"
    assert "[DONE]" not in broken.events


async def test_a_trace_is_shown(old: Server) -> None:
    """Whole and streamed."""
    whole = await ask(old, routing={"trace": True})
    streamed = await ask(old, routing={"trace": True}, stream=True)
    for body in (whole.json, streamed.events[-2]):
        assert body["routing"]["attempts"][0]["model"] == "fake/ok"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_retry_gets_the_answer_that_was_bought(old: Server, upstream: FakeUpstream, stream: bool) -> None:
    """By its Idempotency-Key; only the cost is none the second time."""
    body = json.dumps({"model": "one/ok", "prompt": ["a", "b"], "stream": stream}).encode()
    key = f"completion-{stream}"
    first, again = [await post(old.port, body, path=PATH, idempotency_key=key) for _ in range(2)]
    assert again.body.partition(b'"usage"')[0] == first.body.partition(b'"usage"')[0]
    assert len(upstream.ledger) == 2
    assert again.headers("idempotent-replayed") == ["true"]


# --- servers that have the endpoint -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_goes_as_it_came_where_the_server_completes(
    old: Server, upstream: FakeUpstream, database: Path, stream: bool
) -> None:
    """`echo`, `suffix` and `logprobs` work, the call is priced, and a stream has no usage that nobody asked for."""
    answer = await ask(old, "raw/ok", "one two", echo=True, suffix=" end", logprobs=1, stream=stream, max_tokens=2)
    (seen,) = upstream.ledger
    assert seen.path.endswith("/completions") and "/chat/" not in seen.path
    events = [event for event in answer.events if event != "[DONE]"] if stream else [answer.json]
    choices = [choice for event in events for choice in event["choices"]]
    assert "".join(choice["text"] for choice in choices) == "one two tok0 tok1 end"
    found = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    assert [each for one in found for each in one["token_logprobs"]] == [None, -0.5, -0.5, -0.5]
    assert [each for one in found for each in one["text_offset"]] == [0, 8, 12, 17]
    assert stream or answer.json["usage"]["completion_tokens"] == 2
    assert all(event["choices"] for event in events)
    row = await row_of(database, answer)
    assert (row["input_tokens"], row["output_tokens"], row["outcome"]) == (2, 2, "ok")
    assert row["cost_nano"] == 2 * INPUT_NANO + 2 * OUTPUT_NANO


async def test_several_prompts_of_token_ids_are_completed(old: Server, upstream: FakeUpstream) -> None:
    """Each by itself, in order."""
    answer = await ask(old, "raw/ok", [[1, 2], [3]], echo=True, max_tokens=1)
    assert [choice["text"] for choice in answer.json["choices"]] == ["1 2 tok0", "3 tok0"]
    assert len(upstream.ledger) == 2


async def test_an_ensemble_refuses_what_only_a_server_can_do(old: Server, upstream: FakeUpstream) -> None:
    """By name, before anything is sent."""
    answer = await ask(old, "ensemble:pair", suffix="end")
    assert (answer.status, answer.json["error"]["param"]) == (400, "suffix")
    assert upstream.ledger == []
