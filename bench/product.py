"""Performs I/O: this product as `proxy serve` starts it."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.load import Target
from bench.process import Measured, started

_UPSTREAM = """
version: 1
providers:
  fake: {{type: openai, base_url: "{url}", allow_private: true, price: null}}
router: {{default_model: fake/whole}}
"""
_EMBEDDED = """
version: 1
providers:
  local: {type: embedded}
"""
_PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096}
"""


class Product:
    """One worker with every part on: limits, prices, ledger, a log line for each call.

    `environ`: more variables of its process; with `PYTHONPATH` another checkout is measured.
    """

    def __init__(self, name: str = "this product", environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._environ = environ

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[Server]:
        with serving(folder, upstream_url, cores, self._environ) as server:
            yield server


class Server:
    """A running proxy."""

    def __init__(self, process: Measured, port: int) -> None:
        self.process = process
        self.target = Target(port, prefix="fake/")

    def check(self, answers: int) -> None:
        """Figures without the ledger would be another product's. Raises RuntimeError."""
        if f'"calls":{answers},"successes":{answers},'.encode() not in self.get("/v1/usage"):
            raise RuntimeError(f"the ledger has not {answers} successful calls")

    def get(self, path: str) -> bytes:
        return self._ask("GET", path)

    def ask(self, model: str) -> bytes:
        """One short whole answer."""
        question = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "Say hello."}]}
        return self._ask("POST", "/v1/chat/completions", json.dumps(question))

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.target.port, timeout=30)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return text


@contextmanager
def serving(
    folder: Path, upstream_url: str | None, cores: set[int], environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A proxy with its ledger in `folder`, before this upstream (None: the embedded model)."""
    (folder / "routing_rules.yaml").write_text(_UPSTREAM.format(url=upstream_url) if upstream_url else _EMBEDDED)
    (folder / "pricing.yaml").write_text(_PRICING if upstream_url else "version: 1\n")
    command = [sys.executable, "-m", "proxy", "serve", "--port", "0", "--log-format", "json"]
    files = {"config": "routing_rules.yaml", "pricing": "pricing.yaml", "db": "usage.db"}
    command += [part for option, name in files.items() for part in (f"--{option}", str(folder / name))]
    url = r"http://127\.0\.0\.1:(\d+)/v1"
    with started(command, url, folder / "server.log", cores, environ) as (process, port):
        yield Server(process, port)
