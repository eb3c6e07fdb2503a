"""`/v1/messages` through the unmodified `anthropic` SDK, against every vendor's wire over real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
import pytest_asyncio

from proxy.server.api.request import Places
from proxy.server.http1.refusal import RefusalWriter
from tests.providers.corpus import PDF, PNG
from tests.server.api.end_to_end import INPUT_USD, OUTPUT_USD, TEN, VENDORS
from tests.server.api.raw import get
from tests.server.api.rows import row_with_id
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
HELLO: Any = [{"role": "user", "content": "one two three"}]
LOOK: Any = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
OTHERS = sorted(VENDORS.keys() - {"anthropic"})


def client_of(server: Server, **options: Any) -> Any:
    """The SDK's client, without its types: the tests read what the types call optional."""
    usual = {"api_key": "any", "max_retries": 0, "base_url": f"http://127.0.0.1:{server.port}"}
    return anthropic.AsyncAnthropic(**{**usual, **options})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def claude_of_module(vendors: Server) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with client_of(vendors) as client:
        yield client


@pytest.fixture
def claude(claude_of_module: anthropic.AsyncAnthropic, upstream: FakeUpstream) -> Any:
    """The SDK's client of all vendors."""
    return claude_of_module


async def streamed(client: Any, **fields: Any) -> Any:
    """The message that the SDK's own helper accumulates."""
    async with client.messages.stream(**{"max_tokens": 1000, "messages": HELLO, **fields}) as stream:
        return await stream.get_final_message()


async def both(client: Any, **fields: Any) -> list[Any]:
    """The whole answer and the streamed one."""
    whole = await client.messages.create(**{"max_tokens": 1000, "messages": HELLO, **fields})
    return [whole, await streamed(client, **fields)]


@pytest.mark.parametrize("vendor", sorted(VENDORS))
async def test_a_text_comes_whole_and_streamed(claude: Any, vendor: str):
    """From each vendor, with its usage in Anthropic's counts."""
    for answer in await both(claude, model=f"{vendor}/ok", system="Be brief."):
        assert "".join(block.text for block in answer.content) == TEN
        assert (answer.type, answer.role, answer.stop_reason, answer.stop_sequence) == (
            "message", "assistant", "end_turn", None,
        )  # fmt: skip
        assert answer.model in (("ok", None) if vendor == "anthropic" else (f"{vendor}/ok",))  # the fake says none
        assert answer.id.startswith("msg_")
        assert answer.usage.input_tokens >= 5
        assert answer.usage.output_tokens >= 10


@pytest.mark.parametrize("vendor", sorted(VENDORS))
async def test_a_loop_of_tools_round_trips(claude: Any, upstream: FakeUpstream, vendor: str):
    """Call, result, answer; the result reaches the vendor beside its call."""
    upstream.modes["m"] = "tools"
    for first in await both(claude, model=f"{vendor}/m", tools=[LOOK], tool_choice={"type": "any"}):
        upstream.modes["m"] = "ok"
        (use,) = [block for block in first.content if block.type == "tool_use"]
        assert (use.name, use.input["text"]) == ("look", TEN)
        assert first.stop_reason == "tool_use"
        turns = [*HELLO, {"role": "assistant", "content": first.content}]
        result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "seen"}]}
        turns.append({"role": "user", "content": [result]})
        for second in await both(claude, model=f"{vendor}/m", tools=[LOOK], messages=turns):
            assert second.content[0].text == TEN
        upstream.modes["m"] = "tools"
    assert {seen.status for seen in upstream.ledger} == {200}


