"""Three providers, one of which fails in every way in turn: what callers notice, and what the upstreams must bear.

Providers are `one`, `two` and `three`; the names `from-one`, `from-two` and `from-three` begin at each of them and fall
back to the other two. Ratios and counts hold on a slow machine too; times are only printed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.faults.books import assert_sums, attempts_by_call, reconcile
from tests.faults.talking import Heard, ask
from tests.serving import serving
from tests.upstream import FakeUpstream, refusing

NAMES = ("one", "two", "three")
CALLS = 45  # while one provider fails, a third of them begin at it
AT_ONCE = 6
FAILURES = 5  # of the breaker, in a row
SHORT = {"connect": 1.5, "first_token": 1.5, "idle": 1.5, "total": 1.5}
TIMED_OUT = ("timeout_first_token", "timeout_idle", "timeout_total")


class Way(Struct):
    """A way to fail. `mode` None: nobody listens. `cuts`: its streams fail after their first token."""

    name: str
    mode: str | None
    cuts: bool = False


WAYS = (
    Way("connection refused", None),
    Way("429, Retry-After in seconds", "e429(retry_after=20)"),
    Way("429, Retry-After as a date", "e429_until(s=20)"),
    Way("500, every request", "e500"),
    Way("slow first token", "slow_ttft(s=60)"),
    Way("stall in mid-stream", "stall_after(k=3)", cuts=True),
    Way("truncation", "cut_clean(k=3)", cuts=True),
)


def configured(folder: Path, urls: dict[str, str], **router: Any) -> Path:
    """The files of a server with three providers. A request to provider `one` asks the model `one` upstream."""
    folder.mkdir(exist_ok=True)
    provider = {"type": "openai", "allow_private": True, "timeout_s": SHORT}
    order = {name: [*NAMES[place:], *NAMES[:place]] for place, name in enumerate(NAMES)}
    routing = {
        "version": 1,
        "storage": {"url": f"sqlite:///{folder / 'usage.db'}"},
        "providers": {name: {**provider, "base_url": url} for name, url in urls.items()},
        "router": {"retry_delay_s": 0.02, "breaker": {"failures": FAILURES}, **router},
        "models": {
            f"from-{name}": {"use": f"{first}/{first}", "fallback": [f"{each}/{each}" for each in others]}
            for name, (first, *others) in order.items()
        },
    }
    path = folder / "routing_rules.yaml"
    path.write_text(json.dumps(routing))
    prices = {f"{name}/*": {"input": 2.0, "output": 10.0, "max_output": 4096} for name in NAMES}
    (folder / "pricing.yaml").write_text(json.dumps({"version": 1, "models": prices}))
    return path


def said(tokens: int) -> str:
    return " ".join(f"tok{number}" for number in range(tokens))


class Told(Struct):
    """What one call came to, and how long it took."""

    heard: Heard
    stream: bool
    seconds: float

    @property
    def is_answered(self) -> bool:
        return self.heard.status == 200 and self.heard.finish_reasons == ["stop"]


async def load(port: int, calls: int = CALLS, at_once: int = AT_ONCE, **fields: Any) -> list[Told]:
    """So many calls, a few at a time, by turns from each provider, half of them streams."""
    places = asyncio.Semaphore(at_once)

    async def one(number: int) -> Told:
        async with places:
            begun, stream = time.monotonic(), number % 2 == 0
            heard = await ask(port, f"from-{NAMES[number % 3]}", stream=stream, max_tokens=10, **fields)
            return Told(heard, stream, time.monotonic() - begun)

    return list(await asyncio.gather(*(one(number) for number in range(calls))))


class Load(Struct):
    """What the upstreams had to bear, from the table of attempts."""

    attempts: Counter[str] = Counter()
    meant: Counter[str] = Counter()  # calls that came to a provider, first or by falling back
    repeated_after_a_time_out: int = 0
    most: int = 0  # attempts of one call

    def add(self, folder: Path, calls: set[str] | None = None) -> None:
        """The attempts of these calls (None: of all)."""
        for call_id, attempts in attempts_by_call(folder).items():
            if calls is not None and call_id not in calls:
                continue
            by_provider: defaultdict[str, list[str]] = defaultdict(list)
            for each in attempts:
                by_provider[each["provider"]].append(each["outcome"])
            self.most = max(self.most, len(attempts))
            for provider, outcomes in by_provider.items():
                self.attempts[provider] += len(outcomes)
                self.meant[provider] += 1
                lost = [outcome for outcome in outcomes[:-1] if outcome in (*TIMED_OUT, "upstream_truncated")]
                self.repeated_after_a_time_out += len(lost)

    def assert_bounded(self) -> None:
        """R14: a fifth more than was meant for each upstream, and three; at most four attempts of a call."""
        for provider, attempts in self.attempts.items():
            assert attempts <= 1.2 * self.meant[provider] + 3, (provider, attempts, self.meant[provider])
        assert self.most <= 4

    @property
    def worst(self) -> float:
        """The most attempts for each call that came to a provider."""
        return max(self.attempts[provider] / meant for provider, meant in self.meant.items())


def assert_not_duplicated(told: list[Told], cuts: bool) -> None:
    """Each answer is the text of one upstream, from its beginning; what was cut is a part of it."""
    for each in told:
        if each.is_answered:
            assert each.heard.content == said(10)
        elif each.heard.status == 200:
            assert cuts
            assert each.stream
            assert said(13).startswith(each.heard.content)
            assert each.heard.error["code"] in ("upstream_truncated", "upstream_timeout")
            assert not each.heard.done


def percentile(told: list[Told], share: float) -> float:
    times = sorted(each.seconds for each in told)
    return times[min(len(times) - 1, int(share * len(times)))] * 1000


def urls_of(upstream: FakeUpstream, way: Way, failing: str, stack: ExitStack) -> dict[str, str]:
    urls = dict.fromkeys(NAMES, upstream.url)
    if way.mode is None:
        urls[failing] = stack.enter_context(refusing())
    return urls


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[list[str]]:
    """The lines of the table in docs/resilience.md, printed at the end (`-s` shows them)."""
    lines: list[str] = []
    yield lines
    head = "| one of three providers fails | calls | answered | attempts a call | worst upstream | p50, p99 ms |"
    print("\n".join(["", head, "|---|---|---|---|---|---|", *lines]))


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
@pytest.mark.slow
async def test_callers_notice_nothing_that_could_be_hidden(tmp_path: Path, way: Way, table: list[str]) -> None:
    """Only a stream that had begun at the failing provider fails, and only until its breaker opens."""
    told, borne = [], Load(Counter(), Counter())
    for failing in NAMES:
        folder = tmp_path / failing
        modes = {name: way.mode if name == failing and way.mode else "ok" for name in NAMES}
        with ExitStack() as stack:
            async with FakeUpstream(modes=modes) as upstream:
                async with serving(configured(folder, urls_of(upstream, way, failing, stack))) as server:
                    told += await load(server.port)
                tally = reconcile(folder, upstream.ledger)
        assert (tally.lost, tally.duplicated) == ([], [])
        assert_sums(folder)
        borne.add(folder)
    assert_not_duplicated(told, way.cuts)
    unanswered = [each for each in told if not each.is_answered]
    assert all(way.cuts and each.stream and each.heard.content for each in unanswered)
    assert len(unanswered) <= len(NAMES) * (FAILURES + AT_ONCE)
    borne.assert_bounded()
    assert borne.repeated_after_a_time_out == 0
    total = sum(borne.attempts.values()) / len(told)
    answered = f"{100 * (1 - len(unanswered) / len(told)):.1f} %"
    times = f"{percentile(told, 0.5):.0f}, {percentile(told, 0.99):.0f}"
    table.append(f"| {way.name} | {len(told)} | {answered} | {total:.2f} | {borne.worst:.2f} | {times} |")


@pytest.mark.slow
async def test_an_outage_of_everything_is_not_made_worse(tmp_path: Path) -> None:
    """All fail: each upstream gets a fifth more than was meant for it at most, and the first call after it succeeds."""
    modes = dict.fromkeys(NAMES, "e500")
    async with (
        FakeUpstream(modes=modes) as upstream,
        serving(configured(tmp_path, dict.fromkeys(NAMES, upstream.url))) as server,
    ):
        told = await load(server.port, calls=300, at_once=10)
        borne = Load(Counter(), Counter())
        borne.add(tmp_path)
        upstream.modes.update(dict.fromkeys(NAMES, "ok"))
        after = await load(server.port, calls=30, at_once=1)
    assert [each.heard.status for each in told] == [503] * 300
    assert all(each.heard.headers["x-should-retry"] == "false" for each in told)
    assert all("retry-after" in each.heard.headers for each in told)
    borne.assert_bounded()
    seen = sum(borne.attempts.values())
    assert seen <= 1.2 * len(told) + len(NAMES) * (3 + FAILURES + 10)
    assert all(each.is_answered for each in after)
    print(f"\nall down: {len(told)} calls, {seen} attempts, {dict(borne.attempts)}")


@pytest.mark.parametrize("stream", [True, False])
async def test_if_nobody_can_answer_the_error_says_when_to_try_again(tmp_path: Path, stream: bool) -> None:
    """503 with its own status also for streams; each candidate is named, and nobody is asked before its time."""
    modes = {"one": "e429(retry_after=20)", "two": "e429_until(s=9)", "three": "e401"}
    async with (
        FakeUpstream(modes=modes) as upstream,
        serving(configured(tmp_path, dict.fromkeys(NAMES, upstream.url))) as server,
    ):
        first = await ask(server.port, "from-one", stream=stream)
        asked = [seen.model for seen in upstream.ledger]
        upstream.modes["three"] = "e429(retry_after=30)"
        await ask(server.port, "from-one", stream=stream)
        between = len(upstream.ledger)
        last = await ask(server.port, "from-one", stream=stream)
        direct = await ask(server.port, "one/one", stream=stream)
        assert len(upstream.ledger) == between
    assert asked == ["one", "two", "three"]
    for heard in (first, last):
        assert (heard.status, heard.error["code"], heard.headers["x-should-retry"]) == (
            503,
            "upstream_unavailable",
            "false",
        )
        assert 1 <= int(heard.headers["retry-after"]) <= 9
        assert [each["model"] for each in heard.error["availability"]] == ["one/one", "two/two", "three/three"]
    assert [(each["code"], each["retryable"]) for each in first.error["availability"]] == [
        ("rate_limit_exceeded", True),
        ("rate_limit_exceeded", True),
        ("invalid_api_key", False),
    ]
    assert all(0 < each["retry_after_s"] <= 30 for each in last.error["availability"])
    assert (direct.status, direct.error["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(direct.headers["retry-after"]) <= 20


@pytest.mark.slow
async def test_hedging_shortens_the_tail(tmp_path: Path) -> None:
    """One stream of fifteen is late. Without hedges those are the p99; with them hardly more calls are made."""
    tails, extra = {}, {}
    for is_on in (False, True):
        folder = tmp_path / str(is_on)
        hedge = {"enabled": is_on, "max_extra_cost_ratio": 3.0}  # small prompts: a hold is many times the cost
        async with (
            FakeUpstream(modes=dict.fromkeys(NAMES, "ok")) as upstream,
            serving(configured(folder, dict.fromkeys(NAMES, upstream.url), hedge=hedge)) as server,
        ):
            told = []
            for number in range(120):
                is_late = number >= 30 and number % 15 == 0  # the first ones tell the p95
                upstream.modes["one"] = "slow_ttft(s=1.2)" if is_late else "ok"
                begun = time.monotonic()
                heard = await ask(server.port, "from-one", stream=True, max_tokens=10)
                told.append(Told(heard, True, time.monotonic() - begun))
        tally = reconcile(folder, upstream.ledger)
        assert (tally.lost, tally.duplicated) == ([], [])
        assert_not_duplicated(told, cuts=False)
        assert all(each.is_answered for each in told)
        tails[is_on] = percentile(told, 0.99)
        extra[is_on] = tally.rows - len(told)
    print(
        f"\np99 ms without and with hedges: {tails[False]:.0f}, {tails[True]:.0f}; extra attempts: {extra[True]} of 120"
    )
    assert extra[False] == 0
    assert 1 <= extra[True] <= 0.2 * 120 + 3
    assert tails[True] < 0.6 * tails[False]
