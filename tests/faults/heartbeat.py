"""A server in a process of its own whose event loop has a heartbeat: how long did it stand still?

    python -m tests.faults.heartbeat ROUTING_FILE

Prints its port. For each line on its standard input it prints the longest gap between two beats since the last line, in
milliseconds of the process's CPU time: what others do on the machine does not count, and a thread that keeps the GIL
does. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import uvloop

from proxy.cli.interpreter import tune
from tests.serving import serving

BEAT_S = 0.001


class Heartbeat:
    def __init__(self) -> None:
        self.longest_ms = 0.0

    async def beat(self) -> None:
        while True:
            before = time.process_time()
            await asyncio.sleep(BEAT_S)
            self.longest_ms = max(self.longest_ms, (time.process_time() - before) * 1000)


async def main(routing_file: Path) -> None:
    heart = Heartbeat()
    async with serving(routing_file) as server:
        beating = asyncio.create_task(heart.beat())
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        print(server.port, flush=True)
        while await lines.readline():
            print(f"{heart.longest_ms:.1f}", flush=True)
            heart.longest_ms = 0.0
        beating.cancel()


if __name__ == "__main__":
    tune()
    uvloop.run(main(Path(sys.argv[1])))
