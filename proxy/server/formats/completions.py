"""Translates: `/v1/completions`, OpenAI's older endpoint: each prompt becomes a chat of one user message.

A server that has this endpoint gets the body unchanged. If another one answers, features that need a completion model
(`echo`, `suffix`, token ids) are refused by name, and so are fields of chats without a place in this answer. Shapes:
the `openai` package 3.57, November 2026.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import replace

from proxy.pipeline.call import Call
from proxy.pipeline.trace import trace
from proxy.providers.base.answers import listed, mapping
from proxy.providers.compatible import COMPLETIONS
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, StreamOptions, by_piece
from proxy.schema.endpoints import AnyResponse
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import encode, encode_sized
from proxy.schema.origins import Origin, Origins
from proxy.schema.prompts import PromptUse
from proxy.schema.request import NativeBody
from proxy.schema.usage import Usage
from proxy.server.formats.body import request_fields, view_of
from proxy.server.formats.chat import KNOWN_FIELDS, MAX_CHOICES, decode_chat
from proxy.server.formats.chat_answer import DONE, sse
from proxy.server.formats.stored_prompt import taken

_CHATS = "/v1/chat/completions"
UNLIKELY = -9999.0  # vendors' value for a token without a log probability


class CompletionBody(Struct, frozen=True):
    """The fields of a completion request. Options of chats that do not change the shape, such as `reasoning_effort`,
    are passed on.
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
_LACKED = tuple(name for name in OF_CHATS if name != "response_format")  # in stored prompts: answers are text
_OWN = ("prompt", "best_of", "echo", "logprobs", "suffix")
_KNOWN = (KNOWN_FIELDS - set(OF_CHATS)) | set(_OWN)
_ORIGINS = Origins([Origin("prompt", content="")], fields={"messages": "prompt", "max_completion_tokens": "max_tokens"})
_ONLY_COMPLETIONS = {
    "echo": "way to repeat the prompt: put it in front of the answer yourself",
    "suffix": "way to fill in between two texts: ask for that in the prompt",
}
_BESIDE = ("reasoning_content", "annotations")  # members of an answer that older clients do not know
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
    questions = max(1, len(prompts))
    choices = questions * (view.n or 1)
    if choices > MAX_CHOICES:
        name = "n" if len(prompts) == 1 else "prompt"
        message = f"{name}: expected at most {MAX_CHOICES} choices in total, got {choices}: each prompt has n of them."
        raise BadRequest(message, param=name)
    if stored is not None and len(prompts) > 1:
        raise BadRequest("prompt: expected one text beside a stored prompt.", param="prompt")
    _refuse(view)
    given = {name: value for name, value in fields.items() if name not in _OWN and name not in OF_CHATS}
    given["messages"] = [{"role": "user", "content": _text_of(prompt)} for prompt in prompts]
    native = _native(body, fields, view, prompts)
    if "logprobs" in native.needed:
        given |= {"logprobs": True, **({"top_logprobs": view.logprobs} if int(view.logprobs or 0) else {})}
    request = decode_chat(body, given, stored)
    return replace(request, n=choices, questions=questions, origins=_ORIGINS, native=native)


def _taken(fields: dict[str, Any]) -> tuple[dict[str, Any], PromptUse | None]:
    """The fields, and the stored prompt: an object in place of the text in `prompt`, or the model's name."""
    text = fields.get("prompt")
    asked = {name: value for name, value in fields.items() if name != "prompt"}
    asked, stored = taken(asked | {"prompt": text} if isinstance(text, dict) else asked, own="prompt")
    if not isinstance(text, dict | None):
        asked["prompt"] = text
    return asked, None if stored is None else replace(stored, lacks=_LACKED)


def _prompts(given: Any) -> list[str | list[int]]:
    """The prompts, each a text or a list of token ids."""
    is_one = isinstance(given, str) or _is_ids(given)
    prompts: list[Any] = [given] if is_one else given
    if not prompts:
        raise BadRequest("prompt: expected at least one prompt, got an empty list.", param="prompt")
    for index, each in enumerate(prompts):
        place = "prompt" if is_one else f"prompt.{index}"
        if not isinstance(each, str) and not _is_ids(each):
            raise BadRequest(f"{place}: expected a text, or a list of token ids.", param=place)
        if not each:
            raise BadRequest(f"{place}: is empty.", param=place)
    return prompts


