"""What a call costs the event loop, in bytecode instructions of this package: no noise, and the same on every machine.

A step that becomes more than 15 % dearer fails, and so does one that becomes as much cheaper: then the figure here is
to be written anew, so that it cannot become dearer again unseen.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
import pytest_asyncio

import proxy
from tests.serving import serving, write_files
from tests.upstream import FakeUpstream

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="each Python has instructions of its own"),
]
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
PACKAGE = str(Path(proxy.__file__).parent)
KEY = "a-key-of-the-hot-path"
CHANGE = 0.15
WARM, ROUNDS = 3, 7
INSTRUCTIONS = {
    ("fake/ok(n_tokens=20)", False): 12_595,
    ("fake/fast(n_tokens=200)", True): 23_633,
    ("claude/ok(n_tokens=20)", False): 21_129,
    ("claude/fast(n_tokens=200)", True): 38_044,
    ("auto:code", False): 15_183,
    ("auto", False): 19_457,
    ("ensemble:three", False): 49_237,
}


ROUTING = """
version: 1
server: {{require_key: true}}
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  claude: {{type: anthropic, base_url: "{upstream}", allow_private: true, retries: 0, timeout_s: {timeouts}}}
router: {{default_model: fake/ok}}
rules:
  - {{name: hard, when: {{task: reasoning, difficulty_over: 0.5}}, use: fake/ok}}
  - {{name: long, when: {{input_tokens_over: 50000}}, use: fake/plain}}
  - {{name: code, when: {{task: code, has_tools: false}}, use: fake/ok}}
ensembles:
  three: {{strategy: voting, members: [fake/ok, fake/two, claude/ok]}}
budget: {{daily_usd: 1000, total_usd: 10000}}
rate_limits: {{default: {{requests_per_minute: 10000}}}}
"""
PRICES = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096}
  claude/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096}
"""
QUESTION = "Write a function that adds two numbers and returns their sum."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """Of a server with a key, limits, budgets, rules and an ensemble."""
    headers = {"authorization": f"Bearer {KEY}"}
    async with FakeUpstream() as upstream:
        routing = write_files(tmp_path_factory.mktemp("hot"), upstream.url, ROUTING, PRICES)
        async with (
            serving(routing, {"PROXY_API_KEY": KEY}) as server,
            httpx.AsyncClient(base_url=server.base_url, headers=headers, trust_env=False) as opened,
        ):
            yield opened


class Count:
    """Instructions of this package in this thread."""

    total = 0


@contextmanager
def counted() -> Iterator[Count]:
    count = Count()

    def within(frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            count.total += 1
        return within

    def calls(frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return within

    before = sys.gettrace()
    sys.settrace(calls)
    try:
        yield count
    finally:
        sys.settrace(before)


@pytest.mark.parametrize(("model", "stream"), INSTRUCTIONS)
async def test_a_call_costs_what_it_did(client: httpx.AsyncClient, model: str, stream: bool) -> None:
    """The median of some calls, after the first ones, which make what later ones find; each with a question of its own,
    which is classified anew.
    """
    spent = []
    for number in range(WARM + ROUNDS):
        question = f"{QUESTION} Call it add{number:02}."
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": question}]}
        with counted() as count:
            answer = await client.post("/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        if number >= WARM:
            spent.append(count.total)
    known, median = INSTRUCTIONS[model, stream], int(statistics.median(spent))
    print(f"  {model}: {median:,} instructions ({min(spent):,} to {max(spent):,}); known: {known:,}")
    assert known * (1 - CHANGE) < median < known * (1 + CHANGE)


async def test_the_page_has_these_figures() -> None:
    """Each in a row of its own."""
    page = PAGE.read_text()
    assert [each for each in INSTRUCTIONS.values() if f"| {each:,} |" not in page] == []
