"""Values: the setup of each client: its file, the values in it, and notes.

Source: the clients' documentation, November 2026: Claude Code 2.1 (a token in `env` precedes `apiKeyHelper`),
Codex 0.162 (`wire_api` is `responses`, nothing else), OpenCode 2 (it reads the shape of version 1 too, unless a file
has its own), Cline 3, aider, Open WebUI.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

NAME = "multi-model-proxy"  # of the provider in a client's settings
ANY_KEY = "any"  # sent by a client if the server needs no key


class Wanted(Struct):
    """The user's options. `base_url` ends in /v1; `key`: the variable that holds the API key."""

    base_url: str
    model: str | None
    key: str | None
    home: Path
    environ: Mapping[str, str]

    @property
    def root(self) -> str:
        return self.base_url.removesuffix("/v1")


class Setup(Struct):
    """`file` None: the client has no file that other programs may write; `instead`: the commands to run.

    `newer`: a key of the file, and the values if the file has it.
    """

    file: Path | None
    form: str
    values: dict[str, Any] = {}
    notes: list[str] = []
    instead: list[str] = []
    newer: tuple[str, dict[str, Any]] | None = None


def _claude_code(wanted: Wanted) -> Setup:
    folder = Path(wanted.environ.get("CLAUDE_CONFIG_DIR") or wanted.home / ".claude")
    env: dict[str, str | None] = {"ANTHROPIC_BASE_URL": wanted.root}
    values: dict[str, Any] = {"env": env}
    if wanted.key is None:
        env["ANTHROPIC_AUTH_TOKEN"] = ANY_KEY
    else:
        env["ANTHROPIC_AUTH_TOKEN"] = None
        values["apiKeyHelper"] = f"printenv {wanted.key}"
    if wanted.model is not None:
        names = ("MODEL", "DEFAULT_OPUS_MODEL", "DEFAULT_SONNET_MODEL", "DEFAULT_HAIKU_MODEL")
        env |= {f"ANTHROPIC_{name}": wanted.model for name in names}
    notes = ["an ANTHROPIC_API_KEY in your shell is sent as well; unset it"]
    if wanted.model is None:
        notes.append("it asks for Claude models by their ids; --model NAME sends all of them to one name")
    return Setup(folder / "settings.json", "json", values, notes)


def _codex(wanted: Wanted) -> Setup:
    folder = Path(wanted.environ.get("CODEX_HOME") or wanted.home / ".codex")
    provider: dict[str, Any] = {"name": NAME, "base_url": wanted.base_url, "wire_api": "responses"}
    provider["env_key"] = wanted.key
    values = {"model": wanted.model or "auto", "model_provider": NAME, "model_providers": {NAME: provider}}
    notes = [] if wanted.key is None else [f"Codex reads the key from {wanted.key} when it starts"]
    return Setup(folder / "config.toml", "toml", values, notes)


def _opencode(wanted: Wanted) -> Setup:
    folder = Path(wanted.environ.get("XDG_CONFIG_HOME") or wanted.home / ".config") / "opencode"
    name = "opencode.jsonc" if (folder / "opencode.jsonc").is_file() else "opencode.json"
    model = wanted.model or "auto"
    key = ANY_KEY if wanted.key is None else f"{{env:{wanted.key}}}"
    models = {model: {"name": model}}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": NAME,
        "options": {"baseURL": wanted.base_url, "apiKey": key},
        "models": models,
    }
    native: dict[str, Any] = {
        "package": "aisdk:@ai-sdk/openai-compatible",
        "name": NAME,
        "settings": {"baseURL": wanted.base_url, "apiKey": ANY_KEY if wanted.key is None else None},
        "env": None if wanted.key is None else [wanted.key],
        "models": models,
    }
    values: dict[str, Any] = {"model": f"{NAME}/{model}"}
    newer = ("providers", {**values, "providers": {NAME: native}})
    values = {"$schema": "https://opencode.ai/config.json", **values, "provider": {NAME: provider}}
    return Setup(folder / name, "json", values, ["each further model is an entry under models"], newer=newer)


def _cline(wanted: Wanted) -> Setup:
    model, key = wanted.model or "auto", ANY_KEY if wanted.key is None else f'"${wanted.key}"'
    command = f"cline auth -p openai -k {key} -b {wanted.base_url} -m {model}"
    shown = ANY_KEY if wanted.key is None else f"the value of {wanted.key}"
    form = (
        f"in VS Code: API Provider `OpenAI Compatible`, Base URL {wanted.base_url}, API Key {shown}, Model ID {model}"
    )
    return Setup(None, "", notes=[form], instead=[command])


def _aider(wanted: Wanted) -> Setup:
    values: dict[str, Any] = {"openai-api-base": wanted.base_url, "model": f"openai/{wanted.model or 'auto'}"}
    if wanted.key is None:
        values["openai-api-key"] = ANY_KEY
    notes = [] if wanted.key is None else [f'the key comes from the environment: export OPENAI_API_KEY="${wanted.key}"']
    return Setup(wanted.home / ".aider.conf.yml", "yaml", values, notes)


def _open_webui(wanted: Wanted) -> Setup:
    key = ANY_KEY if wanted.key is None else f"${{{wanted.key}}}"
    values = {"OPENAI_API_BASE_URL": wanted.base_url, "OPENAI_API_KEY": key}
    notes = [
        "in a container this machine is host.docker.internal, not 127.0.0.1",
        "once started it keeps its own values: Admin Settings > Connections, or ENABLE_PERSISTENT_CONFIG=false",
    ]
    return Setup(Path(".env"), "env", values, notes)


CLIENTS: dict[str, Callable[[Wanted], Setup]] = {
    "claude-code": _claude_code,
    "codex": _codex,
    "opencode": _opencode,
    "cline": _cline,
    "aider": _aider,
    "open-webui": _open_webui,
}
