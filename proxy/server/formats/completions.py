"""Translates: `/v1/completions`, OpenAI's older endpoint: each prompt becomes a chat of one user message.

What only a completion model could do (`echo`, `suffix`, `logprobs`, `best_of`) is refused by name, and so are fields of
chats that have no place in this answer. Shapes: the `openai` package 3.57, November 2026.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from proxy.pipeline.call import Call
from proxy.pipeline.trace import trace
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, StreamOptions
from proxy.schema.endpoints import AnyResponse
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import encode, encode_sized
from proxy.schema.prompts import PromptUse
from proxy.schema.usage import Usage
from proxy.server.formats.body import request_fields, view_of
from proxy.server.formats.chat import KNOWN_FIELDS, MAX_CHOICES, decode_chat
from proxy.server.formats.chat_answer import DONE, sse
from proxy.server.formats.stored_prompt import taken

_CHATS = "/v1/chat/completions"


class CompletionBody(Struct, frozen=True):
    """The fields of a completion request. Options of chats that change no shape, such as `reasoning_effort`, go with
    them.
    """

    model: str
    prompt: str | list[str | int | list[int]] | dict[str, Any]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    user: str | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: int | bool | None = None
    suffix: str | None = None


OF_CHATS = (
    *("messages", "input", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
    *("response_format", "top_logprobs", "modalities", "audio"),
)
_LACKED = tuple(name for name in OF_CHATS if name != "response_format")  # of a stored prompt, which answers in text
_OWN = ("prompt", "best_of", "echo", "logprobs", "suffix")
_KNOWN = (KNOWN_FIELDS - set(OF_CHATS)) | set(_OWN)
_FINISHES = ("stop", "length", "content_filter")


def decode_completion(body: bytes) -> ChatRequest:
    """Decodes and checks a completion request. Raises BadRequest, which names the field (`prompt.3`: the fourth)."""
    fields = request_fields(body, _KNOWN)
    for name in OF_CHATS:
        if fields.get(name) is not None:
            message = f"{name}: /v1/completions has no such field. Send chats to {_CHATS}."
            raise BadRequest(message, param=name, code="unsupported_parameter")
    fields, stored = _taken(fields)
    view = view_of(fields, CompletionBody)
    prompts = [] if stored is not None and not view.prompt else _prompts(view.prompt)
    choices = len(prompts) * (view.n or 1)
    if choices > MAX_CHOICES:
        name = "n" if len(prompts) == 1 else "prompt"
        message = f"{name}: expected at most {MAX_CHOICES} choices in all, got {choices}: each prompt has n of them."
        raise BadRequest(message, param=name)
    if stored is not None and len(prompts) > 1:
        raise BadRequest("prompt: expected one text beside a stored prompt.", param="prompt")
    _refuse(view)
    given = {name: value for name, value in fields.items() if name not in _OWN and name not in OF_CHATS}
    given["messages"] = [{"role": "user", "content": prompt} for prompt in prompts]
    request = decode_chat(body, given, stored)
    return request if len(prompts) <= 1 else replace(request, n=choices, questions=len(prompts))


def _taken(fields: dict[str, Any]) -> tuple[dict[str, Any], PromptUse | None]:
    """The fields, and the stored prompt: an object in the field that else has the text, or the model's name."""
    text = fields.get("prompt")
    asked = {name: value for name, value in fields.items() if name != "prompt"}
    asked, stored = taken(asked | {"prompt": text} if isinstance(text, dict) else asked, own="prompt")
    if not isinstance(text, dict | None):
        asked["prompt"] = text
    return asked, None if stored is None else replace(stored, lacks=_LACKED)


def _prompts(given: str | list[str | int | list[int]] | dict[str, Any]) -> list[str]:
    prompts: list[Any] = [given] if isinstance(given, str) else list(given)
    if not prompts:
        raise BadRequest("prompt: expected at least one prompt, got an empty list.", param="prompt")
    for index, each in enumerate(prompts):
        place = "prompt" if isinstance(given, str) else f"prompt.{index}"
        if not isinstance(each, str):
            message = f"{place}: token ids belong to the vocabulary of one model. Send the prompt as text."
            raise BadRequest(message, param=place, code="unsupported_parameter")
        if not each:
            raise BadRequest(f"{place}: is empty.", param=place)
    return prompts


