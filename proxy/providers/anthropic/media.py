"""Translates: text, images and files of a message into the vendor's content blocks."""

from __future__ import annotations

import base64
from typing import Any

from proxy.providers.base.content import Part, refuse
from proxy.providers.base.fields import Fields
from proxy.schema.errors import BadRequest

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_PDF = "application/pdf"
_PDF_START = "JVBERi0"  # base64 of `%PDF-`: some clients send files without a type
_TEXTS = ("application/json", "application/xml", "application/x-yaml")
_OPTIONS = (("title", str), ("context", str), ("citations", dict))  # of a document, by the vendor's names
BREAKPOINTS = ("cache_control", "prompt_cache_breakpoint")  # the vendor's name, OpenAI's


def block_of(part: Part, model: str, fields: Fields) -> dict[str, Any] | None:
    """The block of a part; None for blank text, which the vendor refuses. Raises BadRequest for content that the vendor
    does not support.
    """
    if part.kind in ("text", "refusal"):
        block = {"type": "text", "text": part.text} if part.text.strip() else None
    elif part.kind == "image":
        block = _image(part, model, fields)
    elif part.kind == "file":
        block = _file(part, model)
    else:
        raise refuse(part, model)
    mark = cache_mark(part.raw, fields)
    return {**block, "cache_control": mark} if block is not None and mark is not None else block


def cache_mark(raw: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    """A cache breakpoint in the vendor's form."""
    mark = next((raw[name] for name in BREAKPOINTS if raw.get(name) is not None), None)
    if mark is None:
        return None
    if "cache_control" not in raw:
        return {"type": "ephemeral"}
    if not isinstance(mark, dict) or mark.get("type") != "ephemeral" or mark.get("ttl") not in (None, "5m", "1h"):
        fields.drop("cache_control")
        return None
    return {"type": "ephemeral", **({"ttl": mark["ttl"]} if mark.get("ttl") else {})}


def _image(part: Part, model: str, fields: Fields) -> dict[str, Any]:
    inner = part.raw.get("image_url")
    detail = inner.get("detail") if isinstance(inner, dict) else None
    if detail not in (None, "auto"):
        fields.drop("messages.image_url.detail")
    media_type = "image/jpeg" if part.media_type == "image/jpg" else part.media_type
    if part.data is not None and media_type not in _IMAGES:
        raise refuse(part, model, f"it takes {', '.join(_IMAGES)}, not {media_type}")
    return {"type": "image", "source": _source(part, media_type, model)}


def _file(part: Part, model: str) -> dict[str, Any]:
    media_type = part.media_type or ""
    if media_type in _IMAGES:
        return {"type": "image", "source": _source(part, media_type, model)}
    if part.data is None or media_type == _PDF or part.data.startswith(_PDF_START):
        source = _source(part, _PDF, model)
    elif media_type.startswith("text/") or media_type in _TEXTS:
        source = {"type": "text", "media_type": "text/plain", "data": _text(part)}
    else:
        raise refuse(part, model, f"it accepts PDF and text files, not {media_type}")
    named = {"title": part.filename} if part.filename else {}
    own = {name: part.raw[name] for name, kind in _OPTIONS if isinstance(part.raw.get(name), kind)}
    return {"type": "document", "source": source, **named, **own}


def _source(part: Part, media_type: str | None, model: str) -> dict[str, Any]:
    if part.file_id is not None:
        return {"type": "file", "file_id": part.file_id}
    if part.url is not None:
        if part.url.startswith("gs://"):
            raise refuse(part, model, "the provider follows only http links")
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": media_type, "data": part.data}


def _text(part: Part) -> str:
    try:
        text = base64.b64decode(part.data or "").decode()
    except UnicodeDecodeError:
        raise BadRequest("A text file must be UTF-8.", param=part.where) from None
    if not text.strip():
        raise BadRequest("The file is empty.", param=part.where)
    return text
