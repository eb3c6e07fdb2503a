"""The ends of a long text, where its instruction is looked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.classify import Conversation
from proxy.routing.ends import END_TOKENS, FIRST, LAST, end_of, ends_in
from proxy.routing.features import DENSE_QUESTION, QUESTION, WIDE_QUESTION, features_of, tokens_of, window

ORDER = "Please write down every amount"
LINE = "the parcel from the mill was weighed and stored and the bill was paid in cash by the smith that very day"
MATERIAL = "\n".join([LINE] * 12)
STORY = ". ".join([LINE] * 12)


def ends_of(text: str) -> list[str]:
    return [b" ".join(end.tokens).decode() for end in features_of(Conversation(text), window(text)).ends]


def test_the_ends_of_a_long_text_are_its_first_and_its_last_line() -> None:
    assert ends_of(f"{ORDER} as a list\n{MATERIAL}") == [f"{ORDER} as a list".lower(), LINE]
    assert ends_of(f"{MATERIAL}\n{ORDER} as a list") == [LINE, f"{ORDER} as a list".lower()]


def test_a_text_without_lines_ends_in_sentences() -> None:
    asked = f"{ORDER} that it names and the person who has paid it in the end"
    assert ends_of(f"{asked}. {STORY}")[0] == asked.lower()
    assert ends_of(f"{STORY}. {asked}?")[1] == asked.lower()
    assert (
        ends_of("请列出所有的金额和付款的人。" + "磨坊的包裹称重后入库" * 12)[0].replace(" ", "")
        == "请列出所有的金额和付款的人"
    )


@pytest.mark.parametrize("greeting", ["Hi,", "Dear Ms Kerr,", "Hello. A question."])
def test_a_greeting_is_no_end(greeting: str) -> None:
    head, _ = ends_of(f"{greeting}\n{ORDER} as a list\n{MATERIAL}")
    assert head.endswith("as a list")


def test_without_lines_and_sentences_an_end_has_forty_words() -> None:
    head, tail = ends_of("word " * 300)
    assert head == tail == " ".join(["word"] * END_TOKENS)
    assert ends_in("word " * 300, 300) == ("", "")


def test_words_between_the_ends_count_as_such() -> None:
    found = features_of(Conversation(f"{ORDER} here\n{MATERIAL}"), f"{ORDER} here\n{MATERIAL}")
    assert len(found.body) == len(set(LINE.split()))
    assert not features_of(Conversation(ORDER), ORDER).body


def test_a_short_text_is_one_end_from_its_first_to_its_last_word() -> None:
    (end,) = features_of(Conversation(ORDER), ORDER).ends
    words = tokens_of(ORDER)
    assert end == end_of(words, (FIRST, LAST))
    assert len(end) == len(words) + len(end.pairs) + len(end.starts) + len(end.others)


@given(st.text(st.sampled_from("aB. ?\n7火。Ж-"), min_size=90, max_size=700))
def test_every_word_is_in_an_end_or_between_them(text: str) -> None:
    """Whatever the text: the first end starts it, and the last one ends it."""
    words = tokens_of(window(text))
    ends = [end.tokens for end in features_of(Conversation(text), window(text)).ends]
    assert all(len(end) <= 2 * END_TOKENS for end in ends)
    if len(ends) == 2:
        assert ends[0] == words[: len(ends[0])]
        assert ends[1] == words[-len(ends[1]) :]
        assert all(ends)
    else:
        assert len(text) <= sum(max(QUESTION, WIDE_QUESTION, DENSE_QUESTION)) or len(words) <= 2 * END_TOKENS
