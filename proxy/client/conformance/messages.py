"""Translates: the checks of what a conversation may be made of.

That a message arrived shows in what the model says, or in how much the server has read.
"""

from __future__ import annotations

from proxy.client.conformance.base import (
    FEW_TOKENS,
    MAX_TOKENS,
    SAY_OK,
    NotShown,
    Probe,
    Steps,
    chat,
    checks,
    expect,
    ok,
    prompt_of,
    shown,
    text_of,
    unshown,
)
from proxy.client.conformance.events import read, stream

WORDS = "Grüße, 漢字 und 😀"
REPEAT = f"Repeat exactly: {WORDS}"
_LATIN = tuple(each.encode().decode("latin-1") for each in "ü漢😀")
_RULE = "Whatever you are asked, answer with the one word: pineapple"


def system(model: str) -> Steps:
    return _obeys(model, "system")


def developer(model: str) -> Steps:
    return _obeys(model, "developer")


def _obeys(model: str, role: str) -> Steps:
    """The one word, or at least a longer rule is more to read."""
    text = text_of(ok((yield _ruled(model, role, _RULE))))
    if "pineapple" not in text.lower():
        seen = f"it was told to say pineapple and said {shown(text)!r}"
        return (
            yield from unshown(seen, _ruled(model, role, _RULE), _ruled(model, role, f"{_RULE} {_RULE}", FEW_TOKENS))
        )
    return shown(text)


def _ruled(model: str, role: str, rule: str, most: int = MAX_TOKENS) -> Probe:
    messages = [{"role": role, "content": rule}, {"role": "user", "content": "Who are you?"}]
    return chat(model, messages, max_completion_tokens=most)


def several_turns(model: str) -> Steps:
    """The earlier ones are read: more tokens than the last one alone."""
    alone = prompt_of(ok((yield chat(model))))
    before = [
        {"role": "user", "content": "The code word is walnut. Remember it."},
        {"role": "assistant", "content": "I will remember it."},
    ]
    messages = [*before, {"role": "user", "content": SAY_OK}]
    read_all = prompt_of(ok((yield chat(model, messages, max_completion_tokens=FEW_TOKENS))))
    expect(read_all > alone, f"{read_all} tokens were read, {alone} of the last turn alone")
    return f"{read_all} tokens read, {alone} without the earlier turns"


def name(model: str) -> Steps:
    """Of the one who speaks."""
    message = {"role": "user", "name": "ada", "content": SAY_OK}
    return shown(text_of(ok((yield chat(model, [message])), "name", "messages.name")))


def text_parts(model: str) -> Steps:
    """Content as a list, all of it read."""
    alone = prompt_of(ok((yield chat(model))))
    parts = [{"type": "text", "text": "The code word is walnut. "}, {"type": "text", "text": SAY_OK}]
    both = prompt_of(ok((yield chat(model, parts, max_completion_tokens=FEW_TOKENS))))
    expect(both > alone, f"{both} tokens were read, {alone} of the last part alone")
    return f"{both} tokens read"


def unicode(model: str) -> Steps:
    return _repeats(text_of(ok((yield chat(model, REPEAT)))))


def unicode_streamed(model: str) -> Steps:
    return _repeats(read((yield stream(model, REPEAT))).said())


def _repeats(text: str) -> str:
    expect("\ufffd" not in text, "a character was cut")
    expect(not any(each in text for each in _LATIN), f"UTF-8 was read as Latin-1: {shown(text)!r}")
    missing = [word for word in ("漢字", "😀") if word not in text]
    if missing:
        raise NotShown(f"{', '.join(missing)} is missing in {shown(text)!r}")
    return shown(text)


MESSAGES = checks("messages", system, developer, several_turns, name, text_parts, unicode, unicode_streamed)
