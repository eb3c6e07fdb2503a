"""Rules of OpenAI's own models: what each refuses is not sent, what is lost is said, other servers get everything."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.providers.openai import OpenAI
from proxy.providers.openai.rules import rules_of
from proxy.schema.chat import KeptReasoning
from proxy.schema.errors import BadRequest
from tests.providers.asking import USER, built, messages, request, sent

OPENAI, ELSEWHERE = OpenAI(), OpenAI(base_url="https://models.example/v1")
SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"1": 1},
    "logprobs": True,
    "top_logprobs": 3,
}
THINKING = ["o1", "o3", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5-mini-2025-08-07", "gpt-5.5", "gpt-5.6-sol"]
THINKING += ["gpt-6-astra", "gpt-6-luna", "gpt-6.1-sol", "gpt-6.2-sol", "gpt-5-chat-latest"]
UNTOUCHED = ["gpt-4o", "gpt-4.1-nano-2025-04-14", "gpt-3.5-turbo", "ft:gpt-4o:acme::abc", "gpt-5.2", "gpt-5.4-mini"]
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("model", THINKING)
def test_models_that_think_take_no_sampling(model: str) -> None:
    """Each is a 400 upstream; each is told."""
    result = built(OPENAI, model, **SAMPLING)
    assert set(result.dropped) == set(SAMPLING)
    assert not set(SAMPLING) & set(sent(OPENAI, model, **SAMPLING))


@pytest.mark.parametrize("model", UNTOUCHED)
def test_models_that_do_not_think_unless_told_take_all_sampling(model: str) -> None:
    """gpt-5.1 to 5.4 start with effort none."""
    result = built(OPENAI, model, **SAMPLING)
    assert (result.dropped, result.adapted) == ([], [])


@pytest.mark.parametrize(("effort", "lost"), [("none", False), ("low", True), ("xhigh", True)])
def test_the_effort_decides_whether_sampling_is_taken(effort: str, lost: bool) -> None:
    """The same model with and without thinking."""
    for model in ("gpt-5.4", "gpt-5.6-terra", "gpt-6-sol"):
        assert bool(built(OPENAI, model, reasoning_effort=effort, temperature=0.5).dropped) is lost


def test_values_that_change_nothing_are_no_loss() -> None:
    """Clients send defaults; temperature 1 is taken, zero penalties go without a word."""
    neutral = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False}
    body = sent(OPENAI, "o3", **neutral)
    assert {name: body[name] for name in neutral if name in body} == {"temperature": 1, "top_p": 1}
    assert built(OPENAI, "o3", **neutral).dropped == []


@pytest.mark.parametrize("model", THINKING)
def test_the_limit_has_the_name_that_models_that_think_take(model: str) -> None:
    """max_tokens is a 400 there; the same thing under another name is nothing to report."""
    result = built(OPENAI, model, max_tokens=7)
    body = sent(OPENAI, model, max_tokens=7)
    assert (body["max_completion_tokens"], "max_tokens" in body, result.adapted) == (7, False, [])


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("o3", "none", "low"),
        ("o3", "minimal", "low"),
        ("o4-mini", "xhigh", "high"),
        ("gpt-5", "none", "minimal"),
        ("gpt-5-nano", "max", "high"),
        ("gpt-5.2", "minimal", "low"),
        ("gpt-6-astra", "none", "low"),
        ("gpt-6.1-sol", "minimal", "low"),
        ("gpt-5-chat-latest", "high", "medium"),
        ("gpt-6-luna", "minimal", "low"),
        ("gpt-5.6-luna", "minimal", "low"),
        ("gpt-5.5", "minimal", "low"),
        ("gpt-5.5-2026-04-23", "max", "xhigh"),
        ("gpt-5.4-nano", "max", "xhigh"),
        ("gpt-5.2", "max", "xhigh"),
        ("gpt-5.1", "max", "high"),
        ("gpt-5.1", "xhigh", "high"),
        ("gpt-5.1", "minimal", "low"),
        ("gpt-6.1-terra", "minimal", "low"),
        ("gpt-6.2-astra", "none", "low"),
        ("gpt-7-sol", "minimal", "low"),
    ],
)
def test_an_effort_that_a_model_lacks_becomes_the_nearest_and_is_told(model: str, effort: str, expected: str) -> None:
    """Levels per model, live-verified by others."""
    result = built(OPENAI, model, reasoning_effort=effort)
    assert sent(OPENAI, model, reasoning_effort=effort)["reasoning_effort"] == expected
    assert result.adapted == ["reasoning_effort"]


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        ("gpt-5-pro", "low", "high"),
        ("gpt-5.5-pro", "none", "medium"),
        ("gpt-5.4-pro", "max", "xhigh"),
        ("gpt-5-codex", "minimal", "low"),
        ("gpt-5.1-codex", "none", "low"),
        ("gpt-5.1-codex", "xhigh", "high"),
        ("gpt-5.1-codex-max", "max", "xhigh"),
        ("gpt-5.1-codex-mini", "low", "medium"),
        ("gpt-5.3-codex", "max", "xhigh"),
        ("gpt-5.6-codex", "minimal", "low"),
        ("codex-mini-latest", "xhigh", "high"),
        ("o3-deep-research", "high", "medium"),
        ("o1-pro", "minimal", "low"),
    ],
)
def test_levels_of_models_that_only_the_responses_api_has(model: str, effort: str, expected: str) -> None:
    """The same rule; told under the name that the client used."""
    assert sent(OPENAI, model, reasoning_effort=effort)["reasoning"] == {"effort": expected}
    assert sent(OPENAI, model, reasoning={"effort": effort})["reasoning"] == {"effort": expected}
    assert built(OPENAI, model, reasoning_effort=effort).adapted == ["reasoning_effort"]


def test_a_level_that_the_chat_api_lacks_is_levelled_where_only_that_is_asked() -> None:
    """The model has it in the Responses API."""
    assert sent(OPENAI, "gpt-5.6-sol", reasoning_effort="max")["reasoning"] == {"effort": "max"}
    assert sent(ELSEWHERE, "gpt-5.6-sol", reasoning_effort="max")["reasoning_effort"] == "xhigh"
    assert built(ELSEWHERE, "gpt-5.6-sol", reasoning_effort="max").adapted == ["reasoning_effort"]


def test_options_of_reasoning_reach_the_api_that_has_them() -> None:
    """A summary is shown by the Responses API alone; a model that does not think has none."""
    asked = sent(OPENAI, "gpt-6-luna", reasoning={"effort": "minimal", "summary": "auto", "max_tokens": 5})
    assert asked["reasoning"] == {"effort": "low", "summary": "auto"}
    assert built(OPENAI, "gpt-6-luna", reasoning={"max_tokens": 5}).dropped == ["reasoning.max_tokens"]
    assert sent(OPENAI, "gpt-6-luna", reasoning={"effort": "high"})["reasoning_effort"] == "high"
    assert built(OPENAI, "gpt-4.1", reasoning={"summary": "auto"}).dropped == ["reasoning"]
    assert sent(ELSEWHERE, "gpt-6-luna", reasoning={"exclude": True})["reasoning"] == {"exclude": True}


@pytest.mark.parametrize(
    ("model", "effort"), [("o3", "low"), ("gpt-5", "minimal"), ("gpt-6-astra", "max"), ("gpt-5.6-sol", "none")]
)
def test_an_effort_that_a_model_has_is_sent(model: str, effort: str) -> None:
    """So is one that nobody knows, for the vendor to refuse."""
    assert sent(OPENAI, model, reasoning_effort=effort)["reasoning_effort"] == effort
    assert sent(OPENAI, model, reasoning_effort="ultra")["reasoning_effort"] == "ultra"


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1", "o1-mini"])
def test_models_without_the_parameter_get_no_effort(model: str) -> None:
    """It is told."""
    result = built(OPENAI, model, reasoning_effort="low")
    assert result.dropped == ["reasoning_effort"]


@pytest.mark.parametrize(
    ("model", "stop", "there", "here"),
    [
        ("gpt-4o", ["a", "b", "c", "d"], ["a", "b", "c", "d"], []),
        ("gpt-4o", ["a", "b", "c", "d", "e"], ["a", "b", "c", "d"], ["e"]),
        ("o3", "a", None, ["a"]),
        ("o4-mini", ["a", "b"], None, ["a", "b"]),
        ("gpt-5.4", ["a"], None, ["a"]),
        ("o1", ["a"], ["a"], []),
    ],
)
def test_stops_that_the_model_lacks_are_left_to_us(
    model: str, stop: Any, there: list[str] | None, here: list[str]
) -> None:
    """The answer is cut at them on our side."""
    assert sent(OPENAI, model, stop=stop).get("stop") == there
    assert built(OPENAI, model, stop=stop).stops == here


@pytest.mark.parametrize("role", ["system", "developer"])
def test_o1_mini_reads_instructions_from_the_user(role: str) -> None:
    """It refuses both roles (recorded); what weighs less is told."""
    said = [{"role": role, "content": "Be brief."}, USER]
    assert [message["role"] for message in messages(OPENAI, *said, model="o1-mini")] == ["user", "user"]
    assert built(OPENAI, "o1-mini", messages=said).adapted == ["messages.role"]


@pytest.mark.parametrize("model", ["openai/gpt-oss-120b", "gpt-oss:20b", "my-o3", "echo", "deepseek-reasoner", "o365"])
def test_other_models_have_no_rules(model: str) -> None:
    """An id that only looks like OpenAI's is not held to them."""
    assert rules_of(model) is None
    assert built(ELSEWHERE, model, **SAMPLING, max_tokens=3).dropped == []


