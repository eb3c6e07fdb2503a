"""Performs I/O: calls to the operating system about memory, descriptors and sockets."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import resource
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_UNSENT_MAX = 64 * 1024
_WRITE_MAX = 16 * 1024  # bytes waiting for the kernel before the application must wait
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt, in <malloc.h>
_MAPPED_FROM = 4 * 1024 * 1024  # bytes; below it, new pages for each block would cost more than a copy


def give_back() -> None:
    """Returns freed memory. glibc keeps free pages between used ones: 40 bodies of 30 MB left 1.1 GB behind.
    With another C library this does nothing.
    """
    trim = _of_libc("malloc_trim")
    if trim is not None:
        trim(0)


def map_large_blocks() -> None:
    """Keeps large blocks in mappings of their own, which grow without a copy.

    By default glibc raises the size from which it does so up to 32 MB once a large block was freed. Then an answer that
    is collected piece by piece is copied whole when it outgrows its place: 30 ms for 30 MB. With another C library this
    does nothing.
    """
    option = _of_libc("mallopt")
    if option is not None:
        option(_M_MMAP_THRESHOLD, _MAPPED_FROM)
        option(_M_TRIM_THRESHOLD, _MAPPED_FROM)  # the default of 128 kB would return and fetch pages all the time


@functools.cache
def _of_libc(name: str) -> Callable[..., int] | None:
    with suppress(OSError, AttributeError):
        function: Callable[..., int] = getattr(ctypes.CDLL("libc.so.6"), name)
        return function
    return None


def most_connections(max_in_flight: int) -> int:
    """The number of connections that the descriptors allow, minus one for each call's upstream and some for files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 65_536
    spare = max(soft - 64, 16)
    return spare - min(max_in_flight, spare // 2)


def prepared(transport: asyncio.Transport) -> dict[str, Any]:
    """Bounds the unsent bytes; returns the facts about the connection for ASGI's scopes.

    Each query of the transport costs a system call, so only connections that are not refused make it.
    """
    transport.set_write_buffer_limits(high=_WRITE_MAX)
    if (sock := transport.get_extra_info("socket")) is not None:
        limit_unsent(sock)
    client, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    return {
        "client": (client[0], client[1]) if isinstance(client, (tuple, list)) else None,
        "server": (own[0], own[1]) if isinstance(own, (tuple, list)) else None,
        "scheme": "https" if transport.get_extra_info("sslcontext") else "http",
    }


def limit_unsent(sock: socket.socket) -> None:
    """Limits the bytes that the kernel buffers beyond the client's window, so that back-pressure reaches us."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        with suppress(OSError):  # no TCP
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_MAX)


def has_hung_up(sock: socket.socket) -> bool:
    """True once the other side sends no more, even if there are unread bytes. Linux only."""
    hang_up = getattr(select, "POLLRDHUP", None)
    if hang_up is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), hang_up)
    return bool(poll.poll(0))
