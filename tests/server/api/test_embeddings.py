"""`POST /v1/embeddings`: OpenAI's wire for every provider that has vectors, metered and limited like chat."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from proxy.server.formats.embeddings import MAX_INPUTS
from tests.server.api.raw import get, post, request, send
from tests.server.api.rows import row_of, row_with_id
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.inputs_wire import tokens, vector

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/embeddings"
KEY = "proxy-key-0123456789abcdef"
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  again: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 1, timeout_s: {timeouts}}}
  small: {{type: cohere, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
  local: {{type: embedded}}
models:
  spare: {{use: fake/e503, fallback: [again/ok]}}
  short: {{use: fake/no_finish, fallback: [again/ok]}}
router: {{default_model: local/smollm2-135m}}
"""
PRICING = """
version: 1
models:
  fake/*: {input: 0.02}
  again/*: {input: 0.02}
  small/*: {input: 0.10}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    files = write_files(database.parent, upstream_of_module.url, ROUTING, PRICING)
    async with serving(files) as running:
        yield running


def body(inputs: Any, model: str = "fake/ok", **fields: Any) -> bytes:
    return json.dumps({"model": model, "input": inputs, **fields}).encode()


# --- the wire ---------------------------------------------------------------------------------------------------------


async def test_the_sdk_gets_numbers_though_it_asks_for_base64(upstream: FakeUpstream, server: Server) -> None:
    """Unmodified, with its defaults: base64 on the wire, floats in the hand, one for each input, in order."""
    answer = await server.client.embeddings.create(model="fake/ok", input=["one two", "three"])
    assert [each.embedding for each in answer.data] == [vector("one two"), vector("three")]
    assert [each.index for each in answer.data] == [0, 1]
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("fake/ok", 3, 3)
    assert answer.usage.to_dict()["cost"] == 3 * 0.02 / 1e6


@pytest.mark.parametrize(
    ("inputs", "each"),
    [
        ("one two", ["one two"]),
        (["one", "two three"], ["one", "two three"]),
    ],
)
async def test_texts_one_or_many(upstream: FakeUpstream, server: Server, inputs: Any, each: list[Any]) -> None:
    """Vectors as numbers, in the order of the texts."""
    answer = await post(server.port, body(inputs, encoding_format="float"), PATH)
    assert answer.status == 200, answer.body
    assert [entry["embedding"] for entry in answer.json["data"]] == [vector(one) for one in each]
    assert answer.json["usage"]["prompt_tokens"] == sum(map(tokens, each))
    assert answer.json["object"] == "list"


async def test_base64_is_little_endian_float32(upstream: FakeUpstream, server: Server) -> None:
    """Byte for byte, whatever the server's own order is; without the field numbers are sent."""
    answer = await post(server.port, body("one", encoding_format="base64", dimensions=3), PATH)
    (entry,) = answer.json["data"]
    assert base64.b64decode(entry["embedding"]) == struct.pack("<3f", *vector("one", 3))
    plain = await post(server.port, body("one", dimensions=3), PATH)
    assert plain.json["data"][0]["embedding"] == vector("one", 3)


async def test_a_long_vector_is_one_base64_text(upstream: FakeUpstream, server: Server) -> None:
    """It is written in slices, without padding in between."""
    answer = await post(server.port, body("one", encoding_format="base64", dimensions=65_536), PATH)
    (entry,) = answer.json["data"]
    packed = struct.pack("<65536f", *vector("one", 65_536))
    assert entry["embedding"] == base64.b64encode(packed).decode()


async def test_a_provider_that_sends_numbers_serves_base64_too(upstream: FakeUpstream, server: Server) -> None:
    """How the client wants its vectors is not the vendor's business."""
    answer = await server.client.embeddings.create(model="small/ok", input="one two")
    numbers = await server.client.embeddings.create(model="small/ok", input="one two", encoding_format="float")
    assert answer.data[0].embedding == pytest.approx(numbers.data[0].embedding)


