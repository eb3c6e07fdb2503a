"""Random requests of every way to choose a model, and the configuration that they are sent to."""

from __future__ import annotations

import json
import random
from typing import Any

from proxy.routing.settings import TASKS

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null}}
models:
  split: {{weighted: {{fake/a: 50, fake/b: 50}}}}
  listed: {{use: fake/a, fallback: [fake/b, fake/c]}}
aliases: {{gpt-4: listed, my-auto: auto}}
router: {{default_model: fake/a, fallback: [fake/b, fake/c], exploration: 0.2}}
tasks: {{code: [fake/c, split], reasoning: fake/d}}
rules:
  - {{name: pictures, when: {{has_images: true}}, use: fake/v}}
  - {{name: team, when: {{header: {{x-team: "fin*"}}}}, use: [split, fake/c]}}
  - name: hurry
    when: {{latency_critical: true}}
    use: {{strategy: speed_optimized, among: [fake/a, fake/b, fake/c]}}
  - name: cheap
    when: {{any: [{{budget_mode: true}}, {{text_matches: "*cheap*"}}]}}
    use: {{strategy: cost_optimized, among: [fake/a, fake/b, fake/c]}}
keys: {{narrow: {{models: [fake/a, fake/b]}}}}
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
        "max_cost_usd": draw.choice([None, None, None, 0.0, 0.0006, 0.002, 0.2]),
    }
    asked: dict[str, Any] = {"model": draw.choice(MODELS), "messages": [{"role": "user", "content": content}]}
    if draw.random() < 0.2:
        asked["max_tokens"] = draw.choice([1, 500])
    return json.dumps({**asked, "user": str(draw.randrange(50)), "routing": routing}).encode()
