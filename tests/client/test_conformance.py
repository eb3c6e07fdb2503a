"""`proxy conformance`: each vendor behind the proxy passes or lacks openly, and each check fails where something is
broken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio

from proxy.client.conformance import CHECKS, GROUPS
from proxy.client.conformance.base import CHAT, DROPPED, OUTCOMES, Check, Probe, Reply, calls_of, chat
from proxy.client.conformance.formats import image_link
from proxy.client.conformance.run import Server, Unusable, judge, run
from proxy.providers import PROVIDERS
from tests.serving import serving, write_files
from tests.upstream import FakeUpstream, refusing
from tests.upstream.dialects import GROQ, MISTRAL
from tests.upstream.responses_wire import ROOT as RESPONSES

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  vendor: {{type: KIND, OPTIONS base_url: "URL", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: vendor/actor}}
"""
PRICING = "version: 1\nmodels:\n  vendor/*: {input: 2, output: 10, max_output: 4096}\n"
ROOTS = {
    "openai, responses": RESPONSES,
    "groq": GROQ,
    "mistral": MISTRAL,
    "google": "/v1beta",
    "cohere": "",
    "perplexity": "",
    "anthropic": "",
}
MODES = {"together": "actor-usage_in_last"}  # it is not asked for usage in streams, and sends it

# What each vendor lacks, and the proxy therefore reports. Everything else passes.
THINKING = {"reasoning", "reasoning_streamed"}
VECTORS = {"floats", "base64_same", "vector_usage"}
LACKING: dict[str, set[str]] = {
    "openai": set(),
    "openai, responses": {"name", "seed", "penalties"},
    "anthropic": {"name", "seed", "penalties", "logprobs", "arguments_fit", *VECTORS},
    "groq": {"penalties", "logprobs", "pdf", *THINKING, *VECTORS},
    "mistral": {"name", *THINKING},
    "google": {"name", "penalties", "parallel_off"},
    "cohere": {"name", "penalties", "parallel_off", "pdf"},
    "perplexity": {"name", "seed", "penalties", "logprobs", "parallel_off"},
    "together": {"parallel_off", "pdf"},
    "ollama": {"required", "parallel_off", "pdf"},
    "vllm": set(),
    "lmstudio": {"logprobs", "parallel_off"},
    "localai": set(),
}


@pytest.mark.parametrize("kind", [*(kind for kind in PROVIDERS if kind != "embedded"), "openai, responses"])
@pytest.mark.slow
async def test_what_each_vendor_does_behind_the_proxy(kind: str, tmp_path: Any) -> None:
    """The whole table: what is not supported is what the vendor lacks, and nothing fails."""
    async with FakeUpstream(modes={"actor": MODES.get(kind, "actor")}) as upstream:
        url = upstream.url.removesuffix("/v1") + ROOTS.get(kind, "/v1")
        options = "api: responses," if "responses" in kind else ""
        routing = ROUTING.replace("KIND", kind.partition(",")[0]).replace("URL", url).replace("OPTIONS", options)
        files = write_files(tmp_path, upstream.url, routing, PRICING)
        async with serving(files) as proxy:
            found = [verdict async for verdict in run(CHECKS, "vendor/actor", proxy.base_url, environment=False)]
    assert [(each.check, each.seen) for each in found if each.outcome == "failed"] == []
    assert {each.check for each in found if each.outcome == "not supported"} == LACKING[kind]


# --- each check can fail ----------------------------------------------------------------------------------------------

Change = Callable[[Any], object]


def whole(change: Change) -> Callable[[Reply], Reply]:
    """Breaks the object of every answer in one piece."""

    def broken(reply: Reply) -> Reply:
        if reply.body.startswith(b"data: "):
            return reply
        body = msgspec.json.decode(reply.body)
        if "error" not in body:
            change(body)
        return msgspec.structs.replace(reply, body=msgspec.json.encode(body))

    return broken


