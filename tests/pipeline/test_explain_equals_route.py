"""On one snapshot an explanation is the route that a call takes: over ten thousand random requests."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from proxy.config import load
from proxy.config.namespace import build_names
from proxy.metering.price_book import PriceBook
from proxy.pipeline import hints
from proxy.pipeline.admission import Admission, KeyPolicies
from proxy.pipeline.call import Call
from proxy.pipeline.limits import Limits
from proxy.pipeline.timing import Clock
from proxy.routing.allowed import Views
from proxy.routing.health import DeploymentHealth, State
from proxy.routing.router import Router
from proxy.routing.settings import TASKS
from proxy.schema.errors import ProxyError
from proxy.schema.records import Caller
from proxy.server.formats.chat import CHAT

REQUESTS = 10_000
ROUTING = """
version: 1
providers:
  fake: {type: openai, base_url: "http://127.0.0.1:9/v1", allow_private: true, price: null}
models:
  split: {weighted: {fake/a: 50, fake/b: 50}}
  listed: {use: fake/a, fallback: [fake/b, fake/c]}
aliases: {gpt-4: listed, my-auto: auto}
router: {default_model: fake/a, fallback: [fake/b, fake/c], exploration: 0.2}
tasks: {code: [fake/c, split], reasoning: fake/d}
rules:
  - {name: pictures, when: {has_images: true}, use: fake/v}
  - {name: team, when: {header: {x-team: "fin*"}}, use: [split, fake/c]}
  - {name: hurry, when: {latency_critical: true}, use: {strategy: speed_optimized, among: [fake/a, fake/b, fake/c]}}
  - name: cheap
    when: {any: [{budget_mode: true}, {text_matches: "*cheap*"}]}
    use: {strategy: cost_optimized, among: [fake/a, fake/b, fake/c]}
keys: {narrow: {models: [fake/a, fake/b]}}
"""
PRICING = """
version: 1
lookup: null
models:
  fake/a: {input: 1, output: 2, context: 200, supports: [tools]}
  fake/b: {input: 2, output: 1, context: 100000}
  fake/c: {input: 0.5, output: 4, context: 1000, supports: [tools, json_schema]}
  fake/d: {input: 9, output: 9}
  fake/v: {input: 3, output: 3, supports: [images]}
"""
MODELS = (
    "auto",
    "my-auto",
    "auto:code",
    "auto:cost",
    "auto:speed",
    "auto:quality",
    "gpt-4",
    "split",
    "fake/a",
    "fake/z",
)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}}


def body(draw: random.Random) -> bytes:
    text = draw.choice(["hello", "something cheap", "word " * draw.choice([1, 100, 3000])])
    content: Any = [{"type": "text", "text": text}, IMAGE] if draw.random() < 0.1 else text
    routing = {
        "task": draw.choice([None, None, *TASKS]),
        "latency_critical": draw.random() < 0.2,
        "budget_mode": draw.random() < 0.2,
        "preferred_model": draw.choice([None, None, None, "fake/b", "listed"]),
        "no_fallback": draw.random() < 0.1,
        "fallback": draw.choice([None, None, None, ["fake/c"]]),
        "strategy": draw.choice([None, None, "cost_optimized", "quality_optimized"]),
    }
    asked: dict[str, Any] = {"model": draw.choice(MODELS), "messages": [{"role": "user", "content": content}]}
    if draw.random() < 0.2:
        asked["max_tokens"] = draw.choice([1, 500])
    return json.dumps({**asked, "user": str(draw.randrange(50)), "routing": routing}).encode()


def admission(folder: Path, seed: list[float]) -> Admission:
    """On a state that does not change."""
    (folder / "routing_rules.yaml").write_text(ROUTING)
    (folder / "pricing.yaml").write_text(PRICING)
    config = load(folder / "routing_rules.yaml", folder / "pricing.yaml", {})
    book = PriceBook(config.pricing, {})
    views = Views(build_names(config, book, {}), book)
    state = State(
        "s1",
        1_000.0,
        {
            "fake/a": DeploymentHealth(900.0, 1200.0, 50.0),
            "fake/b": DeploymentHealth(200.0, 300.0, 90.0, breaker="open", rests_until=2_000.0, why="upstream_error"),
            "fake/c": DeploymentHealth(100.0, 150.0, 20.0, error_rate=0.2),
        },
    )
    router = Router(views, book, lambda: seed[0], state=lambda session: state, version="v1")
    return Admission(KeyPolicies(config.keys, None, Limits(1)), router)


def test_ten_thousand_explanations_equal_their_routes(tmp_path: Path) -> None:
    """The whole order of candidates, or the same error; both ways with the seed that the router drew."""
    draw, seed = random.Random(7), [0.0]
    admits = admission(tmp_path, seed)
    clock = Clock(lambda: 1, lambda: 1.0)
    kinds: set[str] = set()

    async def both(sent: bytes, caller: Caller, headers: dict[str, str]) -> None:
        request = hints.applied(CHAT.decode(sent), headers)
        try:
            route = await admits.admit(Call("c", caller, request, clock), headers)
        except ProxyError as error:
            kinds.add(error.code or "")
            try:
                await admits.decide(caller, request, headers, "v1")
            except ProxyError as other:
                assert (other.code, other.message) == (error.code, error.message)
                return
            raise AssertionError(f"explained, but refused: {error.message}") from None
        try:
            told = await admits.decide(caller, request, headers, "v1")
        except ProxyError as error:  # what a named model cannot take is found when it is asked
            assert error.code == "unsupported_content"
            return
        kinds.add(told.step)
        if told.step == "named":
            able = [each.deployment for each in told.candidates if each.rejected is None]
            assert [each for each in route.candidates if each in able] == list(told.route.candidates)
        else:
            assert told.route == route

    async def all_of_them() -> None:
        for _ in range(REQUESTS):
            seed[0] = draw.random()
            headers = {"x-team": draw.choice(["finance", "law"])} if draw.random() < 0.3 else {}
            await both(body(draw), Caller(draw.choice(["narrow", "other"])), headers)

    asyncio.run(all_of_them())
    assert {"rule", "task", "strategy", "preferred_model", "named", "model_not_allowed"} <= kinds
