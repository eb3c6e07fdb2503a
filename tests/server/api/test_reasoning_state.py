"""Thoughts before tool calls, for clients that do not send them back: tool loops through the unmodified SDK.

The client below does what frameworks do: of an assistant's message it keeps role, content and tool calls, and of these
id, name and arguments. What it drops must reach the upstream again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.serving import Server, serving, spawned, write_files
from tests.upstream import FakeUpstream
from tests.upstream import spawn as spawned_upstream
from tests.upstream.anthropic_wire import SIGNATURE as ANTHROPIC_SIGNATURE
from tests.upstream.google_wire import SIGNATURE

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}", reasoning_state: REASONING_STATE}}
providers:
  deep: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  ant: {{type: anthropic, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
  gem: {{type: google, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
"""
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
THOUGHT = "think0 think1 think2 "
MODELS = {"deep": "deep/thinker", "ant": "ant/claude-opus-4-5", "gem": "gem/gemini-3-pro-preview"}
KEYS = {"PROXY_API_KEY": "proxy-key-0123456789abcdef", "PROXY_ADMIN_KEY": "admin-key-0123456789abcdef"}


def files(folder: Path, upstream: str, reasoning_state: str = "store") -> Path:
    return write_files(folder, upstream, ROUTING.replace("REASONING_STATE", reasoning_state))


def thoughts_deep(body: dict[str, Any]) -> list[str | None]:
    """What reached an OpenAI-shaped server: the thought of each message that calls tools."""
    return [message.get("reasoning_content") for message in body["messages"] if message.get("tool_calls")]


def thoughts_gem(body: dict[str, Any]) -> list[str | None]:
    """What reached Google: the signature of each call."""
    parts = [part for content in body["contents"] for part in content["parts"] if "functionCall" in part]
    return [part.get("thoughtSignature") for part in parts]


def thoughts_ant(body: dict[str, Any]) -> list[str | None]:
    """What reached Anthropic: the signature of the thinking in each message that calls tools."""
    found: list[str | None] = []
    for message in body["messages"]:
        blocks = message["content"] if isinstance(message["content"], list) else []
        if any(block["type"] == "tool_use" for block in blocks):
            found.append(next((block["signature"] for block in blocks if block["type"] == "thinking"), None))
    return found


ARRIVED: dict[str, Callable[[dict[str, Any]], list[str | None]]] = {
    "deep": thoughts_deep,
    "ant": thoughts_ant,
    "gem": thoughts_gem,
}
GIVEN_BACK = {"deep": THOUGHT, "ant": ANTHROPIC_SIGNATURE, "gem": SIGNATURE}


class Loop:
    """One conversation of a client that forgets what it does not know."""

    def __init__(self, wire: str, *, stream: bool = False) -> None:
        self.wire = wire
        self.stream = stream
        self.messages: list[Any] = [{"role": "user", "content": "look around"}]

    async def turn(self, client: AsyncOpenAI) -> Any:
        """Asks once and adds what came back, with the results of its tool calls."""
        message = await (self._streamed(client) if self.stream else self._whole(client))
        calls = message["tool_calls"]
        self.messages.append(message if calls else {"role": "assistant", "content": message["content"]})
        self.messages += [{"role": "tool", "tool_call_id": call["id"], "content": "a tree"} for call in calls]
        return message

    async def arrived(self, client: AsyncOpenAI, upstream: FakeUpstream) -> list[str | None]:
        """The thoughts that the upstream gets with the next turn."""
        upstream.modes[MODELS[self.wire].partition("/")[2]] = "echo"
        message = await self._whole(client)
        return ARRIVED[self.wire](json.loads(message["content"]))

    async def _whole(self, client: AsyncOpenAI) -> dict[str, Any]:
        answer = await client.chat.completions.create(
            model=MODELS[self.wire], messages=self.messages, tools=TOOLS, reasoning_effort="high"
        )
        message = answer.choices[0].message
        return _plain(message.content, [(call.id, call.function) for call in message.tool_calls or []])  # type: ignore[union-attr]

    async def _streamed(self, client: AsyncOpenAI) -> dict[str, Any]:
        async with client.chat.completions.stream(
            model=MODELS[self.wire], messages=self.messages, tools=TOOLS, reasoning_effort="high"
        ) as events:
            answer = await events.get_final_completion()
        message = answer.choices[0].message
        return _plain(message.content, [(call.id, call.function) for call in message.tool_calls or []])


