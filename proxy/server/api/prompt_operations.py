"""Values: the routes of stored prompts for the OpenAPI document."""

from __future__ import annotations

from typing import Any, TypedDict

from msgspec import Struct

from proxy.server.api.described import JSON, YAML, Described
from proxy.server.api.prompt_bodies import CHOICE, DIFF, PAGE, VERSIONS


class VersionBody(Struct):
    """A version: either `template` or `messages`, with `{name}` for each variable."""

    template: str | None = None
    messages: list[dict[str, Any]] | None = None
    variables: list[str] | None = None
    model: str | None = None
    parameters: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    notes: str | None = None
    labels: list[str] | None = None


class PromptBody(VersionBody, kw_only=True):
    """A prompt with its first version. `template_id` is another name of `id`."""

    id: str
    template_id: str | None = None
    name: str | None = None


class MoveBody(Struct):
    version: int
    note: str | None = None


class RenderBody(Struct):
    """`version` or `label`; without both the label `production`, or the newest version if there is none."""

    variables: dict[str, Any] | None = None
    version: int | None = None
    label: str | None = None


class PromptHeadAnswer(TypedDict):
    object: str
    id: str
    template_id: str
    name: str
    labels: dict[str, int]
    latest_version: int | None
    versions: int
    created_at: str
    archived_at: str | None


class PromptList(TypedDict):
    object: str
    data: list[PromptHeadAnswer]
    has_more: bool


class VersionAnswer(TypedDict):
    object: str
    template_id: str
    version: int
    template: str | None
    messages: list[dict[str, Any]]
    variables: list[str]
    model: str | None
    parameters: dict[str, Any]
    tools: list[dict[str, Any]] | None
    response_format: dict[str, Any] | None
    notes: str | None
    labels: list[str]
    performance_score: float | None
    created_at: str
    archived_at: str | None


class VersionList(TypedDict):
    object: str
    data: list[VersionAnswer]
    has_more: bool


class PromptAnswer(TypedDict):
    """A prompt with one of its versions."""

    object: str
    id: str
    template_id: str
    name: str
    version: int
    template: str | None
    messages: list[dict[str, Any]]
    variables: list[str]
    model: str | None
    parameters: dict[str, Any]
    tools: list[dict[str, Any]] | None
    response_format: dict[str, Any] | None
    notes: str | None
    performance_score: float | None
    labels: dict[str, int]
    latest_version: int | None
    versions: int
    created_at: str
    archived_at: str | None


class RenderedAnswer(TypedDict):
    """`text`: for a version that was saved as a text."""

    object: str
    template_id: str
    version: int
    label: str | None
    text: str | None
    messages: list[dict[str, Any]]
    model: str | None
    parameters: dict[str, Any]
    tools: list[dict[str, Any]] | None
    response_format: dict[str, Any] | None


DifferenceAnswer = TypedDict(
    "DifferenceAnswer",
    {
        "from": int,
        "to": int,
        "fields": list[str],
        "variables_added": list[str],
        "variables_removed": list[str],
        "text": str,
    },
)


class MoveAnswer(TypedDict):
    label: str
    version: int | None
    moved_at: str
    moved_by: str | None
    note: str | None


class LabelsAnswer(TypedDict):
    labels: dict[str, int]
    history: list[MoveAnswer]


class ImportedPrompt(TypedDict):
    id: str
    versions: list[int]


class ImportAnswer(TypedDict):
    imported: list[ImportedPrompt]


_ETAG = {"etag": "Counts the changes of the prompt. A change with `If-Match` is refused (412) if it has changed since."}
_READ = (400, 401, 404, 429, 503)
_CHANGE = (400, 401, 403, 404, 409, 412, 413, 415, 503)
_HEAD = {"200": {JSON: PromptHeadAnswer}}
PROMPTS: dict[tuple[str, str], Described] = {
    ("GET", "/prompts"): Described("The stored prompts, by id.", {"200": {JSON: PromptList}}, query=PAGE, errors=_READ),
    ("POST", "/prompts"): Described(
        "Creates a prompt with its first version.",
        {"201": {JSON: PromptAnswer}},
        body=PromptBody,
        headers=_ETAG,
        errors=_CHANGE,
    ),
    ("GET", "/prompts/{prompt_id}"): Described(
        "A prompt with one version: by number, by label, else `production`, else the newest.",
        {"200": {JSON: PromptAnswer}},
        query=CHOICE,
        headers=_ETAG,
        errors=_READ,
    ),
    ("DELETE", "/prompts/{prompt_id}"): Described(
        "Archives a prompt: it cannot be used any more, and stays readable.", _HEAD, headers=_ETAG, errors=_CHANGE
    ),
    ("POST", "/prompts/{prompt_id}/restore"): Described(
        "Restores an archived prompt.", _HEAD, headers=_ETAG, errors=_CHANGE
    ),
    **{
        ("POST", path): Described(
            "Adds a version: the latest plus one.",
            {"201": {JSON: PromptAnswer}},
            body=VersionBody,
            headers=_ETAG,
            errors=_CHANGE,
        )
        for path in ("/prompts/{prompt_id}", "/prompts/{prompt_id}/versions")
    },
    ("GET", "/prompts/{prompt_id}/versions"): Described(
        "The versions of a prompt, newest first.",
        {"200": {JSON: VersionList}},
        query=VERSIONS,
        headers=_ETAG,
        errors=_READ,
    ),
    ("GET", "/prompts/{prompt_id}/versions/{version}"): Described(
        "One version.", {"200": {JSON: VersionAnswer}}, headers=_ETAG, errors=_READ
    ),
    ("DELETE", "/prompts/{prompt_id}/versions/{version}"): Described(
        "Archives one version. Its number is never used again.", _HEAD, headers=_ETAG, errors=_CHANGE
    ),
    ("GET", "/prompts/{prompt_id}/labels"): Described(
        "The labels of a prompt, and their moves, latest first.",
        {"200": {JSON: LabelsAnswer}},
        headers=_ETAG,
        errors=_READ,
    ),
    ("PUT", "/prompts/{prompt_id}/labels/{label}"): Described(
        "Puts a label on a version, from wherever it was.", _HEAD, body=MoveBody, headers=_ETAG, errors=_CHANGE
    ),
    ("DELETE", "/prompts/{prompt_id}/labels/{label}"): Described(
        "Takes a label off.", _HEAD, headers=_ETAG, errors=_CHANGE
    ),
    ("POST", "/prompts/{prompt_id}/render"): Described(
        "The messages of a version with these variables. No model is called.",
        {"200": {JSON: RenderedAnswer}},
        body=RenderBody,
        errors=(*_READ, 413, 415),
    ),
    ("GET", "/prompts/{prompt_id}/diff"): Described(
        "The differences between two versions.", {"200": {JSON: DifferenceAnswer}}, query=DIFF, errors=_READ
    ),
    ("GET", "/prompts/export"): Described(
        "All prompts with all versions as a YAML file.",
        {"200": {YAML: None}},
        query={"id": "Only this prompt."},
        errors=_READ,
    ),
    ("POST", "/prompts/import"): Described(
        "Adds the prompts of a YAML file, all or none. Existing versions stay unchanged.",
        {"200": {JSON: ImportAnswer}},
        errors=(400, 401, 403, 409, 413, 503),
    ),
}
