"""Runs the checks of one client program inside the client's own environment, with the standard library alone.

Prints a line `@result {...}` for each check and wire. All run in one event loop: some clients keep their connections.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import os
import sys
import traceback
from importlib.metadata import version
from types import SimpleNamespace


def main(path: str) -> None:
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None and spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    say(check="", version=getattr(program, "VERSION", None) or version(program.PACKAGE))
    wires = os.environ["WIRES"].split()
    with asyncio.Runner() as runner:
        for name, check in vars(program).items():
            kind, _, rest = name.partition("_")
            if kind not in ("check", "once") or not inspect.isfunction(check):
                continue
            for wire in wires[: None if kind == "check" else 1]:
                say(check=f"{rest}[{wire}]", error=failure(runner, check, wire))


def failure(runner: asyncio.Runner, check, wire: str) -> str | None:
    url = os.environ["PROXY_URL"]
    proxy = SimpleNamespace(url=url, root=url.removesuffix("/v1"), wire=wire, model=f"{wire}/actor")
    try:
        if inspect.iscoroutinefunction(check):
            runner.run(asyncio.wait_for(check(proxy), 120))
        else:
            check(proxy)
    except BaseException:
        return traceback.format_exc(limit=-6)
    return None


def say(**fields) -> None:
    print("@result", json.dumps(fields), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
