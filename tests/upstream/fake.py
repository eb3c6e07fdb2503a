"""I/O: the fake upstream as a whole, inside the test's own process (`FakeUpstream`) or in one of its own (`spawn`)."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from tests.upstream.anthropic_wire import AnthropicWire
from tests.upstream.cohere_wire import CohereWire
from tests.upstream.completions_wire import CompletionsWire
from tests.upstream.delivery import Delivery
from tests.upstream.dialects import GroqWire, MistralWire
from tests.upstream.google_wire import GoogleWire
from tests.upstream.http1 import Connection, Request, head
from tests.upstream.inputs_wire import InputsWire
from tests.upstream.ledger import Ledger, Seen, key_hash
from tests.upstream.modes import UnknownMode, parse
from tests.upstream.openai_wire import OpenAIWire
from tests.upstream.perplexity_wire import PerplexityWire
from tests.upstream.prefix_cache import PrefixCache
from tests.upstream.responses_wire import ResponsesWire
from tests.upstream.wire import Refused, Wire

_WIRES: tuple[Wire, ...] = (
    GoogleWire(),
    MistralWire(),
    GroqWire(),
    ResponsesWire(),
    PerplexityWire(),
    OpenAIWire(),
    CompletionsWire(),
    InputsWire(),
    CohereWire(),
    AnthropicWire(),
)
_KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
_ROOT = Path(__file__).parents[2]


class FakeUpstream:
    """An async context manager: listens on loopback while it is open. `modes` gives other model names a mode.
    `key_modes`: by the `key_hash` of an API key, the mode of all requests with it. `speakers`: by model name, what is
    said, as a function of the request's body; the mode says how it is delivered (`ok` without one). `prefix_cache`:
    counts the prompts of requests in Anthropic's shape.

    Leaving it cuts what is still open, and raises what went wrong inside the fake itself.
    """

    def __init__(self, port: int = 0, modes: dict[str, str] | None = None) -> None:
        self.port = port
        self.modes = dict(modes or {})
        self.key_modes: dict[str, str] = {}
        self.speakers: dict[str, Callable[[dict[str, Any]], str]] = {}
        self.prefix_cache: PrefixCache | None = None
        self.connections: set[Connection] = set()
        self._book = Ledger()
        self._failures: list[Exception] = []
        self._accepted = 0

    async def __aenter__(self) -> FakeUpstream:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in list(self.connections):
            await connection.shut()
        await self._server.wait_closed()
        await self.until(lambda: not self.connections)
        if self._failures:
            raise ExceptionGroup("the fake upstream failed", self._failures)

    @property
    def url(self) -> str:
        """The base URL for OpenAI's SDK, with `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def ledger(self) -> list[Seen]:
        """The attempts since the last reset, in order of arrival; the entries change while they are answered."""
        return self._book.attempts

    @property
    def open(self) -> int:
        """How many attempts are being answered now."""
        return self._book.open

    def reset(self) -> None:
        """Forget the attempts, and count those of each model from 1 again."""
        self._book.reset()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
        """Wait until the condition holds; it is asked whenever the ledger changes. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await self._book.changed()

    # --- requests -----------------------------------------------------------------------------------------------------

    def _accept(self) -> Connection:
        self._accepted += 1
        return Connection(self._serve, self._book, self.connections, self._failures, self._accepted)

    async def _serve(self, connection: Connection, request: Request) -> None:
        if request.path.startswith("/__"):
            status, body = self._control(request)
            await _send_json(connection, status, body)
            return
        wire = next((wire for wire in _WIRES if wire.claims(request.path)), None)
        found = wire.lookup(request) if wire is not None else None
        if found is not None:
            await _send_json(connection, *found)
            return
        await self._attempt(connection, request, wire)

    async def _attempt(self, connection: Connection, request: Request, wire: Wire | None) -> None:
        """What nobody claims is an attempt too: a request that should not have been made shows."""
        seen = self._seen(connection, request)
        connection.seen = seen
        self._book.begin(seen)
        try:
            if wire is None:
                raise Refused(404, b'{"error":{"message":"Invalid URL","type":"invalid_request_error"}}')
            ask = wire.ask(request, seen.seq)
            seen.model, seen.stream = ask.model, ask.stream
            seen.attempt = self._book.next_attempt(ask.model)
            try:
                speaker = self.speakers.get(ask.model)
                own = self.modes.get(ask.model, ask.model if speaker is None else "ok")
                script = parse(self.key_modes.get(seen.authorization or "") or own).for_attempt(seen.attempt)
                if speaker is not None:
                    script = msgspec.structs.replace(script, text=speaker(msgspec.json.decode(ask.raw)))
                if self.prefix_cache is not None and isinstance(wire, AnthropicWire):
                    counted = self.prefix_cache.counts(msgspec.json.decode(ask.raw))
                    script = msgspec.structs.replace(script, counted=counted)
            except UnknownMode as unknown:
                raise Refused(404, wire.error(404, None, f"{ask.model}: {unknown}")) from unknown
            await Delivery(connection, seen, script, wire).run(ask)
        except Refused as refused:
            seen.status = refused.status
            await _send_json(connection, refused.status, refused.body)
            seen.complete = True
        finally:
            seen.peer_closed_early = seen.t_peer_close is not None and not seen.complete
            self._book.end(seen)

    def _seen(self, connection: Connection, request: Request) -> Seen:
        keys = {name: request.headers.pop(name) for name in _KEY_HEADERS if name in request.headers}
        return Seen(
            seq=self._book.next_seq(),
            id=request.headers.get("x-client-request-id"),
            method=request.method,
            path=request.path,
            model="",
            attempt=0,
            stream=False,
            connection=connection.number,
            authorization=key_hash(next(iter(keys.values())).removeprefix("Bearer ")) if keys else None,
            key_headers=list(keys),
            headers=request.headers,
            request_bytes=len(request.body),
            t_recv=time.monotonic(),
        )

    def _control(self, request: Request) -> tuple[int, bytes]:
        match request.method, request.path:
            case "GET", "/__ledger":
                wanted = request.query.get("id")
                attempts = [seen for seen in self.ledger if wanted is None or seen.id == wanted]
                report = {"attempts": attempts, "open": self.open, "connections": len(self.connections) - 1}
                return 200, msgspec.json.encode(report)
            case "POST", "/__reset":
                self.reset()
                return 200, b"{}"
            case "POST", "/__modes":
                self.modes = msgspec.json.decode(request.body, type=dict[str, str])
                return 200, b"{}"
        return 404, b"{}"


async def _send_json(connection: Connection, status: int, body: bytes) -> None:
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    await connection.send(head(status, headers) + body)


class Spawned:
    """A fake upstream in a process of its own, asked over HTTP."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v1"

    def ledger(self, request_id: str | None = None) -> list[Seen]:
        """The attempts since the last reset, or those with one X-Client-Request-Id."""
        query = f"?id={quote(request_id)}" if request_id is not None else ""
        return msgspec.convert(self._ask("GET", f"/__ledger{query}")["attempts"], list[Seen])

    def open(self) -> int:
        """How many attempts are being answered now."""
        return int(self._ask("GET", "/__ledger?id=none")["open"])

    def connections(self) -> int:
        """How many connections are open, the one that asks not counted."""
        return int(self._ask("GET", "/__ledger?id=none")["connections"])

    def reset(self) -> None:
        self._ask("POST", "/__reset")

    def set_modes(self, modes: dict[str, str]) -> None:
        """Give other model names a mode; replaces what was set before."""
        self._ask("POST", "/__modes", json.dumps(modes))

    def _ask(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()


@contextmanager
def spawn(port: int = 0) -> Iterator[Spawned]:
    """Run `python -m tests.upstream` while the context is open; it also ends when this process dies."""
    command = [sys.executable, "-m", "tests.upstream", "--port", str(port)]
    with subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield Spawned(process, json.loads(process.stdout.readline())["port"])
        finally:
            process.terminate()


@contextmanager
def refusing() -> Iterator[str]:
    """A base URL whose port is taken, but where nobody listens: connections to it are refused."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
