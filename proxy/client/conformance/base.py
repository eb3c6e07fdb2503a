"""Translates: what all checks are made of: the request, the reply as it is read, the verdict."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Literal, NoReturn, get_args

import msgspec
from msgspec import Struct

from proxy.schema.json import encode

FEW_TOKENS = 16  # where only what is read matters; some servers take no less
MAX_TOKENS = 256  # room for models that think before they speak; the answers that are asked for are a few words
_END = 2  # tokens of an answer that ends before it begins: the end itself, and what a template adds
SAY_OK = "Answer with one word: ok"  # small models are brief then: a quarter of what "Say: ok" brings
CHAT = "/chat/completions"
DROPPED = "x-proxy-dropped-params"
Outcome = Literal["passed", "failed", "not supported", "not shown"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Failed(Exception):
    """The server does something else than OpenAI's would."""


class Unsupported(Exception):
    """The server says openly that it lacks this: an error `unsupported_*`, or the parameter in `DROPPED`."""


class NotShown(Exception):
    """The wire is right as far as can be seen, but the model did not do what would show the rest."""


class Probe(Struct, frozen=True):
    """One HTTP request, by its path behind the base URL. `begin_only`: no more than the first piece of the answer is
    read; then the connection is closed.
    """

    path: str
    body: bytes | None = None
    begin_only: bool = False

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


class Reply(Struct, frozen=True):
    """What came back, as far as the probe asks for it; the names of `headers` are in lower case."""

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
    """The types that the checks rely on, so that a wrong one is a failure with its place."""

    choices: list[_Choice] = []
    usage: _Usage | None = None


Steps = Generator[Probe, Reply, str]


class Verdict(Struct, frozen=True):
    """One row of the table; `seen` is the reason, or what the server answered."""

    check: str
    group: str
    outcome: Outcome
    seen: str


class Check(Struct, frozen=True):
    """One property of the wire. `steps` is given the model's name."""

    name: str
    group: str
    steps: Callable[[str], Steps]


def checks(group: str, *steps: Callable[[str], Steps]) -> tuple[Check, ...]:
    """The checks of a group, named as their functions are."""
    return tuple(Check(each.__name__, group, each) for each in steps)


def calls_of(some: Iterable[Check], model: str) -> int:
    """How many different requests the checks begin with: about what a run costs."""
    return len({next(check.steps(model)) for check in some})


def chat(model: str, content: Any = SAY_OK, **fields: Any) -> Probe:
    """A small question. `content` may be the whole list of messages; a field that is None is left out."""
    messages = content if _are_messages(content) else [{"role": "user", "content": content}]
    body = {"model": model, "messages": messages, "max_completion_tokens": MAX_TOKENS, **fields}
    return Probe(CHAT, encode({name: value for name, value in body.items() if value is not None}))


def _are_messages(content: Any) -> bool:
    return isinstance(content, list) and any(isinstance(each, dict) and "role" in each for each in content)


def fail(reason: str) -> NoReturn:
    raise Failed(reason)


def expect(holds: bool, otherwise: str) -> None:
    """Raises Failed, with what was found instead."""
    if not holds:
        raise Failed(otherwise)


def ok(reply: Reply, *parameters: str) -> dict[str, Any]:
    """The object of a good answer. `parameters`: what the check is about; Unsupported where the server dropped one."""
    accept(reply, *parameters)
    return typed(json_object(reply))


