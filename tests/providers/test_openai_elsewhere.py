"""OpenAI gets its own fields only; a server that speaks as it does gets what all such servers take (November 2026)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy.providers.openai import OpenAI
from proxy.schema.chat import KeptReasoning
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.errors import BadRequest
from tests.providers.asking import USER, answered, built, event, folded, messages, request, sent
from tests.providers.corpus import asked, call, result, text, tool, user

OPENAI, CHAT_ONLY = OpenAI(), OpenAI(api="chat")
ELSEWHERE = OpenAI(base_url="https://models.example/v1")
OWN: dict[str, Any] = {"top_k": 40, "num_ctx": 8192, "chat_id": "c1", "enable_thinking": False}
THOUGHT = {"role": "assistant", "content": "yo", "reasoning": "hm"}
CALLED = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call("c1")]}


@pytest.mark.parametrize("base_url", [None, "https://api.openai.com/v1", "https://eu.api.openai.com/v1"])
def test_openai_gets_no_fields_that_it_does_not_have(base_url: str | None) -> None:
    """It answers 400 to one. They are reported; the operator's own parameters stay."""
    openai = OpenAI(base_url=base_url, parameters={"new_field": 1})
    marked = {**text("a"), "cache_control": {"type": "ephemeral"}}
    said = [{**user([marked]), "id": "m1"}, asked(call("c1"), prefix=True), result("c1", "ok")]
    tools = [{**tool("look", examples=[1]), "cache_control": {"type": "ephemeral"}}]
    made = built(openai, "gpt-4.1", **OWN, new_field=1, messages=said, tools=tools)
    body = json.loads(made.http.body)
    assert set(body) == {"model", "messages", "tools", "new_field"}
    assert body["messages"] == [user([text("a")]), asked(call("c1")), result("c1", "ok")]
    assert body["tools"] == [tool("look")]
    names = {*OWN, "messages.content.cache_control", "messages.id", "messages.prefix", "tools.cache_control"}
    assert set(made.dropped) == {*names, "tools.examples"}


def test_openai_gets_the_fields_that_it_has() -> None:
    """All of them, and nothing is reported."""
    fields: dict[str, Any] = {
        "prompt_cache_key": "a",
        "verbosity": "low",
        "seed": 1,
        "web_search_options": {},
        "prediction": {"type": "content", "content": "a"},
        "tools": [{"type": "custom", "custom": {"name": "run"}}, tool("look", strict=True)],
    }
    made = built(OPENAI, "gpt-4.1", **fields)
    assert {name: value for name, value in json.loads(made.http.body).items() if name in fields} == fields
    assert made.dropped == []


def test_servers_elsewhere_get_the_clients_own_fields() -> None:
    """They have some of their own, and ignore what they do not know."""
    made = built(ELSEWHERE, **OWN)
    assert {name: json.loads(made.http.body)[name] for name in OWN} == OWN
    assert made.dropped == []


@pytest.mark.parametrize(
    ("base_url", "role"),
    [
        ("https://models.example/v1", "system"),
        ("https://api.deepseek.com", "system"),
        ("http://127.0.0.1:8080/v1", "system"),
        ("https://openrouter.ai.example/api/v1", "system"),
        ("https://openrouter.ai/api/v1", "developer"),
        ("https://mine.openai.azure.com/openai/v1", "developer"),
        ("https://api.openai.com/v1", "developer"),
        (None, "developer"),
    ],
)
@pytest.mark.parametrize("model", ["deepseek-v4", "gpt-4.1"])
def test_developer_is_said_where_it_is_known(base_url: str | None, role: str, model: str) -> None:
    """Everywhere else it is `system`, which means the same."""
    said = [{"role": "developer", "content": "Be brief."}, USER]
    assert messages(OpenAI(base_url=base_url), *said, model=model)[0]["role"] == role


def answer_of(message: dict[str, Any], *, is_streamed: bool) -> dict[str, Any]:
    """The message of an answer, as a client has it."""
    finish = "tool_calls" if "tool_calls" in message else "stop"
    if not is_streamed:
        body = {"id": "a", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
        return dict(ELSEWHERE.parse_response(answered(200, body), request())["choices"][0]["message"])
    calls = [{"index": place, **each} for place, each in enumerate(message.get("tool_calls") or [])]
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    deltas += [{name: message[name]} for name in ("reasoning", "reasoning_content") if name in message]
    deltas += [{"content": message["content"]}] if message["content"] else [{"tool_calls": calls}]
    pieces: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    pieces.append({"index": 0, "delta": {}, "finish_reason": finish})
    return dict(folded(ELSEWHERE, [event({"id": "a", "choices": [each]}) for each in pieces])["choices"][0]["message"])


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("message", [THOUGHT, CALLED])
def test_thoughts_go_back_under_the_name_that_they_came_with(message: dict[str, Any], is_streamed: bool) -> None:
    """From a client that sends back all it got, with calls and without."""
    said = answer_of(message, is_streamed=is_streamed)
    assert said["reasoning_content"] == "hm"
    back = [USER, said, *([result("c1", "ok")] if message is CALLED else [USER])]
    assert messages(ELSEWHERE, *back)[1] == message


@pytest.mark.parametrize("is_streamed", [False, True])
def test_thoughts_with_our_name_keep_it_before_calls(is_streamed: bool) -> None:
    """DeepSeek refuses a tool's result without them."""
    mine = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call("c1")]}
    said = answer_of(mine, is_streamed=is_streamed)
    assert "reasoning_field" not in said
    assert messages(ELSEWHERE, USER, said, result("c1", "ok"))[1] == mine