def streamed(old: bytes, new: bytes) -> Callable[[Reply], Reply]:
    """Breaks the bytes of every streamed answer."""

    def broken(reply: Reply) -> Reply:
        is_stream = reply.body.startswith(b"data: ")
        return msgspec.structs.replace(reply, body=reply.body.replace(old, new)) if is_stream else reply

    return broken


def choice(change: Change) -> Callable[[Reply], Reply]:
    return whole(lambda body: [change(each) for each in body.get("choices", [])])


def message(change: Change) -> Callable[[Reply], Reply]:
    return choice(lambda each: change(each["message"]))


def calls(change: Change) -> Callable[[Reply], Reply]:
    return message(lambda each: [change(call) for call in each.get("tool_calls", [])])


def vectors(change: Change) -> Callable[[Reply], Reply]:
    return whole(lambda body: change(body["data"]) if isinstance(body.get("data"), list) else None)


def headless(reply: Reply) -> Reply:
    kept = {name: value for name, value in reply.headers.items() if name != "x-request-id"}
    return msgspec.structs.replace(reply, headers=kept)


def status(reply: Reply) -> Reply:
    return msgspec.structs.replace(reply, status=500)


def late_thoughts(reply: Reply) -> Reply:
    """What was thought is said, what was said is thought."""
    body = reply.body.replace(b'"content":"', b'"first":"').replace(b'"reasoning_content":"', b'"content":"')
    return msgspec.structs.replace(reply, body=body.replace(b'"first":"', b'"reasoning_content":"'))


def latin(reply: Reply) -> Reply:
    """Text that was read as Latin-1 on its way."""
    mangled = "漢字".encode().decode("latin-1").encode()
    return msgspec.structs.replace(reply, body=reply.body.replace("漢字".encode(), mangled))


def wordy(reply: Reply) -> Reply:
    """Words before each object that is said."""
    return msgspec.structs.replace(reply, body=reply.body.replace(b'"content":"{', b'"content":"Here: {'))


def codeless(reply: Reply) -> Reply:
    return msgspec.structs.replace(reply, body=reply.body.replace(b'"code"', b'"kode"'))