def _is_ids(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(type(each) is int for each in prompt)


def _text_of(prompt: str | list[int]) -> str:
    """The text to count. Token ids only count: they are never sent as text."""
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))


def _refuse(view: CompletionBody) -> None:
    """Refuses `best_of`: the proxy would have to pay for answers and choose among them."""
    if view.best_of not in (None, view.n or 1):
        message = "best_of: not supported: the proxy does not choose among answers. Use `n`."
        raise BadRequest(message, param="best_of", code="unsupported_parameter")


def _native(body: bytes, fields: dict[str, Any], view: CompletionBody, prompts: list[str | list[int]]) -> NativeBody:
    """The body for a server that has the endpoint. Features of such a server only are refused by others."""
    only_here = {name: what for name, what in _ONLY_COMPLETIONS.items() if getattr(view, name)}
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            place = f"prompt.{index}" if len(prompts) > 1 else "prompt"
            only_here[place] = "use for token ids, which belong to the vocabulary of one model: send the prompt as text"
    wants_logprobs = view.logprobs is not None and view.logprobs is not False
    native = NativeBody(
        COMPLETIONS,
        "/completions",
        body,
        only_here=only_here,
        needed={"logprobs": ("logprobs", "log probabilities")} if wants_logprobs else {},
        passes=False,
        prompts=tuple(prompts),
    ).without_hints(fields)
    return native.changed({"stream_options": {"include_usage": True}}) if view.stream else native


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
            index, tokens = choice.get("index", place), old_logprobs(choice.get("logprobs"))
            choices.append(_choice(index, choice["message"], reason and _finish(reason), tokens))
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
    held = 0

    def __init__(self, head: Callable[[], dict[str, Any]], include_usage: bool, extras: Callable[[], Any]) -> None:
        self._make_head = head
        self._include_usage = include_usage
        self._extras = extras
        self._head: dict[str, Any] = {}
        self._finished: dict[int, str] = {}
        self._written: dict[int, int] = {}  # characters of each choice

    def write(self, chunks: list[ChatChunk]) -> bytes:
        self._head = self._head or self._make_head()
        frames: list[bytes] = []
        for chunk in by_piece(chunks):
            for choice in chunk.get("choices", []):
                index, reason = choice.get("index", 0), choice.get("finish_reason")
                if reason:
                    self._finished[index] = _finish(reason)
                said = choice.get("delta") or {}
                tokens = old_logprobs(choice.get("logprobs"), self._written.get(index, 0))
                piece = _choice(index, said, None, tokens)
                if piece["text"] or tokens is not None or not piece.keys().isdisjoint(_BESIDE):
                    self._written[index] = self._written.get(index, 0) + len(piece["text"])
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
        """The last frame of a failed stream, without finish_reason and `[DONE]`."""
        return sse(error.body())

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return sse({**self._head, "choices": choices, **({"usage": None} if self._include_usage else {})})


def _head(call: Call, model: str) -> dict[str, Any]:
    return {"id": f"cmpl-{call.id}", "object": "text_completion", "created": call.created, "model": model}


def _choice(index: int, said: Any, reason: str | None, tokens: dict[str, Any] | None = None) -> dict[str, Any]:
    """A choice of a whole answer or of a chunk. A refusal becomes its text; reasoning and sources are beside it."""
    text = (said.get("content") or "") + (said.get("refusal") or "")
    beside = {name: said[name] for name in _BESIDE if said.get(name)}
    return {"text": text, "index": index, "logprobs": tokens, "finish_reason": reason, **beside}


def old_logprobs(found: Any, offset: int = 0) -> dict[str, Any] | None:
    """The log probabilities of a chat answer in the shape of this endpoint. `offset`: characters before them. The first
    token of a repeated prompt has none.
    """
    content = mapping(found).get("content")
    if not isinstance(content, list):
        return None
    lists: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for each in map(mapping, content):
        text, likely = str(each.get("token", "")), each.get("logprob")
        lists["tokens"].append(text)
        lists["token_logprobs"].append(None if likely == UNLIKELY and not offset else likely)
        lists["top_logprobs"].append({top["token"]: top["logprob"] for top in listed(each.get("top_logprobs"))} or None)
        lists["text_offset"].append(offset)
        offset += len(text)
    return lists


def _finish(reason: str) -> str:
    return reason if reason in _FINISHES else "stop"
