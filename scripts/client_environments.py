"""Performs I/O: `make FOLDER` installs what the clients of tests/clients/ need there, one environment for each list of
pins in tests/clients/environments/; `table REPORT PAGE` writes what a run found into the page.

An environment is made anew when its pins change, and one that cannot be made is left out: its clients are skipped.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent / "tests" / "clients" / "environments"
PIP = ("-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps")
NPM = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error")
BEGIN, END = "<!-- scripts/test-clients writes from here -->", "<!-- to here -->"


def make(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    for pins in [*sorted(PINS.glob("*.txt")), PINS / "node" / "package-lock.json"]:
        name = pins.stem if pins.suffix == ".txt" else pins.parent.name
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
    for row in sorted(rows, key=lambda row: str(row["client"]).lstrip("@")):
        endpoints, wires = row["endpoints"], row["wires"]
        assert isinstance(endpoints, list) and isinstance(wires, list)
        paths = ", ".join(f"`{each.removeprefix('POST ')}`" for each in endpoints)
        passed = f"{row['passed']} of {row['checks']}"
        cells = [row["client"], row["version"], paths, ", ".join(wires), row["calls"], passed]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    command, *rest = arguments
    if command == "make":
        make(Path(rest[0]))
        return
    report, page = map(Path, rest)
    rows = json.loads(report.read_text())
    passed, checks, calls = (sum(row[name] for row in rows) for name in ("passed", "checks", "calls"))
    total = f"{len(rows)} clients, {calls} calls, {passed} of {checks} checks passed."
    text = f"{BEGIN}\n{total}\n\n{table(rows)}\n{END}"
    page.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: text, page.read_text(), flags=re.DOTALL))
    print(f"clients: {total}")


if __name__ == "__main__":
    main(sys.argv[1:])