async def test_the_same_without_v1(upstream: FakeUpstream, server: Server) -> None:
    assert (await post(server.port, body("one"), "/embeddings")).json["data"][0]["embedding"] == vector("one")


async def test_headers_tell_what_answered(upstream: FakeUpstream, server: Server) -> None:
    """As for chat."""
    answer = await post(server.port, body("one two"), PATH)
    told = {name: answer.headers(name) for name in ("x-proxy-model", "x-proxy-provider", "x-proxy-attempts")}
    assert told == {"x-proxy-model": ["fake/ok"], "x-proxy-provider": ["fake"], "x-proxy-attempts": ["1"]}
    assert answer.headers("x-proxy-cost-usd") == ["0.000000040"]
    assert answer.headers("x-proxy-overhead-ms")


# --- many inputs ------------------------------------------------------------------------------------------------------


async def test_more_inputs_than_a_provider_takes_are_several_attempts(
    upstream: FakeUpstream, server: Server, database: Path
) -> None:
    """One call, one row, one answer in the order of the inputs; its cost and usage are their sums."""
    inputs = [f"text number {place}" for place in range(200)]  # 96 at once
    whole = await post(server.port, body(inputs, "small/ok"), PATH)
    assert whole.status == 200, whole.body
    assert [seen.path.rpartition("/")[2] for seen in upstream.ledger] == ["embed"] * 3
    vectors = [entry["embedding"] for entry in whole.json["data"]]
    alone = await post(server.port, body(inputs[150], "small/ok"), PATH)
    assert vectors[150] == alone.json["data"][0]["embedding"]
    assert [entry["index"] for entry in whole.json["data"]] == list(range(200))
    assert whole.headers("x-proxy-attempts") == ["3"]
    row = await row_of(database, whole)
    sent = sum(map(tokens, inputs))
    assert (row["attempts"], row["input_tokens"], row["outcome"], row["fallback"]) == (3, sent, "ok", 0)
    assert whole.json["usage"]["prompt_tokens"] == sent
    assert whole.json["usage"]["cost"] == pytest.approx(row["cost_nano"] / 1e9)


async def test_the_part_that_fails_fails_the_call_and_the_others_are_paid(
    upstream: FakeUpstream, server: Server, database: Path
) -> None:
    """No half answers."""
    upstream.modes["shaky"] = "flap(p=0.5,seed=4)"
    inputs = ["one two"] * 96 * 6
    answer = await post(server.port, body(inputs, "small/shaky"), PATH)
    assert answer.error()["code"] == "upstream_error"
    row = await row_of(database, answer)
    answered = [seen for seen in upstream.ledger if seen.status == 200]
    assert 0 < len(answered) < 6
    assert (row["input_tokens"], row["cost_nano"]) == (2 * 96 * len(answered), 2 * 96 * len(answered) * 100)


async def test_a_failure_that_passes_is_retried_and_another_model_stands_in(
    upstream: FakeUpstream, server: Server
) -> None:
    """As in chat; the answer says who it was."""
    assert (await post(server.port, body("one", "again/fail_first(n=1)"), PATH)).headers("x-proxy-attempts") == ["2"]
    spare = await post(server.port, body("one", "spare"), PATH)
    assert (spare.headers("x-proxy-model"), spare.json["model"]) == (["again/ok"], "again/ok")
    short = await post(server.port, body("one", "short"), PATH)  # an answer that is not what was asked for
    assert (short.status, short.headers("x-proxy-model")) == (200, ["again/ok"])


