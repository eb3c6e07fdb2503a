"""Servers in threads, so that they need nothing of the loop under test: an origin, and an HTTP proxy before it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

from msgspec import Struct, field

_Handle = Callable[[socket.socket], None]


class Middle(Struct):
    """What the proxy saw: the heads sent to it, and the first bytes through each tunnel. `refuses`: the status of every
    answer instead of a tunnel; 0: the connection ends without one.
    """

    url: str = ""
    refuses: int | None = None
    heads: list[str] = field(default_factory=list)
    through: list[bytes] = field(default_factory=list)

    def host(self, auth: str = "") -> str:
        return self.url.replace("http://", f"http://{auth}")


@contextmanager
def listening(handle: _Handle, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server with a thread for each connection; all of them have ended afterwards."""
    opened: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(plain: socket.socket) -> None:
        with ExitStack() as closing, suppress(OSError, EOFError):
            closing.enter_context(plain)
            handle(closing.enter_context(context.wrap_socket(plain, server_side=True)) if context else plain)

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            opened.append(plain)
            threads.append(threading.Thread(target=serve, args=(plain,), daemon=True))
            threads[-1].start()

    listener = socket.create_server(("127.0.0.1", 0))
    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(10)
        for each in opened:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)


@contextmanager
def origin(
    context: ssl.SSLContext | None = None, body: bytes | None = None, status: str = "200 OK"
) -> Iterator[tuple[int, list[str]]]:
    """A server: its port, and the heads it saw. Without a `body` it answers with the count of its requests."""
    heads: list[str] = []

    def handle(sock: socket.socket) -> None:
        while True:
            head, _ = _request(sock)
            heads.append(head.decode())
            data = b"%d" % len(heads) if body is None else body
            sock.sendall(f"HTTP/1.1 {status}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)

    with listening(handle, context) as port:
        yield port, heads


@contextmanager
def http_proxy(refuses: int | None = None) -> Iterator[Middle]:
    """It looks up no names: every host is this machine."""
    middle = Middle(refuses=refuses)
    with listening(lambda sock: _mediate(middle, sock)) as port:
        middle.url = f"http://127.0.0.1:{port}"
        yield middle


def _mediate(middle: Middle, sock: socket.socket) -> None:
    head, body = _request(sock)
    middle.heads.append(head.decode())
    if middle.refuses is not None:
        if middle.refuses:
            sock.sendall(b"HTTP/1.1 %d No\r\ncontent-length: 2\r\n\r\nno" % middle.refuses)
        return
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    if method == "CONNECT":
        first = b""
        port = int(target.rpartition(":")[2])
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        first = sock.recv(65536)
        middle.through.append(first)
    else:
        parts = urlsplit(target)
        port, path = parts.port or 80, f"{parts.path}?{parts.query}" if parts.query else parts.path
        first = head.replace(f" {target} ".encode(), f" {path} ".encode(), 1) + body
    with socket.create_connection(("127.0.0.1", port)) as ahead:
        ahead.sendall(first)
        back = threading.Thread(target=_copy, args=(ahead, sock), daemon=True)
        back.start()
        _copy(sock, ahead)
        back.join(10)


def _request(sock: socket.socket) -> tuple[bytes, bytes]:
    """The head and the body of the next request. Raises EOFError."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(sock)
    head, end, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
    while len(body) < length:
        body += _some(sock)
    return head + end, body


def _some(sock: socket.socket) -> bytes:
    if not (data := sock.recv(65536)):
        raise EOFError
    return data


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
