"""Translates: values of environment variables into the intended ones, without what files and tools left around them."""

from __future__ import annotations

import re
from collections.abc import Mapping

from proxy.config.problems import Mark, Problem, problem

OWN_KEYS = ("PROXY_API_KEY", "PROXY_ADMIN_KEY")
_AROUND = re.compile(r"[\s\ufeff\u200b-\u200d\u2060]+")
# Container platforms set this for a service called `proxy` (and Docker for a linked container): tcp://10.0.0.7:8000.
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://\S+", re.IGNORECASE)


def trimmed(text: str) -> str:
    """The intended value. Secret files end with a newline, editors begin files with a byte order mark, and
    `docker --env-file` keeps quotes.
    """
    text = _bare(text)
    while len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = _bare(text[1:-1])
    return text


def is_sendable(text: str) -> bool:
    """True if a key of this text can be sent in a header."""
    return all("!" <= char <= "~" for char in text)


def is_service_link(text: str) -> bool:
    """True for an address set by the platform in place of the user's port."""
    return _SERVICE_LINK.fullmatch(text) is not None


def wrong_own_key(value: str) -> str | None:
    """The reason to refuse one of the server's own keys, or None. An empty variable counts as unset."""
    text = trimmed(value)
    if value and not text:
        return "is blank. Set it to a key, or unset it."
    if text.lower().startswith("bearer ") or text.lower().startswith("authorization:"):
        return "holds a header. Set it to the key alone; clients send `Authorization: Bearer KEY`."
    if not is_sendable(text):
        return "contains blanks or characters that no header can carry. Use printable ASCII without spaces."
    return None


def own_key_problems(environ: Mapping[str, str]) -> list[Problem]:
    """The problems of the server's own keys. Never repeats them."""
    wrong = {name: wrong_own_key(environ.get(name, "")) for name in OWN_KEYS}
    return [problem(Mark(f"environment variable {name}"), (), why) for name, why in wrong.items() if why]


def _bare(text: str) -> str:
    begin = _AROUND.match(text)
    text = text[begin.end() :] if begin else text
    while text and _AROUND.fullmatch(text[-1]):
        text = text[:-1]
    return text