def _refuse(view: CompletionBody) -> None:
    """Refuses what no chat model does, unless the value asks for nothing."""
    why = {
        "best_of": view.best_of not in (None, view.n or 1) and "the proxy does not choose among answers. Use `n`",
        "echo": view.echo and "an answer has no prompt in it. Put the prompt in front of it yourself",
        "logprobs": view.logprobs is not None and view.logprobs is not False and f"ask {_CHATS}, which has `logprobs`",
        "suffix": view.suffix and "chat models do not fill in between two texts. Ask for that in the prompt",
    }
    for name, reason in why.items():
        if reason:
            raise BadRequest(f"{name}: not supported: {reason}.", param=name, code="unsupported_parameter")


class CompletionsFormat:
    """`/v1/completions`."""

    paths = ("/v1/completions", "/completions")

    def decode(self, body: bytes) -> ChatRequest:
        return decode_completion(body)

    def unread(self, model: str) -> ChatRequest:
        return ChatRequest(model=model, messages=[], fields={})

    def whole(self, call: Call, answer: AnyResponse) -> bytes:
        response = cast(ChatResponse, answer)
        choices = []
        for place, choice in enumerate(response["choices"]):
            reason = choice.get("finish_reason")
            choices.append(_choice(choice.get("index", place), choice["message"], reason and _finish(reason)))
        body = {**response, **_head(call, call.shown_model), "choices": choices, "usage": call.usage(), **trace(call)}
        return encode_sized(body, call.answer_bytes)

    def writer(self, call: Call) -> TextWriter:
        request = cast(ChatRequest, call.request)
        include_usage = request.include_usage or request.hints.trace
        return TextWriter(lambda: _head(call, call.shown_model), include_usage, lambda: trace(call))

    def error(self, error: ProxyError) -> bytes:
        return encode(error.body())


class TextWriter:
    """Writes one stream: pieces of text, then in one write the finish of each choice, the usage and `[DONE]`.

    `head` returns the fields of every chunk; it is called at the first one. `extras` returns more fields of the last.
    """

    keep_alive = b": ping\n\n"

    def __init__(self, head: Callable[[], dict[str, Any]], include_usage: bool, extras: Callable[[], Any]) -> None:
        self._make_head = head
        self._include_usage = include_usage
        self._extras = extras
        self._head: dict[str, Any] = {}
        self._finished: dict[int, str] = {}

    def write(self, chunks: list[ChatChunk]) -> bytes:
        self._head = self._head or self._make_head()
        frames: list[bytes] = []
        for chunk in chunks:
            for choice in chunk.get("choices", []):
                index, reason = choice.get("index", 0), choice.get("finish_reason")
                if reason:
                    self._finished[index] = _finish(reason)
                piece = _choice(index, choice.get("delta") or {}, None)
                if piece["text"] or "reasoning_content" in piece:
                    frames.append(self._chunk([piece]))
        return b"".join(frames)

    def tail(self, usage: Usage) -> bytes:
        extras = self._extras()
        frames = [self._chunk([_choice(index, {}, reason)]) for index, reason in sorted(self._finished.items())]
        if self._include_usage:
            frames.append(sse({**self._head, "choices": [], "usage": usage, **extras}))
        elif extras and frames:  # clients read the first choice of every chunk
            index, reason = max(self._finished.items())
            frames[-1] = sse({**self._head, "choices": [_choice(index, {}, reason)], "usage": usage, **extras})
        return b"".join(frames) + DONE

    def error(self, error: ProxyError) -> bytes:
        """No finish_reason and no `[DONE]` come after it."""
        return sse(error.body())

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return sse({**self._head, "choices": choices, **({"usage": None} if self._include_usage else {})})


def _head(call: Call, model: str) -> dict[str, Any]:
    return {"id": f"cmpl-{call.id}", "object": "text_completion", "created": call.created, "model": model}


def _choice(index: int, said: Any, reason: str | None) -> dict[str, Any]:
    """A choice of a whole answer or of a chunk. A refusal is its text; reasoning stands beside it."""
    text = (said.get("content") or "") + (said.get("refusal") or "")
    thought = {"reasoning_content": said["reasoning_content"]} if said.get("reasoning_content") else {}
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason, **thought}


def _finish(reason: str) -> str:
    return reason if reason in _FINISHES else "stop"
