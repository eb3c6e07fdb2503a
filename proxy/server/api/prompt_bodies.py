"""Translates: bodies and parameters of `/v1/prompts` into prompts, and stored prompts into answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct, structs

from proxy.prompts.checked import FIELDS, check_known, checked_version, title_of
from proxy.prompts.uses import id_of, label_of, version_of
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.prompts import LabelMove, PromptHead, PromptUse, PromptVersion
from proxy.schema.records import NANO_PER_USD
from proxy.server.formats.chat import decode_chat
from proxy.storage.prompt_rows import PromptRefused

MAX_BODY = 2 * 1024 * 1024  # bytes: a version with its texts escaped
MAX_LABELS = 50
DEFAULT_ROWS, MOST_ROWS = 100, 1_000
PAGE = {
    "limit": f"Rows of one page, at most {MOST_ROWS}. Default: {DEFAULT_ROWS}.",
    "after": "The page after the one that ended with this id.",
    "archived": "true: archived prompts too.",
}
VERSIONS = {
    "limit": PAGE["limit"],
    "before": "The page after the one that ended with this version.",
}
CHOICE = {"version": "The number of a version.", "label": "The version with this label."}
DIFF = {"from": "The older version.", "to": "The newer version."}
_STATUS = {"unknown": (404, "not_found"), "changed": (412, "conflict"), "large": (413, "request_too_large")}
_ETAG = re.compile(r'(?:W/)?"(\d{1,18})"')


class Created(Struct, frozen=True):
    """A prompt to be created, or a version to be added: then only `labels` of the head count."""

    head: PromptHead
    version: PromptVersion


def created(fields: Mapping[str, Any], now_ns: int) -> Created:
    """The body of `POST /v1/prompts`. Raises BadRequest, which names the field."""
    check_known(fields, ("id", "template_id", "name", "labels", *FIELDS))
    name = fields.get("id", fields.get("template_id"))
    if name != fields.get("template_id", name):
        raise BadRequest("template_id: is a synonym of `id`; give one of them.", param="template_id")
    if name is None:
        raise BadRequest("id: is missing, like extraction_v1.", param="id")
    found = id_of(name)
    labels = dict.fromkeys(_labels(fields.get("labels")), 1)
    head = PromptHead(id=found, name=title_of(fields.get("name"), found), labels=labels, created_ns=now_ns)
    return Created(head, _version(fields, now_ns))


def added(fields: Mapping[str, Any], now_ns: int) -> tuple[PromptVersion, list[str]]:
    """The body of a new version, and its labels. Raises BadRequest, which names the field."""
    check_known(fields, ("labels", *FIELDS))
    return _version(fields, now_ns), _labels(fields.get("labels"))


def moved(fields: Mapping[str, Any], label: str, by: str | None, now_ns: int) -> LabelMove:
    """The body that puts a label on a version. Raises BadRequest, which names the field."""
    check_known(fields, ("version", "note"))
    note = fields.get("note")
    if not isinstance(note, str | None) or len(note or "") > 500:
        raise BadRequest("note: expected at most 500 characters.", param="note")
    return LabelMove(label_of(label), version_of(fields.get("version")), now_ns, by, note)


def asked(fields: Mapping[str, Any], prompt: str) -> PromptUse:
    """The body of `/render`. Raises BadRequest, which names the field."""
    check_known(fields, ("version", "label", "variables"))
    variables = fields.get("variables")
    if not isinstance(variables, dict | None):
        raise BadRequest("variables: expected an object: names and values.", param="variables")
    return use_of_version(prompt, fields.get("version"), fields.get("label"), variables or {})


def use_of_version(prompt: str, version: Any, label: Any, variables: dict[str, Any] | None = None) -> PromptUse:
    """A use of one version: by number, by label, or by neither. Raises BadRequest."""
    if version is not None and label is not None:
        raise BadRequest("label: give either a version or a label.", param="label")
    if not isinstance(label, str | None):
        raise BadRequest("label: expected a label, like production.", param="label")
    if version == "latest":
        version, label = None, "latest"
    number = None if version is None else version_of(version)
    return PromptUse(prompt, number, label, variables or {})


def check_usable(version: PromptVersion, prefix: str = "") -> None:
    """Raises BadRequest if a chat with the fields of this version would be refused."""
    fields = {"model": version.model or "auto", "messages": version.messages, **version.parameters}
    fields |= {} if version.tools is None else {"tools": version.tools}
    fields |= {} if version.response_format is None else {"response_format": version.response_format}
    try:
        decode_chat(b"", fields)
    except BadRequest as error:
        name = error.param or ""
        place = f"parameters.{name}" if name.split(".")[0] in version.parameters else name
        message = error.message.removeprefix(name)
        message = f"{prefix}{place}{message}" if message != error.message else f"{prefix}{place}: {message}"
        raise BadRequest(message, param=f"{prefix}{place}", code=error.code or "invalid_value") from None


def revision_of(header: str | None) -> int | None:
    """The revision in `If-Match`; None: any. Raises BadRequest."""
    if header is None or header.strip() == "*":
        return None
    match = _ETAG.fullmatch(header.strip())
    if match is None:
        raise BadRequest('If-Match: expected the ETag of an answer, like "3".', param="if-match")
    return int(match[1])


def refused(error: PromptRefused) -> ProxyError:
    """The API's error for a change that does not fit the stored state."""
    status, code = _STATUS.get(error.kind, (409, "conflict"))
    param = "if-match" if error.kind == "changed" else None
    # SDKs retry a 409, though nothing would change.
    return ProxyError(str(error), status=status, code=code, param=param, headers={"x-should-retry": "false"})


