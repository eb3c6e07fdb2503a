"""The wire rules that clients rely on, through the unmodified SDK and, where bytes matter, a raw socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from tests.server.api.raw import CHAT, HELLO, Answer, chat, get, post, request, send
from tests.server.api.rows import row_of
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "proxy-key-0123456789abcdef"
INPUT_NANO, OUTPUT_NANO, CACHED_NANO = 2_000, 10_000, 500  # per token, as priced in tests.serving


async def arrived(server: Server, **fields: Any) -> dict[str, Any]:
    """The body that reaches the upstream when a client sends these fields."""
    answer = await post(server.port, chat("fake/echo", **fields))
    assert answer.status == 200, answer.body
    return dict(json.loads(answer.json["choices"][0]["message"]["content"]))


async def streamed(server: Server, model: str, **fields: Any) -> list[Any]:
    """The events of a streamed answer, `[DONE]` left out after asserting that it is the last and only one."""
    answer = await post(server.port, chat(model, stream=True, **fields))
    assert answer.status == 200, answer.body
    *events, done = answer.events
    assert done == "[DONE]"
    assert "[DONE]" not in events
    return events


def choices_of(events: list[Any], index: int = 0) -> list[Any]:
    """One choice's pieces, in order."""
    return [choice for event in events for choice in event["choices"] if choice["index"] == index]


def text_of(events: list[Any], field: str = "content", index: int = 0) -> str:
    return "".join(choice["delta"].get(field) or "" for choice in choices_of(events, index))


# --- requests ---------------------------------------------------------------------------------------------------------

OPTIONAL = [
    *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
    *("max_completion_tokens", "max_tokens", "metadata", "modalities", "moderation", "n", "parallel_tool_calls"),
    *("prediction", "presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format"),
    *("safety_identifier", "seed", "service_tier", "stop", "store", "stream", "stream_options", "temperature"),
    *("tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
]


@pytest.mark.parametrize("name", OPTIONAL)
async def test_every_optional_field_may_be_null(server: Server, name: str) -> None:
    """Null is the same as absent, and vendors that refuse null never see it."""
    assert await arrived(server, **{name: None}) == {"model": "echo", "messages": HELLO}


async def test_unknown_fields_are_accepted_and_forwarded(server: Server) -> None:
    """What only the upstream knows reaches it unchanged: nulls, nesting, and large numbers included."""
    extra = {"chat_template_kwargs": {"thinking": True}, "top_k": None, "guided": [1, {"é": 0.5}], "big": 2**60}
    seen = await arrived(server, **extra)
    assert {name: seen[name] for name in extra} == extra


async def test_extra_body_of_the_sdk_is_forwarded(server: Server) -> None:
    """`extra_body` is how SDK users send what their SDK does not know."""
    answer = await server.client.chat.completions.create(
        model="fake/echo",
        messages=HELLO,
        extra_body={"min_p": 0.1},
    )
    assert json.loads(answer.choices[0].message.content or "")["min_p"] == 0.1


async def test_the_developer_role_is_accepted(server: Server) -> None:
    """Servers that may not know the role get the one that it comes from."""
    messages = [{"role": "developer", "content": "Be brief."}, *HELLO]
    seen = await arrived(server, messages=messages)
    assert seen["messages"] == [{"role": "system", "content": "Be brief."}, *HELLO]


async def test_the_developer_role_becomes_system_where_the_upstream_lacks_it(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    """Self-hosted servers know `system` only; it means the same, so the answer says nothing of it."""
    routing = write_files(tmp_path, upstream.url, ROUTING.replace("type: openai", "type: vllm"))
    async with serving(routing) as server:
        body = chat("fake/echo", messages=[{"role": "developer", "content": "Be brief."}, *HELLO])
        answer = await post(server.port, body)
        seen = json.loads(answer.json["choices"][0]["message"]["content"])
        assert seen["messages"][0] == {"role": "system", "content": "Be brief."}
        assert answer.headers("x-proxy-adapted-params") == []


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_both_names_of_the_output_limit_hold(server: Server, name: str) -> None:
    """Each is forwarded under its own name, and cuts the answer."""
    answer = await post(server.port, chat("fake/ok", **{name: 4}))
    assert answer.json["choices"][0]["finish_reason"] == "length"
    assert answer.json["usage"]["completion_tokens"] == 4
    assert (await arrived(server, **{name: 400}))[name] == 400


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_output_limit_gets_the_name_that_the_upstream_reads(
    upstream: FakeUpstream, tmp_path: Path, name: str
) -> None:
    """A server that knows one name only would ignore the other and write on."""
    routing = write_files(tmp_path, upstream.url, ROUTING.replace("type: openai", "type: vllm"))
    async with serving(routing) as server:
        seen = await arrived(server, **{name: 400})
        assert seen["max_tokens"] == 400
        assert "max_completion_tokens" not in seen


async def test_content_may_be_parts(server: Server) -> None:
    """Text and image parts reach the upstream as they are."""
    parts = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]
    seen = await arrived(server, messages=[{"role": "user", "content": parts}])
    assert seen["messages"][0]["content"] == parts


async def test_a_tool_conversation_round_trips(server: Server) -> None:
    """Tool calls and results arrive as clients send them back, without what only our answers have."""
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "found", "extra": "kept"},
    ]
    seen = await arrived(server, messages=messages)
    assert seen["messages"] == [HELLO[0], {"role": "assistant", "content": None, "tool_calls": [call]}, messages[2]]


