"""Performs I/O: what SIGHUP means. It asks for a reload; a server whose terminal was closed ends instead of staying
behind, where nobody would know of it, with its port in use.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def hangup_handler(reload: Callable[[], None], *, may_stop: bool = True) -> Callable[..., None]:
    """A handler for SIGHUP, made before the first one is set: under `nohup` it never stops the server."""
    shown = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
    had_terminal = _has_terminal()
    stops = may_stop and had_terminal and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def hung_up(*_: object) -> None:
        if had_terminal and not _has_terminal():
            _silence(shown)
            if stops:
                os.kill(os.getpid(), signal.SIGTERM)
                return
        reload()

    return hung_up


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _silence(descriptors: list[int]) -> None:
    """A line that is written to a closed terminal is an error; calls that are still answered must not meet it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
