"""Performs I/O: the file of provider keys that the settings page may write, as lines `VARIABLE=key`.

It is used only if PROXY_KEYS_FILE names it. The environment takes precedence. Only its owner may read it.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from proxy.config.environment import is_sendable, trimmed
from proxy.config.files import read_file, write_file
from proxy.config.problems import ConfigError, Mark, problem
from proxy.config.tree import MAX_BYTES

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
    return dict(_entries(path, _text(path)).values())


def _text(path: Path) -> str:
    """The text. Raises ConfigError, because a file that cannot be read whole must not be rewritten."""
    data = read_file(path)
    if len(data) > MAX_BYTES:
        raise _wrong(path, "larger than 1 MB; a file of keys has one short line for each")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _wrong(path, "not UTF-8; save the file as UTF-8") from None


def _entries(path: Path, text: str) -> dict[int, tuple[str, str]]:
    """Line number -> variable and key. Raises ConfigError, which never repeats a key."""
    found = {}
    for number, line in enumerate(text.splitlines()):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or match[1].startswith("PROXY_"):
            raise _wrong(path, "expected VARIABLE=key, the variable of a provider", number + 1)
        found[number] = (match[1], trimmed(match[2]))
    return found


def set_key(path: Path, variable: str, key: str | None) -> None:
    """Writes one key; None removes it. Comments and the order of lines stay. Raises ValueError for a key that no header
    can carry, and ConfigError.
    """
    read_keys(path)  # refuses a file that others may read
    if key is not None:
        key = trimmed(key)
        if not key or not is_sendable(key) or len(key) > MAX_KEY:
            raise ValueError("A key is printable ASCII without spaces, and not empty.")
    text = _text(path) if path.exists() else _HEAD
    data = _written(text, _entries(path, text), variable, key).encode()
    if len(data) > MAX_BYTES:
        raise ValueError("The file of keys would be larger than 1 MB. Remove some keys first.")
    write_file(path, data, _MODE)


def _written(text: str, entries: Mapping[int, tuple[str, str]], variable: str, key: str | None) -> str:
    """The text with this key in place of the variable's last entry, which is the one that counts. All other
    lines stay.
    """
    lines = text.splitlines()
    own = [number for number, (name, _) in entries.items() if name == variable]
    if key is not None:
        if own:
            lines[own.pop()] = f"{variable}={key}"
        else:
            lines.append(f"{variable}={key}")
    return "".join(f"{line}\n" for number, line in enumerate(lines) if number not in own)


def _wrong(path: Path, message: str, line: int = 0) -> ConfigError:
    return ConfigError([problem(Mark(str(path), line, 1 if line else 0), (), message)])