JSON = {"json_object", "json_object_streamed", "json_schema", "json_schema_streamed"}
REPLIES: list[tuple[str, Callable[[Reply], Reply], set[str]]] = [
    ("no id", whole(lambda body: body.pop("id", None)), {"answer_id"}),
    ("the id of another", whole(lambda body: body.update(id="same")), {"answer_id"}),
    ("another object", whole(lambda body: body.update(object="x")), {"object_name", "listed"}),
    ("milliseconds", whole(lambda body: body.update(created=1_760_000_000_000)), {"created"}),
    ("no model", whole(lambda body: body.update(model="")), {"model_name"}),
    ("another index", choice(lambda each: each.update(index=3)), {"one_choice", "two_choices"}),
    ("nothing said", message(lambda each: each.update(content=None)), {"message_text", "image", "result", "seed"}),
    ("no refusal", message(lambda each: each.pop("refusal")), {"refusal_null"}),
    ("no annotations", message(lambda each: each.pop("annotations")), {"annotations_list"}),
    (
        "another finish",
        choice(lambda each: each.update(finish_reason="eos")),
        {"finish_stop", "called", "result_first"},
    ),
    ("an empty list of calls", message(lambda each: each.setdefault("tool_calls", [])), {"no_calls_unasked"}),
    ("a wrong sum", whole(lambda body: body.get("usage", {}).update(total_tokens=1)), {"usage", "several_turns"}),
    ("no usage", whole(lambda body: body.pop("usage", None)), {"usage", "vector_usage", "max_tokens"}),
    ("no request id", headless, {"request_id", "stream_request_id"}),
    ("no call ids", calls(lambda call: call.pop("id")), {"called"}),
    ("one id for all calls", calls(lambda call: call.update(id="same")), {"parallel"}),
    ("empty arguments", calls(lambda call: call["function"].update(arguments="")), {"no_arguments", "arguments_fit"}),
    ("foreign arguments", calls(lambda call: call["function"].update(arguments='{"x":1}')), {"arguments_fit"}),
    ("chunks of another kind", streamed(b"completion.chunk", b"completion"), {"chunk_object"}),
    ("named events", streamed(b"data: {", b"event: x\ndata: {"), {"nameless_events"}),
    ("more read in streams", streamed(b'"prompt_tokens":', b'"prompt_tokens":1'), {"as_whole", "usage_at_end"}),
    ("cut characters", streamed("漢".encode(), b"\xef\xbf\xbd"), {"unicode_streamed"}),
    ("UTF-8 as Latin-1", latin, {"unicode", "unicode_streamed"}),
    ("words before the JSON", wordy, JSON),
    ("empty arguments in streams", streamed(b'"arguments":"{}"', b'"arguments":""'), {"streamed_none"}),
    ("one index for all calls", streamed(b'"index":1,"id"', b'"index":0,"id"'), {"streamed_parallel"}),
    ("a gap in the indexes", streamed(b'"index":0,"id"', b'"index":1,"id"'), {"streamed"}),
    ("thoughts after the text", late_thoughts, {"reasoning_streamed"}),
    ("half an event", streamed(b"}\n\ndata: [DONE]", b"\n\ndata: [DONE]"), {"role_first", "done_last", "one_id"}),
    ("always a 500", status, {check.name for check in CHECKS}),
    ("errors without code", codeless, {"unknown_model", "unknown_model_streamed", "error_shape"}),
    ("vectors in another order", vectors(lambda data: data.reverse()), {"floats"}),
    ("other numbers", vectors(lambda data: data[0].update(embedding=[9.0] * 4)), {"base64_same"}),
    ("nameless models", vectors(lambda data: data[0].pop("id", None)), {"listed"}),
]


def without(*names: str) -> Change:
    """A server that ignores these parameters."""
    return lambda body: [body.pop(name, None) for name in names]


