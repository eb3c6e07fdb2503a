"""Performs I/O: lets all workers of a server share the one child of their supervisor, over a Unix socket.

One connection carries one question: a line `{"name": "local"}`, answered by a line with an endpoint or an error, or,
with `"about": "state"`, by a line with the model's state. The endpoint's key passes here, so only this user can open
the socket, and it is in a private directory.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import msgspec
from msgspec import Struct

from proxy.schema.errors import UpstreamUnavailable
from proxy.schema.records import Endpoint, Secret
from proxy.upstream.local_model.model import LocalModel, LocalModelState, unavailable

_STATE_TIMEOUT_S = 1.0  # `/health` waits no longer


class _Question(Struct, frozen=True):
    """`name`: the provider's name; `about`: endpoint or state."""

    name: str
    about: str = "endpoint"


class _Granted(Struct, frozen=True, tag="endpoint"):
    base_url: str
    key: str | None


class _Refused(Struct, frozen=True, tag="error"):
    message: str
    retry_after_s: float | None


class _State(Struct, frozen=True, tag="state"):
    state: str
    why: str | None


class LocalModelBroker:
    """Runs the models and answers questions about them, in a thread with its own event loop; the caller's may block.

    `models`: by the name of their provider; `path`: of the socket, in a directory that only this user can enter.
    """

    def __init__(self, models: dict[str, LocalModel], path: str) -> None:
        self._models = models
        self._path = path
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] | None = None

    def start(self) -> None:
        """Returns once workers can ask; models with `start: at_start` load from now on. Raises OSError."""
        listening: Future[Callable[[], object]] = Future()
        # A daemon: if the supervisor ends without stop(), this thread does not hold it up, and the pipe ends the child.
        self._thread = threading.Thread(target=self._run, args=(listening,), name="local-model", daemon=True)
        self._thread.start()
        self._stop = listening.result()

    def stop(self) -> None:
        """Ends the models and returns when their processes are gone. May be called again."""
        if self._stop is not None and self._thread is not None:
            self._stop()
            self._thread.join()
            self._stop = None

    def _run(self, listening: Future[Callable[[], object]]) -> None:
        try:
            asyncio.run(self._serve(listening))
        except BaseException as error:
            if listening.done():
                raise
            listening.set_exception(error)

    async def _serve(self, listening: Future[Callable[[], object]]) -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        server = await asyncio.start_unix_server(self._answer, sock=_private_socket(self._path))
        try:
            for model in self._models.values():
                if model.spec.start == "at_start":
                    model.start()
            listening.set_result(lambda: loop.call_soon_threadsafe(stopped.set))
            await stopped.wait()
        finally:
            server.close()
            for model in self._models.values():
                await model.close()
            with suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = msgspec.json.decode(await reader.readline(), type=_Question)
            answering = self._state_of if question.about == "state" else self._endpoint_of
            writer.write(msgspec.json.encode(await answering(question.name)) + b"\n")
            await writer.drain()
        except (ConnectionError, msgspec.DecodeError):
            # The worker disconnected, before its question or before the answer.
            return
        finally:
            writer.close()

    async def _state_of(self, name: str) -> _State | _Refused:
        model = self._models.get(name)
        if model is None:
            return _Refused(f"The supervisor runs no model for {name!r}: restart the server.", None)
        found = await model.state()
        return _State(found.state, found.why)

    async def _endpoint_of(self, name: str) -> _Granted | _Refused:
        model = self._models.get(name)
        if model is None:
            return _Refused(f"The supervisor runs no model for {name!r}: restart the server.", None)
        try:
            endpoint = await model.endpoint()
        except UpstreamUnavailable as error:
            return _Refused(error.message, error.retry_after_s)
        return _Granted(endpoint.base_url, endpoint.key.reveal() if endpoint.key is not None else None)


class RemoteLocalModel:
    """In a worker: the endpoint of a model that the supervisor runs. Asks each time, so a restarted child is found."""

    def __init__(self, path: str, name: str, *, timeout_s: float = 30.0) -> None:
        self._path = path
        self._name = name
        self._timeout_s = timeout_s

    async def endpoint(self) -> Endpoint:
        """As LocalModel.endpoint. Raises the supervisor's UpstreamUnavailable, or one that says it does not answer."""
        try:
            async with asyncio.timeout(self._timeout_s):
                line = await self._ask()
        except OSError:  # TimeoutError is one of them
            line = b""
        if not line.endswith(b"\n"):
            raise unavailable("The process that runs the embedded model does not answer.", retry_after_s=1.0)
        answer = msgspec.json.decode(line, type=_Granted | _Refused)
        if isinstance(answer, _Refused):
            raise unavailable(answer.message, retry_after_s=answer.retry_after_s)
        return Endpoint(answer.base_url, Secret(answer.key) if answer.key is not None else None)

    async def state(self) -> LocalModelState:
        """As LocalModel.state; `failing` if the supervisor does not answer at once."""
        try:
            async with asyncio.timeout(_STATE_TIMEOUT_S):
                line = await self._ask("state")
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            return LocalModelState("failing", "The process that runs the embedded model does not answer.")
        answer = msgspec.json.decode(line, type=_State | _Refused)
        if isinstance(answer, _Refused):
            return LocalModelState("failing", answer.message)
        return LocalModelState(answer.state, answer.why)

    async def _ask(self, about: str = "endpoint") -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(msgspec.json.encode(_Question(self._name, about)) + b"\n")
            return await reader.readline()
        finally:
            writer.close()


def _private_socket(path: str) -> socket.socket:
    """A bound socket that is not yet listening, so that no client can connect before its mode is 0600."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        os.chmod(path, 0o600)
    except OSError:
        listener.close()
        raise
    return listener
