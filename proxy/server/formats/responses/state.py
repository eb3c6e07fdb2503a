"""Translates: the state that a vendor needs back with its reasoning into the `encrypted_content` of a reasoning item,
and back.

Nothing is stored for this endpoint, so the client carries it: signed thoughts, encrypted reasoning, signatures of
calls. Their own vendors protect them; here they are only packed. The text of the reasoning is in the item's `summary`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from proxy.providers.base.content import REASONING_FIELD
from proxy.schema.json_writing import write_large
from proxy.schema.long_text import base64_text, concatenated

_MARK = "mmp1."
# Fields of a message that some vendor needs back, with the type of their values.
_FIELDS: dict[str, type] = {
    "thinking_blocks": list,
    "reasoning_details": list,
    "extra_content": dict,
    REASONING_FIELD: str,
}
FIELDS = tuple(_FIELDS)
OF_CALLS = "extra_content"  # the same of one call
_CALLS = "calls"


def packed(fields: Mapping[str, Any], calls: Mapping[str, Any]) -> str:
    """The content that carries `fields` of a message and, by id, the signatures of its calls.

    It exists even if there are none: some clients send no reasoning back without it, and it shows that the item is not
    OpenAI's.
    """
    state = {name: fields[name] for name in FIELDS if fields.get(name)}
    if calls:
        state[_CALLS] = dict(calls)
    return concatenated(_MARK, base64_text(write_large(state), base64.urlsafe_b64encode))


def is_ours(content: object) -> bool:
    return isinstance(content, str) and content.startswith(_MARK)


def unpacked(content: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The fields of the message and the signatures of its calls; None if damaged."""
    try:
        state = msgspec.json.decode(base64.urlsafe_b64decode(content[len(_MARK) :]))
    except (binascii.Error, ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    if not isinstance(state, dict):
        return None
    calls = state.pop(_CALLS, {})
    is_known = all(isinstance(value, _FIELDS.get(name, ())) for name, value in state.items())
    if not is_known or not isinstance(calls, dict) or not all(isinstance(each, dict) for each in calls.values()):
        return None
    return state, calls
