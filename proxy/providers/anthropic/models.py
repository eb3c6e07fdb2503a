"""Translates: a model id into what that model of Anthropic's accepts and refuses, as data (checked in November 2026).

Sources: the `anthropic` package 2.12, recorded traffic and refusals; flags as verified by pydantic-ai 2.68.
"""

from __future__ import annotations

import re

from msgspec import Struct
from msgspec.structs import replace


class Traits(Struct, frozen=True):
    """One generation of models; sizes in tokens.

    `samples`: accepts temperature, top_p and top_k; `one_sampler`: temperature or top_p, but not both. `thinking`:
    `budget`, `adaptive` or `none`; `thinks_unasked`: thinks by default. `off`: the value that turns thinking off, None
    if nothing does. `efforts`: levels of `output_config.effort`. `forces_tools`: accepts a tool_choice of any or of one
    tool. `formats`: has `output_config.format` and strict tools. `prefills`: continues a trailing assistant message.
    `later_system`: accepts system messages after a user turn; `mistakes_system`: reads one after a tool result as part
    of the result. `binds`: its thinking is valid only in the conversation that produced it. `least_cached`: the
    shortest prefix that it caches; None: none, or unknown.
    """

    max_output: int
    context: int | None = None
    samples: bool = True
    one_sampler: bool = False
    thinking: str = "budget"
    thinks_unasked: bool = False
    off: str | None = "disabled"
    efforts: tuple[str, ...] = ()
    forces_tools: bool = True
    formats: bool = False
    prefills: bool = True
    later_system: bool = False
    mistakes_system: bool = False
    binds: bool = False
    least_cached: int | None = 1024


_OTHER = Traits(
    8192, least_cached=None
)  # other vendors' models behind this API get what Anthropic's oldest models accept
_3 = Traits(4096, 200_000, thinking="none")
_4 = Traits(64_000, 200_000)
_4_5 = replace(_4, one_sampler=True, formats=True)
_4_6 = Traits(
    128_000,
    1_000_000,
    thinking="adaptive",
    efforts=("low", "medium", "high", "max"),
    formats=True,
    prefills=False,
)
_4_7 = replace(_4_6, samples=False, efforts=("low", "medium", "high", "xhigh", "max"))
_4_8 = replace(_4_7, later_system=True)
_5 = replace(_4_8, thinks_unasked=True)
_ALWAYS = replace(_5, off=None, least_cached=512)
_5_5 = replace(_ALWAYS, forces_tools=False, binds=True)

# The first pattern that matches the whole id counts. A Claude that is newer than this table is treated as the
# strictest.
_TRAITS: tuple[tuple[re.Pattern[str], Traits], ...] = tuple(
    (re.compile(rf"(?:.*[./])?(?:{pattern})(?:[-@](?:\d{{8}}|latest))?(?:-v\d.*)?"), traits)
    for pattern, traits in (
        (r"claude-3-haiku", replace(_3, least_cached=2048)),
        (r"claude-3-(?:opus|sonnet)", _3),
        (r"claude-3-5-haiku", replace(_3, max_output=8192, least_cached=2048)),
        (r"claude-3-5-sonnet", replace(_3, max_output=8192)),
        (r"claude-3-7-sonnet|claude-sonnet-4(?:-0)?", _4),
        (r"claude-opus-4(?:-0)?", replace(_4, max_output=32_000)),
        (r"claude-opus-4-1", replace(_4, max_output=32_000, one_sampler=True)),
        (r"claude-sonnet-4-5", _4_5),
        (r"claude-(?:opus|haiku)-4-5", replace(_4_5, least_cached=4096)),
        (r"claude-sonnet-4-6", _4_6),
        (r"claude-opus-4-6", replace(_4_6, least_cached=4096)),
        (r"claude-opus-4-7", replace(_4_7, least_cached=2048)),
        (r"claude-opus-4-8", _4_8),
        (r"claude-sonnet-5", _5),
        (r"claude-opus-5", replace(_5, least_cached=512)),
        (r"claude-(?:fable|mythos)-5", _ALWAYS),
        (r"claude-mythos-preview", replace(_ALWAYS, least_cached=2048)),
        (r"claude-sonnet-5-5", replace(_5_5, off="between_tools")),
        (r"claude-haiku-5-5", replace(_5_5, off="disabled", forces_tools=True, mistakes_system=True)),
        (r"claude-opus-5-5|claude-(?:fable|mythos)-5-1", _5_5),
        (r"claude-.*", replace(_5_5, least_cached=4096)),
    )
)
_POINT = re.compile(r"(?<=\d)\.(?=\d)")
_DATED = re.compile(r"[-@](?:\d{8}|latest)$")


def traits_of(model: str) -> Traits:
    """The traits of a model id. Gateways write versions with a dot: `anthropic/claude-haiku-4.5`."""
    name = _POINT.sub("-", model)
    return next((traits for pattern, traits in _TRAITS if pattern.fullmatch(name)), _OTHER)


def same_model(one: str, other: str) -> bool:
    """True if two ids name one model, with or without a date."""
    return _DATED.sub("", one) == _DATED.sub("", other)
