"""Providers with scripted answers and a recording ledger; everything between them is the product."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from proxy.metering.ledger import Ledger
from proxy.metering.pricing import ModelPrice
from proxy.pipeline.admission import Admission
from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.pipeline.dispatch import Dispatcher
from proxy.pipeline.off_loop import OffLoop
from proxy.pipeline.pipeline import Pipeline
from proxy.pipeline.resources import Resources
from proxy.pipeline.running import RunningCall
from proxy.pipeline.timing import Clock
from proxy.providers.openai import OpenAI
from proxy.routing.allowed import Allowed
from proxy.routing.board import HealthBoard
from proxy.routing.deployment import Deployment, Route
from proxy.routing.settings import RouterConfig
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import ProxyError, StorageUnavailable
from proxy.schema.hints import NO_HINTS, Hints
from proxy.schema.records import AttemptEnd, AttemptOpen, CallEnd, Caller, CallOpen, Endpoint, Timeouts
from proxy.server.formats.chat import CHAT, decode_chat
from proxy.server.formats.chat_answer import DONE, sse
from proxy.upstream.pools import Pool
from proxy.upstream.transports.base import ConnectFailed, Outgoing
from proxy.upstream.upstream import Upstream

PRICE = ModelPrice(input=2.0, output=10.0, max_output=100)
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
ANSWER_NANO = 3 * 2_000 + 10_000


class Reply:
    """One scripted answer: its pieces, then its end; an exception among them is raised, None waits for ever, an Event
    until it is set.
    """

    def __init__(
        self, status: int, headers: dict[str, str], pieces: Sequence[bytes | Exception | asyncio.Event | None]
    ) -> None:
        self.status = status
        self.headers = headers
        self.closed = False
        self._pieces = list(pieces)

    def read_nowait(self) -> bytes | None:
        return None

    async def read(self) -> bytes:
        """Where it is cancelled, the next read goes on at the same place."""
        while self._pieces and not isinstance(self._pieces[0], bytes | Exception):
            event = self._pieces[0] or asyncio.Event()
            await event.wait()
            del self._pieces[0]
        piece = self._pieces.pop(0) if self._pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return cast(bytes, piece)

    def close(self, *, complete: bool = False) -> None:
        self.closed = True


def error(status: int, code: str | None = None, **headers: str) -> Reply:
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"content-type": "application/json", **names}, [body])


def whole(text: str = "Hi", usage: dict[str, int] | None = USAGE) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": usage}).encode()
    return Reply(200, {"content-type": "application/json"}, [body])


def stuck() -> Reply:
    """A whole answer that begins and never ends."""
    return Reply(200, {"content-type": "application/json"}, [b"{", None])


def delta(finish_reason: str | None = None, **said: Any) -> bytes:
    return sse({"choices": [{"index": 0, "delta": said, "finish_reason": finish_reason}]})


def streamed(*pieces: bytes | Exception | asyncio.Event | None) -> Reply:
    return Reply(200, {"content-type": "text/event-stream"}, pieces)


USAGE_END = sse({"choices": [], "usage": USAGE}) + DONE
COMPLETE = (delta(content="Hi"), delta("stop") + USAGE_END)

Script = Reply | Exception | asyncio.Event | None


class World:
    """Providers `a` to `d`, whose answers are scripted in the order of their requests. Of None the headers never come;
    an Event is waited for like a connection. `log` is what happened, in order.
    """

    def __init__(self, *answers: Script, retries: int = 0, kind: type[OpenAI] = OpenAI, **provider: Any) -> None:
        self.log: list[tuple[str, str]] = []
        self.times: list[float] = []
        self.bodies: list[dict[str, Any]] = []
        self.holds: list[int | None] = []
        self.opened: list[AttemptOpen] = []
        self.ended: list[AttemptEnd] = []
        self.observed: list[Attempt] = []
        self.closed: list[CallEnd] = []
        self.refuse_intent_of: int | None = None
        self.ends: list[CallEnd] = []  # as the log is told
        self.stuck_at: set[str] = set()  # steps of the ledger, the router and the vault that wait for `release`
        self.turns_of_a_step = 0  # of the loop, that each step of the ledger, the router and the vault takes
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.ledger: Ledger | None = None  # a real one, where a test needs it
        self.now_s = 1000.0  # of the board, moved by hand
        self.board = HealthBoard(lambda: self.now_s, lambda: self.now_s)
        self.router = RouterConfig()
        self.active = 0
        self.replies: list[Reply] = []  # that began
        self._answers = list(answers)
        timeouts = Timeouts(first_token=1, idle=1, total=1)
        self.provider = kind(**{"retries": retries, "timeout_s": timeouts, **provider})
        upstreams = {
            name: Upstream(name, self.provider, _origin, Pool(self, provider.get("max_concurrent"))) for name in "abcd"
        }
        self.upstreams = upstreams

    # The transport.

    async def send(self, request: Outgoing, connect_timeout_s: float, on_sent: Callable[[], None]) -> Reply:
        self.log.append(("send", request.headers["x-client-request-id"]))
        self.times.append(asyncio.get_running_loop().time())
        self.bodies.append(json.loads(request.body))
        answer = self._answers.pop(0)
        if isinstance(answer, asyncio.Event):  # waits for a connection
            await answer.wait()
            answer = self._answers.pop(0)
        if not isinstance(answer, ConnectFailed):
            on_sent()
        if answer is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            raise answer
        reply = cast(Reply, answer)
        self.replies.append(reply)
        return reply

    async def close(self) -> None:
        raise RuntimeError("nobody here closes the transport")

    # The ledger.

    async def open(self, call: CallOpen, attempt: AttemptOpen) -> None:
        return await self._intend("open", attempt)

    async def intend(self, attempt: AttemptOpen) -> None:
        return await self._intend("intend", attempt)

    async def _intend(self, what: str, attempt: AttemptOpen) -> None:
        await self.stay(what)
        if attempt.seq == self.refuse_intent_of:
            raise StorageUnavailable
        self.log.append((what, attempt.id))
        self.opened.append(attempt)
        self.holds.append(attempt.hold_nano)
        return

    def end(self, end: AttemptEnd) -> None:
        self.log.append(("end", end.id))
        self.ended.append(end)

    async def settle(self, end: CallEnd) -> None:
        self.closed.append(end)
        self.log.append(("settle", end.call_id))
        await self.stay("settle")

    def close_call(self, end: CallEnd) -> None:
        self.closed.append(end)
        self.log.append(("close", end.call_id))

    def reject(self, call: CallOpen, end: CallEnd) -> None:
        self.closed.append(end)
        self.log.append(("reject", end.call_id))

    # The router and the vault.

    async def admit(self, call: Call, headers: Mapping[str, str]) -> Route:
        return await RouterOf(self).route(call.request.model)

    async def restore(self, caller: Caller, request: AnyRequest) -> AnyRequest:
        await self.stay("restore")
        return request

    async def keep(self, *_: Any) -> None:
        await self.stay("keep")

    async def stay(self, where: str) -> None:
        await turns(self.turns_of_a_step)
        if where in self.stuck_at:
            self.reached.set()
            await self.release.wait()

    # What a test asks.

    def dispatcher(self, backoff_s: float = 0.0, random: float = 1.0) -> Dispatcher:
        ledger = self.ledger or cast(Ledger, _LedgerOf(self))
        self.board.configure(self.router)
        observe, lots = self.observed.append, lambda: random
        return Dispatcher(
            Resources(self.upstreams, ledger, OffLoop(), "v1", lots, observe, backoff_s, self.router, self.board)
        )

    def pipeline(self, deadline_s: float = 5, backoff_s: float = 0.0, admission: Admission | None = None) -> Pipeline:
        me = cast(Any, self)
        clock = Clock(lambda: 1, lambda: 1.0)
        return Pipeline(
            admission or me, self.dispatcher(backoff_s), me, clock, lambda _, end: self.ends.append(end), deadline_s
        )

    async def begin(
        self, pipeline: Pipeline, stream: bool = False, route: str | Route = "a", call_id: str = "call", **fields: Any
    ) -> RunningCall:
        """A call that runs, of a client that has not read anything yet."""
        call, _ = await pipeline.admit(call_id, Caller(), chat_body(stream, **fields), CHAT)
        return pipeline.start(call, self.route(route) if isinstance(route, str) else route, CHAT)

    def deployment(self, name: str, price: ModelPrice | None = PRICE) -> Deployment:
        return Deployment(name, self.provider, "m", price)

    def route(self, names: str = "a", **fallbacks: str) -> Route:
        lists: dict[str, Any] = {
            kind: tuple(self.deployment(name) for name in others) for kind, others in fallbacks.items()
        }
        return Route("x", tuple(self.deployment(name) for name in names), **lists)

    async def complete(self, call: Call, route: str | Route = "a", **fallbacks: str) -> str:
        """The text of the whole answer, its choices one after the other."""
        route = self.route(route, **fallbacks) if isinstance(route, str) else route
        answer = await self.dispatcher().complete(call, route, call.request)
        call.note_answered(answer.attempts)
        choices = cast(ChatResponse, answer.response)["choices"]
        assert [choice["index"] for choice in choices] == list(range(len(choices)))
        return "".join(choice["message"]["content"] or "" for choice in choices)

    async def stream(self, call: Call, names: str = "ab", batches: list[list[ChatChunk]] | None = None) -> list[str]:
        """The result of a stream, batch by batch; `batches` has them as they arrive."""
        taken: list[list[ChatChunk]] = [] if batches is None else batches
        request = cast(ChatRequest, call.request)
        answer = await self.dispatcher().stream(call, self.route(names), taken.append, call.gate, request)
        assert answer.response is None
        call.note_answered(answer.attempts)
        return [said(batch) for batch in taken]

    def waits(self) -> list[float]:
        """Seconds between the requests."""
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


class RouterOf:
    """The World's router. A name is the candidates in order, `x` the same as `a`; `nobody` is nobody's."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.asked: list[tuple[str, Allowed | None]] = []
        self.reads_budget = False

    async def decide(self, *_: Any) -> None:
        return None

    async def route(self, name: str, allowed: Allowed | None = None, hints: Hints = NO_HINTS) -> Route:
        self.asked.append((name, allowed))
        await self._world.stay("route")
        if name == "nobody":
            raise ProxyError("There is no model 'nobody'.", status=404, code="model_not_found")
        return self._world.route("a" if name == "x" else name)


