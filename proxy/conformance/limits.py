"""Translates: the checks of what bounds and steers an answer: lengths, stops, seeds, several choices."""

from __future__ import annotations

import re
from typing import Any

from proxy.conformance.base import (
    Reply,
    Steps,
    Unsupported,
    chat,
    checks,
    choices_of,
    error_of,
    expect,
    finish_of,
    ok,
    shown,
    text_of,
)
from proxy.conformance.events import read, stream

COUNT = "Count from 1 to 20, digits only, separated by a comma and a blank. Nothing else."
SHORT = 5  # tokens; the count takes more


def max_tokens(model: str) -> Steps:
    answer = ok((yield chat(model, COUNT, max_tokens=SHORT, max_completion_tokens=None)), "max_tokens")
    return _cut(finish_of(answer), answer.get("usage"))


def max_completion_tokens(model: str) -> Steps:
    answer = ok((yield chat(model, COUNT, max_completion_tokens=SHORT)), "max_completion_tokens")
    return _cut(finish_of(answer), answer.get("usage"))


def max_tokens_streamed(model: str) -> Steps:
    answer = read((yield stream(model, COUNT, max_tokens=SHORT, max_completion_tokens=None)), "max_tokens")
    expect(len(answer.finishes()) == 1, f"the finish reasons are {answer.finishes()}")
    return _cut(answer.finishes()[0], next(iter(answer.usages()), None))


def _cut(finish: Any, usage: Any) -> str:
    """What was written is not more than what was allowed, but for what vendors add to the end of an answer."""
    expect(finish == "length", f"finish_reason is {finish!r}")
    written = usage.get("completion_tokens") if isinstance(usage, dict) else None
    expect(type(written) is int and written <= 2 * SHORT, f"{written} tokens were written, {SHORT} allowed")
    return f"length, {written} tokens written"


def max_tokens_huge(model: str) -> Steps:
    """Taken as far as it goes, or refused; never a failure of the server."""
    reply = yield chat(model, max_completion_tokens=100_000_000)
    if 400 <= reply.status < 500:
        expect(bool(error_of(reply).get("message")), f"{reply.status} without a message")
        return f"refused with {reply.status}"
    return shown(text_of(ok(reply)))


def seed(model: str) -> Steps:
    return shown(text_of(ok((yield chat(model, seed=7)), "seed")))


def temperature_0(model: str) -> Steps:
    return shown(text_of(ok((yield chat(model, temperature=0)), "temperature")))


def temperature_2(model: str) -> Steps:
    """What it says may be nonsense, but it answers."""
    choices_of(answer := ok((yield chat(model, temperature=2)), "temperature"))
    return f"finish_reason {finish_of(answer)}"


def penalties(model: str) -> Steps:
    reply = yield chat(model, frequency_penalty=0.5, presence_penalty=0.5)
    return shown(text_of(ok(reply, "frequency_penalty", "presence_penalty")))


def logprobs(model: str) -> Steps:
    """A number for each token, none above zero."""
    answer = ok((yield chat(model, logprobs=True)), "logprobs")
    found = (choices_of(answer)[0].get("logprobs") or {}).get("content")
    expect(isinstance(found, list) and bool(found), f"logprobs.content is {found!r}")
    for entry in found or []:
        told = isinstance(entry, dict) and isinstance(entry.get("token"), str)
        expect(told and isinstance(entry.get("logprob"), (int, float)) and entry["logprob"] <= 0, f"{entry!r}")
    return f"{len(found or [])} tokens"


def two_choices(model: str) -> Steps:
    rows = choices_of(ok((yield chat(model, n=2)), "n"))
    found = [row.get("index") for row in rows]
    expect(found == [0, 1], f"the indexes are {found}")
    expect(all((row.get("message") or {}).get("content") for row in rows), "a choice says nothing")
    return "indexes 0 and 1"


def two_choices_streamed(model: str) -> Steps:
    """Each with its own role, text and finish."""
    answer = read((yield stream(model, n=2)), "n")
    found = sorted({str(choice.get("index")) for choice in answer.choices()})
    expect(found == ["0", "1"], f"the indexes are {', '.join(found)}")
    for index in (0, 1):
        expect(len(answer.finishes(index)) == 1, f"choice {index} has {len(answer.finishes(index))} finish reasons")
        expect(bool(answer.text(index)), f"choice {index} says nothing")
        expect(answer.deltas(index)[0].get("role") == "assistant", f"choice {index} begins without a role")
    return "indexes 0 and 1"


def stop_text(model: str) -> Steps:
    return _stopped(ok((yield chat(model, COUNT, stop="7")), "stop"))


def stop_one(model: str) -> Steps:
    return _stopped(ok((yield chat(model, COUNT, stop=["7"])), "stop"))


def stop_four(model: str) -> Steps:
    return _stopped(ok((yield chat(model, COUNT, stop=["W", "X", "Y", "7"])), "stop"))


def stop_six(model: str) -> Steps:
    """More than OpenAI takes. A server that says so with the parameter's name lacks it openly."""
    reply = yield chat(model, COUNT, stop=["U", "V", "W", "X", "Y", "7"])
    _refused_by_name(reply, "stop")
    return _stopped(ok(reply, "stop"))


def _refused_by_name(reply: Reply, parameter: str) -> None:
    error = error_of(reply)
    if reply.status in (400, 422) and error.get("param") == parameter:
        raise Unsupported(f"{reply.status}: {error.get('message')}")


def stop_streamed(model: str) -> Steps:
    answer = read((yield stream(model, COUNT, stop=["7"])), "stop")
    return _before_seven(answer.text(), answer.finishes())


def _stopped(answer: dict[str, Any]) -> str:
    return _before_seven(text_of(answer), [finish_of(answer)])


def _before_seven(text: str, finishes: list[Any]) -> str:
    expect("7" not in text, f"it went on: {shown(text)!r}")
    expect(re.search(r"\b6\b", text) is not None, f"it did not count to 6: {shown(text)!r}")
    expect(finishes == ["stop"], f"finish_reason is {finishes}")
    return shown(text.strip())


SAMPLING = checks(
    "sampling",
    max_tokens,
    max_completion_tokens,
    max_tokens_streamed,
    max_tokens_huge,
    seed,
    temperature_0,
    temperature_2,
    penalties,
    logprobs,
    two_choices,
    two_choices_streamed,
)
STOPS = checks("stop", stop_text, stop_one, stop_four, stop_six, stop_streamed)
