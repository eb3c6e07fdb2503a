"""`proxy explain`: how a request would be routed, and why. Calls no model; no server need be running."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from proxy.cli.model_names import model_option
from proxy.cli.output import json_option, print_budget, print_json, print_table
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.cli.spending import spending_of
from proxy.client.route import Unanswered
from proxy.client.route import explain as ask_server
from proxy.routing.explain import explained
from proxy.schema.errors import ProxyError
from proxy.schema.json import encode
from proxy.server.offline import Offline
from proxy.server.wiring import key_store
from proxy.storage.base import StoreError

_MONEY = ("MODEL", "LOW_USD", "HIGH_USD", "BOUND_USD")
_SHOWN = ("task", "task_confidence", "difficulty", "language", "input_tokens_estimate", "priority")


@click.command()
@click.argument("question", required=False)
@model_option(default="auto", show_default=True, help="Any name that /v1/models lists.")
@click.option("--body", metavar="FILE", help="A chat request as JSON instead of a question; - reads standard input.")
@click.option("--as-key", metavar="NAME", help="Explain it for this key, with its list of models.")
@click.option("--base-url", metavar="URL", help="Ask this running server, with its live state; ends in /v1.")
@click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the server's API key.")
@json_option
@configuration_options
def explain(question: str | None, model: str, body: str | None, as_json: bool, **flags: Any) -> None:
    """Explain how QUESTION would be routed.

    Calls no model. Without --base-url the two files decide, with every provider in good health.
    """
    as_key, base_url, variable = (flags.pop(name) for name in ("as_key", "base_url", "api_key_env"))
    if (question is None) == (body is None):
        fail("give either a QUESTION or --body FILE.")
    if body is not None:
        sent = _read(body)
    else:
        sent = encode({"model": model, "messages": [{"role": "user", "content": question}]})
    if base_url is None:
        if variable is not None:
            fail("--api-key-env is the key of a --base-url.")
        told = _offline(sent, as_key, flags)
    else:
        if as_key is not None:
            fail("--as-key explains offline. A server explains for the key that it is sent (--api-key-env).")
        told = _from_server(base_url, variable, sent)
    if as_json:
        print_json(told)
    else:
        _print(told)
    if (full := (told["budget"] or {}).get("refused_by")) is not None:
        _refused(f"the budget {full!r} has no room")


def _offline(body: bytes, key: str | None, flags: dict[str, Any]) -> dict[str, Any]:
    config = read_config(flags, os.environ)
    store = key_store(config)
    try:
        keys = store.all() if key is not None and store.is_there else ()
        offline = Offline(config, keys=keys, spending=spending_of(config))
    except StoreError as error:
        store_problem(error)

    async def decide() -> dict[str, Any]:
        return explained(*await offline.foresee(body, offline.caller(key)))

    try:
        return asyncio.run(decide())
    except ProxyError as error:
        _refused(error.message)


def _from_server(base_url: str, variable: str | None, body: bytes) -> dict[str, Any]:
    key = None if variable is None else os.environ.get(variable, "")
    if key == "":
        fail(f"{variable} is not set.")
    try:
        status, told = ask_server(base_url, key, body)
    except Unanswered as error:
        fail(f"{base_url} {error}")
    if status != 200:
        _refused(str(told.get("error", {}).get("message", status)))
    return told


def _refused(message: str) -> NoReturn:
    """Prints the error that a call would get. It is the result of the command, not its failure."""
    click.echo(f"proxy: {message}", err=True)
    sys.exit(1)


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        fail(f"{name} cannot be read: {(error.strerror or type(error).__name__).lower()}")


def _print(told: dict[str, Any]) -> None:
    """Prints which model answers and why, the rules, and the candidates."""
    why = f"the rule {told['rule']!r}" if told["rule"] else {"named": "its name"}.get(told["step"], told["step"])
    strategy = f", ranked by {told['strategy']}" if told["strategy"] else ""
    click.echo(f"{told['requested']} -> {told['chosen'] or 'nobody now'} by {why}{strategy}")
    facts = ", ".join(f"{name} {told['facts'][name]}" for name in _SHOWN if told["facts"].get(name) is not None)
    click.echo(f"facts: {facts}")
    if evidence := told["facts"].get("task_evidence"):
        click.echo(f"evidence: {'; '.join(evidence)}")
    click.echo()
    if told["rules"]:
        rows = [("yes" if rule["matched"] else "no", rule["name"], rule["why"]) for rule in told["rules"]]
        print_table(("MATCHED", "RULE", "WHY"), rows)
        click.echo()
    if panel := told.get("ensemble"):
        seats = [("member", each) for each in panel["members"]] + [("follower", each) for each in panel["followers"]]
        print_table(("ROLE", *_MONEY), [(role, *_cells(each["model"], each)) for role, each in seats])
        click.echo()
        print_table(_MONEY, [_cells(f"{panel['name']} ({panel['strategy']})", panel)])
        for each in panel["left_out"]:
            click.echo(f"left out: {each['model']}: {each['why']}")
        return
    print_table(("ORDER", "MODEL", "LOW_USD", "HIGH_USD", "REJECTED"), [_row(each) for each in told["candidates"]])
    if (budget := told["budget"]) is not None:
        limit = budget["max_output_tokens"]
        click.echo(f"\neffect of the budgets: {budget['effect']}{'' if limit is None else f', at most {limit} tokens'}")
        print_budget(budget["windows"])


def _cells(name: str, each: dict[str, Any]) -> tuple[object, ...]:
    cost = each["estimated_cost_usd"] or {"low": None, "high": None}
    return name, cost["low"], cost["high"], each["bound_usd"]


def _row(candidate: dict[str, Any]) -> tuple[object, ...]:
    cost = candidate["estimated_cost_usd"] or {"low": None, "high": None}
    return candidate["order"], candidate["model"], cost["low"], cost["high"], candidate["rejected"]
