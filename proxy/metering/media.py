"""Translates: images, audio and files of a request into upper bounds of their tokens, by the vendors' formulas.

A picture of 70 bytes may cost 1,000 tokens, and a photograph of a megabyte of base64 no more than that. So bytes do
not bound an image: its pixels do, or the vendor's maximum for any image. Checked in November 2026.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Any

from msgspec import Struct

from proxy.providers.base.contract import Provider
from proxy.providers.base.images import ImageRule
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest

_HEAD = 256 * 1024  # characters of base64 that must hold the size of an image
_TEXTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking", "redacted_thinking"})
_MP3_BYTES_PER_S = 1_000  # the lowest bit rate of MPEG audio is 8 kbit/s
_PCM = (1, 3, 0xFFFE)  # WAV formats without compression
_CLIENT_TOOL = re.compile(r"(?:bash|text_editor|computer|memory)_")  # Anthropic's, which the client runs
# Fields that make the vendor read more than the request holds: searches, connected servers, stored content.
_FETCHING = frozenset(
    {"web_search_options", "mcp_servers", "cachedContent", "cached_content", "container", "previous_response_id"}
    | {"search_settings", "compound_custom"}
)
_HIDDEN = 2_500  # tokens of such a tool; 1,600 were recorded for `memory`
_SEARCHES = re.compile(r"search|research|compound")  # in ids of models that search unasked


class Media(Struct, frozen=True):
    """The content of a request other than text.

    `size`: its bytes in the request. `images`: inline ones; `audio`: inline, with the format of each. `is_fetched`: the
    vendor fetches something, or searches, so that nothing bounds what it reads. `has_others`: inline files and videos,
    which only the model's context bounds. `hidden`: the most tokens of instructions that the vendor adds.
    """

    size: int = 0
    images: tuple[str, ...] = ()
    audio: tuple[tuple[str, str], ...] = ()
    is_fetched: bool = False
    has_others: bool = False
    hidden: int = 0


NO_MEDIA = Media()


def media_of(request: AnyRequest) -> Media:
    """The media of a request."""
    if not isinstance(request, ChatRequest):
        return NO_MEDIA
    fields = request.fields
    fetches = not _FETCHING.isdisjoint(fields) or ("tools" in fields and _has_server_tool(fields["tools"]))
    parts: list[Mapping[str, Any]] = []
    for message in request.messages:
        if type(message.content) is list:
            parts += _beside_text(message)
    hidden = _HIDDEN * _client_tools(fields["tools"]) if "tools" in fields else 0
    if not parts and not fetches and not hidden:
        return NO_MEDIA
    images: list[str] = []
    audio: list[tuple[str, str]] = []
    size, others = 0, False
    for part in parts:
        kind, data = _inline(part)
        size += len(data)
        if not data:
            fetches = True
        elif kind == "image":
            images.append(data)
        elif kind == "audio":
            audio.append((data, _format_of(part)))
        else:
            others = True
    return Media(size, tuple(images), tuple(audio), fetches, others, hidden)


def searches_unasked(provider: Provider, model: str) -> bool:
    """True for models that search, or ask other models, whatever the request says."""
    return provider.searches_always or _SEARCHES.search(model) is not None


def image_bound(rules: Iterable[ImageRule], model: str, data: str) -> int | None:
    """The most tokens that this image may cost, by the first of the vendor's rules that fits; None: none fits."""
    for rule in rules:
        if rule.models.match(model):
            if isinstance(rule.most, int):
                return rule.most
            pixels = size_of(data)
            return None if pixels is None else rule.most(*pixels)
    return None


def audio_bound(each_second: int | None, data: str, form: str) -> int | None:
    """The most tokens that this recording may cost at `each_second` tokens a second; None: unknown."""
    seconds = _seconds(data, form)
    return None if each_second is None or seconds is None else ceil((seconds + 1) * each_second)


def size_of(data: str) -> tuple[int, int] | None:
    """Width and height of an image in base64, or in a data URL; None: not found where they belong."""
    head = _decoded(data)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
        return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])
    if head[:4] == b"GIF8" and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP" and len(head) >= 30:
        return _webp(head)
    return _jpeg(head) if head[:2] == b"\xff\xd8" else None


# --- what a request holds ---------------------------------------------------------------------------------------------


def _beside_text(message: Any) -> Iterator[Mapping[str, Any]]:
    return (part for part in message.content if part.get("type") not in _TEXTS)


def _has_server_tool(tools: object) -> bool:
    """True for tools that the vendor runs: it feeds their results to the model."""
    return isinstance(tools, list) and any(not isinstance(tool, dict) or _is_server_tool(tool) for tool in tools)


def _client_tools(tools: object) -> int:
    """The number of tools whose definition the vendor itself adds."""
    every = tools if isinstance(tools, list) else []
    return sum(isinstance(tool, dict) and _CLIENT_TOOL.match(str(tool.get("type"))) is not None for tool in every)


def _is_server_tool(tool: Mapping[str, Any]) -> bool:
    kind = tool.get("type")
    if kind is None:
        return "function" not in tool and "name" not in tool  # such as Google's {"googleSearch": {}}
    return kind not in ("function", "custom") and not _CLIENT_TOOL.match(str(kind))


def _inline(part: Mapping[str, Any]) -> tuple[str, str]:
    """The kind of a part, and its data; "" if the vendor fetches it."""
    kind = str(part.get("type"))
    value = part.get(kind)
    inner = value if isinstance(value, dict) else {"url": value}
    if kind == "input_audio":
        data = inner.get("data") or inner.get("url")
        return "audio", data if isinstance(data, str) and "://" not in data[:16] else ""
    data = inner.get("file_data") or inner.get("url")
    if not isinstance(data, str) or not (data.startswith("data:") or "file_data" in inner):
        return kind, ""
    return "image" if kind == "image_url" else kind, data


def _format_of(part: Mapping[str, Any]) -> str:
    inner = part.get("input_audio")
    return str(inner.get("format")) if isinstance(inner, dict) else ""


# --- pixels and seconds -----------------------------------------------------------------------------------------------


def _decoded(data: str) -> bytes:
    start = data.find(",") + 1 if data.startswith("data:") else 0
    head = data[start : start + _HEAD]
    try:
        return b64decode(head[: len(head) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def _jpeg(head: bytes) -> tuple[int, int] | None:
    """The size from the frame header, which follows segments of any length."""
    at = 2
    while at + 9 < len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(head[at + 7 : at + 9]), int.from_bytes(head[at + 5 : at + 7])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(head[at + 2 : at + 4])
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    match head[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None


def _seconds(data: str, form: str) -> float | None:
    """An upper bound of how long a recording is."""
    size = len(data) * 3 / 4
    if form == "mp3":
        return size / _MP3_BYTES_PER_S
    head = _decoded(data)
    at = head.find(b"fmt ", 12)
    if form != "wav" or head[:4] != b"RIFF" or at < 0 or len(head) < at + 24:
        return None
    tag, channels, rate = (int.from_bytes(head[at + 8 + a : at + 8 + b], "little") for a, b in ((0, 2), (2, 4), (4, 8)))
    each_second = rate * channels * (int.from_bytes(head[at + 22 : at + 24], "little") // 8)
    return size / each_second if tag in _PCM and each_second else None
