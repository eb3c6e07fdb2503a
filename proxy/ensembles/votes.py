"""Translates: a member's answer into its vote. Equal answers have equal votes.

Votes are texts, tool calls and refusals, and each kind agrees only with itself. An answer that was cut off agrees only
with others that were cut at the same words: how it would have continued is unknown.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection

from msgspec import Struct

from proxy.ensembles.base import Reply
from proxy.ensembles.canonical import canonical
from proxy.ensembles.tool_votes import are_valid, calls_key, calls_label, calls_of, parts_of
from proxy.schema.chat import ResponseMessage, text_of

LARGE = 256 * 1024  # characters of an answer; below it each step stays within 20 ms on the event loop
MAX_LABEL = 200  # characters of an answer that the report shows
_CUT = frozenset({"length", "content_filter"})


class Vote(Struct, frozen=True):
    """`key`: equal for answers that say the same thing. `exact`: equal for answers in the same words. `label`: the
    answer in reports. `is_usable`: false for a tool call that no client could run.
    """

    key: str
    exact: str
    label: str
    is_usable: bool = True


def vote_of(reply: Reply, tools: Collection[str] = (), forms: dict[str, str] | None = None) -> Vote | None:
    """The vote of a member; None if it failed, or for an empty answer. `tools`: the names of the tools that the client
    offers. `forms`: canonical forms of texts, to which that of this answer is added: members often say the same.
    """
    message = reply.message
    if calls := calls_of(message):
        key = calls_key(calls)
        return Vote(f"calls {key}", key, shortened(calls_label(calls)), are_valid(calls, tools))
    if refusal := _refusal(message):
        return Vote("refusal", _bounded(refusal), "(refusal)")
    text = text_of(message.get("content")).strip()
    if not text:
        return None
    exact = _bounded(text)
    choices = (reply.response or {}).get("choices") or [{}]
    if choices[0].get("finish_reason") in _CUT:
        return Vote(f"cut {exact}", exact, f"{shortened(text)} (cut off)")
    forms = {} if forms is None else forms
    if (form := forms.get(text)) is None:
        form = forms[text] = canonical(text)
    return Vote(f"text {form}", exact, shortened(text))


async def vote_soon(reply: Reply, tools: Collection[str], forms: dict[str, str]) -> Vote | None:
    """The vote of a member; that of a large answer is read in a thread."""
    if size_of(reply) <= LARGE:
        return vote_of(reply, tools, forms)
    return await asyncio.to_thread(vote_of, reply, tools, forms)


def size_of(reply: Reply) -> int:
    """The approximate length of an answer in characters."""
    calls = sum(len(arguments) for _, _, arguments in map(parts_of, calls_of(reply.message)))
    return len(text_of(reply.message.get("content"))) + len(_refusal(reply.message)) + calls


def shortened(text: str, limit: int = MAX_LABEL) -> str:
    """One line of at most `limit` characters, without lone surrogates."""
    line = " ".join(text[: 2 * limit].split())
    line = line if line.isascii() else line.encode("utf-8", "replace").decode()
    return line if len(line) <= limit and len(text) <= 2 * limit else f"{line[: limit - 1]}…"


def digest(text: str) -> str:
    """A tie-break that does not depend on the order of the members."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _bounded(text: str) -> str:
    """The text, or a stand-in for a large one, because it is compared often."""
    return text if len(text) <= LARGE else digest(text)


def _refusal(message: ResponseMessage) -> str:
    refusal = message.get("refusal")
    return refusal.strip() if isinstance(refusal, str) else ""
