"""Translates: gives media in content parts the type that their first bytes show. Clients guess it, often wrongly, and
vendors refuse bytes that do not match their type.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from proxy.providers.base.answers import mapping

_READ = 64  # characters of base64: 48 bytes
_DATA_URL = re.compile(r"data:[^,]{0,200}?;base64,", re.IGNORECASE)
_LINK = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_PDF = "application/pdf"
_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", _PDF),
    (b"ID3", "audio/mp3"),
    (b"\xff\xfb", "audio/mp3"),
    (b"\xff\xf3", "audio/mp3"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav"}
_BRANDS = {b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif", b"avif": "image/avif"}


def type_of(data: str) -> str | None:
    """The media type that the first bytes of base64 `data` show; None if they show none."""
    try:
        start = base64.b64decode(data[:_READ][: len(data[:_READ]) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    if start[:4] == b"RIFF":
        return _RIFF.get(start[8:12])
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12])
    return next((kind for sign, kind in _STARTS if start.lstrip(b"\xef\xbb\xbf").startswith(sign)), None)


def named_by_bytes(part: Any) -> Any:
    """A content part with its true media type; the same object if the type is right, or the bytes do not show it."""
    kind = part.get("type") if isinstance(part, dict) else None
    inner = part.get(kind) if isinstance(kind, str) else None
    if kind == "image_url":
        return _image(part, inner)
    if kind == "file" and isinstance(inner, dict):
        given = inner.get("file_data")
        url = _true_url(given, ("image/", _PDF)) if isinstance(given, str) else given
        if isinstance(url, str) and url != given and url.startswith("data:image/"):
            others = {name: value for name, value in part.items() if name not in ("type", "file")}
            return {"type": "image_url", "image_url": {"url": url}, **others}
        return part if url == given else {**part, "file": {**inner, "file_data": url}}
    if kind == "input_audio" and isinstance(inner, dict) and isinstance(inner.get("data"), str):
        found = (type_of(inner["data"]) or "").partition("audio/")[2]
        is_right = not found or inner.get("format") == found
        return part if is_right else {**part, "input_audio": {**inner, "format": found}}
    return part


def _image(part: dict[str, Any], inner: Any) -> Any:
    given = inner if isinstance(inner, str) else mapping(inner).get("url")
    if not isinstance(given, str):
        return part
    url = _true_url(given, ("image/", _PDF))
    if url.startswith(f"data:{_PDF}"):
        others = {name: value for name, value in part.items() if name not in ("type", "image_url")}
        return {"type": "file", "file": {"file_data": url, "filename": "document.pdf"}, **others}
    if url == given:
        return part
    return {**part, "image_url": url if isinstance(inner, str) else {**inner, "url": url}}


def _true_url(url: str, kinds: tuple[str, ...]) -> str:
    """The data URL with the type of its bytes, if that is one of `kinds`; other texts unchanged."""
    match = _DATA_URL.match(url)
    if match is None and _LINK.match(url):
        return url
    data = url[match.end() :] if match is not None else url  # some clients send the bare base64
    found = type_of(data)
    if found is None or not found.startswith(kinds):
        return url
    head = f"data:{found};base64,"
    if match is not None and match[0] == head:
        return url
    return head + data
