"""Commands start fast: each one loads only what it needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.commands import environment, proxy
from tests.serving import write_files

# Imports that take tenths of a second, and memory.
SERVER = {"litestar", "sse_starlette", "uvicorn", "aiohttp", "httpx", "structlog", "prometheus_client"}
RARE = {"genai_prices", "xllamacpp", "openai", "rich"}
LIGHT = [
    (["--help"], {"ruamel", "msgspec", "sqlite3", "asyncio"}),
    (["--version"], {"ruamel", "msgspec", "sqlite3", "asyncio"}),
    (["completion", "zsh"], {"ruamel", "sqlite3"}),
    (["schema", "pricing"], {"sqlite3"}),
    (["check"], {"sqlite3", "genai_prices"}),
    (["check", "--json"], set()),
    (["init", "--dir", "there", "--force"], set()),
    (["providers"], set()),
    (["usage", "--help"], set()),
    (["experiments", "--help"], set()),
    (["feedback", "--help"], set()),
    (["ensembles", "--help"], set()),
    (["keys", "--help"], set()),
    (["prompts", "--help"], set()),
    (["import", "--help"], set()),
    (["setup", "codex"], {"genai_prices"}),
]
# What makes the time of a command that needs some of it.
HEAVY = {
    ("keys", "list"): SERVER | RARE,
    ("keys", "create", "app"): SERVER | RARE,
    ("models",): (SERVER - {"httpx"}) | RARE | {"sqlite3"},
    ("prices",): (SERVER - {"httpx"}) | (RARE - {"genai_prices"}) | {"sqlite3"},
    ("prices", "perplexity/pplx-*"): SERVER | RARE | {"sqlite3"},  # gone, so nothing is looked up
}


def name_of(case):
    """The same in every process: sets are sorted."""
    return " ".join(sorted(case) if isinstance(case, set) else case) or "-"


def modules_after(arguments, cwd, **variables):
    """The top-level packages that one run loaded."""
    script = (
        "import atexit, json, sys\n"
        "def loaded():\n"
        "    names = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "    print('\\n' + json.dumps(names), file=sys.__stdout__)\n"
        "atexit.register(loaded)\n"
        "from proxy.cli import main\n"
        "main(prog_name='proxy')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(("arguments", "also_not"), LIGHT, ids=name_of)
@pytest.mark.slow
def test_a_light_command_does_not_load_the_server(tmp_path, arguments, also_not):
    """That saves half a second each time."""
    assert modules_after(arguments, tmp_path) & (SERVER | RARE | also_not) == set()


@pytest.mark.parametrize(("arguments", "not_needed"), HEAVY.items(), ids=name_of)
@pytest.mark.slow
def test_a_command_loads_only_what_it_uses(tmp_path, arguments, not_needed):
    """`models` asks servers over httpx, `prices` reads the list, `keys` the database. None of them serves."""
    assert modules_after(arguments, tmp_path) & (not_needed - {"rich"}) == set()


def test_the_usage_of_a_database_needs_no_server(tmp_path):
    """If the database exists."""
    made = proxy("keys", "create", "app", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert modules_after(["usage"], tmp_path) & ((SERVER | RARE) - {"rich"}) == set()


def test_completing_the_name_of_a_command_loads_none(tmp_path):
    """It happens at every key press."""
    asked = {"_PROXY_COMPLETE": "bash_complete", "COMP_WORDS": "proxy c", "COMP_CWORD": "1"}
    assert modules_after([], tmp_path, **asked) & (SERVER | RARE | {"ruamel", "msgspec", "sqlite3"}) == set()


@pytest.mark.slow
def test_the_server_does_not_load_formats_that_no_route_uses(tmp_path):
    """The framework would load them if they are installed: a tenth of the memory of an idle server."""
    routing_file = write_files(tmp_path, "http://127.0.0.1:9")
    script = (
        "import json, pathlib, sys\n"
        "from proxy.server.app import Application, server_auth\n"
        "from proxy.config.source import ConfigFiles\n"
        "from proxy.server.log import build_log\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "config = ConfigFiles(path, path.with_name('pricing.yaml'), {}).load()\n"
        "Application(config, {}, server_auth({}, config), build_log('json'))\n"
        "print(json.dumps([name for name in ('litestar', 'pydantic', 'attrs') if name in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(routing_file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["litestar"]
