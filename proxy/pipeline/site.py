"""Orchestrates: `site` of a chat request: the schema and the prompt of one of a site's tasks are added to it.

The request's own fields win: its `response_format` stays, and its messages follow the task's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import replace

from proxy.schema.chat import ChatRequest, Message
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import encode
from proxy.sites.match import Matcher
from proxy.sites.template import prompt_of

_KEYS = ("id", "task")
_READ = 1_000  # characters of the question that choose the task: the rest is often the page itself


async def applied(request: AnyRequest, sites: Matcher) -> AnyRequest:
    """A request with its field `site` applied and removed. Raises BadRequest that names the field."""
    given = request.fields["site"]
    fields = {name: value for name, value in request.fields.items() if name != "site"}
    if given is None:
        return replace(request, fields=fields)
    if type(request) is not ChatRequest or request.native is not None or request.questions > 1:
        message = "site: only /v1/chat/completions accepts it. Use that endpoint, or leave it out."
        raise BadRequest(message, param="site", code="unsupported_parameter")
    site_id, task = _names(given)
    try:
        site = sites.catalog.site(site_id)
    except ProxyError as unknown:
        raise BadRequest(f"site.id: {unknown.message}", param="site.id") from None
    if task is None:
        await ready(sites)
        task = sites.task_for(site_id, (request.question() or "")[:_READ])
    if task not in site.tasks:
        message = f"site.task: {site_id} has no task {task[:64]!r}. It has: {', '.join(site.tasks)}."
        raise BadRequest(message, param="site.task")
    template = site.tasks[task]
    prompt = prompt_of(site, template)
    added: dict[str, Any] = {}
    if "response_format" not in fields:
        name = f"{site_id}_{task}"[:64]
        schema = {"name": name, "strict": True, "schema": template.schema()}
        added = {"response_format": {"type": "json_schema", "json_schema": schema}}
    first = {"role": "system", "content": prompt}
    return replace(
        request,
        messages=[Message(role="system", content=prompt), *request.messages],
        fields={**fields, **added, "messages": [first, *fields["messages"]]},
        size=request.size + len(encode([first, added])),
        site=f"{site_id}/{task}",
    )


async def ready(sites: Matcher) -> None:
    """Builds the matcher's index off the event loop, if it has none yet."""
    if not sites.is_ready:
        await asyncio.to_thread(sites.prepare)


def _names(given: Any) -> tuple[str, str | None]:
    if not isinstance(given, dict):
        raise BadRequest('site: expected an object like {"id": "reddit", "task": "trending"}.', param="site")
    for key in given:
        if key not in _KEYS:
            raise BadRequest(f"site: unknown key {key[:64]!r}. It has: {', '.join(_KEYS)}.", param="site")
    for key in _KEYS:
        if not isinstance(given.get(key), str if key == "id" else str | None):
            raise BadRequest(f"site.{key}: expected text.", param=f"site.{key}")
    return given["id"], given.get("task")
