"""Translates: one candidate, whole or in pieces, into the deltas of one choice."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from proxy.providers.base.call_ids import CallIds
from proxy.providers.base.errors import scrub
from proxy.providers.base.finish import derived_finish, names_finish, native_finish
from proxy.providers.google.arguments import Arguments
from proxy.providers.google.grounding import queries, url_citations
from proxy.providers.google.own_parts import CODE, note
from proxy.providers.google.wire import Blob, Candidate, FunctionCall, Logprobs, Part, Token
from proxy.schema.errors import UpstreamError
from proxy.schema.json_writing import text_of, write_large
from proxy.schema.long_text import base64_text, concatenated, from_base64, joined_bytes

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
_FILTERED = (
    *("SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION"),
    *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "IMAGE_OTHER", "NO_IMAGE", "MODEL_ARMOR"),
    "PUP_LIMITED_DISABLED",  # the account violated the usage policy
)
_AGAIN = ("MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL")
_FAILED = (*_AGAIN, "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE")  # no answer was given


class ChoiceDecoder:
    """One choice in progress. `answer_id`: the vendor's id of the answer, from which ids of calls are built."""

    def __init__(self, index: int, answer_id: str, ids: CallIds) -> None:
        self._index = index
        self._ids = ids
        self._answer_id = answer_id
        self._calls = 0
        self._open: Arguments | None = None  # of the last call, while it arrives in pieces
        self._text: list[str] = []
        self._characters = 0  # of those texts
        self._media: list[_Medium] = []
        self._signature: str | None = None
        self._code: dict[str, list[Any]] = {}
        self._own: list[dict[str, Any]] = []
        self._extras: dict[str, Any] = {}
        self._can_cite = self._cited = False
        self.has_content = self.finished = False
        self.queries = 0

    def add(self, candidate: Candidate, is_cut: bool) -> list[dict[str, Any]]:
        """The entries that a candidate adds to a chunk's `choices`. `is_cut`: the limit was reached, as far as known.
        Raises UpstreamError if the model gave no usable answer.
        """
        deltas = [delta for part in (candidate.content and candidate.content.parts) or [] for delta in self._part(part)]
        entries = [self._entry(delta) for delta in deltas]
        if candidate.logprobs_result is not None:
            entries.append({**self._entry({}), "logprobs": _logprobs(candidate.logprobs_result)})
        self._keep(candidate)
        self.has_content = self.has_content or bool(candidate.content and candidate.content.parts)
        if names_finish(candidate.finish_reason):
            entries += self._finish(candidate.finish_reason, candidate.finish_message, is_cut)
        elif self.finished:
            entries += self._late(candidate)
        return entries

    def _entry(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "finish_reason": None}

    def _part(self, part: Part) -> list[dict[str, Any]]:
        deltas: list[dict[str, Any]] = []
        if part.function_call is not None:
            deltas += self._call(part.function_call, part.thought_signature)
        elif part.thought_signature and not part.thought and part.text is not None:
            self._signature = part.thought_signature
        if part.text:
            deltas.append({"reasoning_content" if part.thought else "content": part.text})
            if not part.thought:
                self._text.append(part.text)
                self._characters += len(part.text)
        if part.inline_data is not None and not part.thought:
            self._media.append(_Medium(part.inline_data, part.thought_signature))
        self._note_own(part)
        return deltas

    def _note_own(self, part: Part) -> None:
        """Parts that only this vendor has travel beside the message and come back with it."""
        for name, value in (
            ("executableCode", part.executable_code),
            ("codeExecutionResult", part.code_execution_result),
            ("toolCall", part.tool_call),
            ("toolResponse", part.tool_response),
        ):
            if value is None:
                continue
            if name in CODE:
                self._code.setdefault(name, []).append(value)
            self._own.append(note({name: value}, part.thought_signature, self._characters, self._calls))

    # --- tool calls ---------------------------------------------------------------------------------------------------

    def _call(self, call: FunctionCall, signature: str | None) -> list[dict[str, Any]]:
        """A complete call, or the next piece of one. Only the first piece has a name."""
        if not call.name and self._open is None:
            if self._calls and not call.args and not call.partial_args:
                return []  # the end mark of a call that has ended
            raise UpstreamError(
                "The provider's answer has a tool call without a function name.", retryable=True, upstream_status=200
            )
        deltas: list[dict[str, Any]] = []
        in_pieces = call.will_continue is True or call.partial_args is not None
        if call.name:
            deltas += self._close_call()
            arguments = "" if in_pieces else text_of(call.args or {})
            deltas.append({"tool_calls": [self._opening(call, arguments, signature)]})
            self._calls += 1
            self._open = Arguments() if in_pieces else None
        if self._open is not None:
            self._open.put(call.args or {})
            for piece in call.partial_args or []:
                self._open.add(piece)
            if call.will_continue is not True:
                deltas += self._close_call()
        return deltas

    def _opening(self, call: FunctionCall, arguments: str, signature: str | None) -> dict[str, Any]:
        function = {"name": call.name, "arguments": arguments}
        opening = {"index": self._calls, "id": self._id(call, signature), "type": "function", "function": function}
        if signature:
            opening["extra_content"] = {"google": {"thought_signature": signature}}
        return opening

    def _id(self, call: FunctionCall, signature: str | None) -> str:
        """The call's id. Models before Gemini 3 send none; it is built from values that are the same for whole and
        streamed answers.
        """
        given = call.id
        if not given:
            made_of = self._answer_id or hashlib.sha256(write_large([call.name, call.args, signature])).hexdigest()[:20]
            given = f"call_{made_of}_{self._index}_{self._calls}"
        return self._ids.unique(given, self._calls)

    def _close_call(self) -> list[dict[str, Any]]:
        if self._open is None:
            return []
        function = {"arguments": text_of(self._open.whole())}
        self._open = None
        return [{"tool_calls": [{"index": self._calls - 1, "function": function}]}]

    # --- the end ------------------------------------------------------------------------------------------------------

    def _keep(self, candidate: Candidate) -> None:
        """Metadata beside the text, under the vendor's own names; the last non-empty value counts."""
        kept = {
            "groundingMetadata": candidate.grounding_metadata,
            "citationMetadata": candidate.citation_metadata,
            "urlContextMetadata": candidate.url_context_metadata,
            "safetyRatings": candidate.safety_ratings,
            "continuationToken": candidate.continuation_token,  # clients send it back as the field of that name
        }
        self._extras |= {name: value for name, value in kept.items() if value}
        if candidate.grounding_metadata:
            self.queries = queries(candidate.grounding_metadata)
            self._can_cite = not self._cited

    def end(self, is_cut: bool) -> list[dict[str, Any]]:
        """The end of a complete choice without a finish reason."""
        reason, native = derived_finish("tool_calls" if self._calls else None, is_cut)
        self.finished = True
        return [*self._rest(), {**self._entry({}), "finish_reason": reason, **native, **self._extras}]

    def _rest(self) -> list[dict[str, Any]]:
        """The entries that were held back until the end."""
        entries = [self._entry(delta) for delta in self._close_call()]
        return [*entries, self._entry(delta)] if (delta := self._beside()) else entries

    def _finish(self, word: str, message: str | None, is_cut: bool) -> list[dict[str, Any]]:
        said = bool(self._calls or self._text or self._media) or self.finished
        if word in _FAILED and not said:
            told = scrub(f"The model stopped without an answer ({word}). {message or ''}")
            raise UpstreamError(told, retryable=word in _AGAIN, upstream_status=200)
        entries = self._rest()
        called = "tool_calls" if self._calls else None
        if (reason := "content_filter" if word in _FILTERED else _FINISH.get(word)) is None:
            reason, native = derived_finish(called, is_cut, word)
        else:
            if self._calls and reason == "stop":
                reason = "tool_calls"  # the vendor sends STOP, often in a later event than the call's
            native = native_finish(word) if word.lower() != reason else {}
        last = {**self._entry({}), "finish_reason": reason, **native, **self._extras}
        if message and word != "STOP":
            last["finishMessage"] = scrub(message)
        self.finished = True
        return [*entries, last]

    def _late(self, candidate: Candidate) -> list[dict[str, Any]]:
        """Content after the finish: some servers send citations there."""
        delta = self._beside()
        if not delta and candidate.grounding_metadata is None:
            return []
        return [{**self._entry(delta), **self._extras}]

    def _beside(self) -> dict[str, Any]:
        """The rest of the message besides texts and calls, once it is complete; each part is sent once."""
        delta: dict[str, Any] = {}
        if self._can_cite:
            cited = url_citations(self._extras["groundingMetadata"], "".join(self._text))
            delta |= {"annotations": cited} if cited else {}
            self._can_cite, self._cited = False, bool(cited)
        google: dict[str, Any] = {"thought_signature": self._signature} if self._signature else {}
        google |= {"parts": self._own} if self._own else {}
        delta |= {"extra_content": {"google": google}} if google else {}
        delta |= _media(self._media, self._answer_id) | self._code
        self._signature, self._own, self._media, self._code = None, [], [], {}
        return delta