@pytest.mark.parametrize("vendor", ["anthropic", "google", "cohere", "mistral"])
async def test_thoughts_are_blocks_that_travel_back(claude: Any, upstream: FakeUpstream, vendor: str):
    """With a signature, so that clients send them; the next turn is accepted."""
    upstream.modes["m"] = "tools-reasoning(n=2)"
    thinking = {"type": "enabled", "budget_tokens": 1024}
    asked = {"model": f"{vendor}/m", "tools": [LOOK], "thinking": thinking, "max_tokens": 3000}
    for first in await both(claude, **asked):
        assert [block.type for block in first.content] == ["thinking", "tool_use"]
        assert first.content[0].thinking.startswith("think0")
        assert first.content[0].signature
        result = {"type": "tool_result", "tool_use_id": first.content[1].id, "content": "seen"}
        turns = [*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        upstream.modes["m"] = "ok-reasoning(n=2)"
        for second in await both(claude, **asked, messages=turns):
            assert second.content[-1].text == TEN
        upstream.modes["m"] = "tools-reasoning(n=2)"
    assert {seen.status for seen in upstream.ledger} == {200}


async def test_a_conversation_moves_between_endpoints_and_vendors(claude: Any, vendors: Server, upstream: FakeUpstream):
    """Its thoughts and calls go from chat completions to messages, to another vendor and back."""
    upstream.modes["claude-haiku-4-5"] = "tools-reasoning(n=2)"
    tool = {"type": "function", "function": {"name": "look", "parameters": LOOK["input_schema"]}}
    chat: Any = vendors.client.chat.completions
    begun = await chat.create(
        model="anthropic/claude-haiku-4-5", messages=HELLO, tools=[tool], reasoning_effort="low", max_tokens=3000
    )
    message = begun.choices[0].message
    (call,) = message.tool_calls
    blocks = [{key: block[key] for key in ("type", "thinking", "signature")} for block in message.thinking_blocks]
    use = {"type": "tool_use", "id": call.id, "name": "look", "input": json.loads(call.function.arguments)}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "seen"}
    turns = [*HELLO, {"role": "assistant", "content": [*blocks, use]}, {"role": "user", "content": [result]}]
    asked = {"tools": [LOOK], "thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 3000}
    second = await claude.messages.create(model="anthropic/claude-haiku-4-5", messages=turns, **asked)
    turns.append({"role": "assistant", "content": second.content})
    (again,) = [block for block in second.content if block.type == "tool_use"]
    turns.append({"role": "user", "content": [{**result, "tool_use_id": again.id}]})
    upstream.modes["m"] = "tools-reasoning(n=2)"
    third = await claude.messages.create(model="google/m", messages=turns, **asked)
    (foreign,) = [block for block in third.content if block.type == "tool_use"]
    turns.append({"role": "assistant", "content": third.content})
    turns.append({"role": "user", "content": [{**result, "tool_use_id": foreign.id}]})
    upstream.modes["claude-opus-5-5"] = "echo"
    thinking = {"type": "adaptive"}
    fourth = await claude.messages.with_raw_response.create(
        model="anthropic/claude-opus-5-5", messages=turns, tools=[LOOK], thinking=thinking, max_tokens=3000
    )
    said = json.loads((await fourth.parse()).content[-1].text)
    kinds = [[block["type"] for block in turn["content"]] for turn in said["messages"] if turn["role"] == "assistant"]
    assert kinds == [["thinking", "tool_use"], ["thinking", "tool_use"], ["tool_use"]]
    assert fourth.headers["x-proxy-adapted-params"] == "messages"
    history = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": "seen"},
    ]
    upstream.modes["claude-haiku-4-5"] = "echo"
    back = await chat.create(
        model="anthropic/claude-haiku-4-5", messages=history, tools=[tool], reasoning_effort="low", max_tokens=3000
    )
    kept = json.loads(back.choices[0].message.content)["messages"][1]["content"]
    assert [block["type"] for block in kept] == ["thinking", "tool_use"]


@pytest.mark.parametrize("vendor", ["anthropic", "google", "mistral"])
async def test_pictures_and_documents_arrive(claude: Any, upstream: FakeUpstream, vendor: str):
    """Also in the result of a tool."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}}
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {"text": "x"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "seen"}, picture]}
    media = [picture] if vendor == "mistral" else [picture, document]
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "one"}, *media]},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    ]
    for answer in await both(claude, model=f"{vendor}/ok", messages=turns, tools=[LOOK]):
        assert answer.content[-1].text == TEN
    assert {seen.status for seen in upstream.ledger} == {200}


@pytest.mark.parametrize(("vendor", "place"), [("anthropic", '"output_config"'), ("openai", '"format"')])
async def test_an_answer_in_json_has_the_schema(claude: Any, upstream: FakeUpstream, vendor: str, place: str):
    """By `output_config.format`, in the vendor's words."""
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    form = {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}
    answer = await claude.messages.create(
        model=f"{vendor}/echo", max_tokens=1000, messages=HELLO, output_config={"format": form}
    )
    sent = answer.content[0].text
    assert place in sent
    assert json.dumps(form["schema"], separators=(",", ":")) in sent


async def test_the_end_says_why(claude: Any, upstream: FakeUpstream):
    """In Anthropic's words, whoever answers."""
    for vendor in ("anthropic", "google", "mistral"):
        upstream.modes["m"] = "finish(reason=length)"
        for answer in await both(claude, model=f"{vendor}/m"):
            assert answer.stop_reason == "max_tokens"
    for vendor in ("anthropic", "google"):
        upstream.modes["m"] = "refusal"
        for answer in await both(claude, model=f"{vendor}/m"):
            assert answer.stop_reason == "refusal"


