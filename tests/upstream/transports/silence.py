"""An address that is there and does not answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent() -> Iterator[str]:
    """A base URL that does not answer: the listener's queue is full, so that the kernel drops what asks to connect."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting: list[socket.socket] = []
        try:
            while len(waiting) < 16:
                waiting.append(socket.socket())
                waiting[-1].settimeout(0.1)
                waiting[-1].connect(listener.getsockname())
        except TimeoutError:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        else:
            raise RuntimeError("the listener's queue has no end")
        finally:
            for each in waiting:
                each.close()
