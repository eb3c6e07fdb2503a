"""Orchestrates: learns from ended attempts how the deployments are, and which may be asked now. Clocks are passed in.

HealthBoard    one per process; outlives a reload. It learns from every ended attempt and publishes snapshots (State)
WarmSessions   which deployment has a conversation's prompt cached (`warm_sessions`)
Standing       one deployment: its pace, its failures, its breaker, its rest (`standing`)
RetryBudgets   how many extra requests are left (`retry_budget`)

                    `failures` of the last 6 * `failures` attempts
    breaker:  closed ───────────────────────────────────────────────────> open
                 ^                                                         │ after `open_s`, doubled each time
                 └──── the probe answers ──── half_open <──────────────────┘
                                                  └── the probe fails: open again

A board never forbids the last candidate: `FallbackOrder` decides what to do if no deployment is well.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from proxy.routing.health import State, least_bad
from proxy.routing.retry_budget import HedgeSpending, RetryBudgets
from proxy.routing.settings import Breaker, RouterConfig
from proxy.routing.standing import LONG_AGO, PACE, Probe, Standing, p95
from proxy.routing.verdict import Verdict, verdict_of
from proxy.routing.warm_sessions import WarmSessions
from proxy.schema.records import AttemptEnd, Outcome

MAX_REST_S = 60.0  # cap of a vendor's Retry-After: limits are often lifted earlier
LIMITED_REST_S = 1.0  # after a 429 that names no time
REFUSED_REST_S = 60.0  # after refused credentials: a person has to act
_FAILURE = 0.1  # weight of the latest attempt in the moving average of failures
# The breaker looks at this many attempts per failure that opens it: 30 attempts by default. So at a failure rate of
# 30 % the fifth failure nearly always opens it, while at 5 % it stays closed for hundreds of attempts.
_RECENT = 6
_MOST_RECENT = 10_000
_MAX_DEPLOYMENTS = 1_024  # clients may name any model


class HealthBoard:
    """The standing of every deployment asked so far.

    `on_breaker` receives a deployment and its breaker's new state, `on_refused` a deployment at which the budgets
    refused a retry or a hedge.
    """

    def __init__(self, now_s: Callable[[], float] = time.perf_counter, unix_s: Callable[[], float] = time.time) -> None:
        self.budgets = RetryBudgets(now_s)
        self.hedges = HedgeSpending()
        self.sessions = WarmSessions(now_s, unix_s)
        self.on_breaker: Callable[[str, str], None] = lambda name, state: None
        self.on_refused: Callable[[str], None] = lambda name: None
        self._now_s = now_s
        self._unix_s = unix_s
        self._breaker = RouterConfig().breaker
        self._window = _mask(self._breaker)
        self._is_hedging = False
        self._standings: dict[str, Standing] = {}
        self._changed: set[str] = set()
        self._state = State(id=f"{int(unix_s()):x}.0", now=unix_s())
        self._published = 0
        self._next_change = math.inf

    def configure(self, router: RouterConfig) -> None:
        """Applies a new configuration; everything learned stays."""
        self._breaker = router.breaker
        self._window = _mask(router.breaker)
        self.sessions.ttl_s = router.sticky.ttl_s
        self._is_hedging = router.hedge.enabled
        self.budgets.share = router.retry_budget

    # --- reports of attempts ------------------------------------------------------------------------------------------

    def observe(
        self,
        name: str,
        end: AttemptEnd,
        first_token_ms: float | None = None,
        retry_after_s: float | None = None,
        tool_calls: tuple[int, int] = (0, 0),
    ) -> None:
        """Learns from one ended attempt. `first_token_ms` counts from its own start. `tool_calls`: how many it made,
        and how many of them were broken.
        """
        if self._is_hedging and end.cost_nano:
            self.hedges.note_cost(end.cost_nano)
        verdict = Verdict.GOOD if end.outcome is Outcome.OK else verdict_of(end)
        if verdict is Verdict.NOTHING:
            return
        standing = self._standings.get(name) or self._add(name)
        self._changed.add(name)
        if verdict is Verdict.GOOD:
            standing.note_pace(end, first_token_ms)
            standing.error_rate *= 1 - _FAILURE
            standing.recent = standing.recent << 1 & self._window
            if tool_calls[0]:
                standing.tool_errors += PACE * (tool_calls[1] / tool_calls[0] - standing.tool_errors)
            if standing.is_open or standing.rests_until > LONG_AGO:
                self._recover(name, standing, end)
            return
        now = self._now_s()
        standing.why = end.error_code or end.outcome.value
        if verdict is Verdict.REFUSED:
            standing.rest(now + REFUSED_REST_S, is_firm=False)
        elif verdict is Verdict.LIMITED or retry_after_s is not None:
            asked_s = LIMITED_REST_S if retry_after_s is None else min(retry_after_s, MAX_REST_S)
            standing.rest(now + asked_s, is_firm=retry_after_s is not None)
        if verdict is Verdict.BAD:
            self._note_failure(name, standing, end, now)

    def _recover(self, name: str, standing: Standing, end: AttemptEnd) -> None:
        """Closes the breaker after a success. One that began before it opened, or during a rest, proves nothing."""
        now = self._now_s()
        if now >= standing.rests_until:
            standing.rests_until = LONG_AGO
        if standing.is_open and now - (end.duration_ms or 0.0) / 1000 >= standing.breaker_since:
            standing.close(now)
            self.on_breaker(name, "closed")

    def _note_failure(self, name: str, standing: Standing, end: AttemptEnd, now: float) -> None:
        standing.failed_at = now
        if now - (end.duration_ms or 0.0) / 1000 < standing.breaker_since:
            return
        standing.error_rate += _FAILURE * (1 - standing.error_rate)
        standing.recent = (standing.recent << 1 | 1) & self._window
        if standing.is_open:
            if now >= standing.open_until:  # the probe failed
                self._open(name, standing, now)
            return
        if standing.recent.bit_count() >= self._breaker.failures:
            self._open(name, standing, now)

    def _open(self, name: str, standing: Standing, now: float) -> None:
        """Opens the breaker for twice as long as the last time, unless it has stayed closed for that long since."""
        is_soon = standing.is_open or now - standing.breaker_since < standing.open_s
        doubled = 2 * standing.open_s if is_soon else 0.0
        standing.open_s = min(self._breaker.max_open_s, max(self._breaker.open_s, doubled))
        standing.is_open, standing.probe = True, None
        standing.open_until, standing.breaker_since = now + standing.open_s, now
        self.on_breaker(name, "open")

    def _add(self, name: str) -> Standing:
        if len(self._standings) >= _MAX_DEPLOYMENTS:
            oldest = next(iter(self._standings))
            del self._standings[oldest]
            self._changed.add(oldest)
        standing = self._standings[name] = Standing()
        return standing

    # --- who may be asked ---------------------------------------------------------------------------------------------

    def may_try(self, name: str) -> bool:
        """False while it rests, or its breaker is open or probed."""
        standing = self._standings.get(name)
        if standing is None or standing.is_well:
            return True
        now = self._now_s()
        if now >= standing.rests_until and standing.rests_until > LONG_AGO:
            standing.rests_until = LONG_AGO
            self._changed.add(name)
        if standing.rests_until > now:
            return False
        return not standing.is_open or (now >= standing.open_until and standing.probe is None)

    def enter(self, name: str) -> Probe | None:
        """Called before a deployment is asked. Pass the result to `leave`, however the ask ends."""
        standing = self._standings.get(name)
        if standing is None or not standing.is_open:
            return None
        if standing.probe is not None or self._now_s() < standing.open_until:
            return None
        standing.probe = probe = Probe(name, standing)
        self._changed.add(name)
        self.on_breaker(name, "half_open")
        return probe

    def leave(self, probe: Probe | None) -> None:
        """Lets another probe through if this one proved nothing."""
        if probe is not None and probe.standing.probe is probe:
            probe.standing.probe = None
            self._changed.add(probe.name)

    def is_open(self, name: str) -> bool:
        """True while its breaker is not closed: then nothing is retried there."""
        standing = self._standings.get(name)
        return standing is not None and standing.is_open

    def takes_extra(self, name: str, caller: str | None) -> bool:
        """True if one more request than those meant for this deployment may be made; if so, it is counted."""
        if self.is_open(name):
            return False
        if self.budgets.take(name.partition("/")[0], caller):
            return True
        self.on_refused(name)
        return False

    def rest_of(self, name: str) -> tuple[float, str, bool]:
        """Seconds until it may be asked again, the reason, and whether the vendor itself named the time."""
        standing = self._standings.get(name)
        if standing is None:
            return 0.0, "", False
        now = self._now_s()
        rest_s = max(0.0, standing.rests_until - now)
        return max(rest_s, standing.open_until - now), standing.why, standing.is_firm and rest_s > 0

    def badness(self, name: str) -> tuple[bool, float]:
        """`least_bad` of a deployment that is unwell."""
        standing = self._standings.get(name)
        if standing is None:
            return least_bad(None, LONG_AGO)
        is_named = standing.is_firm and standing.rests_until > self._now_s()
        return least_bad(standing.rests_until if is_named else None, standing.failed_at)

    def late_after_s(self, name: str, stream: bool) -> float | None:
        """The p95 of its times to the first token, or to a whole answer; None: too few are known."""
        standing = self._standings.get(name)
        if standing is None:
            return None
        p95_ms = p95(standing.first_tokens if stream else standing.wholes)
        return None if p95_ms is None else p95_ms / 1000

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def state(self, session: str = "") -> State:
        """The current snapshot, with this warm session only. While nothing changes, it is the same object."""
        now = self._now_s()
        if self._changed or now >= self._next_change:
            self._publish(now)
        warm = self.sessions.of(session) if session else None
        if warm is None:
            return self._state
        base, (name, tokens) = self._state, warm
        return State(f"{base.id}+{name}:{tokens}", base.now, base.deployments, {session: (name, tokens)})

    def _publish(self, now: float) -> None:
        unix_s = self._unix_s()
        deployments = dict(self._state.deployments)
        turning = {name for name, health in deployments.items() if health.rests_until}
        for name in self._changed | turning:
            standing = self._standings.get(name)
            if standing is None:
                deployments.pop(name, None)
            else:
                deployments[name] = standing.snapshot(now, unix_s)
        self._changed.clear()
        self._published += 1
        ends = [health.rests_until for health in deployments.values() if health.rests_until]
        self._next_change = now + min(ends) - unix_s if ends else math.inf
        origin = self._state.id.partition(".")[0]
        self._state = State(f"{origin}.{self._published}", unix_s, deployments)


def _mask(breaker: Breaker) -> int:
    """The bits of the attempts that the breaker considers."""
    return (1 << min(_RECENT * breaker.failures, _MOST_RECENT)) - 1
