"""Translates: a client's `/v1/messages` body into the vendor's: the same, except for the operator's `parameters`, a
lowered output limit, and the marks of `cache: auto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from proxy.providers.anthropic.cache import MARK, auto_marks, is_too_short
from proxy.providers.anthropic.models import traits_of
from proxy.providers.anthropic.request import build_chat
from proxy.providers.anthropic.thinking import MIN_BUDGET
from proxy.providers.base.native import members_of
from proxy.schema.chat import ChatRequest, Message
from proxy.schema.endpoints import AnyRequest
from proxy.schema.json import decode
from proxy.schema.request import NativeBody

PASSED = ("request-id", "anthropic-ratelimit-")  # headers of an answer
_GIVEN = ("max_tokens", "thinking", "output_config", "temperature", "top_p", "top_k")  # fields that others depend on
MESSAGES = "/messages"
_MARK_KEY = f'"{MARK}"'.encode()  # most clients mark their prompts themselves: their bodies need no further parsing
_OURS = ("model", "messages", "system", "stream", "max_tokens")


def defaults_of(native: NativeBody, parameters: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The operator's `parameters` in the vendor's words, unless the client set them or its own fields rule them out."""
    members = members_of(native)
    said = [{"role": "user", "content": "."}]
    fields = {"messages": said, **{name: members[name] for name in _GIVEN if members.get(name) is not None}}
    limit = members.get(native.limit)
    request = ChatRequest(
        model=model,
        messages=[Message("user", ".")],
        max_tokens=limit if isinstance(limit, int) else None,
        fields=fields,
    )
    body: dict[str, Any] = decode(build_chat(request, model, parameters, "", None).http.body)
    return {name: value for name, value in body.items() if name not in members and name not in _OURS}


def marked(native: NativeBody, request: AnyRequest, model: str) -> NativeBody:
    """The body with the marks of `cache: auto`, unless the client set marks itself, or wants no changes."""
    least = traits_of(model).least_cached
    if native.path != MESSAGES or is_too_short(request, least) or request.hints.strict or _MARK_KEY in native.body:
        return native
    found = auto_marks(members_of(native), least)
    return replace(native.changed(found), adapted=(*native.adapted, MARK)) if found else native


def thinking_within(native: NativeBody) -> dict[str, Any]:
    """The change that a lowered output limit requires: a thinking budget below it."""
    thinking, limit = members_of(native).get("thinking"), native.changes[native.limit]
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if not isinstance(thinking, dict) or not isinstance(budget, int) or budget < limit:
        return {}
    if limit <= MIN_BUDGET:
        return {"thinking": UNSET}  # no budget is small enough
    return {"thinking": {**thinking, "budget_tokens": max(MIN_BUDGET, limit // 2)}}
