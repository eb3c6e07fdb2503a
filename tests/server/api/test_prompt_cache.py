"""`cache: auto` through real sockets: what a conversation reads from Anthropic's prompt cache, and what that saves."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.api.raw import Answer, post
from tests.server.api.rows import row_of
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.modes import makes_calls
from tests.upstream.prefix_cache import Counts, PrefixCache

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL, LEAST = "claude-sonnet-5-5", 512  # and the shortest prefix that it caches
TURNS, PAUSE_BEFORE = 10, 6  # before this turn the user is away for longer than five minutes
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  plain: {{type: anthropic, base_url: "{upstream}", allow_private: true, price: null, timeout_s: {timeouts}}}
  marked: {{type: anthropic, base_url: "{upstream}", allow_private: true, price: null, cache: auto}}
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, timeout_s: {timeouts}}}
models:
  by_route: {{use: plain/claude-sonnet-5-5, fallback: [fake/ok], cache: auto}}
  not_here: {{use: by_route, cache: "off"}}
  as_usual: {{use: plain/claude-sonnet-5-5}}
router: {{default_model: plain/claude-sonnet-5-5}}
"""
PRICES = "input: 2, output: 10, cached_input: 0.1, cache_write: 2.5, cache_write_1h: 4, max_output: 4096"
PRICING = f"""
version: 1
models:
  plain/{MODEL}: {{{PRICES}}}
  marked/{MODEL}: {{{PRICES}}}
  fake/*: {{input: 2, output: 10, max_output: 4096}}
"""
RULES = " ".join(f"Rule {number}: an agent that edits files reads them first." for number in range(60))
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name} a file of the project. {RULES[:1500]}",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
        },
    }
    for name in ("read", "write")
]
THOUGHTS = [{"type": "thinking", "thinking": "I should look.", "signature": "c2lnbmVk"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    async with serving(write_files(database.parent, upstream_of_module.url, ROUTING, PRICING)) as running:
        yield running


@pytest.fixture
def cache(upstream: FakeUpstream) -> PrefixCache:
    """The vendor's, empty."""
    upstream.modes[MODEL] = makes_calls(("read", '{"path": "a.py"}'))
    upstream.prefix_cache = PrefixCache(LEAST)
    return upstream.prefix_cache


async def ask(server: Server, model: str, messages: list[Any], **fields: Any) -> Answer:
    body = {"model": model, "messages": messages, "tools": TOOLS, "max_tokens": 100, **fields}
    answer = await post(server.port, json.dumps(body).encode())
    assert answer.status == 200, answer.body
    return answer


def beginning() -> list[Any]:
    return [{"role": "system", "content": RULES}, {"role": "user", "content": "Mend the parser."}]


def added(answer: Answer, turn: int) -> list[Any]:
    """What an agent adds to its conversation: the answer as it came, and the results of its calls."""
    message = {**answer.json["choices"][0]["message"], "thinking_blocks": THOUGHTS}
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"{turn}: {RULES[: 200 * turn]}"}
        for call in message["tool_calls"]
    ]
    return [{name: value for name, value in message.items() if value is not None}, *results]


async def played(server: Server, database: Path, cache: PrefixCache, model: str) -> tuple[list[Counts], list[int]]:
    """A conversation of ten turns: the counts of its prompts and their costs."""
    cache.requests.clear()
    cache.prefixes.clear()
    messages, costs = beginning(), []
    for turn in range(TURNS):
        cache.now_s += 1000 if turn == PAUSE_BEFORE else 20
        answer = await ask(server, model, messages)
        costs.append((await row_of(database, answer))["cost_nano"])
        messages += added(answer, turn)
    return list(cache.requests), costs


async def test_ten_turns_read_what_the_turn_before_has_sent(
    server: Server, upstream: FakeUpstream, database: Path, cache: PrefixCache
) -> None:
    """All of it, and after a pause its head; without marks nothing is read, and all of it costs more."""
    plain, plain_nano = await played(server, database, cache, f"plain/{MODEL}")
    marked, marked_nano = await played(server, database, cache, f"marked/{MODEL}")
    assert [counts.prompt for counts in marked] == [counts.prompt for counts in plain]
    assert all(counts.read == counts.written_5m == counts.written_1h == 0 for counts in plain)

    head = marked[0].written_1h
    assert head > LEAST
    for turn, counts in enumerate(marked):
        expected = 0 if turn == 0 else head if turn == PAUSE_BEFORE else marked[turn - 1].prompt
        assert counts.read == expected, turn
        assert (counts.input, counts.written_1h) == (0, head if turn == 0 else 0), turn

    hits = sum(counts.read > 0 for counts in marked)
    read, prompt = (sum(getattr(counts, name) for counts in marked) for name in ("read", "prompt"))
    before, after = sum(plain_nano), sum(marked_nano)
    saved = 1 - after / before
    print(f"{TURNS} turns: {hits} hits, {read} of {prompt} prompt tokens read from the cache")
    print(f"${before / 1e9:.6f} without marks, ${after / 1e9:.6f} with them: {saved:.0%} saved")
    assert hits == TURNS - 1
    assert saved > 0.4