class _Medium(NamedTuple):
    blob: Blob
    signature: str | None


def _media(media: list[_Medium], answer_id: str) -> dict[str, Any]:
    """`images` as data URLs, `audio` in OpenAI's shape (one recording, its pieces joined), other media unchanged."""
    images = [each for each in media if each.blob.mime_type.startswith("image/")]
    sounds = [each.blob for each in media if each.blob.mime_type.startswith("audio/")]
    others = [each.blob for each in media if not each.blob.mime_type.startswith(("image/", "audio/"))]
    delta: dict[str, Any] = {}
    if images:
        delta["images"] = [_image(each) for each in images]
    if sounds:
        data = base64_text(joined_bytes([_decoded(blob.data) for blob in sounds]))
        sound = {"id": f"audio_{answer_id}", "data": data, "expires_at": 0, "transcript": ""}
        delta["audio"] = {**sound, "mime_type": sounds[0].mime_type}
    if others:
        delta["inlineData"] = [{"mimeType": blob.mime_type, "data": blob.data} for blob in others]
    return delta


def _image(medium: _Medium) -> dict[str, Any]:
    url = concatenated(f"data:{medium.blob.mime_type};base64,", medium.blob.data)
    image: dict[str, Any] = {"type": "image_url", "image_url": {"url": url}}
    if medium.signature:
        image["extra_content"] = {"google": {"thought_signature": medium.signature}}
    return image


def _decoded(data: str) -> bytes:
    try:
        return from_base64(data)
    except ValueError:
        raise UpstreamError("The provider's answer has audio that is not base64.", upstream_status=200) from None


def _logprobs(result: Logprobs) -> dict[str, Any]:
    tops = result.top_candidates or []
    content = []
    for place, chosen in enumerate(result.chosen_candidates or []):
        others = (tops[place].candidates if place < len(tops) else None) or []
        content.append({**_token(chosen), "top_logprobs": [_token(other) for other in others]})
    return {"content": content}


def _token(token: Token) -> dict[str, Any]:
    return {"token": token.token, "bytes": list(token.token.encode()), "logprob": token.log_probability}