ECHO = {
    "role": "assistant",
    "content": None,
    "refusal": None,
    "annotations": [],
    "reasoning_content": "thought",
    "thinking_blocks": [{"type": "thinking", "thinking": "thought", "signature": "s"}],
    "extra_content": {"google": {"thought_signature": "s"}},
    "tool_calls": [{**CALL, "extra_content": {"google": {"thought_signature": "s"}}}],
}
BARE = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "done"}


def test_echoes_of_our_answers_do_not_reach_openai() -> None:
    """It refuses fields it does not know; what it sends itself (annotations, refusal) it takes back. Nothing the client
    said is lost, so nothing is told.
    """
    said = messages(OPENAI, USER, ECHO, RESULT, model="gpt-4o")
    kept = {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [CALL]}
    assert said == [USER, kept, RESULT]
    assert built(OPENAI, "gpt-4o", messages=[USER, ECHO, RESULT]).dropped == []
    assert messages(ELSEWHERE, USER, ECHO, RESULT, model="gpt-5") == [USER, BARE, RESULT]


def test_nulls_that_sdks_write_out_do_not_reach_openai() -> None:
    """Dumped messages have a null for every field that is not set; OpenAI refuses those that may not be null."""
    dumped = {"role": "assistant", "content": "hello", "refusal": None, "audio": None, "tool_calls": None, "name": None}
    asked = [{**USER, "name": None, "tool_calls": None}, dumped, USER]
    kept = {"role": "assistant", "content": "hello", "refusal": None, "audio": None}
    assert messages(OPENAI, *asked, model="gpt-4o") == [USER, kept, USER]
    assert built(OPENAI, "gpt-4o", messages=asked).dropped == []
    assert messages(ELSEWHERE, *asked) == [USER, {"role": "assistant", "content": "hello"}, USER]


