"""Performs I/O: the file of provider keys that the page of settings may write, as lines `VARIABLE=key`.

It is used only if PROXY_KEYS_FILE names it. The environment takes precedence. Nobody else may read it.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from proxy.config.environment import is_sendable, trimmed
from proxy.config.files import read_file, write_file
from proxy.config.problems import ConfigError, Mark, problem

VARIABLE = "PROXY_KEYS_FILE"
MAX_KEY = 4_096  # characters
_MODE = 0o600
_LINE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)")
_HEAD = "# Keys of providers, written by the page of settings. The environment takes precedence.\n"


def keys_file_of(environ: Mapping[str, str]) -> Path | None:
    """The file's path; None: there is none."""
    name = trimmed(environ.get(VARIABLE, ""))
    return Path(name).absolute() if name else None


def read_keys(path: Path) -> dict[str, str]:
    """Variable -> key; nothing while there is no file. Raises ConfigError, which never repeats a key."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _wrong(path, f"cannot be read: {(error.strerror or type(error).__name__).lower()}") from None
    if mode & 0o077:
        raise _wrong(path, "other users may read this file of keys; run `chmod 600` on it")
    found = {}
    for number, line in enumerate(read_file(path).decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1].startswith("PROXY_"):
            raise _wrong(path, "expected VARIABLE=key, the variable of a provider", number)
        found[match[1]] = trimmed(match[2])
    return found


def set_key(path: Path, variable: str, key: str | None) -> None:
    """Writes one key; None takes it away. Raises ValueError for what no header can carry, and ConfigError."""
    keys = read_keys(path)
    if key is None:
        keys.pop(variable, None)
    else:
        text = trimmed(key)
        if not text or not is_sendable(text) or len(text) > MAX_KEY:
            raise ValueError("A key is printable ASCII without spaces, and not empty.")
        keys[variable] = text
    lines = [f"{name}={value}\n" for name, value in keys.items()]
    write_file(path, "".join([_HEAD, *lines]).encode(), _MODE)


def _wrong(path: Path, message: str, line: int = 0) -> ConfigError:
    return ConfigError([problem(Mark(str(path), line, 1 if line else 0), (), message)])
