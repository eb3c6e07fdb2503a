"""Translates: the checks of what a conversation may be made of.

That a message arrived shows in what the model says, or in how much the server has read.
"""

from __future__ import annotations

from typing import Any

from proxy.conformance.base import Probe, Steps, chat, checks, expect, ok, prompt_of, shown, text_of
from proxy.conformance.events import read, stream

WORDS = "Grüße, 漢字 und 😀"
REPEAT = f"Repeat exactly: {WORDS}"
_RULE = "Whatever you are asked, answer with the one word: pineapple"


def system(model: str) -> Steps:
    return _obeys(ok((yield _ruled(model, "system"))))


def developer(model: str) -> Steps:
    return _obeys(ok((yield _ruled(model, "developer"))))


def _ruled(model: str, role: str) -> Probe:
    return chat(model, [{"role": role, "content": _RULE}, {"role": "user", "content": "Who are you?"}])


def _obeys(answer: dict[str, Any]) -> str:
    text = text_of(answer)
    expect("pineapple" in text.lower(), f"it was told to say pineapple and said {shown(text)!r}")
    return shown(text)


def several_turns(model: str) -> Steps:
    """The earlier ones are read: more tokens than the last one alone."""
    alone = prompt_of(ok((yield chat(model))))
    before = [
        {"role": "user", "content": "The code word is walnut. Remember it."},
        {"role": "assistant", "content": "I will remember it."},
    ]
    read_all = prompt_of(ok((yield chat(model, [*before, {"role": "user", "content": "Say: ok"}]))))
    expect(read_all > alone, f"{read_all} tokens were read, {alone} of the last turn alone")
    return f"{read_all} tokens read, {alone} without the earlier turns"


def name(model: str) -> Steps:
    """Of the one who speaks."""
    message = {"role": "user", "name": "ada", "content": "Say: ok"}
    return shown(text_of(ok((yield chat(model, [message])), "name", "messages.name")))


def text_parts(model: str) -> Steps:
    """Content as a list, all of it read."""
    alone = prompt_of(ok((yield chat(model))))
    parts = [{"type": "text", "text": "The code word is walnut. "}, {"type": "text", "text": "Say: ok"}]
    both = prompt_of(ok((yield chat(model, parts))))
    expect(both > alone, f"{both} tokens were read, {alone} of the last part alone")
    return f"{both} tokens read"


def unicode(model: str) -> Steps:
    return _repeats(text_of(ok((yield chat(model, REPEAT)))))


def unicode_streamed(model: str) -> Steps:
    return _repeats(read((yield stream(model, REPEAT))).text())


def _repeats(text: str) -> str:
    expect("\ufffd" not in text, "a character was cut")
    missing = [word for word in ("漢字", "😀") if word not in text]
    expect(not missing, f"{', '.join(missing)} is missing in {shown(text)!r}")
    return shown(text)


MESSAGES = checks("messages", system, developer, several_turns, name, text_parts, unicode, unicode_streamed)