def _plain(content: str | None, calls: list[tuple[str, Any]]) -> dict[str, Any]:
    kept = [
        {"id": each, "type": "function", "function": {"name": function.name, "arguments": function.arguments}}
        for each, function in calls
    ]
    return {"role": "assistant", "content": content, "tool_calls": kept}


@pytest.fixture(autouse=True)
def thinking(upstream: FakeUpstream) -> None:
    """Every model thinks and calls a tool."""
    upstream.modes.update({model.partition("/")[2]: "reasoning-tools" for model in MODELS.values()})


async def one_turn(server: Server, wire: str = "deep", key: str = "any", *, stream: bool = False) -> Loop:
    loop = Loop(wire, stream=stream)
    async with as_caller(server, key) as client:
        assert len((await loop.turn(client))["tool_calls"]) == 1
    return loop


def as_caller(server: Server, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=server.base_url, api_key=key, max_retries=0)


@pytest.mark.parametrize("wire", MODELS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.sampled(3)
async def test_a_loop_of_three_turns_keeps_its_thoughts(
    upstream: FakeUpstream, tmp_path: Path, wire: str, stream: bool
) -> None:
    """Each turn's thought stands before its tool call again in every turn that follows."""
    async with serving(files(tmp_path, upstream.url)) as server:
        loop = Loop(wire, stream=stream)
        for _ in range(3):
            assert (await loop.turn(server.client))["tool_calls"]
        assert await loop.arrived(server.client, upstream) == [GIVEN_BACK[wire]] * 3


@pytest.mark.parametrize("wire", MODELS)
@pytest.mark.slow
async def test_it_survives_a_restart(upstream: FakeUpstream, tmp_path: Path, wire: str) -> None:
    """Between the tool call and its result."""
    routing = files(tmp_path, upstream.url)
    async with serving(routing) as server:
        loop = await one_turn(server, wire)
    async with serving(routing) as server:
        assert await loop.arrived(server.client, upstream) == [GIVEN_BACK[wire]]


async def test_in_memory_it_does_not(upstream: FakeUpstream, tmp_path: Path) -> None:
    """And nothing of it is in the database."""
    routing = files(tmp_path, upstream.url, "memory")
    async with serving(routing) as server:
        loop = await one_turn(server)
        assert await loop.arrived(server.client, upstream) == [THOUGHT]
    assert rows(tmp_path) == 0
    async with serving(routing) as server:
        assert await loop.arrived(server.client, upstream) == [None]


async def test_off_means_off(upstream: FakeUpstream, tmp_path: Path) -> None:
    """The loop goes on without."""
    async with serving(files(tmp_path, upstream.url, "off")) as server:
        loop = await one_turn(server)
        assert await loop.arrived(server.client, upstream) == [None]
    assert rows(tmp_path) == 0
    assert not has_key_file(tmp_path)


@pytest.mark.parametrize("wire", MODELS)
async def test_another_caller_gets_nothing(upstream: FakeUpstream, tmp_path: Path, wire: str) -> None:
    """With the same tool call id and the same messages, but another key."""
    async with serving(files(tmp_path, upstream.url), KEYS) as server:
        loop = await one_turn(server, wire, KEYS["PROXY_API_KEY"])
        async with as_caller(server, KEYS["PROXY_ADMIN_KEY"]) as other:
            assert GIVEN_BACK[wire] not in await loop.arrived(other, upstream)
        async with as_caller(server, KEYS["PROXY_API_KEY"]) as same:
            assert await loop.arrived(same, upstream) == [GIVEN_BACK[wire]]


@pytest.mark.parametrize("wire", MODELS)
@pytest.mark.parametrize(
    "loss",
    [
        f"UPDATE reasoning_states SET kept_ns = kept_ns - {3600 * 10**9}",
        "UPDATE reasoning_states SET sealed = randomblob(size)",
        "DELETE FROM reasoning_states",
        "DROP TABLE reasoning_states",
    ],
)
@pytest.mark.slow
async def test_what_is_lost_ends_no_loop(upstream: FakeUpstream, tmp_path: Path, wire: str, loss: str) -> None:
    """Too old, broken or gone: the provider does without, and the next turn is answered."""
    async with serving(files(tmp_path, upstream.url)) as server:
        loop = await one_turn(server, wire)
        with closing(sqlite3.connect(tmp_path / "usage.db", isolation_level=None)) as db:
            db.execute(loss)
        assert GIVEN_BACK[wire] not in await loop.arrived(server.client, upstream)


@pytest.mark.parametrize(("before", "after"), [("deep", "gem"), ("gem", "ant"), ("ant", "deep")])
@pytest.mark.slow
async def test_another_model_does_not_get_its_thoughts(
    upstream: FakeUpstream, tmp_path: Path, before: str, after: str
) -> None:
    """Only the dialect that wrote them can read them."""
    async with serving(files(tmp_path, upstream.url)) as server:
        loop = await one_turn(server, before)
        loop.wire = after
        assert GIVEN_BACK[before] not in await loop.arrived(server.client, upstream)


async def test_the_answer_ends_after_its_thoughts_are_kept(upstream: FakeUpstream, tmp_path: Path) -> None:
    """When the client has the last byte, any other process could serve its next turn."""
    async with serving(files(tmp_path, upstream.url)) as server:
        for turns in (1, 2, 3):
            await one_turn(server, stream=turns == 2)
            assert rows(tmp_path) == turns


async def test_a_vault_that_cannot_be_used_fails_no_call(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Here its key's place is taken by a folder."""
    routing = files(tmp_path, upstream.url)
    (tmp_path / "usage.db-vault-key").mkdir()
    async with serving(routing) as server:
        loop = await one_turn(server)
        assert await loop.arrived(server.client, upstream) == [None]


async def test_the_key_may_come_from_the_environment(upstream: FakeUpstream, tmp_path: Path) -> None:
    """Then there is no file, and another key opens nothing."""
    routing = files(tmp_path, upstream.url)
    async with serving(routing, {"PROXY_VAULT_KEY": "k" * 32}) as server:
        loop = await one_turn(server)
        assert await loop.arrived(server.client, upstream) == [THOUGHT]
    assert not has_key_file(tmp_path)
    async with serving(routing, {"PROXY_VAULT_KEY": "l" * 32}) as server:
        assert await loop.arrived(server.client, upstream) == [None]


def rows(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        return int(db.execute("SELECT COUNT(*) FROM reasoning_states").fetchone()[0])


def has_key_file(folder: Path) -> bool:
    return (folder / "usage.db-vault-key").exists()


@pytest.mark.slow
async def test_workers_share_it(tmp_path: Path) -> None:
    """Whichever of two workers is asked: turns go to them as they come, each on a connection of its own."""
    modes = {model.partition("/")[2]: "reasoning-tools" for model in MODELS.values()}
    with spawned_upstream() as far, spawned(files(tmp_path, far.url), "--workers", "2") as server:
        for _ in range(8):
            far.set_modes(modes)
            loop = Loop("deep")
            for _ in range(2):
                async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
                    await loop.turn(client)
            far.set_modes({"thinker": "echo"})
            async with AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
                message = await loop._whole(client)
            assert thoughts_deep(json.loads(message["content"])) == [THOUGHT] * 2
