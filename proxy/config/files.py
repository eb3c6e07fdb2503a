"""Performs I/O: finds, reads and writes the two files."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import DecodeError
from msgspec.json import decode, encode

from proxy.config.problems import ConfigError, Mark, problem
from proxy.config.tree import MAX_BYTES

ROUTING, PRICING = "routing_rules.yaml", "pricing.yaml"
VOLUME = Path("/data")
_HERE = Path(__file__).parent
_NEW = ".new"  # suffix of a file that is about to replace another
_SHIPPED = (_HERE / "defaults", _HERE.parents[1])  # a wheel ships them in defaults/, a checkout at its top level


def find_files(
    flag_config: Path | None,
    flag_pricing: Path | None,
    environ: Mapping[str, str],
    cwd: Path,
    volume: Path = VOLUME,
) -> tuple[Path, Path | None]:
    """The paths of routing_rules.yaml and pricing.yaml.

    The search order is: flag, PROXY_CONFIG or PROXY_PRICING, `volume` if it is writable, `cwd`, the shipped files. A
    file named by a flag or the environment is used even if it does not exist. The second path is None only if the
    package lacks its own copy.
    """
    routing = _find(ROUTING, flag_config, environ.get("PROXY_CONFIG"), cwd, volume)
    return routing or cwd / ROUTING, _find(PRICING, flag_pricing, environ.get("PROXY_PRICING"), cwd, volume)


def seed(cwd: Path, volume: Path = VOLUME) -> list[Path]:
    """Copies the shipped files to a writable `volume` that has neither, so that they can be edited there. Returns the
    paths written. Does nothing if `cwd` has a file of its own, because that one is used. Raises ConfigError.
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
    """The path of a shipped file, given its path in the checkout; None if the package lacks it."""
    return next((folder / name for folder in _SHIPPED if (folder / name).is_file()), None)


def write_file(path: Path, data: bytes, mode: int | None = None) -> None:
    """Writes a file atomically, following links. Keeps its owner where the system allows it, and its mode unless `mode`
    is given. Raises ConfigError with one problem.
    """
    new, target = _staged(path, data, mode)
    try:
        new.replace(target)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise _not_written(path, error) from None


def _staged(path: Path, data: bytes, mode: int | None = None) -> tuple[Path, Path]:
    """A complete file beside the one that it will replace, and that one. Raises ConfigError with one problem."""
    try:
        target = path.resolve()
        before = target.stat() if target.exists() else None
        if mode is None:
            mode = stat.S_IMODE(before.st_mode) if before else 0o644
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=_NEW, dir=target.parent)
        new = Path(name)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            if before is not None:
                with suppress(OSError):  # without the right to change the owner, the file belongs to the server's user
                    os.chown(new, before.st_uid, before.st_gid)
            new.chmod(mode)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _not_written(path, error) from None
    return new, target


def _not_written(path: Path, error: OSError) -> ConfigError:
    message = f"cannot be written: {(error.strerror or type(error).__name__).lower()}"
    return ConfigError([problem(Mark(str(path)), (), message)])


def keep_copy(path: Path) -> None:
    """Copies the file to the same name with the suffix `.bak`, with the same mode. Raises ConfigError and OSError."""
    target = path.resolve()
    mode = stat.S_IMODE(target.stat().st_mode)
    write_file(target.with_name(f"{target.name}.bak"), target.read_bytes(), mode)


def write_all(texts: Mapping[Path, bytes]) -> None:
    """Writes several files, or none of them. Raises ConfigError.

    All are complete before the first one is put in place, and a note beside it lists them: if the process dies between
    two of them, `finish_saving` continues.
    """
    before = {path: path.read_bytes() if path.is_file() else None for path in texts}
    staged: dict[Path, tuple[Path, Path]] = {}
    done: list[Path] = []
    note = _note_of(next(iter(texts))) if len(texts) > 1 else None
    try:
        for path, data in texts.items():
            staged[path] = _staged(path, data)
        if note is not None:
            write_file(note, encode([[str(new), str(target)] for new, target in staged.values()]), 0o600)
        for path, (new, target) in staged.items():
            _take_place(path, new, target)
            done.append(path)
    except ConfigError:
        for path in done:
            if (data_before := before[path]) is not None:
                write_file(path, data_before)
        _forget(note, staged.values())
        raise
    _forget(note, ())


def _forget(note: Path | None, staged: Iterable[tuple[Path, Path]]) -> None:
    if note is not None:
        note.unlink(missing_ok=True)
    for new, _ in staged:
        new.unlink(missing_ok=True)


def finish_saving(paths: Sequence[Path]) -> list[str]:
    """Completes an interrupted `write_all` of some of these files. Returns the files that it wrote. Raises ConfigError
    if it cannot.
    """
    note, own = _note_of(paths[0]), {str(path.resolve()) for path in paths}
    try:
        staged = decode(note.read_bytes(), type=list[tuple[str, str]])
    except FileNotFoundError:
        return []
    except (OSError, DecodeError):
        raise ConfigError([problem(Mark(str(note)), (), "cannot be read; remove it, and compare the files")]) from None
    written = []
    for new, target in staged:
        is_ours = Path(new).parent == Path(target).parent and new.endswith(_NEW)
        if target in own and is_ours and Path(new).exists():
            _take_place(Path(target), Path(new), Path(target))
            written.append(target)
    with suppress(OSError):
        note.unlink(missing_ok=True)
    return written


def _take_place(path: Path, new: Path, target: Path) -> None:
    try:
        new.replace(target)
    except FileNotFoundError:
        return  # another worker found the note and was faster
    except OSError as error:
        raise _not_written(path, error) from None


def _note_of(path: Path) -> Path:
    target = path.resolve()
    return target.with_name(f".{target.name}.saving")


def key_texts() -> dict[str, dict[str, str]]:
    """Struct -> key -> description, taken from docs/configuration.md. A test generates the file."""
    return decode((_HERE / "key_texts.json").read_bytes(), type=dict[str, dict[str, str]])


def is_installed(path: Path) -> bool:
    """True for a file inside the installed package, which must not be edited."""
    return path.absolute().parent == _HERE / "defaults"


def read_file(path: Path) -> bytes:
    """The file's content, cut off one byte above the size limit. Raises ConfigError with one problem."""
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