def turns(change: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    def broken(body: Any) -> None:
        if isinstance(body.get("messages"), list):
            body["messages"] = change(body["messages"])

    return broken


def parts(kept: Callable[[Any], bool]) -> Callable[[Any], None]:
    """A server that ignores some content."""

    def broken(body: Any) -> None:
        for each in body["messages"] if isinstance(body.get("messages"), list) else []:
            if isinstance(each["content"], list):
                each["content"] = [part for part in each["content"] if kept(part)]

    return broken


READ = ("prompt_tokens", "total_tokens")
STOPS = {"stop_text", "stop_one", "stop_four", "stop_six", "stop_streamed"}
CALLS = {"called", "required", "forced_by_name", "parallel", "streamed", "no_arguments", "streamed_none"}
REQUESTS: list[tuple[str, Change, set[str]]] = [
    ("max_tokens", without("max_tokens"), {"max_tokens", "max_tokens_streamed"}),
    ("max_completion_tokens", without("max_completion_tokens"), {"max_completion_tokens"}),
    ("stop", without("stop"), STOPS),
    ("n", without("n"), {"two_choices", "two_choices_streamed"}),
    ("logprobs", without("logprobs"), {"logprobs"}),
    ("tools", without("tools", "tool_choice"), CALLS),
    ("tool_choice", without("tool_choice"), {"forced_by_name", "none", "unknown_tool_choice"}),
    ("parallel_tool_calls", without("parallel_tool_calls"), {"parallel_off"}),
    ("response_format", without("response_format"), JSON - {"json_object", "json_object_streamed"}),
    ("reasoning_effort", without("reasoning_effort"), {"reasoning", "reasoning_streamed"}),
    ("stream_options", without("stream_options"), {"usage_at_end", "as_whole"}),
    ("system", turns(lambda all_: [each for each in all_ if each["role"] != "system"]), {"system"}),
    ("developer", turns(lambda all_: [each for each in all_ if each["role"] != "developer"]), {"developer"}),
    ("all turns but the last", turns(lambda all_: all_[-1:]), {"several_turns", "result", "two_results"}),
    ("one of two results", turns(lambda all_: all_[:2] + all_[3:] if len(all_) > 4 else all_), {"two_results"}),
    ("unknown roles", turns(lambda all_: [{**each, "role": "user"} for each in all_]), {"bad_role"}),
    ("pictures", parts(lambda part: part["type"] != "image_url"), {"image"}),
    ("files", parts(lambda part: part["type"] != "file"), {"pdf"}),
    ("all parts but the last", parts(lambda part: "walnut" not in part.get("text", "")), {"text_parts"}),
    ("unasked usage", lambda body: body.update(stream_options={"include_usage": True}), {"usage_unasked"}),
]
MODELS: list[tuple[str, set[str]]] = [
    ("actor-no_finish", {"one_finish", "finish_stop", "max_tokens_streamed", "streamed"}),
    ("actor-no_done", {"done_last"}),
    ("actor-no_usage", {"usage", "usage_at_end"}),
    ("actor-usage_in_last", {"usage_at_end", "usage_unasked"}),
    ("actor-tools_bad_deltas", {"streamed", "streamed_parallel", "streamed_none"}),
    ("actor-role_each_chunk", {"role_first"}),
    ("actor-crlf_sse", {"line_ends"}),
    ("actor-dup_ids", {"answer_id", "parallel"}),
    ("actor-two_choices", {"one_choice"}),
    ("actor-finish(reason=eos)", {"finish_stop", "one_finish"}),
    ("actor-finish(reason=length)", {"finish_stop", "one_finish"}),
    ("actor-wrong_ctype", {"message_text", "role_first"}),
    ("actor-cut_fin(k=1)", {"message_text", "role_first"}),
    ("actor-sse_error(k=1)", {"role_first"}),
]


# What a server fails at that it must take, or at least refuse: exactly those checks see it.
FAILS_AT: list[tuple[str, Callable[[Any], bool], set[str]]] = [
    ("names", lambda body: any("name" in each for each in body["messages"]), {"name"}),
    ("penalties", lambda body: "presence_penalty" in body, {"penalties"}),
    ("seeds", lambda body: "seed" in body, {"seed"}),
    ("temperature 0", lambda body: body.get("temperature") == 0, {"temperature_0"}),
    ("temperature 2", lambda body: body.get("temperature") == 2, {"temperature_2"}),
    ("huge limits", lambda body: body.get("max_completion_tokens", 0) > 10**6, {"max_tokens_huge"}),
    ("orphans", lambda body: body["messages"][-1].get("tool_call_id") == "call_none", {"orphan_result"}),
]
REFUSED = {"bad_role", "no_messages", "missing_messages", "not_json", "wrong_type", "unknown_tool_choice"}

# A model that says four words whatever it is asked: what it is not asked for by the wire itself is not shown.
DULL = "ok(n_tokens=4)"
DULL_FAILS = {"forced_by_name", "required", "no_arguments", "streamed_none", "logprobs", *THINKING, *JSON}
DULL_SHOWS_NOT = {
    *("system", "developer", "unicode", "unicode_streamed", "image", "pdf", *STOPS),
    *("max_tokens", "max_completion_tokens", "max_tokens_streamed"),
    *("called", "arguments_fit", "parallel", "parallel_off", "streamed", "streamed_parallel"),
    *("result", "result_first", "two_results"),
}

NONSENSE = [
    *(b"", b"[]", b"7", b"\xff\xfe", b"[" * 9999, b'{"choices":[]}', b'{"choices":[7]}', b'{"choices":7}'),
    *(b'{"choices":[{"message":7}]}', b'{"choices":[{"message":{"tool_calls":[7]}}]}', b'{"data":[7,8]}'),
    *(b'{"error":7}', b'{"choices":[{"message":{"content":"ok"},"logprobs":7}],"usage":7}', b"data: 7\n\n"),
    *(b"data: [DONE]\n\n", b'data: {"choices":7}\n\n', b'data: {"choices":[{"delta":7}]}\n\n'),
    b'{"choices":[{"message":{"tool_calls":[{"id":[],"function":{"name":[],"arguments":{}}}]}}]}',
    b'data: {"choices":[{"index":0,"delta":{"content":7,"tool_calls":7}}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{"tool_calls":[7]}}]}\n\n',
    b'data: {"choices":[{"index":[],"delta":{"tool_calls":[{"index":"x"}]}}]}\n\n',
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def actor() -> AsyncIterator[Server]:
    """A server that does everything right."""
    async with FakeUpstream() as upstream, httpx.AsyncClient(trust_env=False) as client:
        yield Server(client, upstream.url)


async def failed(server: Server, answer: Callable[[Probe], Any], model: str = "actor") -> set[str]:
    return {check.name for check in CHECKS if (await judge(check, model, answer))[0] == "failed"}


async def test_a_server_that_does_it_right_passes_everything(actor: Server) -> None:
    """Directly, without a proxy between."""
    found = {check.name: await judge(check, "actor", actor.reply) for check in CHECKS}
    assert {name: verdict for name, verdict in found.items() if verdict[0] != "passed"} == {}


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in REPLIES], ids=[row[0] for row in REPLIES])
async def test_a_broken_answer_is_found(actor: Server, change: Callable[[Reply], Reply], expected: set[str]) -> None:
    """One defect in what comes back."""

    async def answer(probe: Probe) -> Reply:
        return change(await actor.reply(probe))

    assert expected <= await failed(actor, answer)


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS])
async def test_what_is_silently_ignored_is_found(actor: Server, change: Change, expected: set[str]) -> None:
    """A server that does as if something had not been sent."""

    async def answer(probe: Probe) -> Reply:
        try:
            body = msgspec.json.decode(probe.body or b"null")
        except msgspec.DecodeError:
            return await actor.reply(probe)
        if isinstance(body, dict) and "messages" in body:
            change(body)
            probe = msgspec.structs.replace(probe, body=msgspec.json.encode(body))
        return await actor.reply(probe)

    assert expected <= await failed(actor, answer)


