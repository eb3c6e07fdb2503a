"""Performs I/O: passes bytes on between clients and the proxy, unchanged, and notes the request lines."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress

_REQUEST = re.compile(rb"^(GET|HEAD|POST|PUT|DELETE|OPTIONS) (\S+) HTTP/1\.1\r\n")


class Listener:
    """Listens on a port of its own until it is closed. `seen`: method and path of each request so far."""

    def __init__(self, port: int) -> None:
        self.seen: list[str] = []
        self._target = ("127.0.0.1", port)
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._socket.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True)
            back.start()
            self._pass_on(client, server, True)
            back.join()

    def _pass_on(self, source: socket.socket, to: socket.socket, asked: bool) -> None:
        with suppress(OSError):  # either side may hang up
            while data := source.recv(65536):
                if asked and (found := _REQUEST.match(data)) is not None:
                    self.seen.append(f"{found[1].decode()} {found[2].decode().partition('?')[0]}")
                to.sendall(data)
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)
