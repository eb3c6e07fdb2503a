"""`proxy feedback`: rates the answer of a call, as `POST /v1/feedback` does. No server need be running."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from proxy.cli.output import json_option, print_json
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.schema.errors import BadRequest
from proxy.server.api.outcome_queries import rating_from, unknown_call
from proxy.storage.base import RowRefused, StoreError
from proxy.storage.sqlite import SqliteStore, sqlite_path


@click.command()
@click.argument("call_id", metavar="ID")
@click.option("--success/--failure", default=None, help="Whether the answer did what it was for.")
@click.option("--score", type=float, metavar="NUMBER", help="How good it was, from 0 to 1.")
@click.option("--comment", metavar="TEXT", help="Why; at most 4000 characters.")
@json_option
@configuration_options
def feedback(
    call_id: str, success: bool | None, score: float | None, comment: str | None, as_json: bool, **flags: Any
) -> None:
    """Rate the answer of a call.

    ID is that of the answer (chatcmpl-...) or of its request (the header x-request-id).
    """
    config = read_config(flags, os.environ)
    try:
        rating = rating_from({"id": call_id, "success": success, "score": score, "comment": comment}, "cli", None)
    except BadRequest as error:
        fail(error.message)
    try:
        path = sqlite_path(config.storage.url)
        if not path.is_file():
            fail(f"there is no database at {path} yet. `proxy serve` creates it; --db selects another.")
        stored = SqliteStore(path).rate(rating, None, time.time_ns())
    except StoreError as error:
        store_problem(error)
    except RowRefused as refusal:
        click.echo(f"proxy: {refusal}", err=True)
        sys.exit(1)
    if stored is None:
        click.echo(f"proxy: {unknown_call(rating.call_id).message}", err=True)
        sys.exit(1)
    if as_json:
        print_json(stored)
    else:
        said = {True: "a success", False: "a failure", None: "not judged"}[stored["success"]]
        click.echo(f"Stored: {stored['id']} is {said}, score {'-' if score is None else f'{score:g}'}.")
