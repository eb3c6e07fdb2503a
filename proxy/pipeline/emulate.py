"""Orchestrates: what a vendor lacks, by asking its model more often: several choices, JSON that holds.

Each ask is an attempt of the call, with its own intent row, hold and cost. All of them go to the one deployment that is
lent: choices of one answer come from one model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar, cast

from msgspec.structs import replace

from proxy.pipeline.json_check import JSONCheck, bare
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, Choice, Message
from proxy.schema.errors import BadRequest, UpstreamError

T = TypeVar("T")


class Ask(Protocol):
    """One deployment, lent for one call; it is asked again where a failure may pass, until an answer begins.

    `at_once`: how many asks may run beside each other.
    """

    at_once: int

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """The whole answer. Raises UpstreamError, BadRequest for what cannot be sent."""
        ...

    def stream(self, request: ChatRequest) -> AsyncGenerator[list[ChatChunk], None]:
        """The answer in batches, the first of them with its first delta. Raises as `complete` does."""
        ...


def seats(request: ChatRequest, most: int) -> list[ChatRequest]:
    """The requests that together ask for the choices of `request`, at most `most` in each.

    With a `seed` each has its own, or they would all answer the same; the same seed still gives the same answers.
    """
    sizes = [min(most, request.n - taken) for taken in range(0, request.n, most)]
    return [_seat(request, size, place) for place, size in enumerate(sizes)]


def _seat(request: ChatRequest, size: int, place: int) -> ChatRequest:
    fields = {name: value for name, value in request.fields.items() if name != "n"}
    if size > 1:
        fields["n"] = size
    if isinstance(seed := fields.get("seed"), int):
        fields["seed"] = seed + place
    return replace(request, n=size, fields=fields)


async def complete_together(ask: Ask, requests: Sequence[ChatRequest]) -> ChatResponse:
    """One answer with the choices of all requests, which are asked beside each other. The first failure cancels the
    others.
    """
    answers = await together([partial(ask.complete, request) for request in requests], ask.at_once)
    choices: list[Choice] = []
    first = 0
    for request, answer in zip(requests, answers, strict=True):
        choices += [cast(Choice, {**choice, "index": first + choice.get("index", 0)}) for choice in answer["choices"]]
        first += request.n
    whole = {name: value for name, value in answers[0].items() if name != "usage"}
    return cast(ChatResponse, {**whole, "choices": choices})


async def stream_together(ask: Ask, requests: Sequence[ChatRequest]) -> AsyncGenerator[list[ChatChunk], None]:
    """The streams of all requests as they come, as one. The first failure, or closing this, ends them all."""
    firsts = [sum(request.n for request in requests[:place]) for place in range(len(requests))]
    streams = [ask.stream(request) for request in requests]
    waiting = iter(range(len(streams)))
    running = {asyncio.ensure_future(_next(streams[place])): place for place in islice(waiting, ask.at_once)}
    try:
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=running.__getitem__):
                batch = task.result()
                place = running.pop(task)
                following = next(waiting, None) if batch is None else place
                if following is not None:
                    running[asyncio.ensure_future(_next(streams[following]))] = following
                if batch is not None:
                    yield [_renumbered(chunk, firsts[place]) for chunk in batch]
    finally:
        await _cancel(running)
        for stream in streams:
            await stream.aclose()


async def _next(stream: AsyncGenerator[T, None]) -> T | None:
    return await anext(stream, None)


def _renumbered(chunk: ChatChunk, first: int) -> ChatChunk:
    choices = [{**choice, "index": first + choice.get("index", 0)} for choice in chunk.get("choices", [])]
    return cast(ChatChunk, {**chunk, "choices": choices})


async def checked(ask: Ask, request: ChatRequest, response: ChatResponse, check: JSONCheck) -> ChatResponse:
    """The answer with JSON in each choice that says it is complete.

    A fence of Markdown around JSON is taken off. A choice that is wrong is asked for once more, with what is wrong.
    Raises UpstreamError `invalid_json_answer` when it is wrong again: who asks for JSON parses it, and a 200 that
    cannot be parsed would fail in their code instead; another candidate may still answer. Refusals, tool calls and
    answers that were cut by a limit or a filter are handed on as they are, as their finish_reason says.
    """
    asks = [partial(_right, ask, request, choice, check) for choice in response["choices"]]
    choices = await together(asks, ask.at_once)
    return cast(ChatResponse, {**response, "choices": choices})


async def _right(ask: Ask, request: ChatRequest, choice: Choice, check: JSONCheck) -> Choice:
    choice, wrong = _look(choice, check)
    if wrong is None:
        return choice
    try:
        again = await ask.complete(_repair(request, choice, wrong))
    except BadRequest as error:  # the longer prompt cannot be sent
        raise _invalid(wrong) from error
    repaired, wrong = _look(again["choices"][0], check)
    if wrong is not None:
        raise _invalid(wrong)
    return cast(Choice, {**repaired, "index": choice.get("index", 0)})


def _look(choice: Choice, check: JSONCheck) -> tuple[Choice, str | None]:
    """The choice without a fence, and what is wrong with it."""
    message = choice["message"]
    if choice.get("finish_reason") != "stop" or message.get("refusal") or message.get("tool_calls"):
        return choice, None
    text = message.get("content") or ""
    inner = bare(text)
    if inner != text:
        choice = cast(Choice, {**choice, "message": {**message, "content": inner}})
    return choice, check.wrong(inner)


def _repair(request: ChatRequest, choice: Choice, wrong: str) -> ChatRequest:
    said = choice["message"].get("content") or ""
    turns = [
        {"role": "assistant", "content": said or "(nothing)"},
        {
            "role": "user",
            "content": f"That answer cannot be used: {wrong}. Answer again, with the corrected JSON and nothing else.",
        },
    ]
    fields = {name: value for name, value in request.fields.items() if name != "n"}
    fields["messages"] = [*request.fields["messages"], *turns]
    messages = [*request.messages, *(Message(turn["role"], turn["content"]) for turn in turns)]
    return replace(request, n=1, messages=messages, fields=fields)


def _invalid(wrong: str) -> UpstreamError:
    message = f"The model's answer is not the JSON that was asked for, also after one repair: {wrong}."
    return UpstreamError(message, code="invalid_json_answer", upstream_status=200)


async def together(asks: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """What all of them answer, in order. The first failure cancels the others and is raised when they have ended."""
    if len(asks) == 1:
        return [await asks[0]()]
    places = asyncio.Semaphore(at_once)
    tasks = [asyncio.ensure_future(_in_turn(ask, places)) for ask in asks]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task in done and not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return [task.result() for task in tasks]
    finally:
        await _cancel(tasks)


async def _in_turn(ask: Callable[[], Awaitable[T]], places: asyncio.Semaphore) -> T:
    await places.acquire()
    answer = await ask()
    places.release()  # not after a failure: that ends all of them, and no other should begin
    return answer


async def _cancel(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Ends them all, and looks at what they raised, so that asyncio does not report it."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