def typed(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, or a chunk of it, as it is. Raises Failed where a field has another type than OpenAI's."""
    try:
        msgspec.convert(answer, _Answer)
    except msgspec.ValidationError as error:
        raise Failed(str(error)) from None
    return answer


def accept(reply: Reply, *parameters: str) -> None:
    """Raises Failed unless the status is 200, Unsupported where the server says that it lacks one of `parameters`."""
    if reply.status == 200:
        for name in reply.headers.get(DROPPED, "").split(","):
            if any(name == each or name.startswith(f"{each}.") for each in parameters):
                raise Unsupported(f"dropped: {name}")
        return
    said = error_of(reply)
    told = f"{reply.status} {said.get('code')}: {said.get('message')}"
    if 400 <= reply.status < 500 and str(said.get("code")).startswith("unsupported_"):
        raise Unsupported(told)
    raise Failed(told)


def json_object(reply: Reply) -> dict[str, Any]:
    """The body. Raises Failed where it is not a JSON object, or not announced as JSON."""
    try:
        found = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Failed(f"status {reply.status} with a body that is not JSON") from None
    expect(isinstance(found, dict), f"status {reply.status} with JSON that is not an object")
    kind = reply.headers.get("content-type", "")
    expect(kind.partition(";")[0].strip() == "application/json", f"content-type is {kind or 'missing'}")
    return dict(found)


def error_of(reply: Reply) -> dict[str, Any]:
    """The error object of an answer, empty where it has none."""
    try:
        found = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {}


def choices_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Raises Failed where there is none, or one that is no object."""
    choices = answer.get("choices")
    expect(isinstance(choices, list) and bool(choices), "no choices")
    rows: list[dict[str, Any]] = [choice for choice in choices or [] if isinstance(choice, dict)]
    expect(len(rows) == len(choices or []), "a choice is no object")
    return rows


def message_of(answer: dict[str, Any]) -> dict[str, Any]:
    """The message of the first choice."""
    message = choices_of(answer)[0].get("message")
    return message if isinstance(message, dict) else fail("the choice has no message")


def text_of(answer: dict[str, Any]) -> str:
    """What the first choice says, as `spoken`."""
    return spoken(message_of(answer).get("content"), finish_of(answer), answer.get("usage"))


def spoken(content: Any, finish: Any, usage: Any) -> str:
    """The text, where there is one. Raises NotShown where the model itself was silent, or thought until its limit;
    Failed where the server is.
    """
    if isinstance(content, str) and content.strip():
        return content
    at_limit(finish, usage)
    written = _count(usage, "completion_tokens")
    if isinstance(content, str) and finish == "stop" and written is not None and written <= _END:
        raise NotShown("the model said nothing")
    fail(f"content is {content!r}")


def at_limit(finish: Any, usage: Any) -> None:
    """Raises NotShown for an answer that the limit cut: what would have come is not known. Raises Failed where it
    cannot have been the limit.
    """
    if finish == "length":
        written = _count(usage, "completion_tokens")
        expect(written is None or written >= MAX_TOKENS // 2, f"finish_reason is 'length' after {written} tokens")
        raise NotShown("the model wrote until its limit")


def unshown(seen: str, short: Probe, long: Probe) -> Steps:
    """Of a model that did not do as it was told, it is only known whether it was told. Raises NotShown; Failed where
    the server reads no more of `long` than of `short`, so that what `long` alone says was lost on the way. The answers
    do not matter.
    """
    few = _count(ok((yield short)).get("usage"), "prompt_tokens")
    many = _count(ok((yield long)).get("usage"), "prompt_tokens")
    if few is not None and many is not None and many <= few:
        fail(f"{seen}; it was not read: {few} tokens without it, {many} with it")
    raise NotShown(seen)


def _count(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int else None


def finish_of(answer: dict[str, Any]) -> Any:
    return choices_of(answer)[0].get("finish_reason")


def prompt_of(answer: dict[str, Any]) -> int:
    """How many tokens the server read."""
    usage_adds_up(answer.get("usage"))
    return int(answer["usage"]["prompt_tokens"])


def usage_adds_up(usage: Any) -> str:
    """Three whole numbers, the third the sum of the others. Returns them in words."""
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    numbers = [usage.get(name) if isinstance(usage, dict) else None for name in names]
    expect(all(type(number) is int and number >= 0 for number in numbers), f"usage is {usage!r}")
    prompt, completion, total = (int(number or 0) for number in numbers)
    expect(prompt > 0 and prompt + completion == total, f"{prompt} + {completion} is not {total}, or nothing was read")
    return f"{prompt} + {completion} = {total}"


def shown(text: str, most: int = 60) -> str:
    """What a model said, short enough for a row of a table."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
