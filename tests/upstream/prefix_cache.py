"""Values: Anthropic's prompt cache: which prefix of a request was sent before, and what is written now.

As the vendor's page says (November 2026): entries are written at marks and nowhere else, a read looks back 20 blocks
from each mark, renews the entry, and a prefix below the minimum is neither written nor an error. Of what a request
writes, the part up to its last mark of an hour is billed as an hour's, the rest as five minutes'.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

TTLS_S = {"5m": 300.0, "1h": 3600.0}
LOOKBACK = 20


class Counts(Struct, frozen=True):
    """The tokens of one prompt: four characters of JSON are one."""

    input: int
    read: int
    written_5m: int
    written_1h: int

    @property
    def prompt(self) -> int:
        return self.input + self.read + self.written_5m + self.written_1h


@dataclass
class PrefixCache:
    """`now_s`: its clock. `requests`: the counts of all prompts, and `prefixes` the blocks that each consisted of."""

    least: int
    now_s: float = 0.0
    requests: list[Counts] = field(default_factory=list)
    prefixes: list[list[str]] = field(default_factory=list)
    _entries: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)  # -> its ttl, when it ends

    def counts(self, body: dict[str, Any]) -> Counts:
        """What of this prompt is read and written."""
        blocks = list(_blocks(body))
        sizes = [len(text) // 4 for text, _ in blocks]
        ends = [sum(sizes[: place + 1]) for place in range(len(blocks))]
        digest, keys = hashlib.sha256(), []
        for text, _ in blocks:
            digest.update(text.encode() + b"\0")
            keys.append((body["model"], digest.hexdigest()))
        marks = [(place, ttl) for place, (_, ttl) in enumerate(blocks) if ttl is not None and ends[place] >= self.least]
        found = [hit for place, _ in marks if (hit := self._hit(keys, place)) is not None]
        read = max((ends[place] for place in found), default=0)
        for place in found:
            ttl, _ = self._entries[keys[place]]
            self._entries[keys[place]] = (ttl, self.now_s + TTLS_S[ttl])
        hour = max((ends[place] for place, ttl in marks if ttl == "1h"), default=0)
        last = max((ends[place] for place, _ in marks), default=0)
        for place, ttl in marks:
            if ends[place] > read:
                self._entries[keys[place]] = (ttl, self.now_s + TTLS_S[ttl])
        written_1h, written_5m = max(0, hour - read), max(0, last - max(read, hour))
        counts = Counts(sum(sizes) - read - written_1h - written_5m, read, written_5m, written_1h)
        self.requests.append(counts)
        self.prefixes.append([text for text, _ in blocks])
        return counts

    def _hit(self, keys: list[tuple[str, str]], mark: int) -> int | None:
        """The longest prefix within reach of a mark that is still there."""
        for place in range(mark, max(-1, mark - LOOKBACK), -1):
            ttl_and_end = self._entries.get(keys[place])
            if ttl_and_end is not None and ttl_and_end[1] > self.now_s:
                return place
        return None


def _blocks(body: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Each block of the prompt without its mark, and the mark's time to live."""
    system, turns = body.get("system", []), body["messages"]
    system = [{"type": "text", "text": system}] if isinstance(system, str) else system
    parts = [("tool", each) for each in body.get("tools", [])] + [("system", each) for each in system]
    for turn in turns:
        content = turn["content"]
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        parts += [(turn["role"], each) for each in content]
    for where, block in parts:
        mark = block.get("cache_control")
        rest = {name: value for name, value in block.items() if name != "cache_control"}
        yield f"{where} {json.dumps(rest)}", None if mark is None else mark.get("ttl", "5m")
