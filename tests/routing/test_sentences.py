"""The sentences of a text, among which the classifier looks for the instruction."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.classify import Classifier, Conversation, load
from proxy.routing.features import system_window
from proxy.routing.sentences import (
    ANY,
    FIRST,
    LAST,
    LONG_PREFIX,
    MOST,
    OF_SYSTEM,
    PREFIX,
    SYSTEM_MOST,
    WORDS,
    sentences_of,
    system_sentences_of,
)
from proxy.routing.words import prepared, words_of

ORDER = "Please write down every amount"
LINE = "the parcel from the mill was weighed and stored and the bill was paid in cash by the smith that very day"


def sentences(text: str) -> list[str]:
    return [b" ".join(part.words).decode() for part in sentences_of(prepared(text))]


def places(text: str) -> list[str]:
    return [part.place for part in sentences_of(prepared(text))]


@pytest.mark.parametrize("end", [".", "?", "!", "\n", ". ", "\n\n", *"\u3002\uff1f\uff01\u0964\u061f"])
def test_lines_and_sentences_are_apart(end: str) -> None:
    """In any script."""
    assert sentences(f"{ORDER}{end}{LINE}") == [ORDER.lower(), LINE]
    assert sentences(f"请列出所有的金额{end}磨坊的包裹") == ["请 列 出 所 有 的 金 额", "磨 坊 的 包 裹"]
    assert sentences(f"Запиши все суммы{end}посылка от мельника") == ["запиши все суммы", "посылка от мельника"]


def test_what_is_too_short_for_a_sentence_belongs_to_the_next() -> None:
    """A greeting, a number with decimals, an abbreviation; at the end of the text it belongs to the one before."""
    assert sentences(f"Hi,\nDear Ms Kerr.\n{ORDER}") == ["hi dear ms kerr", ORDER.lower()]
    assert sentences("It costs 3.5 euros. Is that much? OK") == ["it costs 0", "0 euros is that much ok"]
    assert sentences("Thanks!") == ["thanks"]
    assert sentences("") == [""]


def test_a_long_sentence_is_several() -> None:
    assert [len(each.split()) for each in sentences("word " * 90)] == [WORDS, WORDS, 90 - 2 * WORDS]


def test_of_many_sentences_the_first_and_the_last_are_read() -> None:
    text = "\n".join(f"{LINE} {number}x" for number in map("abcdefghijklmnopqrstuvwxyz".__getitem__, range(26)))
    found = sentences(text)
    assert [each[-2] for each in found] == [*"abcdef", *"uvwxyz"]
    assert len(found) == MOST
    assert places(text) == ["first", "second", *["middle"] * (MOST - 4), "last but one", "last"]
    assert places(ORDER) == ["only"]
    assert places(f"{ORDER}\n{LINE}") == ["first", "last"]
    assert places(f"{ORDER}\n{LINE}\n{LINE}") == ["first", "second", "last"]


def test_the_n_grams_of_a_sentence() -> None:
    """Words, pairs of them, the first letters of the longer ones, and the edges of the text."""
    first, last = sentences_of(prepared("Write all amounts. Then stop it"))
    write, all_, amounts = (crc32(word, ANY) for word in (b"write", b"all", b"amounts"))
    assert first.singles == [write, all_, amounts]
    assert first.pairs == [crc32(b"all", write), crc32(b"amounts", all_)]
    assert first.starts == [crc32(b"writ", PREFIX), crc32(b"amou", PREFIX), crc32(b"amount", LONG_PREFIX)]
    assert crc32(b"write", FIRST) in first.edges and crc32(b"write", LAST) not in first.edges
    assert crc32(b"stop", LAST) in last.edges and crc32(b"then", FIRST) not in last.edges
    (russian,) = sentences_of(prepared("все суммы"))
    assert russian.starts == [crc32("сумм".encode(), PREFIX), crc32("сум".encode(), LONG_PREFIX)]
    (only,) = sentences_of(prepared("Stop"))
    assert only.edges == [crc32(b"stop", FIRST), crc32(b"stop", LAST)]
    assert len(first) == len(first.singles) + len(first.pairs) + len(first.starts) + len(first.edges)


def test_the_sentences_of_a_system_prompt() -> None:
    """They have no edges of the text, and an empty prompt has none."""
    lines = [f"{LINE} {letter}x" for letter in "abcdefgh"]
    found = system_sentences_of(prepared("\n".join(lines)))
    assert [part.words[-1] for part in found] == [b"ax", b"bx", b"cx", b"fx", b"gx", b"hx"]
    assert (len(found), {part.place for part in found}) == (SYSTEM_MOST, {OF_SYSTEM})
    assert not any(part.edges for part in found)
    assert system_sentences_of(prepared(" ?!\n")) == system_sentences_of(b"") == []


@pytest.mark.parametrize(("word", "head", "tail"), [("prime ", 300, 100), ("чётное ", 90, 30), ("证明", 60, 20)])
def test_both_ends_of_a_system_prompt_are_read(word: str, head: int, tail: int) -> None:
    text = word * 200
    assert system_window(text) == f"{text[:head]}\n{text[-tail:]}"
    assert system_window(word) == word


@given(st.text(st.sampled_from("aB. ?\n7火。Ж-"), max_size=700))
def test_every_word_of_a_text_that_is_not_long_is_in_a_sentence(text: str) -> None:
    found = sentences_of(prepared(text))
    words = [word for part in found for word in part.words]
    if len(found) < MOST and prepared(text).count(b"\n") < 120:
        assert words == words_of(text)
    assert all(len(part.words) < WORDS + 3 for part in found)
    assert all(255 * len(part) < 1 << 16 for part in found)  # the sum of a column fits its field


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load()


MATERIAL = [
    "Dear Ms Kerr, the parcel from the mill was weighed and stored yesterday.",
    "The smith has paid the bill of 40 euros in cash.",
    "On Monday the mill will be closed, because the wheel is being mended.",
    "If you come on Tuesday, please bring the two empty sacks.",
    "My brother Ned will be there until four.",
    "Kind regards, Ada Miller.",
]
ORDERS = {
    "Summarize this letter in two sentences.": "summarization",
    "What's the gist of it?": "summarization",
    "Extract all names and amounts as JSON.": "extraction",
    "Is this message spam or not? Answer with one word.": "classification",
    "Translate the letter into French.": "chat",
}


@pytest.mark.parametrize(("place", "fewest"), [(0, 5), (len(MATERIAL), 3), (3, 2)])
def test_an_instruction_is_found_in_material(classifier: Classifier, place: int, fewest: int) -> None:
    """Among six times as many words of material, the same for all tasks: before it, less surely after or within it."""
    found = {}
    for order in ORDERS:
        text = " ".join([*MATERIAL[:place], order, *MATERIAL[place:]])
        found[order] = classifier.classify(Conversation(text)).task
    print(found)
    assert sum(found[order] == task for order, task in ORDERS.items()) >= fewest


@pytest.mark.parametrize("about", [(), ("You are the assistant of a small mill.", "Be polite and brief.")])
def test_an_instruction_is_found_in_the_system_prompt(classifier: Classifier, about: tuple[str, ...]) -> None:
    """Alone, or behind what an application says of itself; the person's message is bare material."""
    text = " ".join(MATERIAL)
    found = {order: classifier.classify(Conversation(text, " ".join([*about, order]))).task for order in ORDERS}
    print(found)
    assert sum(found[order] == task for order, task in ORDERS.items()) >= 4