async def test_the_stop_sequence_is_named(claude: Any, upstream: FakeUpstream):
    """By Anthropic itself, and where the proxy cuts the answer for a vendor that takes fewer of them."""
    stops = ["a", "b", "c", "d", "e", " tok3"]
    for answer in await both(claude, model="openai/ok", stop_sequences=stops):
        assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " tok3")
        assert answer.content[0].text == "tok0 tok1 tok2"


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "kind", "error"),
    [
        ("nobody/x", "not_found_error", anthropic.NotFoundError),
        ("google/e404", "not_found_error", anthropic.NotFoundError),
        ("google/e401", "authentication_error", anthropic.AuthenticationError),
        ("google/e429(code=rate_limit_exceeded)", "rate_limit_error", anthropic.RateLimitError),
        ("google/e500", "api_error", anthropic.InternalServerError),
        ("google/e504", "timeout_error", anthropic.InternalServerError),
        ("google/context_length", "invalid_request_error", anthropic.BadRequestError),
        ("anthropic/e401", "authentication_error", anthropic.AuthenticationError),
        ("anthropic/e529", "overloaded_error", anthropic.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_have_anthropics_shape(claude: Any, model: str, kind: str, error: type[Exception], stream: bool):
    """Before the first byte, with their status and the id of the request."""
    with pytest.raises(error) as caught:
        await claude.messages.create(model=model, max_tokens=9, messages=HELLO, stream=stream)
    failure: Any = caught.value
    assert failure.body["type"] == "error"
    assert failure.body["error"]["type"] == kind
    assert failure.body["error"]["message"]
    assert failure.body["request_id"] == (failure.request_id if not model.startswith("anthropic") else "req_fake")


@pytest.mark.parametrize("vendor", ["google", "mistral", "anthropic"])
async def test_an_error_in_a_stream_is_an_event(claude: Any, vendor: str):
    """The SDK raises it."""
    with pytest.raises(anthropic.APIStatusError) as caught:
        await streamed(claude, model=f"{vendor}/sse_error(k=3,status=529)")
    body: Any = caught.value.body
    assert body["type"] == "error"


async def test_what_answers_in_place_of_the_endpoint_speaks_its_dialect(vendors: Server, upstream: FakeUpstream):
    """Method, path, body, host, size of the head: Anthropic's shape, under each of the paths."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{vendors.port}") as http:
        for path in ("/v1/messages", "/messages", "/v1/v1/messages"):
            answers = [
                await http.get(path),
                await http.post(path, content=b"{"),
                await http.post(path, content=b"{}", headers={"content-type": "text/plain"}),
                await http.post(path, content=b"{}", headers={"host": "evil.example"}),
                await http.post(path, content=b"{}", headers={"x-long": "x" * 40_000}),
                await http.post(f"{path}/batches", json={}),
                await http.post(f"{path}/count_tokens", json={}),
                await http.get(f"{path}/count_tokens"),
            ]
            assert [each.status_code for each in answers] == [405, 400, 415, 403, 431, 404, 400, 405]
            for each in answers:
                body = each.json()
                assert (body["type"], body["error"].keys() >= {"type", "message"}) == ("error", True)
                assert body["request_id"] == each.headers["x-request-id"] == each.headers["request-id"]


async def test_a_full_server_refuses_in_the_dialect_of_the_path(upstream: FakeUpstream):
    """At the head of the request, too, where no endpoint has seen it."""
    places = Places(0, ["/v1/messages", "/v1/chat/completions"])
    refused, chat = places.refusal("POST", "/v1/messages"), places.refusal("POST", "/v1/chat/completions")
    assert refused is not None and chat is not None
    writer = RefusalWriter()
    for error, kind in ((refused, "overloaded_error"), (chat, "server_error"), (refused, "overloaded_error")):
        body = json.loads(writer.write(error, [], keep_alive=True).partition(b"\r\n\r\n")[2])
        assert body["error"]["type"] == kind
        assert (body.get("type") == "error") is (error is refused)


async def test_a_wrong_key_is_refused_in_anthropics_shape(tmp_path: Path, upstream: FakeUpstream):
    """The right one is taken in either header, also beside another one in the other."""
    right = "k" * 32
    async with serving(write_files(tmp_path, upstream.url), {"PROXY_API_KEY": right}) as server:
        async with client_of(server, api_key="wrong") as claude:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                await claude.messages.create(model="fake/ok", max_tokens=9, messages=HELLO)
        body: Any = caught.value.body
        assert body["error"]["type"] == "authentication_error"
        url = f"http://127.0.0.1:{server.port}/v1/messages"
        body = {"model": "fake/ok", "max_tokens": 9, "messages": HELLO}
        async with httpx.AsyncClient() as http:
            for headers in (
                {"x-api-key": right},
                {"authorization": f"Bearer {right}"},
                {"authorization": "Bearer oauth-token", "x-api-key": right},
                {"authorization": f"Bearer {right}", "x-api-key": "other"},
            ):
                assert (await http.post(url, json=body, headers=headers)).status_code == 200
            wrong = {"authorization": "Bearer a", "x-api-key": "b"}
            assert (await http.post(url, json=body, headers=wrong)).status_code == 401


# --- everything else that calls have ----------------------------------------------------------------------------------


async def test_a_spent_budget_says_so_as_claude_code_reads_it(tmp_path: Path, upstream: FakeUpstream):
    """429, `billing_error`, and no retry; the message names limit, reset and the operator's note."""
    routing = ROUTING + 'budget: {{monthly_usd: 0.000001, when_spent: reject, message: "Ask Ann."}}\n'
    async with serving(write_files(tmp_path, upstream.url, routing)) as server, client_of(server) as claude:
        with pytest.raises(anthropic.RateLimitError) as caught:
            await claude.messages.create(model="fake/ok", max_tokens=100, messages=HELLO)
    error: Any = caught.value
    body: Any = error.body
    assert body["error"]["type"] == "billing_error"
    message = body["error"]["message"]
    assert message.startswith("Ask Ann.")
    assert "$1e-06 allowed" in message
    assert "resets at" in message
    assert error.response.headers["x-should-retry"] == "false"


async def test_a_row_says_what_was_used(tmp_path: Path, upstream: FakeUpstream):
    """Whole and streamed, native and translated; an answer tells its cost."""
    routing = ROUTING.replace(
        "router:", '  anthropic: {{type: anthropic, base_url: "{upstream}", allow_private: true}}\nrouter:'
    )
    pricing = "version: 1\nmodels:\n" + "".join(
        f"  {name}/*: {{input: 2.00, output: 10.00, max_output: 4096}}\n" for name in ("fake", "anthropic")
    )
    async with (
        serving(write_files(tmp_path, upstream.url, routing, pricing)) as server,
        httpx.AsyncClient(base_url=server.base_url) as http,
    ):
        for model in ("fake/ok", "anthropic/ok"):
            for stream in (False, True):
                body = {"model": model, "max_tokens": 9000, "messages": HELLO, "stream": stream}
                answer = await http.post("/messages", json=body, headers={"anthropic-version": "2023-06-01"})
                row = await row_with_id(tmp_path / "usage.db", answer.headers["x-request-id"])
                assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("ok", 3, 10)
                cost = 3 * INPUT_USD + 10 * OUTPUT_USD
                assert row["cost_nano"] == round(cost * 1e9)
                assert answer.headers["x-proxy-model"] == model
                is_ours = answer.headers["request-id"] == answer.headers["x-request-id"]
                assert is_ours is (model == "fake/ok")
                assert ("x-proxy-cost-usd" in answer.headers) is not stream
                if model == "fake/ok" and not stream:
                    assert answer.json()["usage"]["cost"] == pytest.approx(cost)


EVERY = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  anthropic: {{type: anthropic, base_url: "{upstream}", allow_private: true, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: fake/ok}}
models:
  first: {{use: fake/e500, fallback: [anthropic/ok]}}
  second: {{use: anthropic/e529, fallback: [fake/ok]}}
  down: {{use: fake/e500, fallback: [fake/e503]}}
ensembles:
  pair: {{strategy: voting, members: [fake/ok, anthropic/ok]}}
rate_limits: {{keyless: {{requests_per_minute: 100}}}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def every(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """With fallbacks, an ensemble and limits."""
    files = write_files(tmp_path_factory.mktemp("every"), upstream_of_module.url, EVERY)
    async with serving(files) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "answers"),
    [("auto", "fake/ok"), ("first", "anthropic/ok"), ("second", "fake/ok"), ("ensemble:pair", "ensemble:pair")],
)
async def test_virtual_names_fallbacks_and_ensembles_answer(
    every: Server, upstream: FakeUpstream, name: str, answers: str
):
    """In Anthropic's shape, whole and streamed."""
    async with client_of(every) as claude:
        for answer in await both(claude, model=name):
            assert "".join(block.text for block in answer.content) == TEN
            assert answer.model in (answers, "ok" if answers == "anthropic/ok" else answers, None)


async def test_a_total_failure_invites_to_come_again(every: Server, upstream: FakeUpstream):
    """503 with Retry-After, and nothing that keeps a client from it."""
    async with client_of(every) as claude:
        with pytest.raises(anthropic.InternalServerError) as caught:
            await claude.messages.create(model="down", max_tokens=9, messages=HELLO)
    headers = caught.value.response.headers
    assert caught.value.status_code == 503
    assert int(headers["retry-after"]) >= 1
    assert "x-should-retry" not in headers


async def test_hints_work_in_body_header_and_metadata(every: Server, upstream: FakeUpstream):
    """And none of them reaches a vendor."""
    async with client_of(every) as claude:
        for more in (
            {"extra_body": {"routing": {"task": "code", "trace": True}}},
            {"extra_headers": {"x-proxy-task": "code", "x-proxy-trace": "true"}},
            {"metadata": {"user_id": "u", "routing.task": "code", "routing.trace": "true"}},
        ):
            traced = await claude.messages.create(model="auto", max_tokens=9, messages=HELLO, **more)
            assert traced.to_dict()["routing"]["requested"] == "auto"
            upstream.modes["m"] = "echo"
            native = await claude.messages.create(model="anthropic/m", max_tokens=9, messages=HELLO, **more)
            sent = json.loads(native.content[0].text)
            assert "routing" not in sent
            assert sent.get("metadata", {}).keys() <= {"user_id"}
        with pytest.raises(anthropic.BadRequestError) as caught:
            await claude.messages.create(model="auto", max_tokens=9, messages=HELLO, extra_body={"routing": {"x": 1}})
    assert "routing.x" in caught.value.message


@pytest.mark.parametrize("model", ["fake/ok", "anthropic/ok"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeat_with_the_same_key_is_bought_once(
    every: Server, upstream: FakeUpstream, model: str, stream: bool
):
    """The same answer, which costs nothing the second time."""
    body = {"model": model, "max_tokens": 9, "messages": HELLO, "stream": stream}
    headers = {"idempotency-key": f"{model}{stream}", "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(base_url=every.base_url) as http:
        first = await http.post("/messages", json=body, headers=headers)
        again = await http.post("/messages", json=body, headers=headers)
    assert first.status_code == 200
    without = [re.sub(rb'"cost[^}]*}?', b"", each.content) for each in (first, again)]
    assert without[0] == without[1]
    assert again.headers["idempotent-replayed"] == "true"
    assert len(upstream.ledger) == 1


async def test_limits_are_told(every: Server, upstream: FakeUpstream):
    """Those of the caller's own key."""
    async with client_of(every) as claude:
        raw = await claude.messages.with_raw_response.create(model="fake/ok", max_tokens=9, messages=HELLO)
    assert raw.headers["x-ratelimit-limit-requests"] == "100"
    assert raw.headers["request-id"] == raw.headers["x-request-id"]


# --- counts and models ------------------------------------------------------------------------------------------------


async def test_tokens_are_counted_for_free(claude: Any, upstream: FakeUpstream):
    """By Anthropic itself; for other vendors the proxy estimates. Nothing is metered."""
    counted = await claude.messages.count_tokens(model="anthropic/ok", messages=HELLO, system="four")
    assert counted.input_tokens == 4
    estimated = await claude.messages.count_tokens(model="google/ok", messages=HELLO, system="four", tools=[LOOK])
    assert 10 < estimated.input_tokens < 100
    with pytest.raises(anthropic.NotFoundError) as caught:
        await claude.messages.count_tokens(model="anthropic/e404", messages=HELLO)
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "model: e404"},
        "request_id": "req_fake",
    }
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        await claude.messages.count_tokens(model="google/ok", messages=[])
    assert upstream.ledger == []


async def test_the_sdk_lists_the_models(claude: Any, vendors: Server):
    """Page by page, in Anthropic's form; OpenAI's clients get theirs."""
    listed = [model async for model in claude.models.list(limit=3)]
    plain = (await vendors.client.models.list()).data
    assert [model.id for model in listed] == [model.id for model in plain]
    assert {(model.type, model.display_name == model.id) for model in listed} == {("model", True)}
    one = await claude.models.retrieve("anthropic/ok")
    assert (one.id, one.display_name) == ("anthropic/ok", "anthropic/ok")
    assert "display_name" not in plain[0].to_dict()
    answer = await get(vendors.port, "/v1/models?limit=0")
    assert answer.status == 400
