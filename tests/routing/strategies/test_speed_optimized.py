"""The one that should finish this answer first."""

from __future__ import annotations

from proxy.routing.facts import Facts
from proxy.routing.health import DeploymentHealth, State
from tests.routing.fleet import order, pool

LUNA, FLASH = "openai/gpt-6-luna", "google/gemini-3.5-flash-lite"
OSS_120B, OSS_20B = "groq/openai/gpt-oss-120b", "groq/openai/gpt-oss-20b"


def test_until_measured_the_stated_speed_counts() -> None:
    """1,000 tokens per second before 500, and both before models whose vendor states none: the cheaper one first."""
    chosen = pool("speed_optimized", FLASH, LUNA, OSS_120B, OSS_20B)
    assert order(chosen, Facts(task="code")) == [OSS_20B, OSS_120B, LUNA, FLASH]


def test_what_was_measured_replaces_what_was_stated() -> None:
    """A busy Groq falls behind; one that is only slower than stated does not."""
    chosen = pool("speed_optimized", LUNA, OSS_20B)
    luna = DeploymentHealth(first_token_ms=600, tokens_per_s=120)
    busy = State(deployments={LUNA: luna, OSS_20B: DeploymentHealth(first_token_ms=9000, tokens_per_s=400)})
    slower = State(deployments={LUNA: luna, OSS_20B: DeploymentHealth(first_token_ms=500, tokens_per_s=400)})
    assert order(chosen, Facts(task="chat"), busy)[0] == LUNA
    assert order(chosen, Facts(task="chat"), slower)[0] == OSS_20B


def test_the_length_of_the_answer_decides_between_first_token_and_throughput() -> None:
    """A label needs a quick first token, a program many tokens."""
    prompt = DeploymentHealth(first_token_ms=200, tokens_per_s=40)
    fluent = DeploymentHealth(first_token_ms=900, tokens_per_s=300)
    state = State(deployments={LUNA: prompt, FLASH: fluent})
    chosen = pool("speed_optimized", LUNA, FLASH)
    assert order(chosen, Facts(task="classification"), state)[0] == LUNA
    assert order(chosen, Facts(task="code"), state)[0] == FLASH
    assert order(chosen, Facts(task="code", output_tokens_limit=10), state)[0] == LUNA


def test_a_slow_deployment_yields_to_one_that_nobody_has_tried() -> None:
    """So that it is tried."""
    slow = State(deployments={LUNA: DeploymentHealth(first_token_ms=4000, tokens_per_s=30)})
    assert order(pool("speed_optimized", LUNA, FLASH), Facts(), slow)[0] == FLASH


def test_failures_cost_time() -> None:
    """Twice as fast is not fast if two of three attempts fail; and if all fail it is last, not an error."""
    for rate in (0.67, 1.0):
        fast = DeploymentHealth(first_token_ms=300, tokens_per_s=200, error_rate=rate)
        steady = DeploymentHealth(first_token_ms=600, tokens_per_s=100)
        state = State(deployments={LUNA: fast, FLASH: steady})
        assert order(pool("speed_optimized", LUNA, FLASH), Facts(), state)[0] == FLASH