async def test_usage_is_asked_of_the_upstream_for_every_stream(server: Server) -> None:
    """Also when the client did not: the call is priced by it."""
    sent = json.loads(text_of(await streamed(server, "fake/echo")))
    assert sent["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "application/vnd.api+json", "Application/JSON", ""]
)
async def test_any_json_content_type_is_taken_and_none_too(server: Server, kind: str) -> None:
    """Some clients send no content type at all."""
    assert (await post(server.port, chat(), content_type=kind)).status == 200


# --- whole answers ----------------------------------------------------------------------------------------------------


async def test_a_whole_answer_has_every_field_clients_read(server: Server) -> None:
    """LangChain, LiteLLM and the Vercel AI SDK read these without asking whether they are there."""
    answer = await post(server.port, chat("fake/ok(n_tokens=5)"))
    body = answer.json
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert type(body["created"]) is int
    assert body["model"] == "fake/ok(n_tokens=5)"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "tok0 tok1 tok2 tok3 tok4",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert [type(body["usage"][f"{part}_tokens"]) for part in ("prompt", "completion", "total")] == [int, int, int]


async def test_content_is_null_beside_tool_calls(server: Server) -> None:
    """Agents take any text beside a tool call for the answer."""
    body = (await post(server.port, chat("fake/tools(n=2)"))).json
    message = body["choices"][0]["message"]
    assert message["content"] is None
    assert body["choices"][0]["finish_reason"] == "tool_calls"
    assert [call["type"] for call in message["tool_calls"]] == ["function", "function"]
    assert all(isinstance(json.loads(call["function"]["arguments"]), dict) for call in message["tool_calls"])
    assert len({call["id"] for call in message["tool_calls"]}) == 2


async def test_a_refusal_is_in_its_own_field(server: Server) -> None:
    """Content stays null: a refusal must not be parsed as an answer."""
    message = (await post(server.port, chat("fake/refusal"))).json["choices"][0]["message"]
    assert message["content"] is None
    assert message["refusal"].startswith("tok0 tok1")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_comes_as_reasoning_content(server: Server, field: str) -> None:
    """Vendors have two names for it, clients read one."""
    model = f"fake/reasoning(n=3,field={field})"
    message = (await post(server.port, chat(model))).json["choices"][0]["message"]
    assert message["reasoning_content"] == "think0 think1 think2 "
    assert "reasoning" not in message
    assert message["content"].startswith("tok0")
    assert text_of(await streamed(server, model), "reasoning_content") == "think0 think1 think2 "


