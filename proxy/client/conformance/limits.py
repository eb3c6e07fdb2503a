"""Translates: the checks of sampling parameters: token limits, stop sequences, seeds, several choices."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proxy.client.conformance.base import (
    FEW_TOKENS,
    NotShown,
    Reply,
    Steps,
    Unsupported,
    answer_text,
    at_limit,
    chat,
    checks,
    choices_of,
    error_of,
    expect,
    fail,
    finish_of,
    ok,
    shorten,
    text_of,
)
from proxy.client.conformance.events import check_begin, read, stream

_DIGITS = "digits only, separated by a comma and a blank. Nothing else."
COUNT = [  # includes an example, which small models need
    {"role": "user", "content": f"Count from 1 to 9, {_DIGITS}"},
    {"role": "assistant", "content": "1, 2, 3, 4, 5, 6, 7, 8, 9"},
    {"role": "user", "content": f"Count from 1 to 20, {_DIGITS}"},
]
SHORT = FEW_TOKENS  # counting to 20 takes more


def max_tokens(model: str) -> Steps:
    answer = ok((yield chat(model, COUNT, max_tokens=SHORT, max_completion_tokens=None)), "max_tokens")
    return _check_cut(finish_of(answer), answer.get("usage"))


def max_completion_tokens(model: str) -> Steps:
    answer = ok((yield chat(model, COUNT, max_completion_tokens=SHORT)), "max_completion_tokens")
    return _check_cut(finish_of(answer), answer.get("usage"))


def max_tokens_streamed(model: str) -> Steps:
    answer = read((yield stream(model, COUNT, max_tokens=SHORT, max_completion_tokens=None)), "max_tokens")
    expect(len(answer.finishes()) == 1, f"the finish reasons are {answer.finishes()}")
    return _check_cut(answer.finish(), answer.usage())


def _check_cut(finish: Any, usage: Any) -> str:
    """Checks that the answer stops at the token limit, give or take what vendors add at the end of an answer."""
    written = usage.get("completion_tokens") if isinstance(usage, dict) else None
    if not isinstance(written, int):
        fail(f"usage is {usage!r}")
    if finish == "stop" and written < SHORT:
        raise NotShown(f"the model wrote only {written} of {SHORT} allowed tokens")
    expect(finish == "length", f"finish_reason is {finish!r}")
    expect(written <= 2 * SHORT, f"the model wrote {written} tokens, {SHORT} were allowed")
    return f"length, after {written} tokens"


def max_tokens_huge(model: str) -> Steps:
    """A huge limit is capped or refused; it is never a server error. Only the beginning of the answer is read, because
    a model that does not stop would fill its context.
    """
    reply = yield replace(stream(model, max_completion_tokens=100_000_000), begin_only=True)
    if 400 <= reply.status < 500:
        expect(bool(error_of(reply).get("message")), f"{reply.status} without a message")
        return f"refused with {reply.status}"
    check_begin(reply)
    return "accepted"


def seed(model: str) -> Steps:
    return shorten(text_of(ok((yield chat(model, seed=7)), "seed")))


def temperature_0(model: str) -> Steps:
    return shorten(text_of(ok((yield chat(model, temperature=0)), "temperature")))


def temperature_2(model: str) -> Steps:
    """The answer may be nonsense, but there is one."""
    choices_of(answer := ok((yield chat(model, temperature=2)), "temperature"))
    return f"finish_reason {finish_of(answer)}"


def penalties(model: str) -> Steps:
    reply = yield chat(model, frequency_penalty=0.5, presence_penalty=0.5)
    return shorten(text_of(ok(reply, "frequency_penalty", "presence_penalty")))


def logprobs(model: str) -> Steps:
    """Each token has a log probability, none above zero."""
    answer = ok((yield chat(model, logprobs=True)), "logprobs")
    found = (choices_of(answer)[0].get("logprobs") or {}).get("content")
    expect(isinstance(found, list) and bool(found), f"logprobs.content is {found!r}")
    for entry in found or []:
        has_token = isinstance(entry, dict) and isinstance(entry.get("token"), str)
        expect(has_token and isinstance(entry.get("logprob"), (int, float)) and entry["logprob"] <= 0, f"{entry!r}")
    return f"{len(found or [])} tokens"


def two_choices(model: str) -> Steps:
    answer = ok((yield chat(model, n=2)), "n")
    rows = choices_of(answer)
    found = [row.get("index") for row in rows]
    expect(found == [0, 1], f"the indexes are {found}")
    for row in rows:
        answer_text((row.get("message") or {}).get("content"), row.get("finish_reason"), answer.get("usage"))
    return "indexes 0 and 1"


def two_choices_streamed(model: str) -> Steps:
    """Each choice has its own role, text and finish reason."""
    answer = read((yield stream(model, n=2)), "n")
    found = sorted({str(choice.get("index")) for choice in answer.choices()})
    expect(found == ["0", "1"], f"the indexes are {', '.join(found)}")
    for index in (0, 1):
        expect(len(answer.finishes(index)) == 1, f"choice {index} has {len(answer.finishes(index))} finish reasons")
        answer.checked_text(index)
        expect(answer.deltas(index)[0].get("role") == "assistant", f"choice {index} starts without a role")
    return "indexes 0 and 1"


def stop_text(model: str) -> Steps:
    return _check_stop(ok((yield chat(model, COUNT, stop="7")), "stop"))


def stop_one(model: str) -> Steps:
    return _check_stop(ok((yield chat(model, COUNT, stop=["7"])), "stop"))


def stop_four(model: str) -> Steps:
    return _check_stop(ok((yield chat(model, COUNT, stop=["W", "X", "Y", "7"])), "stop"))


def stop_six(model: str) -> Steps:
    """Six stop sequences are more than OpenAI accepts. A server that refuses them by the parameter's name passes as
    "not supported".
    """
    reply = yield chat(model, COUNT, stop=["U", "V", "W", "X", "Y", "7"])
    _note_refusal(reply, "stop")
    return _check_stop(ok(reply, "stop"))


def _note_refusal(reply: Reply, parameter: str) -> None:
    error = error_of(reply)
    if reply.status in (400, 422) and error.get("param") == parameter:
        raise Unsupported(f"{reply.status}: {error.get('message')}")


def stop_streamed(model: str) -> Steps:
    answer = read((yield stream(model, COUNT, stop=["7"])), "stop")
    return _before_seven(answer.checked_text(), answer.finishes(), answer.usage())


def _check_stop(answer: dict[str, Any]) -> str:
    return _before_seven(text_of(answer), [finish_of(answer)], answer.get("usage"))


def _before_seven(text: str, finishes: list[Any], usage: Any) -> str:
    expect("7" not in text, f"it did not stop: {shorten(text)!r}")
    if len(finishes) == 1:
        at_limit(finishes[0], usage)
    expect(finishes == ["stop"], f"finish_reason is {finishes}")
    if not text.rstrip(", \n").endswith("6"):
        raise NotShown(f"the model did not count to 7: {shorten(text)!r}")
    return shorten(text.strip())


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
