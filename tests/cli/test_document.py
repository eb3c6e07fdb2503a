"""docs/cli.md matches the code: every command and every option. Its examples run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest

from proxy.cli import COMMANDS, Deferred, main
from tests.cli.commands import PATIENCE_S, ROOT, environment
from tests.serving import spawned, write_files
from tests.upstream.fake import spawn

PAGE = ROOT / "docs" / "cli.md"
TABLE = re.compile(r"<!-- options: ([a-z ]+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
REWRITE = "WRITE_DOCS=1 scripts/test tests/cli/test_document.py"
EXAMPLES = re.findall(r"^```bash\n(.*?)\n```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def commands(group: click.Command = main, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every runnable command, by its name after `proxy`."""
    if not isinstance(group, click.Group):
        yield name, group
        return
    if group.invoke_without_command:
        yield name, group
    for part, command in group.commands.items():
        loaded = command.loaded() if isinstance(command, Deferred) else command
        yield from commands(loaded, f"{name} {part}".strip())


def table(command: click.Command) -> str:
    """The options of one command, except --help."""
    lines = ["| option | what it does |", "|---|---|"]
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            values = f"one of {', '.join(parameter.type.choices)}" if isinstance(parameter.type, click.Choice) else ""
            lines.append(f"| `{parameter.metavar or parameter.human_readable_name}` | {values or 'see above'} |")
        elif isinstance(parameter, click.Option):
            choices = parameter.type.choices if isinstance(parameter.type, click.Choice) else ()
            value = "" if parameter.is_flag else " " + (parameter.metavar or "\\|".join(choices) or "VALUE")
            default = f" Default: {parameter.default}." if parameter.show_default else ""
            names = ", ".join([*parameter.opts, *parameter.secondary_opts])
            lines.append(f"| `{names}{value}` | {((parameter.help or '') + default).strip()} |")
    return "\n".join(lines) + "\n"


def test_every_command_and_option_is_in_the_document() -> None:
    """The tables are generated from the commands."""
    page = PAGE.read_text()
    known = {name: table(command) for name, command in commands()}
    assert sorted(known) == sorted(name for name, _ in TABLE.findall(page))
    assert re.findall(r"^## `proxy (.+)`$", page, re.MULTILINE) == [name for name, _ in TABLE.findall(page)]
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(TABLE.sub(lambda found: f"<!-- options: {found[1]} -->\n{known[found[1]]}<!-- end -->\n", page))
        return
    assert dict(TABLE.findall(page)) == known, f"docs/cli.md is out of date; regenerate its tables with: {REWRITE}"


