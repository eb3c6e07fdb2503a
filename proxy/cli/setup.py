"""`proxy setup`: prints or writes the few lines that point a client here. The rest of its file stays unchanged."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, NoReturn

import click

from proxy.cli.model_names import model_option
from proxy.cli.output import json_option, print_json
from proxy.cli.settings import configuration_options, fail, read_config
from proxy.cli.setup_clients import CLIENTS, Setup, Wanted
from proxy.cli.setup_files import NotEditable, edited, read_values, snippet
from proxy.config import ConfigError
from proxy.config.files import write_file

_VARIABLE = re.compile(r"[A-Za-z_]\w*")
_ADDRESS = re.compile(r"https?://[^\s\"'\\]+")
_MODEL = re.compile(r"[^\s\"'\\$`]{1,200}")
_BIGGEST = 5_000_000  # bytes of a client's file


@click.command()
@click.argument("client", type=click.Choice([*CLIENTS]))
@model_option(metavar="NAME", help="The model to ask for. Default: auto; Claude Code's own ids.")
@click.option("--base-url", metavar="URL", help="The proxy's address; ends in /v1. Default: the configured one.")
@click.option("--api-key-env", metavar="VAR", help="Environment variable that holds the API key. Default: no key.")
@click.option("--write", is_flag=True, help="Write the lines to the client's file, after a backup.")
@click.option("--file", "path", metavar="FILE", help="Another file than the client's usual one.")
@json_option
@configuration_options
def setup(client: str, model: str | None, base_url: str | None, as_json: bool, **flags: Any) -> None:
    """Point a coding agent or chat client here.

    Prints the few lines that its settings need. --write puts them into its file.
    """
    key, write, path = (flags.pop(name) for name in ("api_key_env", "write", "path"))
    if key is not None and not _VARIABLE.fullmatch(key):
        fail("--api-key-env must be the name of an environment variable, like PROXY_API_KEY, not its value.")
    if model is not None and not _MODEL.fullmatch(model):
        fail("--model must be a model's name, without spaces and quotes.")
    address = _address(base_url, flags)
    made = CLIENTS[client](Wanted(address, model, key, Path.home(), os.environ))
    if path is not None and made.file is not None:
        made.file = Path(path)
    if made.file is None and (write or path is not None):
        fail(f"{client} keeps its settings to itself. Run: {made.instead[0]}")
    told: dict[str, Any] = {"client": client, "file": None if made.file is None else str(made.file)}
    told |= {"lines": "", "commands": made.instead, "notes": made.notes, "written": False, "backup": None}
    if made.file is not None:
        text, values = _read(made, made.file, is_needed=write)
        told["lines"] = snippet(values, made.form)
        if write:
            told["written"], told["backup"] = _write(made, made.file, text, values)
    if as_json:
        print_json(told)
    else:
        _print(told, write=write)


def _address(given: str | None, flags: dict[str, Any]) -> str:
    """The base URL with /v1, as given or from the configuration."""
    if given is not None:
        if not _ADDRESS.fullmatch(given):
            fail("--base-url must be an http or https address, like http://127.0.0.1:8000/v1.")
        return f"{given.rstrip('/').removesuffix('/v1')}/v1"
    server = read_config(flags, os.environ).server
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name := server.host.strip("[]"), name)
    return f"http://{f'[{host}]' if ':' in host else host}:{server.port}/v1"


def _read(made: Setup, file: Path, *, is_needed: bool) -> tuple[str, dict[str, Any]]:
    """The text of the client's file, and the values for it. Exits if it is needed and cannot be read."""
    text = ""
    try:
        if file.exists():
            data = file.read_bytes() if file.stat().st_size <= _BIGGEST else b""
            if not data and file.stat().st_size:
                raise NotEditable("is too large to be a settings file")
            text = data.decode("utf-8")
        has_newer = made.newer is not None and made.newer[0] in read_values(text, made.form)
    except (NotEditable, OSError, UnicodeDecodeError) as error:
        if is_needed:
            _give_up(file, error)
        has_newer = False
    return text, made.newer[1] if has_newer and made.newer else made.values


def _write(made: Setup, file: Path, before: str, values: dict[str, Any]) -> tuple[bool, str | None]:
    """Whether the file changed, and its backup. Exits if it cannot be edited."""
    try:
        lines = before.replace("\r\n", "\n")
        after = edited(lines, values, made.form)
        if after == lines and file.exists():
            return False, None
        backup = _backup(file) if file.exists() else None
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, (after.replace("\n", "\r\n") if "\r\n" in before else after).encode())
    except (NotEditable, OSError, ConfigError) as error:
        _give_up(file, error)
    return True, backup


def _give_up(file: Path, error: Exception) -> NoReturn:
    if isinstance(error, NotEditable):
        fail(f"{file} {error}. Add the lines by hand; without --write this command prints them.")
    if isinstance(error, ConfigError):
        fail(str(error))
    fail(f"{file}: {((isinstance(error, OSError) and error.strerror) or 'is not UTF-8').lower()}")


def _backup(file: Path) -> str:
    """A copy beside the file; an earlier copy is never replaced."""
    target, count = file.with_name(f"{file.name}.bak"), 1
    while target.exists():
        count += 1
        target = file.with_name(f"{file.name}.bak-{count}")
    shutil.copy2(file, target)
    return str(target)


def _print(told: dict[str, Any], *, write: bool) -> None:
    if write:
        backup = f" (before: {told['backup']})" if told["backup"] else ""
        click.echo(f"wrote {told['file']}{backup}" if told["written"] else f"{told['file']} is as it should be")
    elif told["file"] is not None:
        click.echo(f"proxy: in {told['file']}:", err=True)
        click.echo(told["lines"], nl=False)
    for command in told["commands"]:
        click.echo(command)
    for note in told["notes"]:
        click.echo(f"note: {note}", err=True)
