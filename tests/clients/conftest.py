"""Real clients, unmodified, against a spawned proxy over the fake upstream: one file for each client.

Each file in `on_python/` and `on_node/` is a program that runs in an environment of its own, without pytest and without
this package. Its first line says which, and on which wires: `client: openai 2 (Python); environment: openai-2; wires:
openai anthropic`; the second says what a user sets: `set: base_url`. A function `check_NAME` is a test for each of the
wires, a function `once_NAME` for the first one; in JavaScript these are `check("NAME", ...)` and `once(...)`.
`checks: openai_3.py` takes the functions of another file,
`needs: javac` names a command without which it is skipped.
`scripts/test-clients` makes the environments and names their folder in CLIENTS_HOME. Without it nothing is collected.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.clients.listener import Listener
from tests.serving import spawned, write_files
from tests.upstream import spawn

HOME = os.environ.get("CLIENTS_HOME")
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  openai: {{base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
  native: {{type: openai, base_url: "RESPONSES", api: responses, api_key_env: null, allow_private: true, price: null,
    retries: 0}}
  anthropic: {{base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
  google: {{base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
  mistral: {{base_url: "MISTRAL", api_key_env: null, allow_private: true, price: null, retries: 0}}
router: {{default_model: openai/actor}}
"""
PRICING = "version: 1\nmodels:\n" + "".join(
    f"  {wire}/*: {{input: 2, output: 10, max_output: 4096}}\n"
    for wire in ("openai", "native", "anthropic", "google", "mistral")
)
SERVED = re.compile(
    "GET /v1/models|POST /v1/(chat/completions|completions|embeddings|messages|messages/count_tokens|responses|rerank)"
)
LIMIT_S = 900  # of a whole program; the machine may be busy
OUTPUTS = pytest.StashKey[list[dict[str, Any]]]()
SERVERS = pytest.StashKey["Servers"]()


class Servers:
    """The proxy and the upstream behind it, started when the first client needs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = ExitStack()

    @cached_property
    def listener(self) -> Listener:
        upstream = self._open.enter_context(spawn())
        upstream.set_modes({"claude-opus-5-5": "actor"})
        root = upstream.url.removesuffix("/v1")
        routing = ROUTING.replace("RESPONSES", f"{root}/openai/v1").replace("MISTRAL", f"{root}/mistral/v1")
        self.folder.mkdir(parents=True, exist_ok=True)
        proxy = self._open.enter_context(spawned(write_files(self.folder, upstream.url, routing, PRICING)))
        return self._open.enter_context(closing(Listener(proxy.port)))

    def close(self) -> None:
        self._open.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[OUTPUTS] = []


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if HOME is None or file_path.parent.name not in ("on_python", "on_node"):
        return None
    if file_path.suffix not in (".py", ".mjs") or file_path.name.startswith("_"):
        return None
    named = file_path.suffix == ".py" and parent.session.isinitpath(file_path)  # then the hook below makes it
    return None if named else Program.from_parent(parent, path=file_path)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """pytest would import a file that its command line names."""
    return Program.from_parent(parent, path=module_path) if module_path.parent.name == "on_python" else None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Ends the servers, and writes what the table of the documentation is made of."""
    if (servers := session.config.stash.get(SERVERS, None)) is not None:
        servers.close()
    if HOME is not None and (report := os.environ.get("CLIENTS_REPORT")):
        Path(report).write_text(json.dumps(session.config.stash[OUTPUTS], indent=1))


class Program(pytest.File):
    """One client."""

    def collect(self) -> Iterator[pytest.Item]:
        if HOME is None:
            return
        first, second, *_ = (line.lstrip("#/ ") for line in self.path.read_text().splitlines())
        self.head = dict(part.split(": ", 1) for part in [*first.split("; "), second])
        self.checks = self.path.with_name(self.head.get("checks", self.path.name))
        self.add_marker(pytest.mark.clients)
        text, wires = self.checks.read_text(), self.head["wires"].split()
        names = re.findall(r"""^(?:async )?(?:def )?(check|once)(?:_|\(")(\w+)""", text, re.MULTILINE)
        for kind, name in names:
            for wire in wires[: None if kind == "check" else 1]:
                yield Check.from_parent(self, name=f"{name}[{wire}]")

    @cached_property
    def results(self) -> dict[str, Any]:
        """By check, None or what went wrong. Skips where the environment is missing."""
        command = self.command()
        config = self.config
        folder = Path(config.rootpath / ".pytest_cache" / "clients" / str(os.getpid()))
        servers = config.stash.setdefault(SERVERS, Servers(folder))
        listener = servers.listener
        start = len(listener.seen)
        told = {name: value for name, value in os.environ.items() if not re.search("_API_KEY$|(?i:_PROXY)$", name)}
        told |= {"PROXY_URL": listener.base_url, "WIRES": self.head["wires"], "HOME": str(servers.folder)}
        told["ENVIRONMENT"] = str(Path(HOME or "") / self.head["environment"])
        done = subprocess.run(
            command, env=told, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=servers.folder
        )
        lines = [json.loads(line[8:]) for line in done.stdout.splitlines() if line.startswith("@result ")]
        found: dict[str, Any] = {"output": done.stdout[-3000:] + done.stderr[-3000:]}
        found |= {line["check"]: line["error"] for line in lines if "error" in line}
        version = next((line["version"] for line in lines if "version" in line), "")
        seen = listener.seen[start:]
        endpoints = sorted({each for each in seen if SERVED.fullmatch(each)})  # others are asked to see a 404
        results = [found.get(item.name, "missing") for item in self.session.items if item.parent is self]
        passed = sum(result is None for result in results)
        config.stash[OUTPUTS].append(
            {"client": self.head["client"], "version": version, "endpoints": endpoints, "calls": len(seen)}
            | {"wires": self.head["wires"].split(), "checks": len(results), "passed": passed, "set": self.head["set"]}
        )
        return found

    def command(self) -> list[str]:
        assert HOME is not None
        here, wanted, tool = Path(__file__).parent, self.head["environment"], self.head.get("needs")
        if tool is not None and shutil.which(tool) is None:
            pytest.skip(f"{self.head['client']}: {tool} is missing")
        if self.path.suffix == ".mjs":
            packages = Path(HOME) / wanted / "node_modules"
            if not packages.exists():
                pytest.skip(f"{self.head['client']}: the environment {wanted} is missing")
            return ["node", "--import", str(here / "resolve.mjs"), str(here / "run_checks.mjs"), str(self.checks)]
        python = Path(sys.executable) if wanted == "project" else Path(HOME) / wanted / "bin" / "python"
        if not python.exists():
            pytest.skip(f"{self.head['client']}: the environment {wanted} is missing")
        return [str(python), "-P", str(here / "run_checks.py"), str(self.checks)]


class Check(pytest.Item):
    """One check of it on one wire."""

    def runtest(self) -> None:
        assert isinstance(self.parent, Program)
        error = self.parent.results.get(self.name, "the program did not get here: " + self.parent.results["output"])
        if error is not None:
            pytest.fail(error, pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name
