"""Emulation over a scripted Ask: several choices from several asks, and JSON with one repair."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from proxy.pipeline.emulate import checked, complete_together, seats, stream_together
from proxy.pipeline.off_loop import OffLoop
from proxy.providers.openai import OpenAI
from proxy.routing.ask import Answer, Origin, Sink
from proxy.routing.deployment import Deployment
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, Message
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.schema.json_check import JSONCheck

OBJECT = JSONCheck({"type": "json_object"})
DEPLOYMENT = Deployment("a", OpenAI(), "m", None)


def request(n: int = 1, **fields: Any) -> ChatRequest:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "m", "messages": messages, **({"n": n} if n > 1 else {}), **fields}
    return ChatRequest(model="m", messages=[Message("user", "hi")], n=n, fields=body)


def answer(*texts: str, finish_reason: str = "stop", **message: Any) -> ChatResponse:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
        for index, text in enumerate(texts)
    ]
    return cast(ChatResponse, {"id": "one", "choices": choices, "usage": {"total_tokens": 1}})


def piece(text: str) -> list[ChatChunk]:
    return [cast(ChatChunk, {"choices": [{"index": 0, "delta": {"content": text}}]})]


class Scripted:
    """Answers in order; an exception is raised, an Event waited for. Notes what was asked, from where, and how each ask
    ended. The attempt behind the ask with number n has the id `n`.
    """

    at_once = 16
    off_loop = OffLoop()

    def __init__(self, *answers: ChatResponse | Exception | asyncio.Event | Sequence[Any]) -> None:
        self.asked: list[ChatRequest] = []
        self.origins: list[Origin] = []
        self.ended: list[str] = []
        self._answers = list(answers)

    async def complete(self, request: ChatRequest, origin: Origin) -> Answer:
        place = self._note(request, origin)
        script = self._answers.pop(0)
        try:
            return made_by(place, cast(ChatResponse, await self._play(script)))
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise

    async def stream(self, request: ChatRequest, sink: Sink, origin: Origin) -> Answer:
        place = self._note(request, origin)
        script = cast("Sequence[Any]", self._answers.pop(0))
        try:
            for step in script:
                played = await self._play(step)
                if isinstance(played, list) and (wait := sink(played)) is not None:
                    await wait
        except asyncio.CancelledError:
            self.ended.append(f"{place} cancelled")
            raise
        return made_by(place, None)

    def _note(self, request: ChatRequest, origin: Origin) -> int:
        self.asked.append(request)
        self.origins.append(origin)
        return len(self.asked) - 1

    async def _play(self, step: Any) -> Any:
        if isinstance(step, Exception):
            raise step
        if isinstance(step, asyncio.Event):
            await step.wait()
        return step


def made_by(place: int, response: ChatResponse | None) -> Answer:
    return Answer(response, (f"{place}",), (DEPLOYMENT,))


def texts(answer: Answer) -> list[tuple[int, str | None]]:
    response = cast(ChatResponse, answer.response)
    return [(choice["index"], choice["message"]["content"]) for choice in response["choices"]]


# --- seats ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "most", "sizes"), [(3, 1, [1, 1, 1]), (5, 2, [2, 2, 1]), (4, 4, [4])])
def test_seats_add_up_to_the_choices_that_were_asked_for(n: int, most: int, sizes: list[int]) -> None:
    """A seat for one choice has no `n`, because the vendor may reject the parameter."""
    found = seats(request(n, temperature=0.5), most)
    assert [seat.n for seat in found] == sizes
    assert [seat.fields.get("n", 1) for seat in found] == sizes
    assert all(("n" in seat.fields) is (seat.n > 1) and seat.fields["temperature"] == 0.5 for seat in found)


def test_each_seat_has_a_seed_of_its_own() -> None:
    """Otherwise all answers would be alike."""
    assert [seat.fields["seed"] for seat in seats(request(3, seed=7), 1)] == [7, 8, 9]


# --- whole ------------------------------------------------------------------------------------------------------------


async def test_choices_of_several_answers_are_numbered_through() -> None:
    """In the order of the asks, with the first answer's fields, but without its usage, which is only a part."""
    ask = Scripted(answer("a", "b"), answer("c"))
    merged = await complete_together(ask, seats(request(3), 2))
    assert texts(merged) == [(0, "a"), (1, "b"), (2, "c")]
    response = cast(ChatResponse, merged.response)
    assert response["id"] == "one"
    assert "usage" not in response


async def test_an_answer_names_all_that_it_is_made_of() -> None:
    """Its attempts and their deployments, in seat order, whichever ended first."""
    for stream in (False, True):
        script: list[Any] = [[piece(text)] if stream else answer(text) for text in "abc"]
        ask = Scripted(*script)
        requests = seats(request(3), 1)
        merged = await (
            stream_together(ask, requests, lambda batch: None) if stream else complete_together(ask, requests)
        )
        assert (merged.attempts, merged.deployments) == (("0", "1", "2"), (DEPLOYMENT,) * 3)
        assert (merged.response is None) is stream
        assert ask.origins == [Origin(seat=0), Origin(seat=1), Origin(seat=2)]


