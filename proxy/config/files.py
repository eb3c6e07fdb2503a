"""Performs I/O: finds and reads the two files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from proxy.config.problems import ConfigError, Mark, problem
from proxy.config.tree import MAX_BYTES

ROUTING, PRICING = "routing_rules.yaml", "pricing.yaml"
VOLUME = Path("/data")
_HERE = Path(__file__).parent


def find_files(
    flag_config: Path | None,
    flag_pricing: Path | None,
    environ: Mapping[str, str],
    cwd: Path,
    volume: Path = VOLUME,
) -> tuple[Path, Path | None]:
    """Where routing_rules.yaml and pricing.yaml are.

    Looked for in this order: flag, PROXY_CONFIG or PROXY_PRICING, `volume` if it is writable, `cwd`, the shipped files.
    A file named by a flag or the environment is taken at its word, also if it does not exist. The second is None only
    where the package came without its own.
    """
    routing = _find(ROUTING, flag_config, environ.get("PROXY_CONFIG"), cwd, volume)
    return routing or cwd / ROUTING, _find(PRICING, flag_pricing, environ.get("PROXY_PRICING"), cwd, volume)


def read_file(path: Path) -> bytes:
    """The whole file, or one byte more than is allowed. Raises ConfigError with one problem."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        message = "no such file"
    except OSError as error:
        message = f"cannot be read: {(error.strerror or type(error).__name__).lower()}"
    raise ConfigError([problem(Mark(str(path)), (), message)])


def _find(name: str, flag: Path | None, variable: str | None, cwd: Path, volume: Path) -> Path | None:
    if flag is not None:
        return flag
    if variable:
        return Path(variable)
    folders = [
        cwd,
        _HERE / "defaults",
        _HERE.parents[1],
    ]  # a wheel ships them in defaults/, a checkout at its top level
    if volume.is_dir() and os.access(volume, os.W_OK):
        folders.insert(0, volume)
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
