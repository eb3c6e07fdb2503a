"""Performs I/O: `make FOLDER [NAME...]` installs what the clients of tests/clients/ need there, one environment for
each list of pins in tests/clients/environments/, or for those named; `table REPORT [PAGE]` prints what a run found, or
writes it into the page.

An environment is made anew when its pins change, and one that cannot be made is left out: its clients are skipped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PINS = Path(__file__).resolve().parent.parent / "tests" / "clients" / "environments"
PIP = ("-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps")
NPM = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error")
SETTINGS = (
    "`URL`: the address of the proxy, such as `http://127.0.0.1:8000`. `KEY`: a key of it, or any text without keys."
)
BEGIN, END = "<!-- scripts/test-clients writes from here -->", "<!-- to here -->"


def make(home: Path, names: list[str]) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for pins in [*sorted(PINS.glob("*.txt")), *sorted(PINS.glob("*/package-lock.json"))]:
        name = pins.stem if pins.suffix == ".txt" else pins.parent.name
        if names and name not in names:
            continue
        stamp, wanted = home / name / ".pins", hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
        if stamp.exists() and stamp.read_text() == wanted:
            continue
        shutil.rmtree(home / name, ignore_errors=True)
        try:
            install(pins, home / name)
        except (subprocess.CalledProcessError, OSError) as error:
            shutil.rmtree(home / name, ignore_errors=True)
            print(f"clients: {name} is skipped: {error}", file=sys.stderr)
            continue
        stamp.write_text(wanted)


def install(pins: Path, folder: Path) -> None:
    """Raises CalledProcessError, or OSError if a tool is missing."""
    print(f"clients: installing {folder.name}", file=sys.stderr)
    if pins.suffix == ".txt":
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        only = ("--require-hashes", "--only-binary", ":all:", "-r", str(pins))
        subprocess.run([str(folder / "bin" / "python"), *PIP, *only], check=True)
    else:
        folder.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(pins.with_name(name), folder)
        subprocess.run(NPM, cwd=folder, check=True, stdin=subprocess.DEVNULL)


def table(rows: list[dict[str, object]]) -> str:
    """One line for each client: which endpoints it called, and how many of its checks passed."""
    lines = ["| client | version | endpoints | providers behind | calls | passed |", "|---|---|---|---|--:|--:|"]
    for row in sorted(rows, key=_order):
        endpoints, wires = row["endpoints"], row["wires"]
        assert isinstance(endpoints, list) and isinstance(wires, list)
        paths = ", ".join(f"`{each.removeprefix('POST ')}`" for each in endpoints)
        passed = f"{row['passed']} of {row['checks']}"
        cells = [row["client"], row["version"], paths, ", ".join(wires), row["calls"], passed]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def settings(rows: list[dict[str, object]]) -> str:
    """What a user sets in each client."""
    lines = ["| client | what to set |", "|---|---|"]
    lines += [f"| {row['client']} | {row['set']} |" for row in sorted(rows, key=_order)]
    return "\n".join(lines)


def summary(rows: list[dict[str, Any]]) -> str:
    """A set-up is a client at one of the proxy's endpoints."""
    setups = sum(len(row["endpoints"]) for row in rows)
    passed, checks, calls = (sum(row[name] for row in rows) for name in ("passed", "checks", "calls"))
    return f"{len(rows)} clients in {setups} set-ups, {calls} calls, {passed} of {checks} checks passed."


def _order(row: dict[str, object]) -> str:
    return str(row["client"]).lstrip("@")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="install the environments, or those named")
    making.add_argument("folder", type=Path)
    making.add_argument("names", nargs="*", metavar="NAME")
    telling = commands.add_parser("table", help="print what a run found, or write it into a page")
    telling.add_argument("report", type=Path)
    telling.add_argument("page", type=Path, nargs="?")
    given = parser.parse_args()
    if given.command == "make":
        make(given.folder, given.names)
        return
    rows = json.loads(given.report.read_text())
    if given.page is not None:
        text = f"{BEGIN}\n{summary(rows)}\n\n{table(rows)}\n\n{SETTINGS}\n\n{settings(rows)}\n{END}"
        given.page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: text, given.page.read_text(), flags=re.DOTALL))
    else:
        print(table(rows))
    print(f"clients: {summary(rows)}")


if __name__ == "__main__":
    main()