@pytest.mark.parametrize(("model", "expected"), MODELS, ids=[row[0] for row in MODELS])
@pytest.mark.sampled(4)
async def test_a_broken_server_is_found(actor: Server, model: str, expected: set[str]) -> None:
    """Faults of the whole server, over a socket."""
    assert expected <= await failed(actor, actor.reply, model)


@pytest.mark.parametrize(("asked", "expected"), [row[1:] for row in FAILS_AT], ids=[row[0] for row in FAILS_AT])
async def test_a_server_that_fails_at_one_thing_fails_there(
    actor: Server, asked: Callable[[Any], bool], expected: set[str]
) -> None:
    """And nowhere else."""

    async def answer(probe: Probe) -> Reply:
        reply = await actor.reply(probe)
        if reply.status == 200 and probe.path == CHAT and asked(msgspec.json.decode(probe.body or b"")):
            return status(reply)
        return reply

    assert await failed(actor, answer) == expected


async def test_an_answer_to_what_must_be_refused_is_found(actor: Server) -> None:
    """A server that answers everything."""

    async def answer(probe: Probe) -> Reply:
        reply = await actor.reply(probe)
        return await actor.reply(chat("actor")) if reply.status == 400 else reply

    assert await failed(actor, answer) == REFUSED


async def test_a_model_that_does_not_obey_is_no_failure_of_its_server(actor: Server) -> None:
    """Where the server read what it was asked; what `tool_choice` and `response_format` promise is the server's."""

    async def answer(probe: Probe) -> Reply:
        more = whole(lambda body: [body["usage"].update({name: body["usage"][name] + 50}) for name in READ])
        reply = await actor.reply(probe)
        unseen = any(word in (probe.body or b"") for word in (b'"tools"', b'"image_url"', b'"file"'))
        return more(reply) if unseen else reply

    found = {check.name: (await judge(check, DULL, answer))[0] for check in CHECKS}
    assert {name for name, outcome in found.items() if outcome == "failed"} == DULL_FAILS
    assert {name for name, outcome in found.items() if outcome == "not shown"} == DULL_SHOWS_NOT


