"""An experiment from end to end with a real model: three versions, sticky users, feedback, verdict, promotion."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.cli.commands import PATIENCE_S, server

pytestmark = [pytest.mark.embedded, pytest.mark.slow]
TEMPLATES = ("Say hello to {name}.", "Greet {name}.", "Write one word for {name}.")


def test_three_versions_through_the_sdk(tmp_path: Path) -> None:
    """The best version gets the label, the users their variant, and the usage by prompt and variant adds up."""
    with (
        server(tmp_path, "--port", "0") as spawned,
        openai.OpenAI(base_url=spawned.base_url, api_key="any", max_retries=0, timeout=PATIENCE_S) as sdk,
        httpx.Client(base_url=spawned.base_url, timeout=PATIENCE_S, trust_env=False) as http,
    ):
        made = http.post("/prompts", json={"id": "hello", "template": TEMPLATES[0], "labels": ["production"]})
        assert made.status_code == 201, made.text
        for template in TEMPLATES[1:]:
            assert http.post("/prompts/hello/versions", json={"template": template}).status_code == 201
        variants = [{"name": f"v{number}", "prompt_version": number} for number in (1, 2, 3)]
        rules = {"minimum_samples": 5, "minimum_effect": 0.5, "promote": True}
        body = {"id": "hellos", "prompt": "hello", "variants": variants, **rules}
        assert http.post("/experiments", json=body).status_code == 201
        assert http.post("/experiments/hellos/start").status_code == 200
        seen: dict[str, set[str]] = {}
        calls: Counter[str] = Counter()
        tokens: Counter[str] = Counter()
        verdict: dict[str, Any] = {}
        for number in range(150):
            user = f"user {number // 2}"
            use = {"id": "hello", "variables": {"name": "Ann"}}
            raw = sdk.chat.completions.with_raw_response.create(
                model="auto", messages=[], user=user, max_tokens=4, extra_body={"prompt": use}
            )
            answer = raw.parse()
            assert answer.choices[0].message.content is not None
            found = http.get(f"/requests/{raw.headers['x-request-id']}").json()
            assert (found["prompt"], found["experiment"]) == ("hello", "hellos")
            assert found["variant"] == f"v{found['prompt_version']}"
            seen.setdefault(user, set()).add(found["variant"])
            calls[found["variant"]] += 1
            tokens[found["variant"]] += answer.usage.total_tokens if answer.usage else 0
            rated = http.post("/feedback", json={"id": answer.id, "success": found["variant"] == "v3"})
            assert rated.status_code == 200
            verdict = http.get("/experiments/hellos/results").json()
            if verdict["verdict"] == "winner":
                break
        assert verdict["winner"] == "v3"
        assert {len(variants) for variants in seen.values()} == {1}
        labels = http.get("/prompts/hello/labels").json()
        assert labels["labels"] == {"production": 3}
        assert labels["history"][0]["note"] == "experiment hellos: v3 won"
        usage = http.get("/usage", params={"group_by": "prompt,variant"}).json()
        groups = {group["variant"]: group for group in usage["groups"] if group["prompt"] == "hello"}
        assert {name: group["calls"] for name, group in groups.items()} == calls
        assert {name: group["total_tokens"] for name, group in groups.items()} == tokens
        assert usage["total"]["calls"] == calls.total()
        assert {each["name"]: each["calls"] for each in verdict["variants"]} == calls
        http.post("/experiments/hellos/stop")
        after = sdk.chat.completions.with_raw_response.create(
            model="auto", messages=[], user="user 1", max_tokens=4, extra_body={"prompt": use}
        )
        last = http.get(f"/requests/{after.headers['x-request-id']}").json()
        assert (last["prompt_version"], last["prompt_label"], last["experiment"]) == (3, "production", None)