async def test_all_vectors_of_an_answer_are_of_one_model(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Vectors of two models cannot be compared: who answered the first part is asked for the others too."""
    routing = ROUTING.replace(
        "spare: {{use: fake/e503, fallback: [again/ok]}}", "two: {{use: small/e503, fallback: [small/ok]}}"
    )
    async with serving(write_files(tmp_path, upstream.url, routing, PRICING)) as running:
        answer = await post(running.port, body(["one"] * 100, "two"), PATH)
    assert answer.status == 200, answer.body
    assert [seen.model for seen in upstream.ledger] == ["e503", "ok", "ok"]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", "b", "c", ""]}, "input.3"),
        ({"input": [[1], []]}, "input.1"),
        ({"input": ["a", [1]]}, "input.1"),
        ({"input": [1, "a"]}, "input.1"),
        ({"input": ["a", None]}, "input.1"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": [True]}, "input.0"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input"),
        ({}, "input"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": "8"}, "dimensions"),
        ({"input": "a", "Dimensions": 8}, "Dimensions"),
        ({"input": "a", "user": 7}, "user"),
        ({"input": "a", "model": " "}, "model"),
        ({"input": "a", "routing": {"strictt": True}}, "routing.strictt"),
    ],
)
async def test_bad_input_is_named(upstream: FakeUpstream, server: Server, fields: Any, param: str) -> None:
    """400 that names the field, and which of many inputs it is; nothing was sent."""
    answer = await post(server.port, json.dumps({"model": "fake/ok", **fields}).encode(), PATH)
    error = answer.error()
    assert (answer.status, error["param"]) == (400, param), error
    assert upstream.ledger == []


async def test_the_most_inputs_are_taken(upstream: FakeUpstream, server: Server) -> None:
    """2048, the limit itself."""
    answer = await post(server.port, body(["one"] * MAX_INPUTS), PATH)
    assert len(answer.json["data"]) == MAX_INPUTS


@pytest.mark.parametrize("model", ["auto", "local/smollm2-135m"])
async def test_a_model_that_only_chats_is_named(upstream: FakeUpstream, server: Server, model: str) -> None:
    """400, and nothing is sent."""
    answer = await post(server.port, body("one", model), PATH)
    error = answer.error()
    assert (answer.status, error["param"], error["code"]) == (400, "model", "unsupported_parameter")
    assert "embeddings" in error["message"]
    assert upstream.ledger == []


async def test_unknown_models_and_methods(upstream: FakeUpstream, server: Server) -> None:
    """As for chat."""
    missing = await post(server.port, body("one", "nobody/knows"), PATH)
    assert (missing.status, missing.error()["code"]) == (404, "model_not_found")
    got = await get(server.port, PATH)
    assert (got.status, got.error()["code"]) == (405, "method_not_allowed")


async def test_missing_vectors_are_an_error(upstream: FakeUpstream, server: Server, database: Path) -> None:
    """Never fewer vectors than inputs."""
    answer = await post(server.port, body(["one", "two"], "fake/no_finish"), PATH)
    assert (answer.status, answer.error()["code"]) == (502, "upstream_error")
    row = await row_of(database, answer)
    assert (row["outcome"], row["estimated"], row["attempts"]) == ("upstream_error", 0, 1)


async def test_errors_of_the_provider_keep_their_status(upstream: FakeUpstream, server: Server) -> None:
    answer = await post(server.port, body("one", "fake/e429(retry_after=7)"), PATH)
    assert (answer.status, answer.headers("retry-after")) == (429, ["7"])


# --- metering and limits ----------------------------------------------------------------------------------------------


async def test_rows_say_what_was_asked_for(upstream: FakeUpstream, server: Server, database: Path) -> None:
    """Answered, refused or unreadable: `task_type` is `embeddings`."""
    ok = await post(server.port, body("one two"), PATH)
    bad = await post(server.port, body(""), PATH)
    unknown = await post(server.port, body("one", "nobody/knows"), PATH)
    rows = [await row_of(database, answer) for answer in (ok, bad, unknown)]
    assert [row["task_type"] for row in rows] == ["embeddings"] * 3
    assert [row["outcome"] for row in rows] == ["ok", "rejected", "rejected"]
    assert (rows[0]["input_tokens"], rows[0]["output_tokens"], rows[0]["cost_nano"]) == (2, 0, 40)


async def test_usage_tells_them_from_chats(upstream: FakeUpstream, server: Server) -> None:
    """`group_by=task`."""

    async def of_embeddings() -> dict[str, Any]:
        groups = (await get(server.port, "/v1/usage?group_by=task")).json["groups"]
        return next((group for group in groups if group["task"] == "embeddings"), {"calls": 0, "input_tokens": 0})

    before = await of_embeddings()
    await post(server.port, body("one two three"), PATH)
    await server.client.chat.completions.create(model="fake/ok", messages=[{"role": "user", "content": "hi"}])
    after = await of_embeddings()
    assert (after["calls"], after["input_tokens"]) == (before["calls"] + 1, before["input_tokens"] + 3)


async def test_without_usage_the_tokens_are_estimated(upstream: FakeUpstream, server: Server, database: Path) -> None:
    """And the answer says so."""
    answer = await post(server.port, body("one two three", "fake/no_usage"), PATH)
    row = await row_of(database, answer)
    assert answer.json["usage"]["estimated"] is True
    assert row["estimated"] == 1
    assert 0 < row["input_tokens"] < 20


async def test_a_client_that_leaves_cancels(upstream: FakeUpstream, server: Server, database: Path) -> None:
    """Within 250 ms, and the row says who left."""
    with pytest.raises(TimeoutError):
        await send(server.port, request(body("one", "fake/blackhole"), path=PATH), timeout_s=0.2)
    await upstream.until(lambda: bool(upstream.ledger) and upstream.open == 0, 1.0)
    assert upstream.ledger[0].peer_closed_early
    attempt_id = upstream.ledger[0].id or ""
    row = await row_with_id(database, attempt_id.rpartition("-")[0])
    assert row["outcome"] == "client_closed"


async def test_keys_allow_lists_and_rate_limits_hold(upstream: FakeUpstream, tmp_path: Path) -> None:
    """The same gate as chat's: 401, 403, 429 with what is left."""
    routing = ROUTING + (
        "keys: {{default: {{models: [fake/ok], max_output_tokens: 5}}}}\n"
        "rate_limits: {{default: {{requests_per_minute: 2, tokens_per_minute: 100}}}}\n"
    )
    async with serving(write_files(tmp_path, upstream.url, routing, PRICING), {"PROXY_API_KEY": KEY}) as running:
        assert (await post(running.port, body("one"), PATH)).status == 401
        bearer = f"Bearer {KEY}"
        refused = await post(running.port, body("one", "small/ok"), PATH, authorization=bearer)
        assert (refused.status, refused.error()["code"]) == (403, "model_not_allowed")  # uses nothing of the limits
        first = await post(running.port, body("one two"), PATH, authorization=bearer)
        assert (first.status, first.headers("x-ratelimit-limit-tokens")) == (200, ["100"])
        assert (await post(running.port, body("two"), PATH, authorization=bearer)).status == 200
        again = await post(running.port, body("one"), PATH, authorization=bearer)
        assert (again.status, again.error()["code"]) == (429, "rate_limit_exceeded")


async def test_strict_refuses_what_would_be_dropped(upstream: FakeUpstream, server: Server) -> None:
    """`user` is not Cohere's; without `strict` it is left out and said."""
    loose = await post(server.port, body("one", "small/ok", user="u"), PATH)
    assert (loose.status, loose.headers("x-proxy-dropped-params")) == (200, ["user"])
    strict = await post(server.port, body("one", "small/ok", user="u", routing={"strict": True}), PATH)
    assert (strict.status, strict.error()["param"]) == (400, "user")


async def test_sdk_errors_are_the_sdks_own(upstream: FakeUpstream, server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await server.client.embeddings.create(model="fake/ok", input=["one", ""])
    assert caught.value.param == "input.1"
