"""docs/experiments.md: its snippets run against a real server, and its words match the code."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import msgspec
from openai import OpenAI

from proxy import SyncMultiModelAPI
from proxy.pipeline.experiments import LOOK_S
from proxy.prompts.results import VariantResult
from proxy.prompts.statistics import MISMATCH_LEVEL
from proxy.schema.experiments import METRICS, Experiment
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

PAGE = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TEXT = " ".join(PAGE.split())


async def test_the_snippets_run(tmp_path: Path) -> None:
    """In their order: the experiment is created, a use of its prompt takes part, a program tracks an outcome."""
    (definition,) = [code for kind, code in BLOCKS if kind == "json"]
    sdk, client = [code for kind, code in BLOCKS if kind == "python"]
    async with FakeUpstream() as upstream, serving(write_files(tmp_path, upstream.url)) as server:
        await asyncio.to_thread(_run, server, definition, sdk, client)


def _run(server: Server, definition: str, sdk: str, client: str) -> None:
    with (
        httpx.Client(base_url=server.base_url, trust_env=False) as http,
        OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as openai,
        SyncMultiModelAPI(base_url=server.base_url) as api,
    ):
        for template in ("Sell {product}.", "Praise {product}."):
            found = http.post("/prompts", json={"id": "pitch", "template": template, "labels": ["production"]})
            if found.status_code == 409:
                found = http.post("/prompts/pitch/versions", json={"template": template})
            assert found.status_code == 201, found.text
        assert http.post("/experiments", content=definition, headers={"content-type": "application/json"}).is_success
        assert http.post("/experiments/pitch-2026/start").is_success
        exec(sdk, {"client": openai})
        rows = http.get("/experiments/pitch-2026/results").json()["variants"]
        assert [(each["calls"], each["success"]["mean"]) for each in rows if each["calls"]] == [(1, 1.0)]
        http.post("/experiments", json={"id": "checkout", "variants": [{"name": "a"}, {"name": "b"}]})
        http.post("/experiments/checkout/start")
        exec(client, {"api": api})
        rows = http.get("/experiments/checkout/results").json()["variants"]
        assert sum(each["success"]["count"] for each in rows) == 1


def test_defaults_and_limits_are_those_of_the_code() -> None:
    """As the page has them in its sentences."""
    defaults = msgspec.structs.asdict(Experiment(id="x", variants=()))
    for name, text in (
        ("alpha", "`alpha` (default {})"),
        ("minimum_effect", "`minimum_effect` (default {})"),
        ("minimum_samples", "`minimum_samples` (default {})"),
        ("floor", "`floor` (default {})"),
        ("label", "`label` (default `{}`)"),
        ("assignment", "| `{}` (default) |"),
    ):
        assert text.format(defaults[name]) in TEXT, name
    assert f"p < {MISMATCH_LEVEL}" in TEXT
    assert f"every {LOOK_S:g} seconds" in TEXT
    assert all(f"`{metric}`" in TEXT for metric in METRICS)
    for field in ("difference", "chance_best", "cost_difference_usd", "latency_difference_ms"):
        assert field in VariantResult.__annotations__
        assert field in TEXT