async def test_a_model_that_says_nothing_until_its_limit_is_not_shown(actor: Server) -> None:
    """As those do that think; and one that ends at once."""
    (check,) = [check for check in CHECKS if check.name == "message_text"]
    found = []
    for reason, written in (("length", 256), ("length", 9), ("stop", 1), ("stop", 9), ("eos", 1)):

        def change(body: Any, reason: str = reason, written: int = written) -> None:
            body["choices"][0].update(finish_reason=reason, message={"role": "assistant", "content": ""})
            body["usage"]["completion_tokens"] = written

        async def answer(probe: Probe, change: Change = change) -> Reply:
            return whole(change)(await actor.reply(probe))

        found.append((await judge(check, "actor", answer))[0])
    assert found == ["not shown", "failed", "not shown", "failed", "failed"]


async def test_what_is_named_as_dropped_is_not_supported(actor: Server) -> None:
    """And only that: another parameter in the header changes nothing."""

    async def answer(probe: Probe) -> Reply:
        reply = await actor.reply(probe)
        return msgspec.structs.replace(reply, headers={**reply.headers, DROPPED: "seed,messages.name"})

    found = {check.name: (await judge(check, "actor", answer))[0] for check in CHECKS}
    assert {name for name, outcome in found.items() if outcome != "passed"} >= {"seed", "name"}
    assert (found["temperature_0"], found["seed"], found["name"]) == ("passed", "not supported", "not supported")


async def test_an_error_is_not_supported_only_where_it_says_so(actor: Server) -> None:
    """A 400 `unsupported_content` is; a 400 with another code, and a 500 with that one, are failures."""
    (check,) = [check for check in CHECKS if check.name == "image"]
    outcomes = []
    for code, number in (("unsupported_content", 400), ("invalid_value", 400), ("unsupported_content", 500)):

        async def answer(_: Probe, code: str = code, number: int = number) -> Reply:
            body = msgspec.json.encode({"error": {"message": "No.", "type": "x", "param": None, "code": code}})
            return Reply(number, {"content-type": "application/json"}, body)

        outcomes.append((await judge(check, "actor", answer))[0])
    assert outcomes == ["not supported", "failed", "failed"]


@pytest.mark.sampled(8)
@pytest.mark.parametrize("body", NONSENSE)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("number", [200, 400, 404])
async def test_no_answer_breaks_a_check(body: bytes, kind: str, number: int) -> None:
    """Whatever comes back is a verdict, never an exception."""

    async def answer(_: Probe) -> Reply:
        return Reply(number, {"content-type": kind}, body)

    for check in CHECKS:
        assert (await judge(check, "actor", answer))[0] in OUTCOMES


async def test_every_check_is_broken_by_more_than_a_dead_server() -> None:
    """A check that only a 500 to everything can fail says nothing."""
    rows = [row[2] for row in [*REPLIES, *REQUESTS, *FAILS_AT] if row[0] != "always a 500"]
    found = set().union(*rows, *(row[1] for row in MODELS), REFUSED)
    assert {check.name for check in CHECKS} - found == set()


async def test_the_same_request_is_sent_once() -> None:
    """Checks of one answer share it, so a run costs what was said before it."""
    group = [check for check in CHECKS if check.group == "whole"]
    async with FakeUpstream() as upstream:
        assert [each async for each in run(group, "actor", upstream.url, environment=False)]
        assert (len(upstream.ledger), calls_of(group, "actor")) == (2, 1)


