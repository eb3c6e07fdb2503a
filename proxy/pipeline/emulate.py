"""Orchestrates: what a vendor lacks, by asking its model more often: several choices, JSON that holds.

Each ask is an attempt of the call, with its own intent row, hold and cost. All of them go to the one deployment that is
lent: choices of one answer come from one model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Protocol, TypeVar, cast

from msgspec.structs import replace

from proxy.pipeline.json_check import JSONCheck, bare
from proxy.routing.ask import Answer, Origin, Sink
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, Choice, Message
from proxy.schema.errors import BadRequest, UpstreamError

T = TypeVar("T")


class SeatAsk(Protocol):
    """One deployment, lent for one call: each ask is retried where that may help, until an answer begins.

    `at_once`: how many asks may run side by side.
    """

    at_once: int

    async def complete(self, request: ChatRequest, origin: Origin) -> Answer:
        """The whole answer. Raises UpstreamError, BadRequest for what cannot be sent."""
        ...

    async def stream(self, request: ChatRequest, sink: Sink, origin: Origin) -> Answer:
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


async def complete_together(ask: SeatAsk, requests: Sequence[ChatRequest], parent: str | None = None) -> Answer:
    """One answer with the choices of all requests, asked side by side. The first failure cancels the others.

    `parent`: the attempt that they follow from.
    """
    asks = [partial(ask.complete, request, Origin(parent, seat)) for seat, request in enumerate(requests)]
    answers = await together(asks, ask.at_once)
    responses = [cast(ChatResponse, answer.response) for answer in answers]
    choices: list[Choice] = []
    for first, response in zip(_firsts(requests), responses, strict=True):
        choices += [cast(Choice, {**choice, "index": first + choice.get("index", 0)}) for choice in response["choices"]]
    whole = {name: value for name, value in responses[0].items() if name != "usage"}
    return _joined(answers, cast(ChatResponse, {**whole, "choices": choices}))


async def stream_together(
    ask: SeatAsk, requests: Sequence[ChatRequest], sink: Sink, parent: str | None = None
) -> Answer:
    """The streams of all requests as they come, as one. The first failure cancels the others."""

    def seat_sink(first: int) -> Sink:
        return lambda batch: sink([_renumbered(chunk, first) for chunk in batch])

    asks = [
        partial(ask.stream, request, seat_sink(first), Origin(parent, seat))
        for seat, (request, first) in enumerate(zip(requests, _firsts(requests), strict=True))
    ]
    return _joined(await together(asks, ask.at_once), None)


def _firsts(requests: Sequence[ChatRequest]) -> list[int]:
    """The index of each request's first choice in the joined answer."""
    return [0, *accumulate(request.n for request in requests)][:-1]


def _joined(answers: Sequence[Answer], response: ChatResponse | None) -> Answer:
    attempts = tuple(attempt for answer in answers for attempt in answer.attempts)
    return Answer(response, attempts, tuple(each for answer in answers for each in answer.deployments))


def _renumbered(chunk: ChatChunk, first: int) -> ChatChunk:
    choices = [{**choice, "index": first + choice.get("index", 0)} for choice in chunk.get("choices", [])]
    return cast(ChatChunk, {**chunk, "choices": choices})


async def checked(ask: SeatAsk, request: ChatRequest, answer: Answer, check: JSONCheck, sizes: Sequence[int]) -> Answer:
    """The answer with JSON in each choice that says it is complete. `sizes`: how many choices each attempt was for.

    A fence of Markdown around JSON is taken off. A choice that is wrong is asked for once more, with what is wrong.
    Raises UpstreamError `invalid_json_answer` when it is wrong again: a client that asks for JSON parses it, and a 200
    that cannot be parsed would fail in its code instead; another candidate may still answer. Refusals, tool calls and
    answers that were cut by a limit or a filter pass as they are, as their finish_reason says.
    """
    response = cast(ChatResponse, answer.response)
    made_by = [attempt for attempt, size in zip(answer.attempts, sizes, strict=True) for _ in range(size)]
    parents = [made_by[min(choice.get("index", 0), len(made_by) - 1)] for choice in response["choices"]]
    asks = [
        partial(_right, ask, request, choice, check, parent)
        for choice, parent in zip(response["choices"], parents, strict=True)
    ]
    rights = await together(asks, ask.at_once)
    repairs = [repair for _, repair in rights if repair is not None]
    choices = [choice for choice, _ in rights]
    return _joined([answer, *repairs], cast(ChatResponse, {**response, "choices": choices}))


async def _right(
    ask: SeatAsk, request: ChatRequest, choice: Choice, check: JSONCheck, parent: str
) -> tuple[Choice, Answer | None]:
    """The choice with right JSON, and the answer that repaired it."""
    choice, wrong = _look(choice, check)
    if wrong is None:
        return choice, None
    index = choice.get("index", 0)
    try:
        again = await ask.complete(_repair(request, choice, wrong), Origin(parent, index))
    except BadRequest as error:  # the longer prompt cannot be sent
        raise _invalid(wrong) from error
    repaired, wrong = _look(cast(ChatResponse, again.response)["choices"][0], check)
    if wrong is not None:
        raise _invalid(wrong)
    return cast(Choice, {**repaired, "index": index}), again


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
    size = request.size + sum(len(turn["content"].encode("utf-8", "replace")) + 64 for turn in turns)
    return replace(request, n=1, messages=messages, size=size, fields=fields)


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