async def test_all_are_asked_at_once() -> None:
    """The first waits while the others are answered."""
    gate = asyncio.Event()

    class Gated(Scripted):
        async def _play(self, step: Any) -> Any:
            if len(self.asked) == 3:
                gate.set()
            await gate.wait()
            return await super()._play(step)

    async with asyncio.timeout(20):
        merged = await complete_together(Gated(answer("a"), answer("b"), answer("c")), seats(request(3), 1))
    assert texts(merged) == [(0, "a"), (1, "b"), (2, "c")]


@pytest.mark.parametrize("stream", [False, True])
async def test_no_more_are_asked_at_once_than_may_be(stream: bool) -> None:
    """The next starts when one has ended, until all have run."""

    class Counted(Scripted):
        at_once = 2
        running = most = 0

        async def _play(self, step: Any) -> Any:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0)
            self.running -= 1
            return await super()._play(step)

    if stream:
        streaming = Counted(*([piece(f"{number}")] for number in range(5)))
        assert sorted(await collect(streaming, 5)) == [(number, f"{number}") for number in range(5)]
        assert streaming.most == 2
    else:
        whole = Counted(*(answer(f"{number}") for number in range(5)))
        assert texts(await complete_together(whole, seats(request(5), 1))) == [(n, f"{n}") for n in range(5)]
        assert whole.most == 2


async def test_those_that_were_not_asked_yet_are_not_asked_after_a_failure() -> None:
    """Their cost would be wasted."""
    ask = Scripted(asyncio.Event(), UpstreamError("no"), answer("c"))
    ask.at_once = 2
    with pytest.raises(UpstreamError, match="no"):
        await complete_together(ask, seats(request(3), 1))
    assert (len(ask.asked), ask.ended) == (2, ["cancelled"])


async def test_the_first_failure_cancels_the_others() -> None:
    """And they have ended when it is raised."""
    ask = Scripted(asyncio.Event(), UpstreamError("no"), asyncio.Event())
    with pytest.raises(UpstreamError, match="no"):
        await complete_together(ask, seats(request(3), 1))
    assert ask.ended == ["cancelled", "cancelled"]


async def test_a_caller_who_leaves_cancels_all() -> None:
    """None continues."""
    ask = Scripted(asyncio.Event(), asyncio.Event())
    asking = asyncio.ensure_future(complete_together(ask, seats(request(2), 1)))
    while len(ask.asked) < 2:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ask.ended == ["cancelled", "cancelled"]


# --- streams ----------------------------------------------------------------------------------------------------------


