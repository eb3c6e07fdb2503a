"""Translates: a request whose budget is spent, and models -> those that can answer it, the cheapest first. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from proxy.routing.capabilities import refusal
from proxy.routing.costs import estimated, expected_output
from proxy.routing.deployment import Deployment
from proxy.routing.facts import Reading, facts_of
from proxy.schema.chat import ChatRequest


def cheapest(request: ChatRequest, deployments: Iterable[Deployment]) -> tuple[Deployment, ...]:
    """The capable models by their expected cost for this request. Models without a known price are left out."""
    facts = facts_of(request, request.model, None, {}, Reading())
    output = expected_output(facts)
    priced = [
        (found.expected, deployment)
        for deployment in deployments
        if refusal(facts, deployment) is None and (found := estimated(deployment, facts, 0, output)) is not None
    ]
    return tuple(deployment for _, deployment in sorted(priced, key=itemgetter(0)))