def test_servers_elsewhere_get_what_some_of_them_read() -> None:
    """DeepSeek and others read `reasoning_content`, some refuse a tool's result without it. Nobody reads our nulls."""
    call = {**CALL, "extra_content": {"google": {"thought_signature": "s"}}}
    kept = {name: value for name, value in ECHO.items() if name not in ("refusal", "annotations")}
    assert messages(ELSEWHERE, USER, ECHO, RESULT) == [USER, {**kept, "tool_calls": [call]}, RESULT]


def test_reasoning_that_a_client_dropped_is_given_back() -> None:
    """To the model that thought it, and to no other."""
    plain = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    answer: Any = {"role": "assistant", "reasoning_content": "thought", "tool_calls": [CALL]}
    state = ELSEWHERE.reasoning_state(answer)
    assert state == {"call_1": {"reasoning_content": "thought"}}
    asked = request(messages=[USER, plain, RESULT])
    kept = {identity: KeptReasoning("openai", "deepseek-v4", each) for identity, each in state.items()}
    asked = type(asked)(**{name: getattr(asked, name) for name in asked.__struct_fields__} | {"kept": kept})
    same, other = (ELSEWHERE.build_request(asked, model).http.body for model in ("deepseek-v4", "kimi-k3"))
    assert b'"reasoning_content":"thought"' in same
    assert b"thought" not in other
    assert b"thought" not in OPENAI.build_request(asked, "deepseek-v4").http.body


def test_the_clients_own_request_stays_as_it_was() -> None:
    """A fallback builds from the same request."""
    asked = request(messages=[{"role": "developer", "content": "x"}, ECHO, RESULT], max_tokens=3, stop=list("abcdef"))
    before = str(asked.fields)
    for model in ("gpt-4o", "o1-mini", "o3"):
        OPENAI.build_request(asked, model)
    assert str(asked.fields) == before


@pytest.mark.parametrize(
    ("role", "part", "param"),
    [
        ("user", {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA=="}}, "video_url"),
        ("assistant", {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}, "image_url"),
    ],
)
def test_content_that_openai_cannot_carry_is_refused_here(role: str, part: dict[str, Any], param: str) -> None:
    """Before any money is spent; the error names part and model."""
    said = [USER, {"role": role, "content": [part]}]
    with pytest.raises(BadRequest, match="gpt-4o") as caught:
        built(OPENAI, "gpt-4o", messages=said)
    assert (caught.value.code, caught.value.param) == ("unsupported_content", f"messages.1.content.0.{param}")
    assert built(ELSEWHERE, messages=said).dropped == []


@pytest.mark.parametrize("length", [1, 40, 41, 64, 200])
def test_ids_of_other_vendors_calls_are_short_enough(length: int) -> None:
    """A call and its result keep one id, two calls keep two. Other servers get them unchanged."""
    given = ["x" * (length - 1) + letter for letter in "ab"]
    history: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": each} for each in given]},
        *({"role": "tool", "tool_call_id": each, "content": "r"} for each in reversed(given)),
    ]
    for provider, model, is_kept in ((OPENAI, "gpt-4.1", length <= 40), (ELSEWHERE, "llama", True)):
        called, *results = messages(provider, USER, *history, model=model)[1:]
        ids = [call["id"] for call in called["tool_calls"]]
        assert [result["tool_call_id"] for result in results] == ids[::-1]
        assert len(set(ids)) == 2
        assert (ids == given) is is_kept
        assert not model.startswith("gpt") or max(map(len, ids)) <= 40
