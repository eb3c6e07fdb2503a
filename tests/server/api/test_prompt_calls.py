"""Calls with stored prompts, through the `openai` and `anthropic` SDKs: what is asked, what rows and usage say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from anthropic import AsyncAnthropic

from tests.server.api.raw import get, post, request, send
from tests.server.api.rows import row_with_id
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROMPT = "/v1/prompts"
OWN: Any = [{"role": "user", "content": "own"}]
USED = ("prompt", "prompt_version", "prompt_label", "experiment", "variant")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompt-calls")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, folder: Path) -> AsyncIterator[Server]:
    """With the prompt `ask`: version 1 is `production` and names a model, version 2 is `staging`."""
    async with serving(write_files(folder, upstream_of_module.url)) as running:
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        first = {
            "id": "ask",
            "messages": [{"role": "system", "content": "Be {tone}."}, {"role": "user", "content": "{question}"}],
            "model": "fake/echo",
            "parameters": {"temperature": 0.25, "max_completion_tokens": 9_000},
            "labels": ["production"],
        }
        second = {"template": "2: {question}", "tools": [tool], "labels": ["staging"]}
        for path, fields in ((PROMPT, first), (f"{PROMPT}/ask", second)):
            assert (await post(running.port, json.dumps(fields).encode(), path)).status == 201
        yield running


def client(server: Server) -> Any:
    return server.client  # without types: `messages` and `model` may be missing


def sent(completion: Any) -> dict[str, Any]:
    """The body that the upstream got."""
    return dict(json.loads(completion.choices[0].message.content))


async def used(folder: Path, completion: Any) -> tuple[Any, ...]:
    row = await row_with_id(folder / "usage.db", completion.id.removeprefix("chatcmpl-"))
    return tuple(row[name] for name in USED)


async def test_a_prompt_by_its_id(server: Server, folder: Path) -> None:
    """Own messages are appended, and what the request says itself wins."""
    prompt = {"id": "ask", "variables": {"tone": "kind", "question": "{tone}?"}}
    answer = await client(server).chat.completions.create(
        model="fake/echo", messages=OWN, temperature=0.75, extra_body={"prompt": prompt}
    )
    body = sent(answer)
    assert body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "{tone}?"},
        *OWN,
    ]
    assert (body["temperature"], body["max_completion_tokens"], "prompt" in body) == (0.75, 9_000, False)
    assert await used(folder, answer) == ("ask", 1, "production", None, None)


@pytest.mark.parametrize(
    ("model", "prompt", "version", "label"),
    [
        ("prompt:ask", {}, 1, "production"),
        ("prompt:ask@production", {}, 1, "production"),
        ("prompt:ask@1", {}, 1, None),
        ("prompt:ask", {"version": 1}, 1, None),
        ("prompt:ask", {"label": "production"}, 1, "production"),
    ],
)
async def test_a_prompt_as_a_model(
    server: Server, folder: Path, model: str, prompt: dict[str, Any], version: int, label: str | None
) -> None:
    """One name is a whole preset: model, parameters and messages."""
    variables = {"tone": "x", "question": "y"}
    answer = await client(server).chat.completions.create(
        model=model, messages=[], extra_body={"prompt": {**prompt, "variables": variables}}
    )
    assert answer.model == "fake/echo"
    assert sent(answer)["temperature"] == 0.25
    assert await used(folder, answer) == ("ask", version, label, None, None)


async def test_a_streamed_call_with_tools_of_the_prompt(server: Server, folder: Path) -> None:
    """The label decides at each call."""
    chunks = [
        chunk
        async for chunk in await client(server).chat.completions.create(
            model="fake/echo",
            messages=[],
            stream=True,
            extra_body={"prompt": {"id": "ask", "label": "staging", "variables": {"question": "q"}}},
        )
    ]
    body = json.loads("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
    assert (body["messages"], body["tools"][0]["function"]["name"]) == ([{"role": "user", "content": "2: q"}], "f")
    assert await used(folder, chunks[0]) == ("ask", 2, "staging", None, None)


async def test_a_prompt_at_responses(server: Server) -> None:
    """In the SDK's own parameter, with a version as text; OpenAI's own prompts still go to OpenAI."""
    prompt = {"id": "ask", "version": "1", "variables": {"tone": "a", "question": "b"}}
    answer = await client(server).responses.create(prompt=prompt, input="own")
    body = json.loads(answer.output_text)
    assert [message["content"] for message in body["messages"]] == ["Be a.", "b", "own"]
    assert "prompt" not in body
    with pytest.raises(openai.BadRequestError, match="has no stored prompts"):
        await client(server).responses.create(model="fake/ok", prompt={"id": "pmpt_1"}, input="own")


async def test_a_prompt_at_messages_and_completions(server: Server) -> None:
    """Their own shapes answer; what they have no place for is refused by name."""
    anthropic = AsyncAnthropic(base_url=server.base_url.removesuffix("/v1"), api_key="any", max_retries=0)
    prompt = {"id": "ask", "variables": {"tone": "a", "question": "b"}}
    async with anthropic:
        message: Any = await anthropic.messages.create(
            model="prompt:ask", max_tokens=8_000, messages=OWN, extra_body={"prompt": prompt}
        )
    body = json.loads(message.content[0].text)
    assert [each["content"] for each in body["messages"]] == ["Be a.", "b", "own"]
    assert {body.get("max_tokens"), body.get("max_completion_tokens")} == {8_000, None}
    completion = await client(server).completions.create(model="prompt:ask", prompt=prompt)
    assert [each["content"] for each in json.loads(completion.choices[0].text)["messages"]] == ["Be a.", "b"]
    with pytest.raises(openai.BadRequestError, match="has tools, which this endpoint does not support"):
        await client(server).completions.create(
            model="fake/ok", prompt={"id": "ask", "version": 2, "variables": {"question": "q"}}
        )


async def test_tokens_are_counted_of_the_rendered_prompt(server: Server) -> None:
    """`count_tokens` and explain see it as a call would."""
    question = "word " * 400
    prompt = {"id": "ask", "variables": {"tone": "a", "question": question}}
    body = json.dumps({"model": "prompt:ask", "messages": [], "prompt": prompt}).encode()
    counted = await post(server.port, body, "/v1/messages/count_tokens")
    assert counted.json["input_tokens"] > 300
    explained = await post(server.port, body, "/v1/route/explain")
    assert (explained.json["requested"], explained.json["chosen"]) == ("fake/echo", "fake/echo")
    assert explained.json["facts"]["input_tokens_estimate"] == counted.json["input_tokens"]


@pytest.mark.parametrize(
    ("body", "status", "param", "says"),
    [
        ({"model": "prompt:aks"}, 404, "prompt.id", "Did you mean ask?"),
        ({"model": "prompt:ask@prod"}, 404, "prompt.label", "Labels: production, staging, latest."),
        ({"model": "prompt:ask@7"}, 404, "prompt.version", "Versions: 1, 2."),
        ({"model": "prompt:ask@2", "prompt": {}}, 400, "prompt.variables.question", "missing: question"),
        ({"prompt": {"id": "ask", "variables": {"tone": 1, "qestion": 2}}}, 400, None, "did you mean question?"),
        ({"prompt": {"id": "ask", "variables": {f"v{n}": 1 for n in range(10_000)}}}, 400, None, "and 9997 more"),
        ({"model": "m", "prompt": "text"}, 400, "prompt", "expected an object"),
        ({"model": "prompt:ask@2", "prompt": {"variables": {"question": None}}}, 400, None, "missing: question"),
    ],
)
async def test_a_wrong_use_is_refused(
    server: Server, upstream: FakeUpstream, body: dict[str, Any], status: int, param: str | None, says: str
) -> None:
    """Before anything is sent upstream."""
    answer = await post(server.port, json.dumps({"messages": [], **body}).encode())
    error = answer.error()
    assert answer.status == status
    assert says in error["message"]
    assert param in (None, error["param"])
    assert len(upstream.ledger) == 0


@pytest.mark.parametrize("payload", ["{x.__class__}", "{0}", "{a!r}", "{a:>10}", "${x}", "{{7*7}}", "{% %}", "{tone}"])
async def test_payloads_in_values_are_text(server: Server, payload: str) -> None:
    """They arrive as they were sent."""
    prompt = {"id": "ask", "variables": {"tone": payload, "question": "{tone}"}}
    answer = await client(server).chat.completions.create(
        model="prompt:ask", messages=[], extra_body={"prompt": prompt}
    )
    assert [each["content"] for each in sent(answer)["messages"]] == [f"Be {payload}.", "{tone}"]


async def test_a_moved_label_counts_from_the_next_call(server: Server, folder: Path) -> None:
    """Nobody restarts anything."""
    assert (
        await post(server.port, b'{"id": "moves", "template": "1", "labels": ["production"]}', PROMPT)
    ).status == 201
    assert (await post(server.port, b'{"template": "2"}', f"{PROMPT}/moves")).status == 201
    seen = []
    for version in (1, 2, 1):
        body = json.dumps({"version": version}).encode()
        path = f"{PROMPT}/moves/labels/production"
        assert (await send(server.port, request(body, method="PUT", path=path))).status == 200
        answer = await client(server).chat.completions.create(
            model="fake/echo", messages=[], extra_body={"prompt": {"id": "moves"}}
        )
        seen.append(sent(answer)["messages"][0]["content"])
    assert seen == ["1", "2", "1"]


async def test_usage_by_prompt_adds_up(server: Server) -> None:
    """Calls without a prompt are a group of their own, and the log can be filtered."""
    await client(server).chat.completions.create(model="fake/ok", messages=OWN)
    found = (await get(server.port, "/v1/usage?group_by=prompt")).json
    groups = {group["prompt"]: group["calls"] for group in found["groups"]}
    assert groups["ask"] > 10 and groups[None] >= 1
    assert sum(groups.values()) == found["total"]["calls"]
    rows = (await get(server.port, "/v1/requests?prompt=ask&limit=1000")).json["data"]
    assert len(rows) == groups["ask"]
    assert {row["prompt_version"] for row in rows} == {1, 2}
    one = (await get(server.port, f"/v1/requests/{rows[0]['id']}")).json
    assert (one["prompt"], one["prompt_version"]) == ("ask", rows[0]["prompt_version"])
