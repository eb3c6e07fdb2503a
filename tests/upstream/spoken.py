"""Translates: a script into what the model says, the same on every wire: "tok0 tok1 ...", a word is a token."""

from __future__ import annotations

import re

import msgspec
from msgspec.structs import replace

from tests.upstream.actor import act
from tests.upstream.modes import Script
from tests.upstream.wire import Ask, Said, Wanted

_ECHO_PIECE = 24


def say(ask: Ask, script: Script, wanted: Wanted, *, cut_arguments: bool = False) -> Said:
    """One choice. Calls share the tokens, dealt out in turns: `{"text":"tok0 tok2"}`; JSON also at the request's limit,
    unless the vendor cuts arguments there.
    """
    if script.actor:
        return act(wanted)
    if script.calls:
        return Said(calls=[*script.calls], finish="tool_calls")
    said = words(ask.raw, script, wanted.max_tokens)
    if said.refusal:
        return replace(said, finish="content_filter")
    if not script.tools:
        return said
    names = [wanted.choice] if wanted.choice in wanted.tools else list(wanted.tools)
    names = names or [f"tool{index}" for index in range(script.tools)]
    calls = []
    for index in range(script.tools):
        own = " ".join(token.strip() for token in said.tokens[index :: script.tools])
        arguments = msgspec.json.encode({"text": own} if own else {}).decode()
        is_cut = cut_arguments and own and said.finish == "length"
        calls.append((names[index % len(names)], arguments[:-2] if is_cut else arguments))
    return Said(reasoning=said.reasoning, calls=calls, finish=said.finish)


def words(raw: bytes, script: Script, limit: int | None) -> Said:
    """All tokens of one choice as text, cut at the limit; reasoning counts, as vendors count it."""
    tokens, reasoning = _tokens(raw, script), [f"think{index} " for index in range(script.reasoning)]
    is_cut = limit is not None and limit < len(reasoning) + len(tokens)
    if is_cut:
        reasoning = reasoning[:limit]
        tokens = tokens[: (limit or 0) - len(reasoning)]
    finish = script.finish_reason or ("length" if is_cut else "tool_calls" if script.tools else "stop")
    return Said(tokens=tokens, reasoning=reasoning, refusal=script.refusal, finish=finish)


def _tokens(raw: bytes, script: Script) -> list[str]:
    if script.text is not None:
        return re.findall(r"\S+\s*", script.text)
    if script.pieces == "echo":
        body = raw.decode()
        return [body[start : start + _ECHO_PIECE] for start in range(0, len(body), _ECHO_PIECE)]
    if script.pieces == "giant":
        return ["a" * script.giant_bytes]
    suffix = "é漢😀" if script.pieces == "unicode" else ""
    return [f"{' ' if index else ''}tok{index}{suffix}" for index in range(script.n_tokens)]


def pieces_of(arguments: str) -> list[str]:
    """One for each word, so that a token is a piece; none of no arguments."""
    return re.findall(r" ?[^ ]+| +", arguments) if arguments != "{}" else []


def tokens_of(said: Said) -> int:
    written = sum(len(pieces_of(arguments)) for _, arguments in said.calls)
    return len(said.reasoning) + len(said.tokens) + written
