"""Runs every command and snippet of the README, on a machine without keys."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.config import load
from tests.serving import Spawned, spawned

pytestmark = pytest.mark.embedded

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spawned]:
    """A server with the shipped files."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("routing_rules.yaml", "pricing.yaml"):
        shutil.copy(ROOT / name, folder / name)
    with spawned(folder / "routing_rules.yaml", "--db", str(folder / "usage.db")) as running:
        yield running


def run(command: list[str] | str, server: Spawned, environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, shell=isinstance(command, str), capture_output=True, text=True, timeout=120, env=environ, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_python_snippet_runs_with_the_unmodified_sdk(server: Spawned) -> None:
    """Whole answer, stream, JSON schema and model list, exactly as printed."""
    (snippet,) = [text for kind, text in BLOCKS if kind == "python"]
    output = run([sys.executable, "-c", snippet.replace(ADDRESS, f"http://127.0.0.1:{server.port}")], server)
    assert output.startswith("local/smollm2-135m ")
    assert "tokens, 0.0 USD" in output
    assert '"colour"' in output
    assert "'auto'" in output and "'local/smollm2-135m'" in output


def test_each_shell_line_is_one_that_is_tested() -> None:
    """A new command in the README needs a test. The table says where it is."""
    tested = {
        r"scripts/serve( --host 0\.0\.0\.0)?": "test_packaging (fresh copy), cli/",
        r'curl "http://127\.0\.0\.1:8000/v1/usage.*"': "below",
        r'scripts/proxy ask ".*"( -m \w+)?': "below",
        r"export (OPENAI|GROQ)_API_KEY=\S+": "below",
        r'export PROXY_API_KEY="\$\(python3 -c .*\)"': "below",
        r'export PATH="\$PWD/\.venv/bin:\$PATH"': "below",
        r"scripts/proxy keys create laptop .*": "below",
    }
    unknown = [line for line in COMMANDS if not any(re.fullmatch(pattern, line) for pattern in tested)]
    assert unknown == []


def test_the_usage_line_answers(server: Spawned) -> None:
    """It shows calls by model, provider and day."""
    (line,) = [line for line in COMMANDS if line.startswith("curl")]
    url = line.split('"')[1].replace(ADDRESS, f"http://127.0.0.1:{server.port}")
    code = f"import urllib.request; print(urllib.request.urlopen({url!r}).read().decode())"
    assert '"groups"' in run([sys.executable, "-c", code], server)


def test_the_ask_line_answers(server: Spawned, tmp_path: Path) -> None:
    """It also works while a server runs."""
    (line,) = [line for line in COMMANDS if line.startswith("scripts/proxy ask")]
    command = line.replace("scripts/proxy", f"{sys.executable} -m proxy") + f" --db {tmp_path / 'ask.db'}"
    assert run(command, server).strip()


def test_the_line_that_creates_a_key_for_a_caller_works(server: Spawned, tmp_path: Path) -> None:
    """Its list contains names that exist in the shipped files."""
    (line,) = [line for line in COMMANDS if line.startswith("scripts/proxy keys create")]
    command = line.replace("scripts/proxy", f"{sys.executable} -m proxy") + f" --db {tmp_path / 'keys.db'}"
    assert run(command, server).startswith("mmp-")


def test_the_path_line_names_the_folder_of_the_command() -> None:
    """It starts from the top of the checkout, where `scripts/serve` creates the environment."""
    (line,) = [line for line in COMMANDS if line.startswith("export PATH")]
    folder = line.split("$PWD/")[1].partition(":")[0]
    assert f'exec "$root/{folder}/proxy"' in (ROOT / "scripts" / "proxy").read_text()


def test_the_key_lines_work(server: Spawned) -> None:
    """One generates an API key. The others set a provider's key, which turns that provider on."""
    (line,) = [line for line in COMMANDS if line.startswith("export PROXY_API_KEY")]
    assert len(run(line + "; echo $PROXY_API_KEY", server).strip()) > 40
    environ = dict(
        line.removeprefix("export ").split("=") for line in COMMANDS if re.match(r"export \w+=\S+\.\.\.$", line)
    )
    config = load(ROOT / "routing_rules.yaml", ROOT / "pricing.yaml", environ)
    assert {"openai", "groq"}.isdisjoint(config.disabled)


def test_the_models_it_names_have_a_price() -> None:
    """Names copied from the table of providers work."""
    names = re.findall(r"\| `([\w.-]+/[\w./-]+)` \|", README)
    config = load(ROOT / "routing_rules.yaml", ROOT / "pricing.yaml", {})
    assert len(names) >= 5
    assert [
        n for n in names if n not in config.pricing.models and f"{n.partition('/')[0]}/*" not in config.pricing.models
    ] == []


def test_every_link_leads_somewhere() -> None:
    """Linked files exist."""
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
