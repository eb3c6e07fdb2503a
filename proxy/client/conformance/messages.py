"""Translates: the checks of messages and their roles.

Whether a message arrived shows in the model's answer, or in the number of prompt tokens.
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
    not_shown,
    ok,
    prompt_of,
    shorten,
    text_of,
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
    """The model says the one word, or at least a longer rule costs more prompt tokens."""
    text = text_of(ok((yield _with_rule(model, role, _RULE))))
    if "pineapple" not in text.lower():
        seen = f"told to say pineapple, it said {shorten(text)!r}"
        longer = _with_rule(model, role, f"{_RULE} {_RULE}", FEW_TOKENS)
        return (yield from not_shown(seen, _with_rule(model, role, _RULE), longer))
    return shorten(text)


def _with_rule(model: str, role: str, rule: str, most: int = MAX_TOKENS) -> Probe:
    messages = [{"role": role, "content": rule}, {"role": "user", "content": "Who are you?"}]
    return chat(model, messages, max_completion_tokens=most)


def several_turns(model: str) -> Steps:
    """Earlier turns are read: they cost more prompt tokens than the last turn alone."""
    alone = prompt_of(ok((yield chat(model))))
    before = [
        {"role": "user", "content": "The code word is walnut. Remember it."},
        {"role": "assistant", "content": "I will remember it."},
    ]
    messages = [*before, {"role": "user", "content": SAY_OK}]
    read_all = prompt_of(ok((yield chat(model, messages, max_completion_tokens=FEW_TOKENS))))
    expect(read_all > alone, f"{read_all} prompt tokens, {alone} for the last turn alone")
    return f"{read_all} prompt tokens, {alone} without the earlier turns"


def name(model: str) -> Steps:
    """A message may carry the speaker's name."""
    message = {"role": "user", "name": "ada", "content": SAY_OK}
    return shorten(text_of(ok((yield chat(model, [message])), "name", "messages.name")))


def text_parts(model: str) -> Steps:
    """Content may be a list of parts, and every part is read."""
    alone = prompt_of(ok((yield chat(model))))
    parts = [{"type": "text", "text": "The code word is walnut. "}, {"type": "text", "text": SAY_OK}]
    both = prompt_of(ok((yield chat(model, parts, max_completion_tokens=FEW_TOKENS))))
    expect(both > alone, f"{both} prompt tokens, {alone} for the last part alone")
    return f"{both} prompt tokens"


def unicode(model: str) -> Steps:
    return _check_repeat(text_of(ok((yield chat(model, REPEAT)))))


def unicode_streamed(model: str) -> Steps:
    return _check_repeat(read((yield stream(model, REPEAT))).checked_text())


def _check_repeat(text: str) -> str:
    expect("\ufffd" not in text, "a character was cut apart")
    expect(not any(each in text for each in _LATIN), f"UTF-8 was decoded as Latin-1: {shorten(text)!r}")
    missing = [word for word in ("漢字", "😀") if word not in text]
    if missing:
        raise NotShown(f"{', '.join(missing)} is missing in {shorten(text)!r}")
    return shorten(text)


MESSAGES = checks("messages", system, developer, several_turns, name, text_parts, unicode, unicode_streamed)