def etag(head: PromptHead) -> dict[str, str]:
    return {"etag": f'"{head.revision}"'}


def shown_head(head: PromptHead) -> dict[str, Any]:
    """A prompt without its texts."""
    return {
        "object": "prompt",
        "id": head.id,
        "template_id": head.id,
        "name": head.name,
        "labels": head.labels,
        "latest_version": head.latest,
        "versions": len(head.live),
        "created_at": time_of(head.created_ns),
        "archived_at": None if head.archived_ns is None else time_of(head.archived_ns),
    }


def shown_version(head: PromptHead, version: PromptVersion, scores: Mapping[int, float]) -> dict[str, Any]:
    """One version."""
    return {
        "object": "prompt.version",
        "template_id": head.id,
        "version": version.version,
        "template": version.template,
        "messages": version.messages,
        "variables": version.variables,
        "model": version.model,
        "parameters": version.parameters,
        "tools": version.tools,
        "response_format": version.response_format,
        "notes": version.notes,
        "labels": sorted(label for label, at in head.labels.items() if at == version.version),
        "performance_score": scores.get(version.version),
        "created_at": time_of(version.created_ns),
        "archived_at": None if version.archived_ns is None else time_of(version.archived_ns),
    }


def shown(head: PromptHead, version: PromptVersion, scores: Mapping[int, float]) -> dict[str, Any]:
    """A prompt and one of its versions, as one object."""
    return {**shown_version(head, version, scores), **shown_head(head)}


def shown_move(move: LabelMove) -> dict[str, Any]:
    return {
        "label": move.label,
        "version": move.version,
        "moved_at": time_of(move.moved_ns),
        "moved_by": move.by,
        "note": move.note,
    }


def time_of(unix_ns: int) -> str:
    moment = datetime.fromtimestamp(unix_ns // NANO_PER_USD, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{unix_ns // 1_000_000 % 1000:03d}Z"


def _version(fields: Mapping[str, Any], now_ns: int) -> PromptVersion:
    version = checked_version(fields)
    check_usable(version)
    return structs.replace(version, created_ns=now_ns)


def _labels(given: Any) -> list[str]:
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > MAX_LABELS:
        raise BadRequest(f"labels: expected a list of at most {MAX_LABELS} labels.", param="labels")
    return [label_of(label, "labels") for label in given]
