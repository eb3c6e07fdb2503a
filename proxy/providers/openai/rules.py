"""Translates: what OpenAI's own models take and refuse, by model id, as data (checked in November 2026).

Sources: the `openai` package 3.54 and recorded refusals; levels of effort as live-verified by pydantic-ai 2.68.
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

from proxy.providers.base.fields import LEVELS
from proxy.providers.compatible.request import Draft

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs")


class ModelRules(Struct, frozen=True):
    """`efforts`: supported levels of `reasoning_effort`; (): no such parameter; None: any, as far as is known.
    `default`: the level without the parameter; unless it is `none`, sampling is fixed. `limit`: the only name of the
    output limit. `stop`: supports `stop`. `instructed_by`: the role it reads instructions from; None: any.
    """

    efforts: tuple[str, ...] | None = None
    default: str = "medium"
    limit: str | None = "max_completion_tokens"
    stop: bool = False
    instructed_by: str | None = None


_PLAIN = ModelRules(efforts=(), default="none", limit=None, stop=True)

# The first pattern that matches the whole id counts; ids that none matches are sent what the client said.
_RULES: tuple[tuple[re.Pattern[str], ModelRules], ...] = tuple(
    (re.compile(rf"(?:ft:)?(?:{pattern})(?:-\d{{4}}-\d\d-\d\d)?(?::.*)?"), rules)
    for pattern, rules in (
        (r"o1-(?:mini|preview)", ModelRules(efforts=(), stop=True, instructed_by="user")),
        (r"o1(?:-pro)?", ModelRules(LEVELS[2:5], stop=True)),
        (r"o[34](?:-mini|-pro)?", ModelRules(LEVELS[2:5])),
        (r"gpt-[56](?:\.\d+)?-chat-latest", ModelRules(("medium",))),
        (r"gpt-5(?:-mini|-nano)?", ModelRules(LEVELS[1:5])),
        (r"gpt-5\.[124](?:-mini|-nano)?", ModelRules(("none", *LEVELS[2:6]), default="none")),
        (r"gpt-6-astra|gpt-6\.1-sol", ModelRules(LEVELS[2:])),
        (r"gpt-[56].*", ModelRules()),
        (r"(?:chatgpt-|gpt-4|gpt-3\.5).*", _PLAIN),
    )
)


@lru_cache(maxsize=1024)  # clients choose the ids
def rules_of(model: str) -> ModelRules | None:
    """None for an id that is not OpenAI's."""
    return next((rules for pattern, rules in _RULES if pattern.fullmatch(model)), None)


def obey(draft: Draft, rules: ModelRules) -> None:
    """Changes what the model would refuse; losses are reported."""
    if rules.limit is not None:
        draft.name_limit(rules.limit)
    if rules.instructed_by is not None:
        for index, message in enumerate(draft.messages):
            if message["role"] in ("system", "developer"):
                draft.put_message(index, {**message, "role": rules.instructed_by})
                draft.adapt("messages.role")
    effort = _effort(draft, rules)
    if effort != "none":
        for name in _SAMPLING:
            value = draft.body.get(name)
            if name not in ("temperature", "top_p") or value != 1:
                draft.drop(name)
    if not rules.stop:
        draft.cap_stops(0)


def _effort(draft: Draft, rules: ModelRules) -> str:
    """The level the model will think at; an unsupported level becomes the nearest one."""
    effort = draft.body.get("reasoning_effort")
    if effort is None or not isinstance(effort, str):
        return rules.default
    if rules.efforts == ():
        draft.drop("reasoning_effort")
        return rules.default
    return draft.level_effort(rules.efforts) if rules.efforts is not None else effort
