"""Thoughts that could go astray: ids of tool calls that two conversations share."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.serving import serving, write_files

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  own: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0}}
"""
TOOLS: list[Any] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]


class Thinker:
    """A server whose model counts its tool calls, or names none: the thought repeats what the user said first."""

    def __init__(self, call_id: str) -> None:
        self.call_id = call_id
        self.answers = 0
        self.seen: list[Any] = []  # the messages of each request
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        body = await reader.readexactly(int(length[1])) if length else b""
        asked = json.loads(body) if body else {}
        answer = self.answer(asked["messages"]) if asked else {}
        data, kind = json.dumps(answer).encode(), "application/json"
        if asked.get("stream"):
            (choice,) = answer["choices"]
            choice["delta"] = choice.pop("message")
            choice["delta"]["tool_calls"][0]["index"] = 0
            data, kind = b"data: " + json.dumps(answer).encode() + b"\n\ndata: [DONE]\n\n", "text/event-stream"
        top = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n"
        writer.write(top.encode() + b"connection: close\r\n\r\n" + data)
        await writer.drain()
        writer.close()

    def answer(self, messages: list[Any]) -> Any:
        self.seen.append(messages)
        self.answers += 1
        function = {"name": "look", "arguments": '{"a": 1, "b": 2}'}
        signature = {"google": {"thought_signature": f"signed {self.answers}"}}
        call = {"id": self.call_id, "type": "function", "function": function, "extra_content": signature}
        message: dict[str, Any] = {"reasoning_content": f"he said: {messages[0]['content']}", "tool_calls": [call]}
        thought = {"type": "reasoning.text", "index": 0, "text": "hm", "signature": f"sealed {self.answers}"}
        message["reasoning_details"] = [thought]
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return {"id": f"answer-{self.answers}", "choices": [choice]}


@asynccontextmanager
async def thinking(call_id: str) -> AsyncIterator[Thinker]:
    thinker = Thinker(call_id)
    async with await asyncio.start_server(thinker.serve, "127.0.0.1", 0) as listening:
        thinker.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        yield thinker


async def said(client: AsyncOpenAI, messages: list[Any], stream: bool = False) -> list[Any]:
    """The conversation after one more turn of the model, which calls a tool and has its result."""
    if stream:
        async with client.chat.completions.stream(model="own/m", messages=messages, tools=TOOLS) as events:
            answer: Any = await events.get_final_completion()
    else:
        answer = await client.chat.completions.create(model="own/m", messages=messages, tools=TOOLS)
    call: Any = (answer.choices[0].message.tool_calls or [])[0]
    arguments = json.dumps(json.loads(call.function.arguments), separators=(",", ":"))  # some clients write it anew
    function = {"name": call.function.name, "arguments": arguments}
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": call.id, "type": "function"}]}
    called["tool_calls"][0]["function"] = function  # type: ignore[index]
    return [*messages, called, {"role": "tool", "tool_call_id": call.id, "content": "nothing"}]


@pytest.mark.parametrize("call_id", ["functions.look:0", ""])
async def test_conversations_with_the_same_call_ids_keep_their_own_thoughts(tmp_path: Path, call_id: str) -> None:
    """Of one caller, who may have many users: what one of them said reaches no other."""
    async with thinking(call_id) as thinker, serving(write_files(tmp_path, thinker.url, ROUTING)) as server:
        talks = [[{"role": "user", "content": name}] for name in ("I am Alice", "I am Bob")]
        talks = [await said(server.client, talk) for talk in talks]
        for talk, name in zip(talks, ("Alice", "Bob"), strict=True):
            await said(server.client, talk)
            assert thinker.seen[-1][1]["reasoning_content"] == f"he said: I am {name}"


async def test_calls_without_an_id_get_another_in_each_answer(tmp_path: Path) -> None:
    """Clients look for results by it."""
    async with thinking("") as thinker, serving(write_files(tmp_path, thinker.url, ROUTING)) as server:
        talk: list[Any] = [{"role": "user", "content": "look"}]
        for _ in range(3):
            talk = await said(server.client, talk)
        ids = [message["tool_call_id"] for message in talk if message["role"] == "tool"]
        assert len(set(ids)) == 3
        assert all(len(each) <= 40 for each in ids)


@pytest.mark.parametrize("stream", [False, True])
async def test_signatures_of_calls_return_to_servers_that_wrote_them(tmp_path: Path, stream: bool) -> None:
    """Google's models behind an OpenAI-shaped server refuse a call of this turn without its own, and OpenRouter hands
    on what other models signed.
    """
    async with thinking("") as thinker, serving(write_files(tmp_path, thinker.url, ROUTING)) as server:
        talk: list[Any] = [{"role": "user", "content": "look"}]
        for _ in range(3):
            talk = await said(server.client, talk, stream)
        calls = [call for message in thinker.seen[-1] for call in message.get("tool_calls", [])]
        assert [call["extra_content"]["google"]["thought_signature"] for call in calls] == ["signed 1", "signed 2"]
        thoughts = [
            message.get("reasoning_details", [{}])[0] for message in thinker.seen[-1] if "tool_calls" in message
        ]
        assert [thought.get("signature") for thought in thoughts] == ["sealed 1", "sealed 2"]
