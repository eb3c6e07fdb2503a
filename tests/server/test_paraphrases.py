"""Four ways to ask the same get the same model by the rules as shipped."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

from proxy.config.load import load
from proxy.providers import PROVIDERS
from proxy.schema.records import Caller
from proxy.server.offline import Offline

ROOT = Path(__file__).parents[2]
GROUPS = [
    json.loads(line) for line in (ROOT / "tests/routing/data/paraphrases.jsonl").read_text("utf-8").splitlines() if line
]


async def test_paraphrases_get_the_same_model() -> None:
    """95 of 100 pairs, with at least three models in use."""
    keys = {name: "a-key-for-the-test" for provider in PROVIDERS.values() for name in provider.key_env}
    offline = Offline(load(ROOT / "routing_rules.yaml", ROOT / "pricing.yaml", keys))
    picks = []
    for group in GROUPS:
        bodies = [{"model": "auto", "messages": [{"role": "user", "content": text}]} for text in group["texts"]]
        decisions = [await offline.decide(json.dumps(body).encode(), Caller("a")) for body in bodies]
        picks.append([decision.route.candidates[0].name for decision in decisions])
    pairs = [one == other for group in picks for one, other in combinations(group, 2)]
    used = {name for group in picks for name in group}
    print(f"\n  {sum(pairs)} of {len(pairs)} pairs ({sum(pairs) / len(pairs):.1%}) with {len(used)} models")
    assert len(used) >= 3
    assert sum(pairs) >= 0.95 * len(pairs)