def test_the_summary_of_each_command_is_its_first_sentence() -> None:
    """The list of commands loads none of them, so it has copies."""
    for name, summary in COMMANDS.items():
        command = main.commands[name]
        assert isinstance(command, Deferred)
        help_text = command.loaded().help or ""
        first = help_text.partition("\n\n")[0].replace("\n", " ")
        assert summary == first, name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder, and an environment whose configuration points to a fake upstream."""
    folder, files = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("files")
    scripts = files / "bin"
    scripts.mkdir()
    (scripts / "proxy").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m proxy "$@"\n')
    (scripts / "proxy").chmod(0o755)
    with spawn() as upstream:
        routing = write_files(files, upstream.url)
        prices = "version: 1\nmodels:\n  fake/*: {input: 2, output: 10}\n  groq/openai/gpt-oss-20b: {context: 131072}\n"
        (files / "pricing.yaml").write_text(prices)
        for line in ("", "# as it is now\n"):  # there is a version to go back to
            routing.write_text(routing.read_text() + line)
            with spawned(routing) as server:
                httpx.get(f"{server.base_url}/models", timeout=30)
                server.stop()
        yield (
            folder,
            environment(
                PATH=f"{scripts}:{os.environ['PATH']}",
                PROXY_CONFIG=str(routing),
                PROXY_PRICING=str(files / "pricing.yaml"),
            ),
        )


SHOWN = {  # example -> a part of its output
    "proxy --help": "Commands:",
    "proxy init": "wrote routing_rules.yaml\nwrote pricing.yaml\n",
    "printf 'model_list: [{model_name: gpt, litellm_params: {model: openai/gpt-6-luna}}]\\n' > config.yaml\n"
    "proxy import litellm config.yaml --dir imported": "1 provider, 1 model; everything carried over",
    "proxy setup codex --api-key-env PROXY_API_KEY": 'wire_api = "responses"',
    "proxy check": "0 errors, 0 warnings; on: fake\n",
    "proxy schema routing > routing_rules.schema.json": "",
    "proxy providers --ping": "fake  openai  ok",
    "proxy models": "auto",
    "proxy usage --since 2026-11-01 --group-by model": "total",
    "proxy usage reprice --since 2026-11-01": "nothing was written",
    'proxy feedback chatcmpl-0661640e3cbcdb1a2d4436eb39 --failure --comment "The price is wrong."': "",
    "proxy sites list --category weather": "weather-gov",
    "proxy sites show arxiv": "paper: One paper",
    'proxy sites match "get trending communities" https://reddit.com': "reddit/trending",
    "proxy ensembles report voting": "",
    """echo '{"id": "tone", "variants": [{"name": "cold", "parameters": {"temperature": 0}}, {"name": "warm"}]}' \\
  | proxy experiments create - --start""": "tone is running.",
    "proxy experiments show tone": "running",
    "proxy experiments list": "cold,warm",
    "proxy experiments variant tone customer-17": "",
    "proxy experiments track tone warm --unit customer-17 --success": "Stored an outcome of warm.",
    "proxy experiments results tone": "Undecided: fewer than 30 outcomes: cold, warm.",
    "proxy experiments stop tone": "tone is stopped.",
    "proxy experiments delete tone": "tone is deleted.",
    "proxy prompts list": "extraction_v1",
    "proxy prompts show extraction_v1": "{html_content}",
    "proxy prompts versions extraction_v1": "html_content",
    "echo 'Translate into {language}: {text}' | proxy prompts save translate - --label production": (
        "Saved version 1 of translate. Variables: language, text."
    ),
    "proxy prompts label translate staging 1": "production=1,staging=1",
    "proxy prompts labels translate": "staging",
    "proxy prompts diff translate 1 latest": "",
    'proxy prompts render translate language=French text="Good morning"': "Translate into French: Good morning\n",
    "proxy prompts archive translate": "translate is archived",
    "proxy prompts export > prompts.yaml": "",
    "proxy prompts import prompts.yaml": "extraction_v1: versions 1\n",
    "printf 'date,model,cost\\n2026-11-22,gpt-6-sol,1.50\\n' > invoice.csv\nproxy usage reconcile invoice.csv"
    " --provider openai": "1.5",
    "proxy prices --diff 'groq/*'": "groq/openai/gpt-oss-20b  input",
    "proxy keys create mobile --models 'auto*' --expires 2099-01-01": "mmp-",
    "proxy keys list": "mobile",
    "proxy keys revoke mobile": "Revoked mobile",
    'proxy ask "Name a colour."': "tok0",
    'proxy explain "Name a colour."': "auto -> fake/ok",
    """echo '{"model": "auto", "messages": [{"role": "user", "content": "Hi"}]}' | proxy explain --body - --json""": (
        '"chosen": "fake/ok"'
    ),
    "proxy plan routing_rules.yaml": "calls change their model",
    "proxy config list": "yes",
    """proxy config show "$(proxy config list | awk 'NR == 2 {print $1}')\"""": "providers:",
    """proxy config rollback "$(proxy config list | awk '$3 == "no" {print $1; exit}')\"""": "A running server",
    "proxy conformance -m fake/actor --only tools": "called             tools  passed",
    'eval "$(proxy completion bash)"': "",
}
FAILING = {
    "proxy prices --diff 'groq/*'",
    "proxy plan routing_rules.yaml",
    "proxy ensembles report voting",  # none is configured there, and there was no call
    *(example for example in SHOWN if example.startswith("proxy feedback")),
}


def test_every_example_is_run_below() -> None:
    """All examples of the page, since each one builds on the one before."""
    assert sorted(EXAMPLES) == sorted([*SHOWN, "proxy serve --port 0"])


@pytest.mark.embedded
def test_the_examples_run(place: tuple[Path, dict[str, str]]) -> None:
    """They run one after the other, in one folder."""
    folder, environ = place
    for example in [example for example in EXAMPLES if example in SHOWN]:
        done = subprocess.run(
            ["bash", "-c", example], cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, SHOWN[example] in done.stdout) == (int(example in FAILING), True), f"{example}\n{done}"
    assert (folder / "routing_rules.schema.json").read_text().startswith("{")


@pytest.mark.slow
def test_the_example_that_serves_serves(place: tuple[Path, dict[str, str]]) -> None:
    """It serves until SIGTERM."""
    folder, environ = place
    (example,) = [example for example in EXAMPLES if example.startswith("proxy serve")]
    with subprocess.Popen(
        ["bash", "-c", f"exec {example}"], cwd=folder, env=environ, stdout=subprocess.PIPE
    ) as serving:
        try:
            assert serving.stdout is not None
            assert any(line.startswith(b"  curl ") for line in serving.stdout)
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(timeout=PATIENCE_S) == 0
        finally:
            serving.kill()
