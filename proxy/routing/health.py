"""Values: the known health of the deployments at one moment. The plan of a call is pure over it."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class DeploymentHealth(Struct, frozen=True):
    """One deployment, judged by its latest attempts. None: not measured yet.

    `breaker`: closed, open or half_open. `rests_until`: Unix seconds until which it rests or its breaker is
    open; `named_until`: the time that its vendor itself named. `failed_at`: Unix seconds of its last
    failure; 0: none. `tool_errors`: the share of tool calls with invalid JSON, unknown names or a mismatch of schema.
    """

    first_token_ms: float | None = None
    first_token_p95_ms: float | None = None
    tokens_per_s: float | None = None
    error_rate: float = 0.0
    breaker: str = "closed"
    rests_until: float = 0.0
    named_until: float = 0.0
    failed_at: float = 0.0
    why: str = ""  # the error code that made it rest
    tool_errors: float = 0.0


UNKNOWN = DeploymentHealth()


def least_bad(named_until: float | None, failed_at: float) -> tuple[bool, float]:
    """Sort key for deployments of which none is well, for explanations and calls alike. The one that failed longest ago
    comes first, so that a recovery is soon noticed. Those whose vendor named a time to wait (None: it did not) come
    last, the soonest first; nothing is sent to them before that time.
    """
    return (False, failed_at) if named_until is None else (True, named_until)


class State(Struct, frozen=True):
    """A snapshot. `warm`: session -> the `provider/model` that has its prompt cached, and the tokens in it."""

    id: str = "0"
    now: float = 0.0  # Unix seconds
    deployments: Mapping[str, DeploymentHealth] = {}
    warm: Mapping[str, tuple[str, int]] = {}

    def of(self, name: str) -> DeploymentHealth:
        return self.deployments.get(name, UNKNOWN)


NO_STATE = State()
