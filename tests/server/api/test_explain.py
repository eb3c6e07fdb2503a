"""`POST /v1/route/explain`: what a call would get, before it is made."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.server.api.raw import HELLO, get, post, request, send
from tests.server.api.rows import calls
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADMIN, KEY = "the-admin-key-of-these-tests", "the-key-of-the-callers"
EXPLAIN = "/v1/route/explain"
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
models:
  texts: {{use: "fake/ok(tag=text)", fallback: [fake/ok]}}
  only-text: "fake/ok(tag=text)"
aliases: {{gpt-4: texts}}
router: {{default_model: fake/ok, fallback: ["fake/ok(tag=b)"]}}
keys: {{default: {{models: [texts, auto, "fake/ok*"]}}}}
"""
PRICING = """
version: 1
models:
  fake/ok: {input: 2.00, output: 10.00, max_output: 100, supports: [images, tools]}
  fake/ok(tag=text): {input: 1.00, output: 4.00, max_output: 100, supports: [tools]}
"""
IMAGE: Any = [
    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}}]}
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explain")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def routed(upstream_of_module: FakeUpstream, folder: Path) -> AsyncIterator[Server]:
    files = write_files(folder, upstream_of_module.url, ROUTING, PRICING)
    async with serving(files, {"PROXY_API_KEY": KEY, "PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


async def explain(server: Server, model: str, messages: Any = HELLO, **fields: Any) -> dict[str, Any]:
    """With the unmodified SDK, as any other path of the API."""
    body = {"model": model, "messages": messages, **fields}
    client = server.client.with_options(api_key=KEY)
    return dict((await client.post("/route/explain", body=body, cast_to=httpx.Response)).json())


async def test_the_answer_has_the_shape_of_the_contract(routed: Server) -> None:
    """Facts, rules, candidates with order and cost, what is chosen, the snapshot."""
    told = await explain(routed, "texts", max_tokens=10)
    assert {"facts", "rules", "candidates", "chosen", "fallbacks", "estimated_cost_usd", "budget", "snapshot"} <= set(
        told
    )
    assert (told["chosen"], told["fallbacks"], told["budget"]) == ("fake/ok(tag=text)", ["fake/ok"], None)
    assert [(each["model"], each["order"], each["rejected"]) for each in told["candidates"]] == [
        ("fake/ok(tag=text)", 1, None),
        ("fake/ok", 2, None),
    ]
    low, high = told["estimated_cost_usd"]["low"], told["estimated_cost_usd"]["high"]
    assert 0 < low <= high and told["candidates"][0]["estimated_cost_usd"] == {"low": low, "high": high}
    assert told["facts"]["input_tokens_estimate"] > 0
    assert (told["facts"]["output_tokens_limit"], told["facts"]["task"]) == (10, None)
    config = json.loads((await get(routed.port, "/health")).body)["config"]["version"]
    assert told["snapshot"].startswith(config)


@pytest.mark.parametrize("model", ["texts", "gpt-4", "auto", "fake/ok(tag=text)", "only-text", "auto:chat"])
async def test_what_is_explained_is_what_a_call_takes(routed: Server, model: str) -> None:
    """Names, aliases, direct names and auto."""
    chosen = (await explain(routed, model))["chosen"]
    client = routed.client.with_options(api_key=KEY)
    answer = await client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
    assert answer.headers["x-proxy-model"] == chosen


async def test_a_model_that_cannot_take_the_content_is_rejected_with_the_reason(routed: Server) -> None:
    """And a call goes to the next one."""
    told = await explain(routed, "texts", IMAGE)
    assert [(each["order"], each["rejected"]) for each in told["candidates"]] == [
        (None, "fake/ok(tag=text) cannot take image content."),
        (1, None),
    ]
    assert (told["chosen"], told["fallbacks"], told["facts"]["has_images"]) == ("fake/ok", [], True)
    client = routed.client.with_options(api_key=KEY)
    answer = await client.chat.completions.with_raw_response.create(model="texts", messages=IMAGE)
    assert answer.headers["x-proxy-model"] == "fake/ok"


async def test_nothing_is_called_or_metered(routed: Server, upstream: FakeUpstream, folder: Path) -> None:
    """No request upstream, no row."""
    before = len(calls(folder / "usage.db"))
    await explain(routed, "auto", stream=True)
    assert (len(upstream.ledger), len(calls(folder / "usage.db"))) == (0, before)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "nothing"},
        {"model": "texts", "messages": []},
        {"model": "texts", "n": 0},
        {"model": "auto:nothing"},
        {"model": "only-text", "messages": IMAGE},
        {"model": "texts", "routing": {"taks": "chat"}},
        {"messages": HELLO},
    ],
)
async def test_errors_are_those_of_a_call(routed: Server, fields: dict[str, Any]) -> None:
    """Status, code, parameter and message."""
    body = json.dumps({"messages": HELLO, **fields}).encode()
    told, called = [await post(routed.port, body, path, x_api_key=KEY) for path in (EXPLAIN, "/v1/chat/completions")]
    assert (told.status, told.error()) == (called.status, called.error())
    assert told.status in (400, 404)


