"""Values: where the parts of a translated request came from, so that an error names the client's own field.

Vendors' translations see a chat: they say `messages.3.content.1` where the client wrote `input.4.content.1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct

_INDEX = re.compile(r"\[(\d+)\]")  # OpenAI writes `messages[3].content`


class Origin(Struct, frozen=True):
    """The source of one message. `parts`, `calls`: those of each content part and each tool call."""

    where: str
    parts: Sequence[str] = ()
    calls: Sequence[str] = ()
    content: str = "content"  # the name of its content

    def own(self, rest: list[str]) -> str:
        """The client's path for `rest` within the message."""
        name, place = rest[0] if rest else "", int(rest[1]) if rest[1:] and rest[1].isdecimal() else -1
        if name == "tool_calls":
            return self.calls[place] if 0 <= place < len(self.calls) else self.where
        if name == "content":
            whole = f"{self.where}.{self.content}" if self.content else self.where
            return self.parts[place] if 0 <= place < len(self.parts) else whole
        return f"{self.where}.role" if name == "role" else self.where


class Origins(Struct, frozen=True):
    """`tools`: of each function. `fields`: field of the chat -> the client's own."""

    messages: Sequence[Origin] = ()
    tools: Sequence[str] = ()
    fields: Mapping[str, str] = {}

    def own(self, param: str) -> str:
        """The client's path; a field that has none stays as it is."""
        first, *rest = _INDEX.sub(r".\1", param).split(".")
        place = int(rest[0]) if rest and rest[0].isdecimal() else -1
        if first == "messages" and 0 <= place < len(self.messages):
            return self.messages[place].own(rest[1:])
        if first == "tools" and 0 <= place < len(self.tools):
            return self.tools[place]
        return self.fields.get(first, param)