async def test_the_prefix_stays_as_it_was(
    server: Server, upstream: FakeUpstream, database: Path, cache: PrefixCache
) -> None:
    """Byte by byte, but for the marks."""
    await played(server, database, cache, f"marked/{MODEL}")
    for before, after in zip(cache.prefixes, cache.prefixes[1:], strict=False):
        assert after[: len(before)] == before


async def test_another_conversation_reads_the_head(
    server: Server, upstream: FakeUpstream, database: Path, cache: PrefixCache
) -> None:
    """Within the hour: its tools and its system prompt are the same."""
    await played(server, database, cache, f"marked/{MODEL}")
    head = cache.requests[0].written_1h
    cache.now_s += 3000
    messages = [beginning()[0], {"role": "user", "content": "Something else. " * 20}]
    await ask(server, f"marked/{MODEL}", messages)
    assert (cache.requests[-1].read, cache.requests[-1].written_1h) == (head, 0)
    assert cache.requests[-1].written_5m > 0


async def test_the_cost_of_writes_is_within_the_hold(server: Server, database: Path, cache: PrefixCache) -> None:
    """The dearest that may happen: all of the prompt is written for an hour."""
    (deployment,) = server.runtime.names.resolve(f"marked/{MODEL}").candidates
    answer = await ask(server, f"marked/{MODEL}", beginning())
    counts, row = cache.requests[-1], await row_of(database, answer)
    used = answer.json["usage"]["completion_tokens"]
    written_nano = counts.written_1h * 4_000 + counts.written_5m * 2_500 + counts.input * 2_000
    assert row["cost_nano"] == written_nano + used * 10_000
    assert deployment.rates is not None
    bound = deployment.rates.upper_bound(counts.prompt, used)
    assert bound == counts.prompt * 4_000 + used * 10_000 > row["cost_nano"]


async def test_it_is_reported(server: Server, upstream: FakeUpstream, cache: PrefixCache) -> None:
    """In the header, and in the answer of a client that asks for a trace; the usage has the counts."""
    answer = await ask(server, f"marked/{MODEL}", beginning(), routing={"trace": True})
    assert answer.headers("x-proxy-adapted-params") == ["cache_control"]
    assert answer.json["routing"]["adapted"] == ["cache_control"]
    assert answer.json["usage"]["prompt_tokens_details"]["cache_write_tokens"] == cache.requests[-1].prompt
    again = await ask(server, f"marked/{MODEL}", beginning())
    assert again.json["usage"]["prompt_tokens_details"]["cached_tokens"] == cache.requests[-1].prompt
    plain = await ask(server, f"plain/{MODEL}", beginning(), routing={"trace": True})
    assert (plain.headers("x-proxy-adapted-params"), plain.json["routing"]["adapted"]) == ([], [])


async def test_the_clients_own_marks_win(server: Server, upstream: FakeUpstream, cache: PrefixCache) -> None:
    """One is enough; and a strict request is sent as it is."""
    own = [{**beginning()[0], "cache_control": {"type": "ephemeral"}}, *beginning()[1:]]
    answer = await ask(server, f"marked/{MODEL}", own)
    assert answer.headers("x-proxy-adapted-params") == []
    assert (cache.requests[-1].written_1h, cache.requests[-1].written_5m > LEAST) == (0, True)
    await ask(server, f"marked/{MODEL}", [*beginning()[:1], {"role": "user", "content": "x"}], routing={"strict": True})
    assert cache.requests[-1].written_1h == 0


@pytest.mark.parametrize(
    ("name", "is_marked"), [("by_route", True), ("not_here", False), ("as_usual", False), (f"plain/{MODEL}", False)]
)
async def test_a_route_says_so_for_its_own_requests(
    server: Server, upstream: FakeUpstream, cache: PrefixCache, name: str, is_marked: bool
) -> None:
    """The outermost name decides; other names of the same model are not concerned."""
    answer = await ask(server, name, beginning())
    assert (answer.headers("x-proxy-adapted-params") == ["cache_control"]) == is_marked
    assert (cache.requests[-1].written_1h > 0) == is_marked


@pytest.mark.parametrize("stream", [False, True])
async def test_the_completions_of_old_clients_are_marked_only_if_that_helps(
    server: Server, upstream: FakeUpstream, cache: PrefixCache, stream: bool
) -> None:
    """A prompt alone has nothing that the next one shares."""
    body = {"model": f"marked/{MODEL}", "prompt": RULES, "stream": stream}
    answer = await post(server.port, json.dumps(body).encode(), path="/v1/completions")
    assert (answer.status, answer.headers("x-proxy-adapted-params")) == (200, [])
    assert cache.requests[-1].input == cache.requests[-1].prompt


async def test_choices_that_are_asked_for_at_once_write_the_prompt_once(
    server: Server, upstream: FakeUpstream, cache: PrefixCache
) -> None:
    """None of them could read what another one writes."""
    answer = await ask(server, f"marked/{MODEL}", beginning(), n=3)
    assert answer.headers("x-proxy-attempts") == ["3"]
    assert sorted(counts.written_1h > 0 for counts in cache.requests) == [False, False, True]
