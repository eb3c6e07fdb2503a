"""Translates: images, audio, video and files of a message into the vendor's parts."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from proxy.providers.base.answers import mapping
from proxy.providers.base.content import Part, refuse
from proxy.providers.base.fields import Fields
from proxy.providers.google.models import Traits

FILES_HOST = "https://generativelanguage.googleapis.com"
_OWN_FILES = (f"{FILES_HOST}/", "gs://")
_YOUTUBE = ("youtube.com", "www.youtube.com", "m.youtube.com", "youtu.be")
_UNKNOWN = "application/octet-stream"
_DEFAULTS = {"image": "image/jpeg", "audio": "audio/mp3", "video": "video/mp4", "file": "application/pdf"}
_NAMES = {  # file extensions that equal the second half of their type
    "image": ("png", "jpeg", "webp", "heic", "heif", "gif", "bmp"),
    "audio": ("wav", "mp3", "aac", "ogg", "flac", "aiff"),
    "video": ("mp4", "mpeg", "mov", "avi", "webm", "wmv"),
    "text": ("html", "css", "csv", "xml", "rtf"),
    "application": ("pdf", "json"),
}
_TYPES = {name: f"{kind}/{name}" for kind, names in _NAMES.items() for name in names} | {
    "jpg": "image/jpeg",
    "m4a": "audio/mp4",
    "mpg": "video/mpeg",
    "3gp": "video/3gpp",
    "flv": "video/x-flv",
    "txt": "text/plain",
    "md": "text/markdown",
    "py": "text/x-python",
    "js": "text/javascript",
}
_IN_RESULTS = ("image/png", "image/jpeg", "image/webp", "application/pdf", "text/plain")
_DETAILS = {"low": "LOW", "medium": "MEDIUM", "high": "HIGH", "original": "ULTRA_HIGH"}


def media_part(part: Part, traits: Traits, fields: Fields) -> dict[str, Any]:
    """`inlineData` for embedded data, `fileData` for links that the vendor fetches.

    Raises BadRequest for a link that it does not follow, or the file id of another vendor.
    """
    if part.data is not None:
        sent: dict[str, Any] = {"inlineData": {"mimeType": _given_type(part), "data": part.data}}
    else:
        sent = {"fileData": {"mimeType": _linked_type(part), "fileUri": _uri(part, traits)}}
    inner = _inner(part)
    detail = inner.get("detail")
    if detail is not None and detail != "auto":
        if traits.is_three and isinstance(detail, str) and detail in _DETAILS:
            sent["mediaResolution"] = {"level": f"MEDIA_RESOLUTION_{_DETAILS[detail]}"}
        else:
            fields.drop("messages.image_url.detail")
    video = part.raw.get("videoMetadata") or part.raw.get("video_metadata") or inner.get("video_metadata")
    if isinstance(video, dict):
        sent["videoMetadata"] = video
    return sent


def result_part(sent: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    """A part from `media_part` in the form for function results; None for media that a result cannot contain."""
    kept: dict[str, Any] = {name: sent[name] for name in ("inlineData", "fileData") if name in sent}
    if any(held["mimeType"] not in _IN_RESULTS for held in kept.values()):
        return None
    if "mediaResolution" in sent:
        fields.drop("messages.image_url.detail")
    return kept


def _uri(part: Part, traits: Traits) -> str:
    if part.file_id is not None:
        if part.file_id.startswith("files/"):
            return f"{FILES_HOST}/v1beta/{part.file_id}"
        if not part.file_id.startswith("https://"):
            raise refuse(part, traits.model, "the id is not a file of Google's Files API (`files/...`)")
        return part.file_id
    url = part.url or ""
    if url.startswith("http://"):
        raise refuse(part, traits.model, "the provider fetches only https links. Send it as a data URL")
    if not traits.fetches_links and not url.startswith(_OWN_FILES) and not _is_youtube(url):
        raise refuse(part, traits.model, "this model does not fetch links. Send it as a data URL")
    return url


def _given_type(part: Part) -> str:
    told = part.media_type or _UNKNOWN
    if told != _UNKNOWN:
        return told
    return _by_name(part.filename) or told


def _linked_type(part: Part) -> str:
    """The vendor requires a type with every link: the client's, else by file name, else the default of its kind."""
    inner = _inner(part)
    told = inner.get("format") or inner.get("mime_type")
    if isinstance(told, str):
        return told if "/" in told else _TYPES.get(told.lower(), told)
    if part.url is not None and _is_youtube(part.url):
        return "video/mp4"
    path = urlsplit(part.url).path if part.url else ""
    return _by_name(part.filename) or _by_name(path) or _DEFAULTS.get(part.kind, _UNKNOWN)


def _by_name(name: str | None) -> str | None:
    return _TYPES.get(name.rpartition(".")[2].lower()) if name and "." in name else None


def _is_youtube(url: str) -> bool:
    return urlsplit(url).hostname in _YOUTUBE


def _inner(part: Part) -> dict[str, Any]:
    return mapping(part.raw.get(str(part.raw.get("type"))))
