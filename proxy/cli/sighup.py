"""Performs I/O: handles SIGHUP, which normally reloads the configuration.

If the server's terminal has closed, SIGHUP stops the server instead. Otherwise it would linger unnoticed, with its port
in use.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def hangup_handler(reload: Callable[[], None], *, may_stop: bool = True) -> Callable[..., None]:
    """A SIGHUP handler. Create it before installing any other: it detects `nohup`, which keeps the server alive."""
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]
    had_terminal = _has_terminal()
    stops = may_stop and had_terminal and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

    def handle(*_: object) -> None:
        if had_terminal and not _has_terminal():
            _silence(terminals)
            if stops:
                os.kill(os.getpid(), signal.SIGTERM)
                return
        reload()

    return handle


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _silence(descriptors: list[int]) -> None:
    """Redirects output to /dev/null: writing to a closed terminal fails, and calls in flight must not fail for that."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
