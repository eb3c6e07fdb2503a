"""Translates: an OpenAI chat request into one for `/v1/messages`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.providers.anthropic.cache import MARK, auto_marks, is_too_short, markable
from proxy.providers.anthropic.grammar import loosen
from proxy.providers.anthropic.json_format import Format, format_of
from proxy.providers.anthropic.messages import Conversation
from proxy.providers.anthropic.models import Traits, traits_of
from proxy.providers.anthropic.names import Names
from proxy.providers.anthropic.thinking import Thinking, thinking_of
from proxy.providers.anthropic.tools import Tools, stand_in, tools_of
from proxy.providers.base.contract import Built, post_json
from proxy.providers.base.fields import NEUTRAL, Fields, stop_list
from proxy.providers.base.tidy import tidied
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest

API_VERSION = "2023-06-01"  # 2026-10-21 refuses every sampling parameter, on all models
BINDING_BETA = "thinking-binding-controls-2026-08-01"
MAX_CACHE_MARKS = 4
MIN_LIMIT = 1024
_UNHEARD = ("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "verbosity", "store")
# The vendor's own parameters, from its SDK; others are renamed below.
_NATIVE = (
    *("cache_control", "container", "context_management", "diagnostics", "inference_geo", "mcp_servers"),
    *("speed", "user_profile_id"),
)
_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
# E-mail addresses and telephone numbers: the vendor forbids them as a user's id.
_PERSONAL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+|\+?[\d\s().-]{7,20}")
_MAX_USER = 512


def build_chat(
    request: ChatRequest,
    model: str,
    defaults: Mapping[str, Any],
    path: str,
    betas: list[str] | None,
    marks: bool = False,
) -> Built:
    """The request for `/v1/messages`. `betas`: the operator's `anthropic-beta` values; None if the address is not the
    vendor's own. `marks`: mark the prompt for the cache here if the client did not.

    Raises BadRequest for content that the model does not support, and for invalid values.
    """
    request = tidied(request)
    traits, names = traits_of(model), Names({**defaults, **request.fields})
    fields = Fields(request.fields, defaults)
    for name in ("model", "messages", "stream", "stream_options", "n"):
        fields.take(name)
    if request.n > 1:
        fields.drop("n")
    for name in _UNHEARD:
        if request.fields.get(name) == NEUTRAL[name]:
            fields.take(name)
    limit = _limit(request, traits, fields)
    thinking, tools = thinking_of(fields, traits, limit), tools_of(fields, traits, names)
    form = format_of(fields, traits, tools, names, thinking.has_budget)
    loosen(tools.tools, form.schema, fields)
    conversation = Conversation(request, model, traits, names, fields)
    thinking = _allowed(thinking, tools, conversation, traits, fields)
    if not thinking.is_on:
        conversation.strip_thoughts()
    conversation.end(traits.prefills and not thinking.is_on and form.schema is None)
    conversation.system += [{"type": "text", "text": text} for text in (tools.instruction, form.instruction) if text]
    if not tools.tools:
        tools = stand_in(conversation.called)
    body: dict[str, Any] = {"model": model, "max_tokens": limit}
    if conversation.system:
        body["system"] = conversation.system
    body |= {"messages": conversation.turns, **tools.body()}
    beta = _think(body, thinking, betas if traits.binds and conversation.has_thoughts else None)
    stops = _options(body, request, fields, (traits, thinking, form))
    _cap_marks(body, fields)
    if marks:
        _mark(body, request, fields, traits.least_cached, conversation.lead)
    http = post_json(path, body, request, {"anthropic-version": API_VERSION, **beta})
    return Built(http, fields.rest(), fields.adapted, stops, form.is_unchecked)


def _allowed(thinking: Thinking, tools: Tools, conversation: Conversation, traits: Traits, fields: Fields) -> Thinking:
    """The thinking that the choice of tools and the history permit."""
    if tools.is_forced and (thinking.has_budget or traits.thinking == "adaptive"):
        # "Thinking may not be enabled when tool_choice forces tool use"
        if thinking.config is not None and thinking.is_on:
            fields.adapt(thinking.asked)
        return Thinking(thinking.config if not thinking.is_on else None, thinking.effort)
    if thinking.has_budget and conversation.lacks_thoughts:
        fields.adapt(thinking.asked)
        return Thinking()
    return thinking


def _limit(request: ChatRequest, traits: Traits, fields: Fields) -> int:
    """`max_tokens`, which the vendor requires. The default is the largest output of the model that fits into its
    context after the prompt.
    """
    limit = fields.limit(request)
    if limit is None:
        most = traits.max_output
        if traits.context is not None:
            prompt = sum(len(text.encode("utf-8", "replace")) for text in request.texts()) // 3
            most = max(MIN_LIMIT, min(most, traits.context - prompt))
        return most
    if traits.context is not None and limit > traits.max_output:
        fields.adapt_limit(request)
        return traits.max_output
    return limit


def _think(body: dict[str, Any], thinking: Thinking, betas: list[str] | None) -> dict[str, str]:
    """`thinking`, and the header that its options need. `betas` None: the conversation has no bound thoughts.

    The vendor refuses bound thoughts once the conversation has changed, and clients do shorten theirs. The option
    makes the vendor drop such thoughts instead.
    """
    config = thinking.config
    headers = {}
    if betas is not None and (config is None or config.get("type") == "adaptive"):
        config = {"type": "adaptive", **(config or {})}
        config.setdefault("block_binding", {"prefix_mismatch_behavior": "drop_block"})
        headers = {"anthropic-beta": ",".join([*betas, BINDING_BETA])}
    if config is not None:
        body["thinking"] = config
    return headers


def _options(
    body: dict[str, Any], request: ChatRequest, fields: Fields, shape: tuple[Traits, Thinking, Format]
) -> list[str]:
    """The other options. Returns the stop sequences that the vendor refuses."""
    traits, thinking, form = shape
    own = fields.take("output_config")
    if own is not None and not isinstance(own, dict):
        raise BadRequest("output_config: expected an object.", param="output_config")
    config: dict[str, Any] = dict(own or {})
    if thinking.effort is not None:
        config.setdefault("effort", thinking.effort)
    if form.schema is not None:
        config["format"] = {"type": "json_schema", "schema": form.schema}
    if config:
        body["output_config"] = config
    _sampling(body, fields, traits, thinking.config is not None and thinking.is_on)
    stops = stop_list(fields.take("stop", "stop_sequences"))
    taken = [stop for stop in stops if stop.strip()]
    if taken:
        body["stop_sequences"] = taken
    body |= fields.take_all(_NATIVE)
    _user(body, fields)
    tier = fields.tier(_TIERS)
    if tier is not None:
        body["service_tier"] = tier
    if request.stream:
        body["stream"] = True
    return [stop for stop in stops if not stop.strip()]


def _sampling(body: dict[str, Any], fields: Fields, traits: Traits, thinks: bool) -> None:
    """A model that thinks accepts no sampling parameters except values without effect."""
    values = {name: fields.number(name) for name in ("temperature", "top_p", "top_k")}
    for name, value in values.items():
        if value is None:
            continue
        fits = traits.samples and (not thinks or (name == "top_p" and value >= 0.95))
        if name == "top_p" and traits.one_sampler and "temperature" in body:
            fits = False
        if fits:
            body[name] = value
        elif value != NEUTRAL.get(name):
            fields.drop(name)
    if body.get("temperature", 0) > 1:
        fields.adapt("temperature")
        body["temperature"] = 1


def _user(body: dict[str, Any], fields: Fields) -> None:
    """An opaque id of the end user."""
    metadata = fields.take("metadata")
    found: list[str] = []
    if isinstance(metadata, dict) and set(metadata) == {"user_id"} and isinstance(metadata["user_id"], str):
        found.append(metadata["user_id"])
    elif metadata:
        fields.drop("metadata")
    for name in ("safety_identifier", "user"):
        value = fields.take(name)
        if isinstance(value, str) and value and len(value) <= _MAX_USER and not _PERSONAL.fullmatch(value):
            found.append(value)
        elif value:
            fields.drop(name)
    if found:
        body["metadata"] = {"user_id": found[0]}


def _mark(body: dict[str, Any], request: ChatRequest, fields: Fields, minimum: int | None, lead: int) -> None:
    """Marks the prefixes to cache, unless the client set marks itself, or wants no changes."""
    if is_too_short(request, minimum) or not request.may_cache or request.hints.strict or fields.is_dropped(MARK):
        return
    found = auto_marks(body, minimum, lead)
    if found:
        body |= found
        fields.adapt(MARK)


def _cap_marks(body: dict[str, Any], fields: Fields) -> None:
    """The vendor caches at most four prefixes; the longest ones stay. It accepts no mark for an hour after one for
    minutes: such a mark becomes one for minutes.
    """
    marked = [block for block in markable(body) if block.get(MARK) is not None]
    most = MAX_CACHE_MARKS - (1 if MARK in body else 0)
    for block in marked[: max(0, len(marked) - most)]:
        del block[MARK]
        fields.drop(MARK)
    is_short = False
    for block in marked[max(0, len(marked) - most) :]:
        if block[MARK].get("ttl") != "1h":
            is_short = True
        elif is_short:
            block[MARK] = {"type": "ephemeral"}
            fields.adapt(MARK)
