"""The order of the file."""

from __future__ import annotations

from proxy.routing.facts import Facts
from proxy.routing.health import DeploymentHealth, State
from tests.routing.fleet import ROWS, order, pool


def test_the_order_of_the_file_stands() -> None:
    """Neither price, quality, speed nor session changes it."""
    measured = State(deployments={"groq/openai/gpt-oss-20b": DeploymentHealth(first_token_ms=1, tokens_per_s=9000)})
    for session in ("", "s"):
        assert order(pool("task_based"), Facts(session=session, input_tokens_estimate=500), measured) == list(ROWS)
        backwards = list(ROWS)[::-1]
        assert order(pool("task_based", *backwards), Facts(session=session), measured) == backwards
