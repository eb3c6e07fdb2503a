"""Performs I/O: mixed requests at a steady rate: whole answers, streams, three choices, embeddings, clients that leave
and an upstream that fails.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import httpx

from tests.faults.talking import Talk, talk

ABORTED, FAULTY = 0.05, 0.02
_ANSWER_S = 30

FAULTS = (
    "e429",
    "e500",
    "e503",
    "html_502",
    "bad_json_error",
    "empty_200",
    "json_in_200_error",
    "close_before_request",
    "cut_fin(k=3)",
    "cut_rst(k=3)",
    "rst_after",
    "sse_error",
    "stall_after(k=2)",
    "truncated_json",
    "no_finish",
    "no_usage",
)


class Load:
    """Requests to one server. `heard` counts what their clients met; `unanswered`: what was no answer at all."""

    def __init__(self, port: int, seed: int, per_second: float) -> None:
        self.heard: Counter[str] = Counter()
        self.unanswered: list[str] = []
        self._port = port
        self._dice = random.Random(seed)
        self._every_s = 1 / per_second

    async def burst(self, seconds: float) -> None:
        """Starts requests at their times for so long, however slow the answers are; returns when all have ended."""
        started = due = time.monotonic()
        limits = httpx.Limits(max_connections=None)
        base_url = f"http://127.0.0.1:{self._port}/v1"
        client = httpx.AsyncClient(base_url=base_url, limits=limits, timeout=_ANSWER_S, trust_env=False)
        async with client, asyncio.TaskGroup() as group:
            while due - started < seconds:
                await asyncio.sleep(due - time.monotonic())
                group.create_task(self._request(client))
                due += self._every_s

    async def _request(self, client: httpx.AsyncClient) -> None:
        kind = self._dice.choices(list(self._KINDS), [share for _, share in self._KINDS.values()])[0]
        send, _ = self._KINDS[kind]
        try:
            async with asyncio.timeout(_ANSWER_S):
                self.heard[f"{kind}: {await send(self, client)}"] += 1
        except (OSError, AssertionError, httpx.TransportError) as error:  # OSError: TimeoutError too
            self.heard[f"{kind}: no answer"] += 1
            self.unanswered.append(repr(error))

    async def _whole(self, client: httpx.AsyncClient) -> str:
        return await self._chat(f"fake/{self._mode()}", stream=False)

    async def _stream(self, client: httpx.AsyncClient) -> str:
        return await self._chat(f"fake/{self._mode()}", stream=True)

    async def _three(self, client: httpx.AsyncClient) -> str:
        """`single` sells one choice at a time, so these are three requests at once."""
        return await self._chat(f"single/{self._mode()}", stream=self._dice.random() < 0.5, n=3)

    async def _embed(self, client: httpx.AsyncClient) -> str:
        body = {"model": "fake/ok", "input": ["one two three", "four"]}
        return str((await client.post("/embeddings", json=body)).status_code)

    async def _chat(self, model: str, *, stream: bool, n: int = 1) -> str:
        fields = {"n": n} if n > 1 else {}
        leaves = self._dice.random() < ABORTED
        conversation = await talk(self._port, model, stream=stream, **fields)
        if leaves:
            try:
                await self._leave(conversation, stream)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # its fault came first
            finally:
                conversation.close()
            return "left"
        answer = await conversation.rest()
        if answer.status != 200:
            return str(answer.status)
        return "200" if answer.whole and (answer.done or not stream) else "200, then an error"

    async def _leave(self, conversation: Talk, stream: bool) -> None:
        """Hangs up at a random moment: before the request arrived, while it waits, or inside the answer."""
        match self._dice.randrange(3 if stream else 2):
            case 0:
                await asyncio.sleep(0)
            case 1:
                await asyncio.sleep(self._dice.uniform(0, 0.05))
            case _:
                if await conversation.head() != 200:
                    return
                frames = self._dice.randrange(20)
                async with aclosing(conversation.frames()) as heard:
                    async for _ in heard:
                        frames -= 1
                        if frames < 0:
                            break

    def _mode(self) -> str:
        dice = self._dice
        if dice.random() < FAULTY:
            return dice.choice(FAULTS)
        return dice.choice(
            (
                f"ok(n_tokens={dice.randrange(1, 200)})",
                f"ok(n_tokens={dice.randrange(1, 40)},pace=0.005)",
                f"ok(n_tokens=20,delay={dice.uniform(0, 0.1):.2f})",
                "fast",
                f"reasoning(n={dice.randrange(1, 20)})",
                f"tools(n={dice.randrange(1, 3)})",
            )
        )

    _KINDS: dict[str, tuple[Callable[[Load, httpx.AsyncClient], Awaitable[str]], float]] = {
        "whole": (_whole, 0.45),
        "stream": (_stream, 0.35),
        "three choices": (_three, 0.1),
        "embeddings": (_embed, 0.1),
    }
