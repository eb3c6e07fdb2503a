"""Translates: a model id into what that model of OpenAI's accepts and refuses, as data (checked in November 2026).

Sources: the `openai` package 3.54 and recorded refusals. Levels of effort: the values that the API lists when it
refuses one, and pydantic-ai 2.68, verified against the live API.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from proxy.providers.base.fields import LEVELS
from proxy.providers.compatible.request import Draft

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs")
# The advice to use the Responses API, in the words of OpenAI and of gateways in front of it.
_ADVICE = re.compile(r"(?:v1/|/)responses\b|\bresponses (?:api|endpoint)\b|\bresponses\.create\b", re.IGNORECASE)
_NO_ADVICE = re.compile(  # a link, or the Responses API's own refusal
    r"\S*/docs/\S*|"
    r"\bnot (?:\w+ ){0,2}(?:in|with|by|via|through) (?:the )?(?:/?v1/responses|responses (?:api|endpoint))",
    re.IGNORECASE,
)
_ADVISING = frozenset({400, 404, 405, 422, 501})  # statuses of a request that would succeed elsewhere

_OPTIONS = ("summary", "context", "mode")  # options of `reasoning` besides the effort: only in the Responses API


class ModelRules(Struct, frozen=True):
    """`efforts`: supported levels of `reasoning_effort`; (): no such parameter. `default`: the level without the
    parameter; unless it is `none`, sampling is fixed. `limit`: the only supported name of the output limit. `stop`:
    supports `stop`. `instructed_by`: the role it reads instructions from; None: any.

    `responses`: when the chat API refuses the model: `always`, or for `tools` unless the effort is `none`. Efforts in
    `beyond_chat` exist in the Responses API only.
    """

    efforts: tuple[str, ...] = ()
    default: str = "medium"
    limit: str | None = "max_completion_tokens"
    stop: bool = False
    instructed_by: str | None = None
    responses: Literal["always", "tools"] | None = None
    beyond_chat: tuple[str, ...] = ()


_PLAIN = ModelRules(default="none", limit=None, stop=True)
_LOW_TO_HIGH, _LOW_TO_XHIGH, _LOW_TO_MAX = LEVELS[2:5], LEVELS[2:6], LEVELS[2:]

# The first pattern that matches the whole id counts; ids without a match get the client's fields unchanged.
_RULES: tuple[tuple[re.Pattern[str], ModelRules], ...] = tuple(
    (re.compile(rf"(?:ft:)?(?:{pattern})(?:-\d{{4}}-\d\d-\d\d)?(?::.*)?"), rules)
    for pattern, rules in (
        (r"o1-(?:mini|preview)", ModelRules(stop=True, instructed_by="user")),
        (r"o[13]-pro|codex-mini-latest", ModelRules(_LOW_TO_HIGH, responses="always")),
        (r"o[34](?:-mini)?-deep-research|computer-use-preview", ModelRules(("medium",), responses="always")),
        (r"o1", ModelRules(_LOW_TO_HIGH, stop=True)),
        (r"o[34](?:-mini)?", ModelRules(_LOW_TO_HIGH)),
        (r"gpt-[56](?:\.\d+)?-chat-latest", ModelRules(("medium",))),
        (r"gpt-5-pro", ModelRules(("high",), default="high", responses="always")),
        (r"gpt-[5-9](?:\.\d+)?-pro", ModelRules(LEVELS[3:6], responses="always")),
        (r"gpt-5\.1-codex-max", ModelRules(_LOW_TO_XHIGH, responses="always")),
        (r"gpt-5\.1-codex-mini", ModelRules(LEVELS[3:5], responses="always")),
        (r"gpt-5(?:\.1)?-codex.*", ModelRules(_LOW_TO_HIGH, responses="always")),
        (r"gpt-5\.[2-5]-codex.*", ModelRules(("none", *_LOW_TO_XHIGH), default="none", responses="always")),
        (r"gpt-.*(?:codex|cyber|rosalind|daybreak).*", ModelRules(("none", *_LOW_TO_MAX), responses="always")),
        (r"gpt-5(?:-mini|-nano)?", ModelRules(LEVELS[1:5])),
        (r"gpt-5\.1(?:-mini)?", ModelRules(("none", *_LOW_TO_HIGH), default="none")),
        (r"gpt-5\.[23].*", ModelRules(("none", *_LOW_TO_XHIGH), default="none")),
        (r"gpt-5\.4.*", ModelRules(("none", *_LOW_TO_XHIGH), default="none", responses="tools")),
        (r"gpt-5\.5.*", ModelRules(("none", *_LOW_TO_XHIGH), responses="tools")),
        (r"gpt-5\.6.*", ModelRules(("none", *_LOW_TO_MAX), responses="tools", beyond_chat=("max",))),
        (r"gpt-6(?:\.\d+)?-astra|gpt-6\.\d+-sol", ModelRules(_LOW_TO_MAX, responses="tools")),
        (r"gpt-[5-9].*", ModelRules(("none", *_LOW_TO_MAX), responses="tools")),
        (r"(?:chatgpt-|gpt-4|gpt-3\.5).*", _PLAIN),
    )
)


@lru_cache(maxsize=1024)  # clients choose the ids
def rules_of(model: str) -> ModelRules | None:
    """The rules of a model; None for an id that is not OpenAI's."""
    return next((rules for pattern, rules in _RULES if pattern.fullmatch(model)), None)


