"""`proxy conformance`: checks a server, or a model behind the configured proxy, against OpenAI's API."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import uvicorn
from msgspec.structs import replace

from proxy.cli.model_names import model_option
from proxy.cli.output import format_cell, json_option, print_json, print_table
from proxy.cli.serve import server_config
from proxy.cli.settings import configuration_options, fail, read_config, store_problem
from proxy.client.conformance import CHECKS, GROUPS
from proxy.client.conformance.base import OUTCOMES, Check, Verdict, calls_of
from proxy.client.conformance.formats import image_link
from proxy.client.conformance.run import TIMEOUT_S, Unusable, run
from proxy.config import Config
from proxy.server.app import Application, server_auth
from proxy.server.log import build_log
from proxy.server.wiring import local_models
from proxy.storage.base import StoreError

_HEADINGS = ("CHECK", "GROUP", "RESULT", "SEEN")
_LONGEST = max(OUTCOMES, key=len)
_COLOURS = {"failed": "red", "passed": "green"}
_INTERRUPTED = 130  # the shells' exit code for Ctrl-C


@click.command()
@model_option(required=True, metavar="NAME", help="The model to call.")
@click.option(
    "--base-url", metavar="URL", help="Check this server directly; ends in /v1. Default: the configured proxy."
)
@click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the server's API key.")
@click.option("--only", multiple=True, type=click.Choice(GROUPS), help="Run only this group of checks; repeatable.")
@click.option("--image-link", metavar="URL", help="Also ask about this image, which the provider fetches.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for each answer.",
)
@json_option
@configuration_options
def conformance(model: str, base_url: str | None, only: tuple[str, ...], as_json: bool, **flags: Any) -> None:
    """Check how well a model or server conforms to OpenAI's API.

    It makes real calls, which may cost money.
    """
    key, link, timeout_s = _key(base_url, flags.pop("api_key_env")), flags.pop("image_link"), flags.pop("timeout")
    chosen = [check for check in CHECKS if not only or check.group in only]
    chosen += [image_link(link)] if link else []
    config = read_config(flags, os.environ) if base_url is None else None
    calls = calls_of(chosen, model)
    click.echo(f"{len(chosen)} checks of {model}, in about {calls} calls of at most {timeout_s:g} s", err=True)
    report = _Report(chosen, as_json=as_json)
    interrupted = False
    # SIGTERM ends it like Ctrl-C, so that the proxy we started is stopped and its folder removed.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        asyncio.run(_run(partial(run, chosen, model, timeout_s=timeout_s), config, (base_url or "", key), report))
    except StoreError as error:
        store_problem(error)
    except Unusable as error:
        report.end()
        fail(f"{base_url or model} {error}")
    except KeyboardInterrupt:
        interrupted = True
    report.end()
    counts = report.counts()
    if as_json:
        print_json({"model": model, "base_url": base_url, "counts": counts, "checks": report.found})
    click.echo(", ".join(f"{count} {result}" for result, count in counts.items()), err=True)
    if interrupted:
        click.echo(f"proxy: stopped after {len(report.found)} of {len(chosen)} checks.", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(int(counts["failed"] > 0))


def _key(base_url: str | None, variable: str | None) -> str | None:
    """The API key of the server at `base_url`. Exits if the URL or the key is unusable."""
    if base_url is None:
        if variable is not None:
            fail("--api-key-env is the key of a --base-url; the configured proxy uses the keys of its providers.")
        return None
    if not _is_address(base_url):
        fail("--base-url must be an http or https address, like http://127.0.0.1:8000/v1.")
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key or not key.isascii() or not key.isprintable():
        fail(f"{variable} is not set, or its value cannot be an API key.")
    return key


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a truncated IPv6 address, an invalid port
        return False


class _Report:
    """Collects the verdicts. Unless `as_json`, prints each row as it arrives; a terminal also shows the
    current check.
    """

    def __init__(self, chosen: list[Check], *, as_json: bool) -> None:
        self.found: list[Verdict] = []
        self._chosen = chosen
        self._prints = not as_json
        self._is_live = sys.stderr.isatty()
        self._announced = ""
        columns = zip(_HEADINGS, *((each.name, each.group, _LONGEST, "") for each in chosen), strict=True)
        self._widths = [max(map(len, column)) for column in columns]

    def announce(self) -> None:
        """Shows the next check."""
        if len(self.found) < len(self._chosen):
            upcoming = self._chosen[len(self.found)]
            self._overwrite(f"{upcoming.group}: {upcoming.name} ({len(self.found) + 1} of {len(self._chosen)}) ...")

    def add(self, verdict: Verdict) -> None:
        if self._prints and not self.found:
            self._print_row(_HEADINGS)
        if self._prints:
            self._print_row((verdict.check, verdict.group, verdict.outcome, format_cell(verdict.seen)))
        self.found.append(verdict)

    def end(self) -> None:
        """Prints the summary by group: how many checks passed, and which did not."""
        self._overwrite("")
        if self._prints and self.found:
            groups = dict.fromkeys(each.group for each in self.found)
            click.echo()
            print_table(("GROUP", "PASSED", "OF", "REST"), [self._summary(group) for group in groups])

    def counts(self) -> dict[str, int]:
        return {outcome: sum(each.outcome == outcome for each in self.found) for outcome in OUTCOMES}

    def _summary(self, group: str) -> tuple[str, int, int, str]:
        rows = [each for each in self.found if each.group == group]
        names = {outcome: [each.check for each in rows if each.outcome == outcome] for outcome in OUTCOMES}
        passed = names.pop("passed")
        rest = "; ".join(f"{outcome}: {', '.join(some)}" for outcome, some in names.items() if some)
        return group, len(passed), len(rows), rest

    def _print_row(self, cells: Sequence[str]) -> None:
        padded = [cell.ljust(width) for cell, width in zip(cells, self._widths, strict=True)]
        if cells[2] in _COLOURS:
            padded[2] = click.style(padded[2], fg=_COLOURS[cells[2]])
        self._overwrite("")
        click.echo("  ".join(padded).rstrip())

    def _overwrite(self, text: str) -> None:
        """Replaces the last announcement."""
        if self._is_live and (text or self._announced):
            click.echo(f"\r{' ' * len(self._announced)}\r{text}", nl=False, err=True)
            self._announced = text


async def _run(
    run_checks: Callable[..., AsyncGenerator[Verdict, None]],
    config: Config | None,
    server: tuple[str, str | None],
    report: _Report,
) -> None:
    """Checks `server` (base URL and key) or, given a configuration, a proxy started for the purpose."""
    if config is None:
        await _collect(run_checks(*server), report)
        return
    async with _own_proxy(config) as base_url:
        await _collect(run_checks(base_url, environment=False), report)


async def _collect(verdicts: AsyncGenerator[Verdict, None], report: _Report) -> None:
    async with aclosing(verdicts):
        report.announce()
        async for verdict in verdicts:
            report.add(verdict)
            report.announce()


class _Server(uvicorn.Server):
    """uvicorn's server, except that it leaves signals to the command and sets `ready` once it listens or has failed."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:  # the log says why the application did not start
            self.should_exit = True
        finally:
            self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@asynccontextmanager
async def _own_proxy(config: Config) -> AsyncGenerator[str, None]:
    """Runs a proxy on loopback, without a key and with a database in a temporary folder. Yields its base URL."""
    with tempfile.TemporaryDirectory(prefix="multi-model-proxy-") as folder:
        own = replace(config.server, host="127.0.0.1", workers=1, require_key=False)
        storage = replace(config.storage, url=f"sqlite:///{Path(folder) / 'usage.db'}")
        config = replace(config, server=own, storage=storage)
        log = build_log("json", quiet=True)
        application = Application(config, local_models(config), server_auth({}, config), log)
        # With the protocol named, asyncio turns Nagle's algorithm off, which would delay each answer by 40 ms.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
            sock.bind(("127.0.0.1", 0))
            server = _Server(server_config(config, application.asgi))
            serving = asyncio.create_task(server.serve(sockets=[sock]))
            try:
                await server.ready.wait()
                if not server.started:
                    fail("the proxy did not start. Run `proxy serve` to see why.")
                yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
            finally:
                server.should_exit = True
                await serving
