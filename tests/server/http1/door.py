"""I/O: the protocol under uvicorn's server with a small application, on a free port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import Server

from proxy.schema.errors import ProxyError
from proxy.server.http1 import Connections, HTTP1Protocol, Limits, Peer, peer_of
from proxy.server.http1.connections import STATE

FAST = Limits(head_s=0.2, body_s=0.2, idle_s=0.3, send_s=0.3, linger_s=0.2, sweep_s=0.02)

LARGE = b"".join(b"%07d\n" % number for number in range(1_000_000))


class App:
    """Answers each request with its method, path and body; by path, later or not at all."""

    def __init__(self) -> None:
        self.connections = Connections()
        self.requests: list[tuple[str, str, bytes]] = []
        self.running = 0
        self.peers: list[Peer] = []
        self.left: list[str] = []
        self.go_on = asyncio.Event()
        self.sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"][STATE] = self.connections
            while (await receive())["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.running += 1
        try:
            await self.answer(scope, receive, send)
        finally:
            self.running -= 1

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        peer = peer_of(scope)
        self.peers.append(peer)
        peer.on_disconnect(lambda: self.left.append(scope["path"]))
        body = b""
        while scope["path"] != "/unread":
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.requests.append((scope["method"], scope["path"], body))
        answer = f"{scope['method']} {scope['path']} {len(body)}\n".encode()
        headers = [(b"content-type", b"text/plain")]
        if scope["path"] in ("/wait", "/leave"):
            await self.go_on.wait()
            if scope["path"] == "/leave" and peer.gone:
                return
        if scope["path"] in ("/stream", "/events"):
            kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
            for number in range(3):
                await send({"type": "http.response.body", "body": b"part%d " % number, "more_body": True})
            if scope["path"] == "/events":
                await asyncio.Event().wait()
            await send({"type": "http.response.body"})
            return
        if scope["path"] == "/flood":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while not peer.gone:
                await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
                self.sent += 50_000
            return
        if scope["path"] == "/large":
            answer = LARGE
        if scope["path"] == "/chunks":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": LARGE, "more_body": True})
            await send({"type": "http.response.body", "body": LARGE})
            return
        headers.append((b"content-length", b"%d" % len(answer)))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Door:
    """A running server."""

    def __init__(self, port: int, app: App, server: Server) -> None:
        self.port = port
        self.app = app
        self.server = server

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, *pieces: bytes, timeout_s: float = 5.0) -> bytes:
        """Sends the pieces one by one and reads until the server closes the connection."""
        reader, writer = await self.connect()
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
            async with asyncio.timeout(timeout_s):
                return await reader.read()
        finally:
            writer.transport.abort()


@asynccontextmanager
async def served(
    limits: Limits | None = None,
    shed: Callable[[str, str, int], ProxyError | None] = lambda _method, _path, _coming: None,
) -> AsyncIterator[Door]:
    """The server, with these limits."""
    app = App()
    app.connections = Connections(limits or Limits(sweep_s=0.02), shed)
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app, http=HTTP1Protocol, ws="none", lifespan="on", log_config=None, timeout_graceful_shutdown=1
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        while not server.started:
            await asyncio.sleep(0.005)
            assert not task.done()
        yield Door(sock.getsockname()[1], app, server)
    finally:
        app.go_on.set()
        server.should_exit = True
        await task
        sock.close()
