"""Performs I/O: the routes of stored prompts: reading and rendering for keys, changes for admins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from litestar import Request, Response, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from proxy.config.prompt_file import written
from proxy.prompts.uses import label_of, version_of
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import decode_object, encode
from proxy.schema.prompts import LabelMove, PromptUse
from proxy.schema.records import Caller
from proxy.server.api.answers import NO_STORE, new_id
from proxy.server.api.prompt_bodies import (
    CHOICE,
    DEFAULT_ROWS,
    DIFF,
    MAX_BODY,
    MOST_ROWS,
    PAGE,
    VERSIONS,
    added,
    asked,
    created,
    etag,
    moved,
    revision_of,
    shown,
    shown_head,
    shown_move,
    shown_version,
    use_of_version,
)
from proxy.server.api.prompt_steps import MAX_FILE, SLOW, PromptSteps
from proxy.server.api.queries import parameters_of
from proxy.server.api.request import BodyTooLarge, ClientGone, discard_rest, read_body

YAML = "application/yaml"
MAX_RENDER_BODY = 4 * 1024 * 1024
Asked = Request[Caller, Any, Any]
Answered = Response[bytes]
T = TypeVar("T")


class Prompts:
    """The routes."""

    def __init__(self, steps: PromptSteps) -> None:
        self._steps = steps

    def routes(self) -> list[HTTPRouteHandler]:
        """The Litestar handlers, each with and without `/v1`."""
        return [*self._reading(), *self._versions(), *self._changing(), *self._labels(), *self._files()]

    # --- reading ------------------------------------------------------------------------------------------------------

    def _reading(self) -> list[HTTPRouteHandler]:
        @get(_paths(""), role="key")
        async def list_prompts(request: Asked) -> Answered:
            given = parameters_of(request.query_params.multi_items(), PAGE)
            limit, after = _limit(given), given.get("after", "")
            archived = _flag(given, "archived")
            stored = self._steps.stored
            found = await stored.read(partial(stored.store.page, archived=archived, after=after, limit=limit + 1))
            data = [shown_head(head) for head in found[:limit]]
            return _json({"object": "list", "data": data, "has_more": len(found) > limit})

        @get(_paths("/{prompt_id:str}"), role="key")
        async def get_prompt(request: Asked, prompt_id: FromPath[str]) -> Answered:
            given = parameters_of(request.query_params.multi_items(), CHOICE)
            use = use_of_version(prompt_id, given.get("version"), given.get("label"))
            head, version = await self._steps.version_of(use)
            return _json(shown(head, version, await self._steps.scores(prompt_id)), headers=etag(head))

        @post(_paths("/{prompt_id:str}/render"), role="key", status_code=200)
        async def render_prompt(request: Asked, prompt_id: FromPath[str]) -> Answered:
            body = await _bytes(request, MAX_RENDER_BODY)
            use = asked(await self._decoded(body), prompt_id)
            found = await self._steps.render(use, len(body))
            version, messages = found.version, found.messages
            text = messages[0]["content"] if version.template is not None else None
            answer = {"template_id": prompt_id, "version": version.version, "label": found.label, "text": text}
            preset_fields = {"model": version.model, "parameters": version.parameters, "tools": version.tools}
            answer |= {"messages": messages, **preset_fields, "response_format": version.response_format}
            return _json({"object": "prompt.rendered", **answer})

        @get(_paths("/{prompt_id:str}/diff"), role="key")
        async def compare_versions(request: Asked, prompt_id: FromPath[str]) -> Answered:
            given = parameters_of(request.query_params.multi_items(), DIFF)
            old, new = [use_of_version(prompt_id, given.get(name), None) for name in DIFF]
            (_, before), (_, after) = await self._steps.version_of(old), await self._steps.version_of(new)
            found = await self._steps.compare(before, after)
            return _json({"from": before.version, "to": after.version, **_fields(found)})

        return [list_prompts, get_prompt, render_prompt, compare_versions]

    def _versions(self) -> list[HTTPRouteHandler]:
        @get(_paths("/{prompt_id:str}/versions"), role="key")
        async def list_versions(request: Asked, prompt_id: FromPath[str]) -> Answered:
            given = parameters_of(request.query_params.multi_items(), VERSIONS)
            limit = _limit(given)
            before = version_of(given["before"], "before") if given.get("before") else 2**31
            head, stored = await self._steps.head(prompt_id), self._steps.stored
            found = await stored.read(partial(stored.store.versions, prompt_id, before, limit + 1))
            scores = await self._steps.scores(prompt_id)
            data = [shown_version(head, version, scores) for version in found[:limit]]
            has_more = bool(data) and data[-1]["version"] > 1
            return _json({"object": "list", "data": data, "has_more": has_more}, headers=etag(head))

        @get(_paths("/{prompt_id:str}/versions/{version:str}"), role="key")
        async def get_version(prompt_id: FromPath[str], version: FromPath[str]) -> Answered:
            head, found = await self._steps.version_of(PromptUse(prompt_id, version_of(version)))
            return _json(shown_version(head, found, await self._steps.scores(prompt_id)), headers=etag(head))

        @delete(_paths("/{prompt_id:str}/versions/{version:str}"), role="admin", status_code=200)
        async def archive_version(request: Asked, prompt_id: FromPath[str], version: FromPath[str]) -> Answered:
            revision, number, store = _revision(request), version_of(version), self._steps.stored.store
            head = await self._steps.change(
                partial(store.archive_version, prompt_id, number, revision, time.time_ns()), prompt_id
            )
            return _json(shown_head(head), headers=etag(head))

        return [list_versions, get_version, archive_version]

    # --- changes ------------------------------------------------------------------------------------------------------

    def _changing(self) -> list[HTTPRouteHandler]:
        @post(_paths(""), role="admin", status_code=201)
        async def create_prompt(request: Asked) -> Answered:
            made = await self._checked(request, created)
            self._steps.check(made.version)
            store = self._steps.stored.store
            head = await self._steps.change(
                partial(store.create, made.head, made.version, request.user.key_id), made.head.id
            )
            return _json(shown(head, made.version, {}), 201, etag(head))

        @post([*_paths("/{prompt_id:str}"), *_paths("/{prompt_id:str}/versions")], role="admin", status_code=201)
        async def add_version(request: Asked, prompt_id: FromPath[str]) -> Answered:
            version, labels = await self._checked(request, added)
            self._steps.check(version)
            add = partial(self._steps.stored.store.add_version, prompt_id, version, _revision(request), labels)
            head, stored = await self._steps.change(partial(add, request.user.key_id), prompt_id)
            return _json(shown(head, stored, {}), 201, etag(head))

        @delete(_paths("/{prompt_id:str}"), role="admin", status_code=200)
        async def archive_prompt(request: Asked, prompt_id: FromPath[str]) -> Answered:
            archive = partial(self._steps.stored.store.archive, prompt_id, _revision(request), time.time_ns())
            head = await self._steps.change(archive, prompt_id)
            return _json(shown_head(head), headers=etag(head))

        @post(_paths("/{prompt_id:str}/restore"), role="admin", status_code=200)
        async def restore_prompt(request: Asked, prompt_id: FromPath[str]) -> Answered:
            restore = partial(self._steps.stored.store.restore, prompt_id, _revision(request))
            head = await self._steps.change(restore, prompt_id)
            return _json(shown_head(head), headers=etag(head))

        return [create_prompt, add_version, archive_prompt, restore_prompt]

    def _labels(self) -> list[HTTPRouteHandler]:
        @get(_paths("/{prompt_id:str}/labels"), role="key")
        async def list_labels(prompt_id: FromPath[str]) -> Answered:
            head, stored = await self._steps.head(prompt_id), self._steps.stored
            moves = await stored.read(partial(stored.store.moves, prompt_id, MOST_ROWS))
            return _json({"labels": head.labels, "history": [shown_move(move) for move in moves]}, headers=etag(head))

        @put(_paths("/{prompt_id:str}/labels/{label:str}"), role="admin")
        async def move_label(request: Asked, prompt_id: FromPath[str], label: FromPath[str]) -> Answered:
            move = moved(
                await self._decoded(await _bytes(request, MAX_BODY)), label, request.user.key_id, time.time_ns()
            )
            head = await self._steps.change(
                partial(self._steps.stored.store.move_label, prompt_id, move, _revision(request)), prompt_id
            )
            return _json(shown_head(head), headers=etag(head))

        @delete(_paths("/{prompt_id:str}/labels/{label:str}"), role="admin", status_code=200)
        async def remove_label(request: Asked, prompt_id: FromPath[str], label: FromPath[str]) -> Answered:
            move = LabelMove(label_of(label), None, time.time_ns(), request.user.key_id)
            head = await self._steps.change(
                partial(self._steps.stored.store.move_label, prompt_id, move, _revision(request)), prompt_id
            )
            return _json(shown_head(head), headers=etag(head))

        return [list_labels, move_label, remove_label]

    def _files(self) -> list[HTTPRouteHandler]:
        @get(_paths("/export"), role="key")
        async def export_prompts(request: Asked) -> Answered:
            given = parameters_of(request.query_params.multi_items(), {"id": "Only this prompt."})
            stored = self._steps.stored
            prompts = await self._steps.change(partial(stored.store.all, given.get("id")))
            if given.get("id") and not prompts:
                await stored.head(given["id"])  # raises
            text = await self._steps.on_files(partial(written, prompts))
            return Response(text.encode(), media_type=YAML, headers={**NO_STORE, "x-request-id": new_id()})

        @post(_paths("/import"), role="admin", status_code=200)
        async def import_prompts(request: Asked) -> Answered:
            data = await _bytes(request, MAX_FILE, any_kind=True)
            numbers = await self._steps.bring(data, request.user.key_id)
            return _json({"imported": [{"id": name, "versions": of} for name, of in numbers.items()]})

        return [export_prompts, import_prompts]

    # --- steps --------------------------------------------------------------------------------------------------------

    async def _checked(self, request: Asked, read: Callable[[Mapping[str, Any], int], T]) -> T:
        """The result of `read` for the body, off the event loop if that may take long."""
        body, now_ns = await _bytes(request, MAX_BODY), time.time_ns()
        return await self._steps.stored.off_loop.run(SLOW * len(body), lambda: read(decode_object(body), now_ns))

    async def _decoded(self, body: bytes) -> dict[str, Any]:
        return await self._steps.stored.off_loop.run(SLOW * len(body), partial(decode_object, body))


async def _bytes(request: Asked, most: int, *, any_kind: bool = False) -> bytes:
    headers = dict(request.headers)
    if any_kind:
        headers.pop("content-type", None)
    try:
        return await read_body(request.receive, headers, most)
    except BodyTooLarge as error:
        await discard_rest(request.receive, 8 * most)
        message = f"The body is larger than {most // 1024} kB."
        raise ProxyError(message, status=413, code=error.code, headers=error.headers) from None
    except ClientGone:
        raise ProxyError("The client has gone.", status=499, code=None) from None


def _paths(rest: str) -> list[str]:
    return [f"/v1/prompts{rest}", f"/prompts{rest}"]


def _revision(request: Asked) -> int | None:
    return revision_of(request.headers.get("if-match"))


def _limit(given: Mapping[str, str]) -> int:
    text = given.get("limit") or str(DEFAULT_ROWS)
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and 1 <= int(text) <= MOST_ROWS):
        raise BadRequest(f"limit: expected a number from 1 to {MOST_ROWS}.", param="limit")
    return int(text)


def _flag(given: Mapping[str, str], name: str) -> bool:
    if given.get(name, "false") not in ("true", "false"):
        raise BadRequest(f"{name}: expected true or false.", param=name)
    return given.get(name) == "true"


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answered:
    known = {**NO_STORE, "x-request-id": new_id(), **(headers or {})}
    return Response(encode(value), status_code=status, media_type="application/json", headers=known)