async def test_a_server_that_closes_its_connections_is_not_to_blame() -> None:
    """It may do so just as the next request arrives."""
    group = [check for check in CHECKS if check.group == "sampling"]
    async with FakeUpstream() as upstream:
        found = [each async for each in run(group, "actor-stale_keepalive", upstream.url, environment=False)]
    assert len({seen.connection for seen in upstream.ledger}) == len(upstream.ledger) > 1
    assert {each.outcome for each in found} == {"passed"}


async def test_a_server_that_is_not_there_is_no_verdict() -> None:
    """Nothing can be said of it."""
    with refusing() as url, pytest.raises(Unusable, match="cannot be reached"):
        [each async for each in run(CHECKS, "actor", url, environment=False)]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("e401", "rejects the API key: 401: Incorrect API key provided: sk-fa***ke."),
        ("e429(code=insufficient_quota)", "answers 429: You exceeded your current quota."),
        ("e503", "answers 503: The engine is currently overloaded."),
        ("nothing", "answers 404: The model `nothing"),
        ("html_502", "answers 502 with text/html, not with JSON. Is the address complete, up to /v1?"),
        ("redirect(to=metadata)", "redirects (302) to http://169.254.169.254/"),
        ("close_before_request", "gives no complete answer: RemoteProtocolError"),
        ("blackhole", "gives no complete answer within 0.1 s"),
    ],
)
async def test_a_server_that_lets_nobody_in_is_no_verdict(actor: Server, model: str, said: str) -> None:
    """One sentence instead of the same failure in every row."""
    timeout_s = 0.1 if model == "blackhole" else 60.0
    with pytest.raises(Unusable) as caught:
        [each async for each in run(CHECKS, model, actor.base_url, environment=False, timeout_s=timeout_s)]
    assert str(caught.value).startswith(said)


async def test_what_lets_somebody_in_follows_from_the_group(actor: Server) -> None:
    """Errors are asked for by some checks, and some servers have no other endpoints."""
    errors = [check for check in CHECKS if check.group == "errors"]
    found = [each.outcome async for each in run(errors, "actor", actor.base_url, environment=False)]
    assert found == ["passed"] * len(errors)
    vectors = [check for check in CHECKS if check.group == "embeddings"]
    lacking = [each.outcome async for each in run(vectors, "e405", actor.base_url, environment=False)]
    assert lacking == ["not supported"] * len(vectors)


async def test_a_late_answer_is_not_shown(actor: Server) -> None:
    """Nothing is known of it; the row says how long it was waited for."""
    async with httpx.AsyncClient(trust_env=False) as client:
        late = Server(client, actor.base_url, timeout_s=0.05)
        assert await judge(CHECKS[0], "blackhole", late.reply) == ("not shown", "no complete answer within 0.05 s")


async def test_a_huge_limit_is_not_waited_for(actor: Server) -> None:
    """The answer has begun, which is enough."""
    (check,) = [check for check in CHECKS if check.name == "max_tokens_huge"]
    assert await judge(check, "actor-stall_after(k=0)", actor.reply) == ("passed", "accepted")


async def test_the_key_goes_out_as_a_bearer() -> None:
    async with FakeUpstream() as upstream:
        [each async for each in run(CHECKS[:1], "actor", upstream.url, "sk-test", environment=False)]
        assert all(seen.authorization for seen in upstream.ledger)


async def test_a_picture_by_its_address_is_asked_for(actor: Server) -> None:
    """Only where somebody wants it: the provider fetches it."""
    check: Check = image_link("https://example.com/red.png")
    assert await judge(check, "actor", actor.reply) == ("passed", "Red.")
    assert "image_link" not in {each.name for each in CHECKS}


async def test_names_are_unique() -> None:
    """In the table and in JSON."""
    names = [check.name for check in CHECKS]
    assert (len(names), len(set(names))) == (82, 82)
    assert len(GROUPS) == 12
