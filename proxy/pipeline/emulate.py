"""Orchestrates: emulation by repeated requests: several choices, and JSON that matches its schema.

Each ask is an attempt of the call, with its own intent row, hold and cost. All asks go to one deployment, so that all
choices of an answer come from one model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, Protocol, TypeVar, cast

from msgspec import UNSET
from msgspec.structs import replace

from proxy.pipeline.off_loop import OffLoop
from proxy.routing.ask import Answer, Origin, Sink
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, Choice, Message
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.schema.json_check import JSONCheck, bare

T = TypeVar("T")


class SeatAsk(Protocol):
    """Asks one deployment on behalf of one call. Each ask is retried where that may help, until its answer begins.

    `at_once`: how many asks may run concurrently. `off_loop`: where long JSON is checked.
    """

    at_once: int
    off_loop: OffLoop

    async def complete(self, request: ChatRequest, origin: Origin) -> Answer:
        """The whole answer. Raises UpstreamError, or BadRequest for a request that the vendor cannot take."""
        ...

    async def stream(self, request: ChatRequest, sink: Sink, origin: Origin) -> Answer:
        """The answer in batches; the first batch carries the first delta. Raises as `complete` does."""
        ...


def seats(request: ChatRequest, most: int | None) -> list[ChatRequest]:
    """Splits `request` into requests for one question and at most `most` choices each.

    Each gets its own seed, derived from the client's: with one seed all answers would be the same. The same client seed
    still gives the same answers.
    """
    if request.questions > 1:
        return [seat for question in request.apart() for seat in seats(question, most)]
    most = most or request.n
    sizes = [min(most, request.n - taken) for taken in range(0, request.n, most)]
    return [_seat(request, size, place) for place, size in enumerate(sizes)]


def _seat(request: ChatRequest, size: int, place: int) -> ChatRequest:
    fields = {name: value for name, value in request.fields.items() if name != "n"}
    if size > 1:
        fields["n"] = size
    if isinstance(seed := fields.get("seed"), int):
        fields["seed"] = seed + place
    native = request.native
    if native is not None:
        native = native.changed({name: fields.get(name, UNSET) for name in ("n", "seed")})
    return replace(request, n=size, may_cache=place == 0, fields=fields, native=native)


async def complete_together(ask: SeatAsk, requests: Sequence[ChatRequest], parent: str | None = None) -> Answer:
    """Sends all requests concurrently and merges their choices. The first failure cancels the others.

    `parent`: the attempt that caused them.
    """
    asks = [partial(ask.complete, request, Origin(parent, seat)) for seat, request in enumerate(requests)]
    answers = await together(asks, ask.at_once)
    responses = [cast(ChatResponse, answer.response) for answer in answers]
    choices: list[Choice] = []
    for first, response in zip(_first_indexes(requests), responses, strict=True):
        choices += [cast(Choice, {**choice, "index": first + choice.get("index", 0)}) for choice in response["choices"]]
    whole = {name: value for name, value in responses[0].items() if name != "usage"}
    return _join(answers, cast(ChatResponse, {**whole, "choices": choices}))


async def stream_together(
    ask: SeatAsk, requests: Sequence[ChatRequest], sink: Sink, parent: str | None = None
) -> Answer:
    """Streams all requests concurrently and interleaves their chunks. The first failure cancels the others."""

    def seat_sink(first: int) -> Sink:
        return lambda batch: sink([_renumber(chunk, first) for chunk in batch])

    asks = [
        partial(ask.stream, request, seat_sink(first), Origin(parent, seat))
        for seat, (request, first) in enumerate(zip(requests, _first_indexes(requests), strict=True))
    ]
    return _join(await together(asks, ask.at_once), None)


def _first_indexes(requests: Sequence[ChatRequest]) -> list[int]:
    """The index of each request's first choice in the joined answer."""
    return [0, *accumulate(request.n for request in requests)][:-1]


def _join(answers: Sequence[Answer], response: ChatResponse | None) -> Answer:
    attempts = tuple(attempt for answer in answers for attempt in answer.attempts)
    return Answer(response, attempts, tuple(each for answer in answers for each in answer.deployments))


def _renumber(chunk: ChatChunk, first: int) -> ChatChunk:
    choices = [{**choice, "index": first + choice.get("index", 0)} for choice in chunk.get("choices", [])]
    return cast(ChatChunk, {**chunk, "choices": choices})


async def checked(ask: SeatAsk, request: ChatRequest, answer: Answer, check: JSONCheck, sizes: Sequence[int]) -> Answer:
    """The answer with valid JSON in every completed choice. `sizes`: the number of choices of each attempt.

    Markdown fences around the JSON are removed. An invalid choice gets one repair request that states the error. Raises
    UpstreamError `invalid_json_answer` if the repair is invalid too: the client would fail to parse a 200, while
    another candidate may still answer. Refusals, tool calls and answers cut by a limit or a filter pass unchanged;
    their finish_reason tells the client.
    """
    response = cast(ChatResponse, answer.response)
    made_by = [attempt for attempt, size in zip(answer.attempts, sizes, strict=True) for _ in range(size)]
    parents = [made_by[min(choice.get("index", 0), len(made_by) - 1)] for choice in response["choices"]]
    asks = [
        partial(_ensure_valid, ask, request, choice, check, parent)
        for choice, parent in zip(response["choices"], parents, strict=True)
    ]
    rights = await together(asks, ask.at_once)
    repairs = [repair for _, repair in rights if repair is not None]
    choices = [choice for choice, _ in rights]
    return _join([answer, *repairs], cast(ChatResponse, {**response, "choices": choices}))


async def _ensure_valid(
    ask: SeatAsk, request: ChatRequest, choice: Choice, check: JSONCheck, parent: str
) -> tuple[Choice, Answer | None]:
    """The choice with valid JSON, and the answer that repaired it, if any."""
    choice, wrong = await _validated(ask, choice, check)
    if wrong is None:
        return choice, None
    index = choice.get("index", 0)
    try:
        again = await ask.complete(_repair(request, choice, wrong), Origin(parent, index))
    except BadRequest as error:  # the vendor cannot take the longer prompt
        raise _invalid_answer(wrong) from error
    repaired, wrong = await _validated(ask, cast(ChatResponse, again.response)["choices"][0], check)
    if wrong is not None:
        raise _invalid_answer(wrong)
    return cast(Choice, {**repaired, "index": index}), again


async def _validated(ask: SeatAsk, choice: Choice, check: JSONCheck) -> tuple[Choice, str | None]:
    size = len(choice["message"].get("content") or "")
    return await ask.off_loop.run(size, partial(_validate, choice, check))


def _validate(choice: Choice, check: JSONCheck) -> tuple[Choice, str | None]:
    """The choice without a Markdown fence, and the error in its JSON, if any."""
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


def _invalid_answer(wrong: str) -> UpstreamError:
    message = f"The model's answer does not match `response_format`, even after one repair: {wrong}."
    return UpstreamError(message, code="invalid_json_answer", upstream_status=200)


async def together(asks: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """All answers, in order. The first failure cancels the others and is raised when they have ended."""
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
        await cancel_all(tasks)


async def _in_turn(ask: Callable[[], Awaitable[T]], places: asyncio.Semaphore) -> T:
    await places.acquire()
    answer = await ask()
    places.release()  # not after a failure, which ends all asks: no further ask may start
    return answer


async def cancel_all(tasks: Collection[asyncio.Future[Any]]) -> None:
    """Cancels all tasks and retrieves their exceptions, so that asyncio does not report them."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
