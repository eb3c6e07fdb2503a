"""A panel without a server: its members, judges and validators answer by a script."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, cast

from proxy.ensembles.base import Decided, Reply, Seat
from proxy.schema.chat import ChatRequest, ChatResponse, Message, ResponseMessage, text_of
from proxy.schema.errors import ProxyError, UpstreamError

Said = str | dict[str, Any] | ProxyError
Script = Callable[[ChatRequest], Said] | list[Said] | Said


def request(question: str = "What is 6 times 7?", **fields: Any) -> ChatRequest:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
    return chat(messages, **fields)


def chat(messages: list[dict[str, Any]], **fields: Any) -> ChatRequest:
    """A request with these messages, as the server reads it."""
    body = {"model": "ensemble:x", "messages": messages, **fields}
    read = [Message(each["role"], each.get("content"), tool_calls=each.get("tool_calls")) for each in messages]
    return ChatRequest(model="ensemble:x", messages=read, stream=bool(fields.get("stream")), fields=body)


def response(said: str | dict[str, Any], finish_reason: str = "stop") -> ChatResponse:
    """An answer; a dictionary replaces fields of its message, `finish_reason` that of the choice."""
    message = {"role": "assistant", "content": said if isinstance(said, str) else None}
    if isinstance(said, dict):
        finish_reason = said.get("finish_reason", finish_reason)
        message |= {name: value for name, value in said.items() if name != "finish_reason"}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return cast(ChatResponse, {"id": "one", "model": "m", "choices": [choice]})


def calls(*called: tuple[str, str]) -> dict[str, Any]:
    """The message of a model that calls tools: names and arguments."""
    made = [
        {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for at, (name, arguments) in enumerate(called)
    ]
    return {"content": None, "tool_calls": made, "finish_reason": "tool_calls"}


def fails(code: str = "upstream_error") -> UpstreamError:
    return UpstreamError(f"It failed: {code}.", code=code)


class ScriptedPanel:
    """`members`: what each seat says. `others`: what each other name says, a list one after the other, a function
    after reading the request. Notes in `asked` who was asked what in which role.
    """

    name = "ensemble:x"

    def __init__(
        self,
        members: Sequence[Script] = (),
        others: dict[str, Script] | None = None,
        request: ChatRequest | None = None,
        weights: Sequence[float] = (),
    ) -> None:
        self.request = request or globals()["request"]()
        names = [f"p/m{at}" for at in range(len(members))]
        each = [*weights, *[1.0] * len(members)]
        self.seats: Sequence[Seat] = [Seat(at, name, each[at], name, self.request) for at, name in enumerate(names)]
        self.asked: list[tuple[str, str, ChatRequest]] = []
        self.notes: list[str] = []
        self.streamed: list[str] = []
        self._scripts = {name: _steps(script) for name, script in [*zip(names, members, strict=True)]}
        self._scripts |= {name: _steps(script) for name, script in (others or {}).items()}

    async def replies(self, seats: Sequence[Seat]) -> AsyncGenerator[Reply, None]:
        for seat in seats:
            self.asked.append((seat.name, "member", seat.request))
            yield self._reply(seat.name, seat.request, seat)

    async def ask(self, name: str, request: ChatRequest, role: str) -> Reply:
        self.asked.append((name, role, request))
        return self._reply(name, request)

    async def stream(self, name: str, request: ChatRequest, role: str) -> Reply:
        reply = await self.ask(name, request, role)
        if reply.error is not None or not self.request.stream:
            return reply
        self.streamed.append(reply.text)
        return streamed(reply)

    def progress(self, text: str) -> None:
        self.notes.append(text)

    def roles(self, role: str) -> list[str]:
        """The names that were asked in a role, in order."""
        return [name for name, as_what, _ in self.asked if as_what == role]

    def _reply(self, name: str, request: ChatRequest, seat: Seat | None = None) -> Reply:
        said = self._scripts[name](request)
        attempts = (f"{name}#{len(self.asked)}",)
        if isinstance(said, ProxyError):
            return Reply(seat=seat, error=said, attempts=attempts)
        return Reply(seat=seat, response=response(said), attempts=attempts, deployments=(name,), latency_ms=1.0)


def streamed(reply: Reply) -> Reply:
    """The reply as it is when its answer went to the client delta by delta."""
    return Reply(streamed=reply.response, attempts=reply.attempts, deployments=reply.deployments)


def text_asked(asked: ChatRequest) -> str:
    """The last message of a request."""
    return text_of(asked.messages[-1].content)


def said_by(panel: ScriptedPanel, role: str) -> list[str]:
    """The texts that those in a role were asked, all messages of each request together."""
    return [
        "\n".join(text_of(each.content) for each in asked.messages)
        for _, as_what, asked in panel.asked
        if as_what == role
    ]


def message_of(answer: ChatResponse | None) -> ResponseMessage:
    assert answer is not None
    return answer["choices"][0]["message"]


def content_of(decided: Decided) -> str:
    return text_of(message_of(decided.response).get("content"))


def _steps(script: Script) -> Callable[[ChatRequest], Said]:
    if isinstance(script, list):
        left = [*script]
        return lambda _: left.pop(0)
    if isinstance(script, str | dict | ProxyError):
        said: Said = script
        return lambda _: said
    return script