async def test_keys_and_allow_lists_hold(routed: Server) -> None:
    """What a key may not call it may not ask about either."""
    body = json.dumps({"model": "fake/other", "messages": HELLO}).encode()
    assert (await post(routed.port, body, EXPLAIN)).error()["code"] == "invalid_api_key"
    refused = await post(routed.port, body, EXPLAIN, x_api_key=KEY)
    assert (refused.status, refused.error()["code"]) == (403, "model_not_allowed")
    assert (await post(routed.port, body, "/route/explain", x_api_key=ADMIN)).status == 200


async def test_bodies_that_are_not_json_are_refused(routed: Server) -> None:
    """As on the chat route."""
    wrong = request(b"model: auto", path=EXPLAIN, headers={"content-type": "application/yaml", "x-api-key": KEY})
    assert (await send(routed.port, wrong)).error()["code"] == "unsupported_media_type"
    assert (await post(routed.port, b"{", EXPLAIN, x_api_key=KEY)).error()["code"] == "invalid_json"
    large = b'{"model": "' + b"x" * (33 * 1024 * 1024) + b'"}'
    assert (await post(routed.port, large, EXPLAIN, x_api_key=KEY)).status in (400, 413)


async def test_a_method_other_than_post_is_refused(routed: Server) -> None:
    """With the framework's own error, in OpenAI's shape."""
    answer = await get(routed.port, EXPLAIN, x_api_key=KEY)
    assert (answer.status, answer.error()["code"]) == (405, "method_not_allowed")
    with pytest.raises(openai.NotFoundError):
        await explain(routed, "nothing")


async def test_a_model_that_could_cost_too_much_is_rejected_with_the_reason(routed: Server) -> None:
    """Before a call, and in its trace. Where nobody is left, an explanation is refused as the call is."""
    hints: Any = {"routing": {"max_cost_usd": 0.0017, "trace": True}}
    told = await explain(routed, "texts", **hints)
    assert [each["order"] for each in told["candidates"]] == [1, None]
    assert "fake/ok could cost up to $0.00" in told["candidates"][1]["rejected"]
    assert (told["chosen"], told["fallbacks"]) == ("fake/ok(tag=text)", [])
    client = routed.client.with_options(api_key=KEY)
    answer = await client.chat.completions.create(model="texts", messages=HELLO, extra_body=hints)
    assert (answer.model_extra or {})["routing"]["candidates"] == told["candidates"]
    hints["routing"]["no_fallback"] = True
    for model in ("auto", "fake/ok"):
        with pytest.raises(openai.APIStatusError) as before:
            await explain(routed, model, **hints)
        with pytest.raises(openai.APIStatusError) as after:
            await client.chat.completions.create(model=model, messages=HELLO, extra_body=hints)
        assert (before.value.status_code, before.value.code) == (402, "max_cost_exceeded")
        assert before.value.body == after.value.body
