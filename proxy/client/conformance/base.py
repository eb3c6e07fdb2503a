"""Translates: the building blocks of all checks: requests, replies and how to read them, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal, NoReturn, get_args

import msgspec
from msgspec import Struct

from proxy.schema.json import encode

FEW_TOKENS = 16  # if only the prompt matters; some servers accept no smaller limit
MAX_TOKENS = 256  # room for reasoning models; the answers themselves are a few words
_END = 2  # tokens of an empty answer: the end token, and what a template adds
SAY_OK = "Answer with one word: ok"  # keeps small models brief: a quarter of the tokens of "Say: ok"
CHAT = "/chat/completions"
DROPPED = "x-proxy-dropped-params"
Outcome = Literal["passed", "failed", "not supported", "not shown"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Failed(Exception):
    """The server behaves differently from OpenAI's."""


class Unsupported(Exception):
    """The server says that it lacks the feature: by an error `unsupported_*` or the parameter's name in `DROPPED`."""


class NotShown(Exception):
    """The wire is right so far, but the model did not do what would show the feature."""


class Probe(Struct, frozen=True):
    """One HTTP request; `path` follows the base URL. With `begin_only`, only the first chunk of the answer is read, and
    then the connection is closed.
    """

    path: str
    body: bytes | None = None
    begin_only: bool = False

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


class Reply(Struct, frozen=True):
    """The reply, as far as the probe reads it. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    function: _Function | None = None


class _Said(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    message: _Said | None = None
    delta: _Said | None = None
    logprobs: dict[str, Any] | None = None


class _Usage(Struct):
    completion_tokens_details: dict[str, Any] | None = None


class _Answer(Struct):
    """The types that the checks rely on, so that a wrong type is reported with its position."""

    choices: list[_Choice] = []
    usage: _Usage | None = None


Steps = Generator[Probe, Reply, str]


class Verdict(Struct, frozen=True):
    """One row of the table. `seen` is the reason, or the server's answer."""

    check: str
    group: str
    outcome: Outcome
    seen: str


class Check(Struct, frozen=True):
    """One property of the wire. `steps` takes the model's name."""

    name: str
    group: str
    steps: Callable[[str], Steps]


def checks(group: str, *steps: Callable[[str], Steps]) -> tuple[Check, ...]:
    """The checks of a group, named after their functions."""
    return tuple(Check(each.__name__, group, each) for each in steps)


def calls_of(some: Iterable[Check], model: str) -> int:
    """The number of distinct first requests, which is about the number of calls of a run."""
    return len({next(check.steps(model)) for check in some})


def chat(model: str, content: Any = SAY_OK, **fields: Any) -> Probe:
    """A small question. `content` may also be a list of messages. Fields that are None are left out."""
    messages = content if _are_messages(content) else [{"role": "user", "content": content}]
    body = {"model": model, "messages": messages, "max_completion_tokens": MAX_TOKENS, **fields}
    return Probe(CHAT, encode({name: value for name, value in body.items() if value is not None}))


def _are_messages(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(each, dict) and "role" in each for each in content)


def fail(reason: str) -> NoReturn:
    raise Failed(reason)


def expect(holds: bool, otherwise: str) -> None:
    """Raises Failed with the message `otherwise` unless the condition holds."""
    if not holds:
        raise Failed(otherwise)


def id_of(reply: Reply) -> str:
    """The id that the server gave to a request. Raises Failed without one."""
    found = reply.headers.get("x-request-id")
    expect(bool(found), "no x-request-id")
    return str(found)


def ok(reply: Reply, *parameters: str) -> dict[str, Any]:
    """The object of a successful answer. Raises Unsupported if the server dropped one of the checked `parameters`."""
    accept(reply, *parameters)
    return typed(json_object(reply))