async def test_two_choices_keep_their_indexes(server: Server) -> None:
    """`n` choices, each whole, their tokens summed."""
    body = (await post(server.port, chat("fake/ok(n_tokens=4)", n=2))).json
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["tok0 tok1 tok2 tok3"] * 2
    assert body["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize("mode", ["no_usage", "usage_null", "usage_partial"])
@pytest.mark.parametrize("stream", [False, True])
async def test_missing_usage_is_estimated_and_says_so(server: Server, mode: str, stream: bool) -> None:
    """Three integers in every case; never zero for an answer that was given."""
    if stream:
        usage = (await streamed(server, f"fake/{mode}", stream_options={"include_usage": True}))[-1]["usage"]
    else:
        usage = (await post(server.port, chat(f"fake/{mode}"))).json["usage"]
    assert usage["estimated"] is True
    assert usage["prompt_tokens"] > 0
    assert usage["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["cost"] > 0


async def test_usage_of_the_provider_is_not_called_estimated(server: Server) -> None:
    """The mark is for what we counted ourselves."""
    assert "estimated" not in (await post(server.port, chat())).json["usage"]


# --- money and facts --------------------------------------------------------------------------------------------------


def nano(usd: float) -> int:
    """A printed amount in nano-USD, after asserting that it is a whole number of them."""
    amount = round(usd * 1e9)
    assert amount / 1e9 == usd
    return amount


async def test_cost_is_exact_to_the_nano_usd(server: Server) -> None:
    """In the usage by part, in the header, and in the row."""
    answer = await post(server.port, chat("fake/ok(n_tokens=7)"))
    usage = answer.json["usage"]
    expected = 3 * INPUT_NANO + 7 * OUTPUT_NANO
    assert nano(usage["cost"]) == expected
    assert {part: nano(usd) for part, usd in usage["cost_details"].items()} == {
        "input": 3 * INPUT_NANO,
        "cache_read": 0,
        "cache_write": 0,
        "output": 7 * OUTPUT_NANO,
    }
    assert answer.headers("x-proxy-cost-usd") == [f"{expected / 1e9:.9f}"]


@pytest.mark.parametrize("stream", [False, True])
async def test_cached_tokens_have_their_own_price(server: Server, database: Path, stream: bool) -> None:
    """Two of three prompt tokens came from the vendor's cache; the answer and the row agree."""
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answer = await post(server.port, chat("fake/cached(n=2)", **options))
    usage = (answer.events[-2] if stream else answer.json)["usage"]
    assert usage["prompt_tokens"] == 3
    assert usage["prompt_tokens_details"]["cached_tokens"] == 2
    assert nano(usage["cost_details"]["input"]) == 1 * INPUT_NANO
    assert nano(usage["cost_details"]["cache_read"]) == 2 * CACHED_NANO
    assert nano(usage["cost"]) == 1 * INPUT_NANO + 2 * CACHED_NANO + 10 * OUTPUT_NANO
    row = await row_of(database, answer)
    assert (row["cost_nano"], row["cached_tokens"], row["input_tokens"]) == (nano(usage["cost"]), 2, 3)


async def test_cost_is_null_where_a_price_is_not_known(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Unknown is not zero: null in the usage, no header."""
    pricing = "version: 1\nmodels: {fake/*: {output: 10.00}}\n"
    async with serving(write_files(tmp_path, upstream.url, pricing=pricing)) as server:
        answer = await post(server.port, chat())
        assert answer.json["usage"]["cost"] is None
        assert answer.headers("x-proxy-cost-usd") == []


async def test_a_self_hosted_upstream_costs_nothing_unless_priced(upstream: FakeUpstream, tmp_path: Path) -> None:
    """What runs on the user's own machine has no bill."""
    async with serving(write_files(tmp_path, upstream.url, pricing="version: 1\n")) as server:
        assert (await post(server.port, chat())).json["usage"]["cost"] == 0


async def test_a_whole_answer_says_who_answered(server: Server) -> None:
    """The headers of the first cut; the id is the one in the body, in the row and at the upstream."""
    answer = await post(server.port, chat("auto"))
    (request_id,) = answer.headers("x-request-id")
    assert answer.json["id"] == f"chatcmpl-{request_id}"
    assert answer.headers("x-proxy-model") == ["fake/ok"]
    assert answer.headers("x-proxy-provider") == ["fake"]
    assert answer.headers("x-proxy-attempts") == ["1"]
    assert answer.headers("cache-control") == ["no-store"]
    assert answer.headers("x-content-type-options") == ["nosniff"]
    assert answer.headers("server") == []


async def test_a_stream_says_who_answers_with_its_first_byte(server: Server) -> None:
    """What is known then; the cost is in the usage chunk."""
    answer = await post(server.port, chat("auto", stream=True))
    (request_id,) = answer.headers("x-request-id")
    assert answer.events[0]["id"] == f"chatcmpl-{request_id}"
    assert answer.headers("x-proxy-model") == ["fake/ok"]
    assert answer.headers("x-proxy-provider") == ["fake"]
    assert answer.headers("x-proxy-attempts") == ["1"]
    assert answer.headers("x-proxy-cost-usd") == []
    assert answer.headers("content-type") == ["text/event-stream; charset=utf-8"]
    assert answer.headers("connection") == ["close"]  # as the client asked: once, and not keep-alive


async def test_the_sdk_finds_the_request_id(server: Server) -> None:
    """Support asks for it."""
    answer = await server.client.chat.completions.create(model="auto", messages=HELLO)
    assert answer.id == f"chatcmpl-{answer._request_id}"


async def test_the_upstream_learns_the_attempts_id(server: Server, upstream: FakeUpstream) -> None:
    """So that its ledger and ours can be joined."""
    (request_id,) = (await post(server.port, chat())).headers("x-request-id")
    assert [seen.id for seen in upstream.ledger] == [f"{request_id}-1"]


async def test_a_model_name_in_another_script_can_be_streamed(server: Server, upstream: FakeUpstream) -> None:
    """Header values are latin-1; what they cannot hold must not cost the answer."""
    upstream.modes["模型"] = "ok"
    for stream in (False, True):
        answer = await post(server.port, chat("fake/模型", stream=stream))
        assert answer.status == 200
        assert answer.headers("x-proxy-model") == ["fake/??"]


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_starts_with_the_role_and_an_empty_content(server: Server) -> None:
    """And says the role only once."""
    pieces = choices_of(await streamed(server, "fake/role_each_chunk"))
    assert pieces[0]["delta"] == {"role": "assistant", "content": ""}
    assert all("role" not in piece["delta"] for piece in pieces[1:])


@pytest.mark.parametrize(
    "model", ["fake/ok", "fake/tools(n=2)", "fake/refusal", "fake/usage_in_last", "fake/reasoning"]
)
async def test_finish_reason_comes_once_in_the_last_content_chunk(server: Server, model: str) -> None:
    """With an empty delta, whatever it stood beside at the upstream."""
    pieces = choices_of(await streamed(server, model))
    assert [piece["finish_reason"] for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1]["finish_reason"] in ("stop", "tool_calls")
    assert pieces[-1]["delta"] == {}


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
@pytest.mark.parametrize("mode", ["ok", "usage_in_last"])
async def test_usage_is_withheld_from_who_did_not_ask(server: Server, mode: str, options: object) -> None:
    """No chunk without choices, no key `usage`: some clients index `choices[0]` of every chunk."""
    events = await streamed(server, f"fake/{mode}", stream_options=options)
    assert all(event["choices"] for event in events)
    assert all("usage" not in event for event in events)


@pytest.mark.parametrize("mode", ["ok", "usage_in_last", "no_done"])
async def test_usage_is_one_last_chunk_without_choices_when_asked(server: Server, mode: str) -> None:
    """Null in all others, as OpenAI does it, wherever the upstream had put it."""
    *events, last = await streamed(server, f"fake/{mode}", stream_options={"include_usage": True})
    assert [event["usage"] for event in events] == [None] * len(events)
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (3, 10)
    assert nano(last["usage"]["cost"]) == 3 * INPUT_NANO + 10 * OUTPUT_NANO


@pytest.mark.parametrize("mode", ["ok", "crlf_sse", "comment_pings", "multi_data_lines", "bom", "chunk_split", "fast"])
async def test_line_ends_are_lf_whatever_the_upstream_sends(server: Server, mode: str) -> None:
    """One `data:` line an event, `[DONE]` last (asserted by `events`); the text is whole."""
    answer = await post(server.port, chat(f"fake/{mode}(n_tokens=20)", stream=True))
    assert b"\r" not in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert text_of(answer.events[:-1]) == " ".join(f"tok{index}" for index in range(20))


async def test_every_chunk_has_the_same_id_created_and_model(server: Server) -> None:
    """And the fields that clients read without asking."""
    events = await streamed(server, "fake/ok", stream_options={"include_usage": True})
    assert len({(event["id"], event["created"], event["model"], event["object"]) for event in events}) == 1
    assert events[0]["object"] == "chat.completion.chunk"
    assert type(events[0]["created"]) is int
    assert events[0]["model"] == "fake/ok"
    pieces = [choice for event in events for choice in event["choices"]]
    assert all({"index", "delta", "logprobs", "finish_reason"} <= piece.keys() for piece in pieces)
    assert all(isinstance(piece["delta"], dict) for piece in pieces)


async def test_ids_are_ours_where_the_upstream_repeats_its_own(server: Server) -> None:
    """Two answers with one id would be one row to whoever stores them."""
    answers = [await post(server.port, chat("fake/dup_ids")) for _ in range(2)]
    assert len({answer.json["id"] for answer in answers}) == 2


@pytest.mark.parametrize("mode", ["tools(n=2)", "tools_bad_deltas(n=2)"])
async def test_tool_call_deltas_carry_id_type_and_name_once(server: Server, mode: str) -> None:
    """Then index and arguments only, also where the upstream repeats them and sends no index."""
    fragments = [
        fragment
        for piece in choices_of(await streamed(server, f"fake/{mode}"))
        for fragment in piece["delta"].get("tool_calls", [])
    ]
    assert {fragment["index"] for fragment in fragments} == {0, 1}
    for index in (0, 1):
        first, *rest = [fragment for fragment in fragments if fragment["index"] == index]
        assert first["id"]
        assert first["type"] == "function"
        assert first["function"]["name"] == f"tool{index}"
        assert rest
        assert all(fragment.keys() == {"index", "function"} for fragment in rest)
        assert all(fragment["function"].keys() == {"arguments"} for fragment in rest)
        arguments = "".join(fragment["function"]["arguments"] for fragment in [first, *rest])
        assert json.loads(arguments)["text"].split()[0] == f"tok{index}"


async def test_a_streamed_refusal_is_in_its_own_field(server: Server) -> None:
    """As in whole answers."""
    events = await streamed(server, "fake/refusal")
    assert text_of(events) == ""
    assert text_of(events, "refusal").startswith("tok0 tok1")


async def test_two_streamed_choices_are_each_whole(server: Server) -> None:
    """Each has its role and its finish, and its own text."""
    events = await streamed(server, "fake/two_choices(n_tokens=4)", n=2)
    for index in (0, 1):
        pieces = choices_of(events, index)
        assert pieces[0]["delta"] == {"role": "assistant", "content": ""}
        assert text_of(events, index=index) == "tok0 tok1 tok2 tok3"
        assert [piece["finish_reason"] for piece in pieces if piece["finish_reason"]] == ["stop"]


@pytest.mark.parametrize("mode", ["ok", "tools(n=2)", "refusal", "reasoning", "two_choices"])
async def test_streamed_and_whole_answers_are_the_same(server: Server, mode: str) -> None:
    """Folded by the SDK's own accumulator."""
    whole = await server.client.chat.completions.create(model=f"fake/{mode}", messages=HELLO)
    async with server.client.chat.completions.stream(
        model=f"fake/{mode}",
        messages=HELLO,
        stream_options={"include_usage": True},
    ) as stream:
        folded = await stream.get_final_completion()
    assert [choice.finish_reason for choice in folded.choices] == [choice.finish_reason for choice in whole.choices]
    for told, expected in zip(folded.choices, whole.choices, strict=True):
        assert (told.message.content or None) == expected.message.content
        assert told.message.refusal == expected.message.refusal
        calls = [(call.function.name, call.function.arguments) for call in told.message.tool_calls or []]
        wanted = [(call.function.name, call.function.arguments) for call in expected.message.tool_calls or []]  # type: ignore[union-attr]
        assert calls == wanted
    assert folded.usage is not None
    assert whole.usage is not None
    assert folded.usage.model_dump() == whole.usage.model_dump()


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keyed(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server that wants KEY."""
    routing = write_files(tmp_path_factory.mktemp("keyed"), upstream_of_module.url)
    async with serving(routing, {"PROXY_API_KEY": KEY}) as running:
        yield running


CREDENTIALS = {
    "bearer": {"authorization": f"Bearer {KEY}"},
    "bearer_lower": {"authorization": f"bearer {KEY}"},
    "x_api_key": {"x_api_key": KEY},
    "api_key": {"api_key": KEY},
}
ROUTES = [("POST", "/chat/completions"), ("GET", "/models"), ("GET", "/models/fake/ok"), ("GET", "/usage")]


async def ask(port: int, method: str, path: str, headers: dict[str, str]) -> Answer:
    return await (post(port, chat(), path, **headers) if method == "POST" else get(port, path, **headers))


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_each_route_takes_the_key_by_each_header_with_and_without_v1(
    keyed: Server, method: str, path: str, prefix: str, credential: str
) -> None:
    """OpenAI's, Anthropic's and Azure's SDKs each have their header, and people write base URLs both ways."""
    assert (await ask(keyed.port, method, prefix + path, CREDENTIALS[credential])).status == 200


@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_wrong_missing_and_malformed_keys_get_the_same_401(
    keyed: Server, upstream: FakeUpstream, method: str, path: str, prefix: str
) -> None:
    """Nothing tells an attacker how near a guess was, and no guess reaches an upstream."""
    guesses: list[dict[str, str]] = [
        {},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer \xff\xfe"},
        {"x_api_key": KEY.upper()},
        {"api_key": "'; DROP TABLE calls; --"},
    ]
    answers = [await ask(keyed.port, method, prefix + path, guess) for guess in guesses]
    assert {answer.status for answer in answers} == {401}
    assert {answer.body for answer in answers} == {answers[0].body}
    assert {tuple(answer.headers("www-authenticate")) for answer in answers} == {("Bearer",)}
    assert answers[0].error()["code"] == "invalid_api_key"
    assert upstream.ledger == []


async def test_the_sdk_raises_authentication_error_for_a_wrong_key(keyed: Server) -> None:
    """Its own class, and no retry."""
    async with AsyncOpenAI(base_url=keyed.base_url, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
    assert caught.value.code == "invalid_api_key"


async def test_a_keyless_server_takes_whatever_key_comes(server: Server) -> None:
    """SDKs insist on sending one."""
    for headers in ({}, {"authorization": "Bearer anything"}, {"x_api_key": "x"}):
        assert (await post(server.port, chat(), **headers)).status == 200


async def test_the_clients_key_never_reaches_the_upstream(server: Server, upstream: FakeUpstream) -> None:
    """An upstream without a key of its own gets none."""
    await post(server.port, chat(), authorization="Bearer client-key", cookie="a=b", openai_organization="org-1")
    (seen,) = upstream.ledger
    assert seen.authorization is None
    assert {"cookie", "openai-organization", "origin", "x-api-key"}.isdisjoint(seen.headers)


# --- models and names -------------------------------------------------------------------------------------------------

NAMED = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, retries: 0, timeout_s: {timeouts}}}
  groq: {{type: groq, api_key_env: GROQ_API_KEY}}
models:
  small: {{use: fake/ok}}
aliases: {{gpt-4o: fake/openai/gpt-4o}}
router: {{default_model: fake/ok}}
"""
NAMED_PRICES = """
version: 1
models:
  fake/openai/gpt-4o: {input: 2.50, output: 10.00, context: 128000, max_output: 16384}
  fake/ok: {input: 2.00, output: 10.00}
  groq/llama-3.3-70b-versatile: {input: 0.59, output: 0.79}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server_with_names(
    upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("named")
    async with serving(write_files(folder, upstream_of_module.url, NAMED, NAMED_PRICES)) as running:
        yield running


@pytest.fixture
def named(server_with_names: Server, upstream: FakeUpstream) -> Server:
    """A server with names of every kind, and one provider that is off."""
    upstream.modes["openai/gpt-4o"] = "ok"
    return server_with_names


async def test_models_lists_what_can_be_called(named: Server) -> None:
    """Virtual names first; nothing of a provider that is off."""
    models = [model async for model in named.client.models.list()]
    names = [model.id for model in models]
    assert names[0] == "auto"
    assert {"auto:reasoning", "small", "gpt-4o", "fake/openai/gpt-4o", "fake/ok"} <= set(names)
    assert not [name for name in names if name.startswith("groq/")]
    assert all(model.object == "model" and type(model.created) is int and model.owned_by for model in models)
    assert len(set(names)) == len(names)


async def test_every_listed_model_answers(named: Server) -> None:
    """The list is what can be routed now; that the upstream's own ids answer too is the upstream's word."""
    theirs = {f"fake/{model}" for model in named.runtime.names.found["fake"]}
    for name in {model.id async for model in named.client.models.list()} - theirs:
        assert (await post(named.port, chat(name))).status == 200, name


@pytest.mark.parametrize("name", ["fake/openai/gpt-4o", "fake/ok", "auto", "auto:reasoning", "small", "gpt-4o"])
async def test_a_model_is_found_by_its_id_slashes_and_colons_included(named: Server, name: str) -> None:
    """The SDK escapes the slash, curl users do not."""
    assert (await named.client.models.retrieve(name)).id == name
    assert (await get(named.port, f"/v1/models/{name}")).json["id"] == name


async def test_a_models_card_says_its_price_and_sizes(named: Server) -> None:
    """USD per 1M tokens, sizes in tokens; an alias says what it stands for."""
    card = (await get(named.port, "/models/gpt-4o")).json
    assert card["resolves_to"] == "fake/openai/gpt-4o"
    assert card["pricing"]["input"] == 2.5
    assert (card["context_length"], card["max_output_tokens"]) == (128000, 16384)


@pytest.mark.parametrize(
    ("asked", "answers"), [("auto", "fake/ok"), ("small", "fake/ok"), ("gpt-4o", "fake/openai/gpt-4o")]
)
async def test_the_answer_names_the_provider_and_its_model(named: Server, asked: str, answers: str) -> None:
    """Whatever name was asked for, whole and streamed."""
    assert (await post(named.port, chat(asked))).json["model"] == answers
    assert {event["model"] for event in await streamed(named, asked)} == {answers}


@pytest.mark.parametrize("task", ["", ":reasoning", ":code", ":vision", ":cost", ":speed", ":quality"])
async def test_auto_and_its_tasks_answer(named: Server, task: str) -> None:
    """Until rules exist they mean the default model."""
    assert (await post(named.port, chat(f"auto{task}"))).json["model"] == "fake/ok"


async def test_an_unknown_auto_lists_those_that_exist(named: Server) -> None:
    """And is not served by another."""
    error = (await post(named.port, chat("auto:cooking"))).error()
    assert error["code"] == "model_not_found"
    assert "auto:reasoning" in error["message"]
    assert "auto:web_search" in error["message"]


async def test_an_unknown_model_is_a_404_with_near_names(named: Server) -> None:
    """By chat and by the models route; the SDK raises NotFoundError."""
    for answer in (await post(named.port, chat("gpt-4")), await get(named.port, "/v1/models/gpt-4")):
        error = answer.error()
        assert (answer.status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert "gpt-4o" in error["message"]
    with pytest.raises(openai.NotFoundError):
        await named.client.chat.completions.create(model="gpt-4", messages=HELLO)


async def test_a_model_of_a_provider_that_is_off_says_which_key_to_set(named: Server) -> None:
    """The commonest mistake of the first minute."""
    answer = await post(named.port, chat("groq/llama-3.3-70b-versatile"))
    assert answer.status == 404
    assert "GROQ_API_KEY" in answer.error()["message"]


async def test_a_refused_name_leaves_a_row(server: Server, database: Path) -> None:
    """Outcome `rejected`, no attempt, no cost."""
    row = await row_of(database, await post(server.port, chat("nobody/knows")))
    assert (row["requested_model"], row["outcome"], row["status"]) == ("nobody/knows", "rejected", 404)
    assert (row["attempts"], row["cost_nano"], row["error_code"]) == (0, 0, "model_not_found")


# --- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_expect_100_continue_is_answered(server: Server, stream: bool) -> None:
    """curl asks for it before bodies over 1 MB."""
    answer = await send(server.port, request(chat(stream=stream), headers={"expect": "100-continue"}))
    interim, _, final = answer.bytes.partition(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    assert Answer(final).status == 200


async def test_a_connection_is_used_again(server: Server) -> None:
    """Whole, streamed and refused answers leave the connection open for the next."""
    bodies = [chat(), chat(stream=True), chat("nobody"), chat(stream=True), chat()]
    requests = [request(body, headers={"connection": ""}) for body in bodies[:-1]] + [request(bodies[-1])]
    answer = await send(server.port, b"".join(requests))
    statuses = [line.split(b" ")[1] for line in answer.bytes.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    # A whole answer has no line end behind it: the next status line stands on the same line.
    assert answer.bytes.count(b"HTTP/1.1 200 OK") == 4
    assert answer.bytes.count(b"HTTP/1.1 404 Not Found") == 1
    assert statuses[0] == b"200"


async def test_a_chunked_body_is_read(server: Server) -> None:
    """Some HTTP clients never say how long a body is."""
    body = chat()
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    head = request(method="POST", path=CHAT, headers={"content-length": "", "transfer-encoding": "chunked"})
    assert (await send(server.port, head + chunks)).status == 200
