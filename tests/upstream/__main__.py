"""I/O: `python -m tests.upstream [--port N]` prints `{"port": N}`, serves until stdin closes or SIGTERM comes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import threading

import uvloop

from tests.upstream.fake import FakeUpstream


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    threading.Thread(target=_watch_stdin, args=(loop, stop), daemon=True).start()
    async with FakeUpstream(port) as upstream:
        print(json.dumps({"port": upstream.port}), flush=True)
        await stop.wait()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """A thread, since stdin may be anything: a pipe, a terminal, /dev/null."""
    while os.read(0, 4096):
        pass
    with contextlib.suppress(RuntimeError):  # SIGTERM came first: the loop is already closed
        loop.call_soon_threadsafe(stop.set)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
