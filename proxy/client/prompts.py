"""Orchestrates: stored prompts in the Python client: `api.prompts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import msgspec
from msgspec import Struct

from proxy.client.errors import AnswerError, UnexpectedAnswer
from proxy.client.sending import Sender
from proxy.prompts.presets import shown_fields
from proxy.schema.prompts import PromptVersion

_PROMPTS, _CONFLICT = "prompts", 409
Template = str | Sequence[Mapping[str, Any]]
T = TypeVar("T")


class VersionOptions(TypedDict, total=False):
    """Further fields of a version. None means: not given.

    - `model`, `parameters`, `tools`, `response_format`: defaults for what a request leaves out.
    - `notes`: for people. `labels`: put on the version at once.
    """

    model: str | None
    parameters: Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    response_format: Mapping[str, Any] | None
    notes: str | None
    labels: Sequence[str] | None


class StoredPrompt(Struct, frozen=True, kw_only=True):
    """A prompt with one of its versions. `template`: None if it was saved as messages. `labels`: label -> version.

    `performance_score`: from outcomes, 0 to 1; None without any.
    """

    id: str
    template_id: str
    name: str
    version: int
    template: str | None
    messages: list[dict[str, Any]]
    variables: list[str]
    labels: dict[str, int]
    latest_version: int | None
    created_at: str
    archived_at: str | None = None
    model: str | None = None
    parameters: dict[str, Any] = {}
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    notes: str | None = None
    performance_score: float | None = None


class RenderedPrompt(str):
    """The text of a rendered prompt; of one with several messages all their texts, with blank lines between them.

    `messages`: as OpenAI's API has them. `version`, `label`: the version that was rendered, and the label that led
    to it. `model`, `parameters`: those of the version.
    """

    messages: list[dict[str, Any]]
    version: int
    label: str | None
    model: str | None
    parameters: dict[str, Any]


class Prompts:
    """The stored prompts of one proxy. All methods raise MultiModelError, and ValueError for a wrong argument."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    async def register(
        self,
        id: str,
        template: Template,
        variables: Sequence[str] | None = None,
        name: str | None = None,
        **fields: Unpack[VersionOptions],
    ) -> StoredPrompt:
        """Creates a prompt. `template`: a text with `{name}` for each variable, or the messages of a chat.

        `variables`: their names, to be checked. May be called at each start of a program: an existing
        prompt with the same content in its newest version is returned unchanged. Other content raises BadRequest
        (409): `create_version` adds it.
        """
        body = {"id": _id(id), "name": name, **_version(template, variables, fields)}
        try:
            return await self._post(_PROMPTS, body, StoredPrompt)
        except AnswerError as error:
            if error.status != _CONFLICT:
                raise
            found = await self.get(id, "latest")
            if found.archived_at is not None or not _is_same(found, body):
                raise
            return found

    async def create_version(
        self,
        id: str,
        template: Template,
        variables: Sequence[str] | None = None,
        **fields: Unpack[VersionOptions],
    ) -> StoredPrompt:
        """Adds a version to a prompt, like `register` for the first one. It inherits nothing from other versions."""
        return await self._post(_path(id), _version(template, variables, fields), StoredPrompt)

    async def get(self, id: str, version: int | str | None = None, label: str | None = None) -> StoredPrompt:
        """A prompt with one version: by number ("latest": the newest) or label; else `production`, else the newest."""
        asked = {"version": None if version is None else str(version), "label": label}
        parameters = {key: value for key, value in asked.items() if value is not None}
        return _read((await self._sender.get(_path(id), parameters)).data, StoredPrompt)

    async def list(self) -> list[dict[str, Any]]:
        """The prompts that can be used, without their texts."""
        found: list[dict[str, Any]] = []
        while True:
            after = {"after": found[-1]["id"]} if found else {}
            page = (await self._sender.get(_PROMPTS, {"limit": "1000", **after})).data
            found += page["data"]
            if not page["has_more"]:
                return found

    async def render(
        self, id: str, variables: Mapping[str, Any], version: int | None = None, label: str | None = None
    ) -> RenderedPrompt:
        """The text of a prompt with these values. No model is called."""
        if not isinstance(variables, Mapping):
            raise ValueError("variables: expected names and values")
        body = {"variables": dict(variables), "version": version, "label": label}
        data = (await self._sender.post(f"{_path(id)}/render", body)).data
        try:
            texts = [each["content"] for each in data["messages"] if isinstance(each.get("content"), str)]
            rendered = RenderedPrompt("\n\n".join(texts) if data["text"] is None else data["text"])
            for field in ("messages", "version", "label", "model", "parameters"):
                setattr(rendered, field, data[field])
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"The answer has another shape than this client expects: {error}.") from None
        return rendered

    async def set_label(self, id: str, label: str, version: int, note: str | None = None) -> dict[str, int]:
        """Puts a label on a version, from wherever it was. Returns all labels of the prompt."""
        path = f"{_path(id)}/labels/{quote(label, safe='')}"
        found = (await self._sender.put(path, {"version": version, "note": note})).data
        return dict(found["labels"])

    async def archive(self, id: str) -> None:
        """Ends the use of a prompt. It stays readable, and an admin can restore it."""
        await self._sender.delete(_path(id))

    async def _post(self, path: str, body: Mapping[str, Any], kind: type[T]) -> T:
        given = {key: value for key, value in body.items() if value is not None}
        return _read((await self._sender.post(path, given)).data, kind)


def _version(template: Template, variables: Sequence[str] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(template, str) and not (isinstance(template, Sequence) and template):
        raise ValueError("template: expected a text, or a list of messages")
    if isinstance(variables, str):
        raise ValueError("variables: expected a list of names")
    for key in fields:
        if key not in VersionOptions.__annotations__:
            raise TypeError(f"unexpected argument {key!r}; known: {', '.join(VersionOptions.__annotations__)}")
    texts = {"template": template} if isinstance(template, str) else {"messages": list(template)}
    return {**texts, "variables": None if variables is None else list(variables), **fields}


def _is_same(found: StoredPrompt, body: Mapping[str, Any]) -> bool:
    """True if the newest version has the content of `body`."""
    stored = shown_fields(
        PromptVersion(
            version=found.version,
            messages=found.messages,
            template=found.template,
            model=found.model,
            parameters=found.parameters,
            tools=found.tools,
            response_format=found.response_format,
            notes=found.notes,
        )
    )
    given = {key: value for key, value in body.items() if value and key not in ("id", "name", "variables", "labels")}
    return bool(stored == msgspec.to_builtins(given))


def _id(id: Any) -> str:
    if not isinstance(id, str) or not id.strip():
        raise ValueError(f"id: expected the id of a prompt, got {id!r}")
    return id


def _path(id: str) -> str:
    return f"{_PROMPTS}/{quote(_id(id), safe='')}"


def _read(data: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise UnexpectedAnswer(f"The answer has another shape than this client expects: {error}.") from None