def typed(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer or chunk, unchanged. Raises Failed if a field's type differs from OpenAI's."""
    try:
        msgspec.convert(answer, _Answer)
    except msgspec.ValidationError as error:
        raise Failed(str(error)) from None
    return answer


def accept(reply: Reply, *parameters: str) -> None:
    """Raises Failed unless the status is 200, and Unsupported if the server says that it lacks one of `parameters`."""
    if reply.status == 200:
        for name in reply.headers.get(DROPPED, "").split(","):
            if any(name == each or name.startswith(f"{each}.") for each in parameters):
                raise Unsupported(f"dropped: {name}")
        return
    error = error_of(reply)
    reason = f"{reply.status} {error.get('code')}: {error.get('message')}"
    if 400 <= reply.status < 500 and str(error.get("code")).startswith("unsupported_"):
        raise Unsupported(reason)
    raise Failed(reason)


def json_object(reply: Reply) -> dict[str, Any]:
    """The body. Raises Failed if it is not a JSON object, or not labelled as JSON."""
    try:
        found = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Failed(f"status {reply.status} with a body that is not JSON") from None
    expect(isinstance(found, dict), f"status {reply.status} with JSON that is not an object")
    kind = reply.headers.get("content-type", "")
    expect(kind.partition(";")[0].strip() == "application/json", f"content-type is {kind or 'missing'}")
    return dict(found)


def error_of(reply: Reply) -> dict[str, Any]:
    """The error object of an answer, or an empty one."""
    try:
        found = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {}


def choices_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices. Raises Failed if there are none, or if one is not an object."""
    choices = answer.get("choices")
    expect(isinstance(choices, list) and bool(choices), "no choices")
    rows: list[dict[str, Any]] = [choice for choice in choices or [] if isinstance(choice, dict)]
    expect(len(rows) == len(choices or []), "a choice is not an object")
    return rows


def message_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The message of the first choice."""
    message = choices_of(answer)[0].get("message")
    return message if isinstance(message, dict) else fail("the choice has no message")


def text_of(answer: dict[str, Any]) -> str:
    """The text of the first choice, checked as by `answer_text`."""
    return answer_text(message_of(answer).get("content"), finish_of(answer), answer.get("usage"))


def answer_text(content: Any, finish: Any, usage: Any) -> str:
    """The text, if there is one. Otherwise raises NotShown if the model said nothing or used up its limit on reasoning,
    and Failed if the server lost the text.
    """
    if isinstance(content, str) and content.strip():
        return content
    at_limit(finish, usage)
    written = _count(usage, "completion_tokens")
    if isinstance(content, str) and finish == "stop" and written is not None and written <= _END:
        raise NotShown("the model said nothing")
    fail(f"content is {content!r}")


def at_limit(finish: Any, usage: Any) -> None:
    """Raises NotShown if the token limit cut the answer, because the rest is unknown. Raises Failed if the limit cannot
    have been the cause.
    """
    if finish == "length":
        written = _count(usage, "completion_tokens")
        expect(written is None or written >= MAX_TOKENS // 2, f"finish_reason is 'length' after {written} tokens")
        raise NotShown("the model ran into its token limit")


def not_shown(seen: str, short: Probe, long: Probe) -> Steps:
    """Decides about a model that did not do as asked. Raises NotShown, or Failed if the server counts no more prompt
    tokens for `long` than for `short`: then it lost what only `long` contains. The answers themselves do not matter.
    """
    few = _count(ok((yield short)).get("usage"), "prompt_tokens")
    many = _count(ok((yield long)).get("usage"), "prompt_tokens")
    if few is not None and many is not None and many <= few:
        fail(f"{seen}; the server did not read it: {few} prompt tokens without it, {many} with it")
    raise NotShown(seen)


def _count(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int else None


def finish_of(answer: dict[str, Any]) -> Any:
    return choices_of(answer)[0].get("finish_reason")


def prompt_of(answer: dict[str, Any]) -> int:
    """The number of prompt tokens."""
    usage_adds_up(answer.get("usage"))
    return int(answer["usage"]["prompt_tokens"])


def usage_adds_up(usage: Any) -> str:
    """Checks that usage has three integers and the third is the sum of the others. Returns them as text."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    numbers = [usage.get(name) if isinstance(usage, dict) else None for name in names]
    expect(all(type(number) is int and number >= 0 for number in numbers), f"usage is {usage!r}")
    prompt, completion, total = (int(number or 0) for number in numbers)
    expect(prompt > 0 and prompt + completion == total, f"{prompt} + {completion} is not {total}, or no prompt tokens")
    return f"{prompt} + {completion} = {total}"


def shorten(text: str, most: int = 60) -> str:
    """A model's words, short enough for a row of a table."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
