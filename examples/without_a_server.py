"""Asks without any server: the whole proxy runs in this program, with a budget of its own.

Every provider is on whose API key is in the environment. Without any, the bundled model answers.
"""

from __future__ import annotations

from proxy import APISettings, SyncMultiModelAPI

settings = APISettings(
    daily_budget_usd=1.00,
    max_requests_per_minute=30,
    sections={"storage": {"url": "sqlite:///example.db"}},
)

with SyncMultiModelAPI(settings) as api:
    answer = api.generate("Name one fruit.", max_tokens=50)
    print(answer.model, "said:", answer.text.strip()[:60])
    api.feedback(answer, success=bool(answer.text))
    usage = api.usage(group_by="model")
    for group in usage.groups:
        print(group["model"], group["calls"], "calls,", group["cost_usd"], "USD")
