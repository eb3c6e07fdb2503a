"""Performs I/O: finds and reads the two files."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from msgspec.json import decode

from proxy.config.problems import ConfigError, Mark, problem
from proxy.config.tree import MAX_BYTES

ROUTING, PRICING = "routing_rules.yaml", "pricing.yaml"
VOLUME = Path("/data")
_HERE = Path(__file__).parent
_SHIPPED = (_HERE / "defaults", _HERE.parents[1])  # a wheel ships them in defaults/, a checkout at its top level


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


def seed(cwd: Path, volume: Path = VOLUME) -> list[Path]:
    """Copies the two shipped files into a writable `volume` that has neither, so that they can be edited there; tells
    which it wrote. `cwd` with a file of its own is left alone: that one is used. Raises ConfigError.
    """
    if not _writable(volume) or any(
        (folder / name).exists() for folder in (volume, cwd) for name in (ROUTING, PRICING)
    ):
        return []
    seeded = []
    for name in (ROUTING, PRICING):
        source = shipped(name)
        if source is None:
            continue
        path = volume / name
        write_file(path, source.read_bytes())
        seeded.append(path)
    return seeded


def shipped(name: str) -> Path | None:
    """A file that comes with the product, by its path in the checkout; None where the package came without it."""
    return next((folder / name for folder in _SHIPPED if (folder / name).is_file()), None)


def write_file(path: Path, data: bytes) -> None:
    """Writes a file, or what a link leads to: whole or not at all, whatever happens meanwhile; its mode stays.

    Raises ConfigError with one problem.
    """
    try:
        target = path.resolve()
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent)
        new = Path(name)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            new.chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644)
            new.replace(target)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        message = f"cannot be written: {(error.strerror or type(error).__name__).lower()}"
        raise ConfigError([problem(Mark(str(path)), (), message)]) from None


def key_texts() -> dict[str, dict[str, str]]:
    """Struct -> key -> what it means, as docs/configuration.md says it; a test writes the file and keeps it in step."""
    return decode((_HERE / "key_texts.json").read_bytes(), type=dict[str, dict[str, str]])


def is_installed(path: Path) -> bool:
    """True for a file inside the installed package, which is nobody's to edit."""
    return path.absolute().parent == _HERE / "defaults"


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
    folders = [*([volume] if _writable(volume) else []), cwd, *_SHIPPED]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK)