def obey(draft: Draft, rules: ModelRules, *, is_chat: bool) -> str:
    """Changes fields that the model would refuse; losses are reported. Returns the effort that the model will use.
    `is_chat`: the request can only go to the chat API.
    """
    if rules.limit is not None:
        draft.name_limit(rules.limit)
    if rules.instructed_by is not None:
        for index, message in enumerate(draft.messages):
            if message["role"] in ("system", "developer"):
                draft.put_message(index, {**message, "role": rules.instructed_by})
                draft.adapt("messages.role")
    beyond = rules.beyond_chat if is_chat else ()
    effort = _effort(draft, rules, tuple(level for level in rules.efforts if level not in beyond))
    if effort != "none":
        for name in _SAMPLING:
            value = draft.body.get(name)
            if name not in ("temperature", "top_p") or value != 1:
                draft.drop(name)
    if not rules.stop:
        draft.cap_stops(0)
    return effort


def name_effort(draft: Draft) -> None:
    """Renames `reasoning.effort`, the spelling of the Responses API and OpenRouter, to `reasoning_effort`; options that
    OpenAI does not have are dropped.
    """
    options = draft.body.pop("reasoning", None)
    if not isinstance(options, dict):
        return
    if options.get("effort") is not None:
        draft.body.setdefault("reasoning_effort", options["effort"])
    for name in options:
        if name not in ("effort", *_OPTIONS):
            draft.note_dropped(f"reasoning.{name}"[:96])
    kept = {name: options[name] for name in _OPTIONS if options.get(name) is not None}
    if kept:
        draft.body["reasoning"] = kept


def advises_responses(status: int, message: str) -> bool:
    """True for a refusal at the chat API that names the Responses API as the place to ask."""
    return status in _ADVISING and _ADVICE.search(_NO_ADVICE.sub("", message)) is not None


def needs_responses(draft: Draft, rules: ModelRules | None, effort: str) -> bool:
    """True for a request that the chat API refuses and the Responses API accepts."""
    if rules is not None and rules.responses is not None:
        thinks_with_tools = rules.responses == "tools" and effort != "none" and bool(draft.tools())
        if rules.responses == "always" or thinks_with_tools or effort in rules.beyond_chat:
            return True
    if "reasoning" in draft.body and rules is not None and effort != "none":
        return True
    return any(
        isinstance(part, dict) and part.get("type") not in ("text", "refusal")
        for message in draft.messages
        if message["role"] == "tool" and isinstance(message.get("content"), list)
        for part in message["content"]
    )


def _effort(draft: Draft, rules: ModelRules, levels: tuple[str, ...]) -> str:
    """The level that the model will use; a level that is not among `levels` becomes the nearest one."""
    effort = draft.body.get("reasoning_effort")
    if effort is None or not isinstance(effort, str):
        return rules.default
    if not levels:
        draft.drop_effort()
        return rules.default
    return draft.level_effort(levels)
