"""Twenty turns of an agent through the unmodified SDK: one task, one model, and a prompt that only grows at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.faults.books import rows
from tests.serving import serving, write_files
from tests.upstream import FakeUpstream

TURNS = 20
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, timeout_s: {timeouts}}}
router: {{default_model: "fake/echo(tag=default)"}}
tasks:
  code: ["fake/echo(tag=code)", "fake/echo(tag=default)"]
  reasoning: ["fake/echo(tag=reasoning)"]
  extraction: ["fake/echo(tag=extraction)"]
  chat: ["fake/echo(tag=chat)"]
"""
PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, max_output: 100000, context: 1000000}
"""
GOALS = {
    "code": "Fix the failing test in tests/test_parser.py: the function parse_date raises ValueError for ISO dates.",
    "extraction": "Extract every invoice number, date and total from the attached files, and return a JSON list.",
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "run", "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}},
}
RESULTS = (
    "Hello! How are you today?\nSummarize the following text in three sentences.",
    "Traceback (most recent call last):\n  File 'x.py', line 3\nValueError: not a date",
    "total 12\ndrwxr-xr-x 2 root root 4096 Jan  1 10:00 .",
    "Prove that the sum of two odd numbers is even. Is this review positive or negative?",
)
SHORT = ("continue", "yes", "go on", "ok, next")


def turn(number: int) -> list[Any]:
    """What an agent adds: a call of its tool and the result, or a word of its user's."""
    call_id = f"call_{number}"
    call = {"id": call_id, "type": "function", "function": {"name": "run", "arguments": '{"command":"ls"}'}}
    added: list[Any] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": RESULTS[number % len(RESULTS)]},
    ]
    if number % 4 == 3:
        added += [{"role": "assistant", "content": "Done so far."}, {"role": "user", "content": SHORT[number // 4 % 4]}]
    return added


@pytest.mark.parametrize("task", GOALS)
async def test_an_agent_keeps_task_model_and_prefix(tmp_path: Path, task: str) -> None:
    """The model echoes the request it got, so its answer shows what the vendor could have cached of the turn before."""
    async with FakeUpstream() as upstream, serving(write_files(tmp_path, upstream.url, ROUTING, PRICING)) as server:
        client = AsyncOpenAI(base_url=server.base_url, api_key="any", max_retries=0)
        messages: list[Any] = [
            {"role": "system", "content": "You are an agent with a shell."},
            {"role": "user", "content": GOALS[task]},
        ]
        prefix, models = "", set()
        for number in range(TURNS):
            answer = await client.chat.completions.create(model="auto", messages=messages, tools=[TOOL])
            models.add(answer.model)
            sent = answer.choices[0].message.content or ""
            assert sent.startswith(prefix), number
            prefix = sent[: sent.rindex('],"tools"')]
            messages += turn(number)
        await client.close()
    assert models == {f"fake/echo(tag={task})"}
    assert [row["task_type"] for row in rows(tmp_path, "calls")] == [task] * TURNS
