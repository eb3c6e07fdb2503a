"""Translates: a member's answer into its vote. Equal answers have equal votes.

Votes are texts, tool calls and refusals, and each kind agrees only with itself. An answer that was cut off agrees only
with others that were cut at the same words: nobody knows how it would have gone on.
"""

from __future__ import annotations

import hashlib

from msgspec import Struct

from proxy.ensembles.base import Reply
from proxy.ensembles.canonical import canonical
from proxy.ensembles.tool_votes import calls_key, calls_label, calls_of
from proxy.schema.chat import ResponseMessage, text_of

MAX_LABEL = 200  # characters of an answer that the report shows
_CUT = frozenset({"length", "content_filter"})


class Vote(Struct, frozen=True):
    """`key`: equal for answers that say the same thing. `exact`: equal for answers in the same words. `label`: the
    answer as reports show it.
    """

    key: str
    exact: str
    label: str


def vote_of(reply: Reply) -> Vote | None:
    """The vote of a member; None if it failed, or for an empty answer, which says nothing."""
    message = reply.message
    if calls := calls_of(message):
        key = calls_key(calls)
        return Vote(f"calls {key}", key, shortened(calls_label(calls)))
    if refusal := _refusal(message):
        return Vote("refusal", refusal, "(refusal)")
    text = text_of(message.get("content")).strip()
    if not text:
        return None
    choices = (reply.response or {}).get("choices") or [{}]
    if choices[0].get("finish_reason") in _CUT:
        return Vote(f"cut {text}", text, f"{shortened(text)} (cut off)")
    return Vote(f"text {canonical(text)}", text, shortened(text))


def shortened(text: str, limit: int = MAX_LABEL) -> str:
    """One line of at most `limit` characters, without lone surrogates."""
    line = " ".join(text[: 2 * limit].split())
    line = line if line.isascii() else line.encode("utf-8", "replace").decode()
    return line if len(line) <= limit and len(text) <= 2 * limit else f"{line[: limit - 1]}…"


def digest(text: str) -> str:
    """Decides between equals: everybody gets the same one, whatever the order of the members."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _refusal(message: ResponseMessage) -> str:
    refusal = message.get("refusal")
    return refusal.strip() if isinstance(refusal, str) else ""