async def collect(ask: Scripted, n: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []

    def sink(batch: list[ChatChunk]) -> None:
        found.extend((choice["index"], choice["delta"]["content"] or "") for c in batch for choice in c["choices"])

    await stream_together(ask, seats(request(n), 1), sink)
    return found


async def test_streams_come_as_they_come() -> None:
    """A slow one holds up none of the others."""
    gate = asyncio.Event()
    found: list[tuple[int, str | None]] = []

    def sink(batch: list[ChatChunk]) -> None:
        found.append((batch[0]["choices"][0]["index"], batch[0]["choices"][0]["delta"]["content"]))
        if found[-1][1] == "b2":
            gate.set()

    async with asyncio.timeout(20):
        ask = Scripted([gate, piece("a")], [piece("b1"), piece("b2")])
        await stream_together(ask, seats(request(2), 1), sink)
    assert found == [(1, "b1"), (1, "b2"), (0, "a")]


async def test_the_choices_of_each_stream_are_numbered_after_those_before_it() -> None:
    """Also where a seat brings several, or a vendor leaves the index out."""
    two = cast(ChatChunk, {"choices": [{"index": 1, "delta": {"content": "b"}}, {"delta": {"content": "a"}}]})
    ask = Scripted([[two]], [piece("c")])
    found: list[ChatChunk] = []
    await stream_together(ask, seats(request(3), 2), found.extend)
    assert [[choice["index"] for choice in chunk["choices"]] for chunk in found] == [[1, 0], [2]]
    assert two["choices"][0]["index"] == 1  # the decoder's own chunk, which the fold has seen


async def test_a_full_sink_holds_each_stream_up() -> None:
    """None of them goes on until there is room again."""
    room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    taken: list[int] = []

    def sink(batch: list[ChatChunk]) -> asyncio.Future[None]:
        taken.append(batch[0]["choices"][0]["index"])
        return room

    ask = Scripted([piece("a")] * 9, [piece("b")] * 9)
    streaming = asyncio.ensure_future(stream_together(ask, seats(request(2), 1), sink))
    for _ in range(20):
        await asyncio.sleep(0)
    assert sorted(taken) == [0, 1]
    room.set_result(None)
    await streaming
    assert len(taken) == 18


async def test_a_failure_of_one_stream_ends_them_all() -> None:
    """The others are closed by the time it is raised."""
    ask = Scripted([piece("a"), asyncio.Event()], [piece("b"), UpstreamError("broke off")], [asyncio.Event()])
    with pytest.raises(UpstreamError, match="broke off"):
        await collect(ask, 3)
    assert sorted(ask.ended) == ["0 cancelled", "2 cancelled"]


async def test_a_caller_who_leaves_cancels_all_streams() -> None:
    """Also the one that waits for room, and the one whose turn has not come."""
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ask = Scripted([piece("a"), piece("a")], [asyncio.Event()], [piece("c")])
    ask.at_once = 2
    streaming = asyncio.ensure_future(stream_together(ask, seats(request(3), 1), lambda batch: never))
    while len(ask.asked) < 2:  # noqa: ASYNC110 - nothing tells when it changes
        await asyncio.sleep(0)
    streaming.cancel()
    await asyncio.wait([streaming])
    assert streaming.cancelled()
    assert sorted(ask.ended) == ["0 cancelled", "1 cancelled"]
    assert len(ask.asked) == 2


# --- JSON -------------------------------------------------------------------------------------------------------------


async def check(ask: Scripted, response: ChatResponse, *attempts: str, sizes: Sequence[int] = (1,)) -> Answer:
    first = Answer(response, attempts or ("first",), (DEPLOYMENT,) * len(attempts or "1"))
    wanted = request(sum(sizes), response_format={"type": "json_object"})
    return await checked(ask, wanted, first, OBJECT, sizes)


async def test_json_that_is_right_is_asked_for_once() -> None:
    """A fence around it costs nothing."""
    ask = Scripted()
    assert texts(await check(ask, answer("{}"))) == [(0, "{}")]
    assert texts(await check(ask, answer("```json\n{}\n```"))) == [(0, "{}")]
    assert ask.asked == []


async def test_json_that_is_wrong_is_repaired_once() -> None:
    """The model sees its answer and what is wrong with it; the rest of the request is the same."""
    ask = Scripted(answer("```\n{}\n```"))
    assert texts(await check(ask, answer("oh", "{}"))) == [(0, "{}"), (1, "{}")]
    (repair,) = ask.asked
    said, told = repair.fields["messages"][1:]
    assert said == {"role": "assistant", "content": "oh"}
    assert told["role"] == "user"
    assert "not valid JSON" in told["content"]
    assert [message.role for message in repair.messages] == ["user", "assistant", "user"]
    assert repair.fields["response_format"] == {"type": "json_object"}


async def test_a_repair_stands_under_what_it_repairs() -> None:
    """Its parent is the attempt whose answer was wrong, its seat the choice; the answer is made of both."""
    ask = Scripted(answer("{}"), answer("{}"))
    merged = await check(ask, answer("oh", "{}", "no"), sizes=[3])
    assert ask.origins == [Origin("first", 0), Origin("first", 2)]
    assert merged.attempts == ("first", "0", "1")
    assert merged.deployments == (DEPLOYMENT,) * 3


@pytest.mark.parametrize(
    ("sizes", "parents"), [([1, 1, 1, 1], "abcd"), ([3, 1], "aaab"), ([2, 2], "aabb"), ([1, 1], "abbb")]
)
async def test_each_choice_is_repaired_under_the_seat_it_came_from(sizes: list[int], parents: str) -> None:
    """Even if seats differ in size, or a vendor sends more choices than requested."""
    ask = Scripted(*(answer("{}") for _ in range(4)))
    await check(ask, answer(*["oh"] * 4), *sorted(set(parents)), sizes=sizes)
    assert ask.origins == [Origin(parent, index) for index, parent in enumerate(parents)]


async def test_json_that_stays_wrong_is_an_error() -> None:
    """The client would fail to parse it."""
    with pytest.raises(UpstreamError) as caught:
        await check(Scripted(answer("oh")), answer("oh"))
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (502, "invalid_json_answer", False)
    with pytest.raises(UpstreamError) as caught:
        await check(Scripted(BadRequest("too long")), answer("oh"))
    assert caught.value.code == "invalid_json_answer"


@pytest.mark.parametrize(
    "response",
    [
        answer("{", finish_reason="length"),
        answer("", finish_reason="content_filter"),
        answer("", refusal="no"),
        answer("", finish_reason="tool_calls", tool_calls=[{"id": "c"}]),
    ],
)
async def test_what_does_not_claim_to_be_json_is_handed_on(response: ChatResponse) -> None:
    """Its finish_reason, refusal or tool calls say why."""
    assert (await check(Scripted(), response)).response == response


async def test_a_repair_that_fails_is_told_as_it_failed() -> None:
    """The provider's own error, so that another candidate may be asked."""
    with pytest.raises(UpstreamError, match="busy"):
        await check(Scripted(UpstreamError("busy", status=503)), answer("oh"))