class _LedgerOf:
    """The World's ledger: `close` is a word of its transport too."""

    def __init__(self, world: World) -> None:
        self.open, self.intend, self.end = world.open, world.intend, world.end
        self.settle, self.close, self.reject = world.settle, world.close_call, world.reject


async def _origin() -> Endpoint:
    return Endpoint("http://upstream.test/v1")


def said(batch: list[ChatChunk]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in batch for choice in chunk["choices"])


def chat_body(stream: bool = False, **fields: Any) -> bytes:
    body = {"model": "x", "messages": [{"role": "user", "content": "hi"}], "stream": stream, **fields}
    return json.dumps(body).encode()


def new_call(stream: bool = False, **fields: Any) -> Call:
    return Call("call", Caller(), decode_chat(chat_body(stream, **fields)), Clock(lambda: 1, lambda: 1.0))


def asked(call: Call) -> str:
    return "".join(attempt.deployment.provider_name for attempt in call.attempts)


async def everything(running: RunningCall) -> bytes:
    """What the client reads, to the end."""
    pieces = []
    while piece := await running.output.read():
        pieces.append(piece)
    return b"".join(pieces)


async def turns(number: int = 20) -> None:
    """Lets everything that can go on do so."""
    for _ in range(number):
        await asyncio.sleep(0)
