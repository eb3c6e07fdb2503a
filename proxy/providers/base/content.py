"""Translates: the content of messages into parts, for translations into other wire formats."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from proxy.providers.base.answers import json_or_none
from proxy.schema.errors import BadRequest
from proxy.schema.json_structure import STEP_BYTES
from proxy.schema.json_writing import text_of

_USUAL = str.maketrans("-_", "+/")  # from URL-safe base64
_DATA_URL = re.compile(r"data:(?P<type>[\w.+/-]+)?(?:;[\w=.+-]+)*?(?P<b64>;base64)?,", re.ASCII)
_LINKED = ("http://", "https://", "gs://")
REASONING_FIELD = "reasoning_field"  # holds the field in which a server sent its thoughts, if it was not ours
# Fields of our own answers that clients send back with the history, but only some vendors can read.
ECHOES = frozenset(
    {
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        REASONING_FIELD,
        "thinking_blocks",
        "extra_content",
        "provider_specific_fields",
        "annotations",
        "citations",
        "search_results",
        "executed_tools",
    }
)
CACHE_MARKS = ("cache_control", "prompt_cache_breakpoint")  # Anthropic's name, OpenAI's
_KINDS = {"image_url": "image", "input_audio": "audio", "video_url": "video", "file": "file", "document": "file"}


class Part(Struct, frozen=True):
    """One content part. `kind`: text, refusal, image, audio, video, file.

    Text and refusals have `text`; the others have `data` (base64) with `media_type`, or `url`, or a vendor's `file_id`.
    `raw` is the original part, with fields that only one vendor reads (`cache_control`, `detail`); `where` its dotted
    path.
    """

    kind: str
    where: str
    raw: dict[str, Any]
    text: str = ""
    url: str | None = None
    media_type: str | None = None
    data: str | None = None
    file_id: str | None = None
    filename: str | None = None


def parts(content: str | list[dict[str, Any]] | None, where: str) -> list[Part]:
    """The parts of a message's content; `where` is its dotted path (`messages.0.content`).

    Raises BadRequest for a part of an unknown type, without its content, or with a broken data URL.
    """
    if content is None:
        return []
    if isinstance(content, str):
        return [Part("text", where, {"type": "text", "text": content}, content)] if content else []
    return [_part(raw, f"{where}.{index}") for index, raw in enumerate(content)]


def thoughts_in(content: Any) -> tuple[list[str], Any]:
    """The texts of the `thinking` parts of a content, as Cohere (a text) and Mistral (a list of text parts) write them,
    and the content without those parts.
    """
    if not isinstance(content, list):
        return [], content
    thoughts, rest = [], []
    for raw in content:
        said = raw.get("thinking") if isinstance(raw, dict) and raw.get("type") == "thinking" else None
        if not isinstance(said, str | list):
            rest.append(raw)
            continue
        texts = [said] if isinstance(said, str) else [each.get("text") for each in said if isinstance(each, dict)]
        thoughts.append("".join(text for text in texts if isinstance(text, str)))
    return thoughts, rest


def _part(raw: dict[str, Any], where: str) -> Part:
    kind = raw.get("type") if isinstance(raw, dict) else None
    if kind in ("text", "refusal"):
        text = raw.get(kind)
        if not isinstance(text, str):
            raise BadRequest(f"A part of type {kind!r} needs a text in `{kind}`.", param=f"{where}.{kind}")
        return Part(kind, where, raw, text)
    if not isinstance(kind, str) or kind not in _KINDS:
        known = ", ".join(("text", "refusal", *_KINDS))
        message = f"Unknown type of content part {str(kind)[:64]!r}. Known: {known}."
        raise BadRequest(message, param=f"{where}.type", code="unsupported_content")
    inner = raw.get(kind)
    if isinstance(inner, str):
        inner = {"url": inner}  # seen from clients that write `"image_url": "https://..."`
    if not isinstance(inner, dict):
        raise BadRequest(f"A part of type {kind!r} needs an object in `{kind}`.", param=f"{where}.{kind}")
    return _media(_KINDS[kind], raw, inner, f"{where}.{kind}")


def _media(kind: str, raw: dict[str, Any], inner: dict[str, Any], where: str) -> Part:
    """`{"url"}` (a link or a data URL), `{"data", "format"}` of audio, `{"file_data" | "file_id"}` of files."""
    filename = inner.get("filename") if isinstance(inner.get("filename"), str) else None
    if isinstance(inner.get("file_id"), str):
        return Part(kind, where, raw, file_id=inner["file_id"], filename=filename)
    if isinstance(inner.get("data"), str):
        media_type = f"audio/{inner.get('format') or 'wav'}"
        return Part(kind, where, raw, media_type=media_type, data=_base64(inner["data"], f"{where}.data"))
    name = "file_data" if "file_data" in inner else "url"
    url = inner.get(name)
    if not isinstance(url, str) or not url:
        message = f"A part of type {raw['type']!r} needs its content in `{name}`."
        raise BadRequest(message, param=f"{where}.{name}")
    if url.startswith(_LINKED):
        return Part(kind, where, raw, url=url, filename=filename)
    media_type, data = data_url(url, f"{where}.{name}")
    return Part(kind, where, raw, media_type=media_type, data=data, filename=filename)


def data_url(url: str, where: str) -> tuple[str, str]:
    """Media type and base64 data of a data URL. Raises BadRequest for anything else."""
    match = _DATA_URL.match(url)
    if match is None or not match["b64"]:
        message = "Expected a link (https://...) or a data URL (data:<media type>;base64,<data>)."
        raise BadRequest(message, param=where)
    return (match["type"] or "application/octet-stream").lower(), _base64(url[match.end() :], where)


def _base64(data: str, where: str) -> str:
    """The data as vendors take it: without line ends, in the usual alphabet, padded."""
    if not data:
        raise BadRequest("Expected base64 data, got none.", param=where)
    if _is_base64(data):
        return data
    mended = "".join((unquote(data) if "%" in data else data).split()).translate(_USUAL)
    mended += "=" * (-len(mended) % 4)
    if not mended or not _is_base64(mended):
        raise BadRequest("The data is not valid base64.", param=where)
    return mended


def _is_base64(data: str) -> bool:
    try:
        for at in range(0, len(data), STEP_BYTES):
            piece = base64.b64decode(data[at : at + STEP_BYTES], validate=True)
            if at + STEP_BYTES < len(data) and len(piece) < STEP_BYTES * 3 // 4:
                raise ValueError("padding before the end")
    except (binascii.Error, ValueError):
        return False
    return True


def refuse(part: Part, model: str, why: str = "") -> BadRequest:
    """The error for a part that `model` does not support; it names both."""
    reason = f": {why}" if why else ""
    return BadRequest(f"{model} cannot take {part.kind} content{reason}.", param=part.where, code="unsupported_content")


def arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a tool call as an object. Text that is not a JSON object is kept under `_raw`."""
    function = call.get("function")
    text = function.get("arguments") if isinstance(function, Mapping) else None
    if text is None or (isinstance(text, str) and not text.strip()):
        return {}
    value = json_or_none(text) if isinstance(text, str) else text
    if isinstance(value, dict):
        return value
    return {} if value is None and text == "null" else {"_raw": text if isinstance(text, str) else text_of(text)}