def test_thoughts_of_an_unknown_name_go_back_before_calls_only() -> None:
    """Some servers refuse `reasoning_content`; none needs it where no call follows."""
    echo: dict[str, Any] = {"role": "assistant", "content": "yo", "refusal": None, "annotations": []}
    echo["reasoning_content"] = "hm"
    assert messages(ELSEWHERE, USER, echo, USER)[1] == {"role": "assistant", "content": "yo"}


@pytest.mark.parametrize("more", [{}, {"reasoning_content": "hm"}])
def test_thoughts_that_are_kept_here_go_back_under_their_own_name(more: dict[str, str]) -> None:
    """From a client that dropped them, and from one that dropped their name."""
    said: Any = answer_of(CALLED, is_streamed=False)
    state = ELSEWHERE.reasoning_state(said)
    kept = {identity: KeptReasoning("openai", "m", each) for identity, each in state.items()}
    back = request(messages=[USER, {**asked(call("c1")), **more}, result("c1", "ok")])
    body = json.loads(ELSEWHERE.build_request(msgspec.structs.replace(back, kept=kept), "m").http.body)
    assert body["messages"][1] == {**asked(call("c1")), "reasoning": "hm"}


@pytest.mark.parametrize(
    "limits",
    [{}, {"max_tokens": 50}, {"max_tokens": 500}, {"max_completion_tokens": 50}, {"max_completion_tokens": 500}],
)
def test_a_cap_goes_out_under_both_names_where_the_servers_is_unknown(limits: dict[str, int]) -> None:
    """One that ignores a name would ignore the operator's cap. OpenAI itself refuses two limits."""
    capped, _ = request(**limits).capped(100)
    least = min([100, *limits.values()])
    for provider, model, expected in (
        (ELSEWHERE, "m", {"max_tokens": least, "max_completion_tokens": least}),
        (OPENAI, "gpt-4.1", {"max_completion_tokens": least}),
        (OPENAI, "gpt-6-sol", {"max_completion_tokens": least}),
    ):
        body = json.loads(provider.build_request(capped, model).http.body)
        assert {name: body[name] for name in ("max_tokens", "max_completion_tokens") if name in body} == expected


def test_without_a_cap_the_limit_has_the_clients_name() -> None:
    """Some servers refuse the other one."""
    assert sent(ELSEWHERE, max_tokens=5) == {"model": "m", "messages": [USER], "max_tokens": 5}


def embedding(inputs: list[Any]) -> EmbeddingsRequest:
    return EmbeddingsRequest(model="x", inputs=inputs, fields={"model": "x", "input": inputs})


def test_token_ids_are_for_openais_models_alone() -> None:
    """To another tokenizer they are other words, and nobody would notice."""
    ids = embedding([[1, 2, 3]])
    with pytest.raises(BadRequest, match="token ids"):
        ELSEWHERE.build_embeddings(ids, "nomic-embed")
    for provider, model in ((OPENAI, "text-embedding-3-small"), (ELSEWHERE, "text-embedding-3-large")):
        assert json.loads(provider.build_embeddings(ids, model).http.body)["input"] == [[1, 2, 3]]
    assert json.loads(ELSEWHERE.build_embeddings(embedding(["a"]), "nomic-embed").http.body)["input"] == ["a"]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
        {"input_tokens": 11.0, "output_tokens": 4.0},
    ],
)
def test_usage_is_read_in_either_spelling(usage: dict[str, Any]) -> None:
    """Servers in front of other APIs pass on the words of those, and numbers of any kind."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    body = {"id": "a", "choices": [choice], "usage": usage}
    report = ELSEWHERE.parse_response(answered(200, body), request())["usage"]
    assert (report.billed.prompt, report.billed.output) == (11, 4)
    assert [report.shown[f"{name}_tokens"] for name in ("prompt", "completion", "total")] == [11, 4, 15]  # type: ignore[literal-required]
