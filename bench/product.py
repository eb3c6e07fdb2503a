"""Performs I/O: this product as `proxy serve` starts it."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.cases import WHOLE, Case
from bench.load import Target
from bench.process import Measured, started

NAME = "this product"
KEY = "a-key-of-the-bench"
_UPSTREAM = """
version: 1
server: {{require_key: true, max_in_flight: 2000, workers: {workers}}}
providers:
  fake: {{type: openai, base_url: "{url}", allow_private: true, price: null}}
  claude: {{type: anthropic, base_url: "{url}", allow_private: true}}
models:
  cheap: {{use: fake/whole, fallback: [{others}]}}
router: {{default_model: cheap}}
rules:
  - {{name: hard, when: {{task: reasoning, difficulty_over: 0.5}}, use: fake/whole_b}}
  - {{name: long, when: {{input_tokens_over: 50000}}, use: fake/whole_c}}
  - {{name: code, when: {{task: code, has_tools: false}}, use: [fake/whole, fake/whole_d]}}
ensembles:
  three: {{strategy: voting, members: [fake/whole, fake/whole_b, fake/whole_c]}}
budget: {{daily_usd: 1000000, total_usd: 10000000}}
rate_limits: {{default: {{requests_per_minute: 100000000}}}}
"""
_EMBEDDED = """
version: 1
providers:
  local: {type: embedded}
"""
_PRICING = """
version: 1
models:
  fake/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096, context: 200000}
  claude/*: {input: 2.00, output: 10.00, cached_input: 0.50, max_output: 4096, context: 200000}
"""


class Product:
    """Every part on: a key, limits, budgets, routing, prices, ledger, a log line for each call.

    With several workers only a whole answer is measured. `environ`: more variables of its process; with `PYTHONPATH`
    another checkout is measured.
    """

    share = 1.0

    def __init__(self, name: str = NAME, environ: Mapping[str, str] | None = None, workers: int = 1) -> None:
        self.name = name
        self._environ = environ
        self._workers = workers

    def serves(self, case: Case) -> bool:
        return self._workers == 1 or case.name == WHOLE.name

    @contextmanager
    def serving(self, folder: Path, upstream_url: str, cores: set[int]) -> Iterator[Server]:
        own = folder / self.name.replace(" ", "-")
        own.mkdir()
        with serving(own, upstream_url, cores, self._environ, self._workers) as server:
            yield server


class Server:
    """A running proxy."""

    def __init__(self, process: Measured, port: int) -> None:
        self.process = process
        self.target = Target(port, prefix="fake/", named={"claude": "claude/claude"}, key=KEY)

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
            headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return text


@contextmanager
def serving(
    folder: Path,
    upstream_url: str | None,
    cores: set[int],
    environ: Mapping[str, str] | None = None,
    workers: int = 1,
) -> Iterator[Server]:
    """A proxy with its ledger in `folder`, before this upstream (None: the embedded model)."""
    others = ", ".join(f"fake/whole_{letter}" for letter in "bcdefgh")
    routing = _UPSTREAM.format(url=upstream_url, workers=workers, others=others) if upstream_url else _EMBEDDED
    (folder / "routing_rules.yaml").write_text(routing)
    (folder / "pricing.yaml").write_text(_PRICING if upstream_url else "version: 1\n")
    command = [sys.executable, "-m", "proxy", "serve", "--port", "0", "--log-format", "json"]
    files = {"config": "routing_rules.yaml", "pricing": "pricing.yaml", "db": "usage.db"}
    command += [part for option, name in files.items() for part in (f"--{option}", str(folder / name))]
    url = r"http://127\.0\.0\.1:(\d+)/v1"
    keys = {"PROXY_API_KEY": KEY, "ANTHROPIC_API_KEY": "any"}
    with started(command, url, folder / "server.log", cores, {**keys, **(environ or {})}) as (process, port):
        yield Server(process, port)
