"""What a usage can be: counts that add up, several reports of one answer, and what of it is believed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple

from proxy.schema.records import MAX_TOKENS, Tokens
from proxy.schema.usage import UsageReport, believable, counted, disjoint, merged, shown_of

COUNT = st.one_of(st.just(0), st.integers(0, 200), st.integers(0, MAX_TOKENS))
GUESS = 40
ODD: list[Any] = [
    *(-1, -0.5, True, None, "", "many", "1" * 400, "nan", "inf", float("nan"), 1e308, [1], {}),
    *(MAX_TOKENS + 1, 10**18, float(MAX_TOKENS + 1), "1e30"),
]


def report(**parts: Any) -> UsageReport:
    tokens = Tokens(**parts)
    return UsageReport(shown_of(tokens), tokens)


def believed(said: UsageReport | None, written: int, complete: bool = True) -> tuple[Tokens, bool]:
    found, is_estimated = believable(said, written, lambda: GUESS, complete)
    shown: Any = found.shown
    assert (shown["prompt_tokens"], shown["completion_tokens"]) == (found.billed.prompt, found.billed.output)
    assert shown["total_tokens"] == found.billed.total
    return found.billed, is_estimated


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (12, 12),
        (12.0, 12),
        ("12", 12),
        (" 12.0 ", 12),
        (0, 0),
        (MAX_TOKENS, MAX_TOKENS),
        *((odd, None) for odd in ODD),
    ],
)
def test_a_count_is_a_whole_number_however_it_is_typed(value: Any, expected: int | None) -> None:
    """Nobody has used a count that no column of money could hold the price of."""
    assert counted(value) == expected


# --- counts that add up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "total", "expected"),
    [
        (Tokens(input=100, output=7, cache_read=40), 107, Tokens(input=60, output=7, cache_read=40)),
        (Tokens(input=24, output=2, cache_read=161), 26, Tokens(input=24, output=2, cache_read=161)),
        (Tokens(input=24, output=2, cache_read=161), 0, Tokens(input=24, output=2, cache_read=161)),
        (Tokens(input=9, output=2, cache_write=20), 0, Tokens(input=9, output=2, cache_write=20)),
        (Tokens(input=50, output=2, cache_read=20), 72, Tokens(input=50, output=2, cache_read=20)),
        (Tokens(input=12, output=2, reasoning=320), 334, Tokens(input=12, output=322, reasoning=320)),
        (Tokens(input=12, output=2, reasoning=320), 0, Tokens(input=12, output=322, reasoning=320)),
        (Tokens(input=12, output=2, reasoning=3), 14, Tokens(input=12, output=2, reasoning=2)),
        (Tokens(output=7), 127, Tokens(input=120, output=7)),
        (Tokens(input=120), 127, Tokens(input=120, output=7)),
        (Tokens(output=15, reasoning=5), 20, Tokens(input=5, output=15, reasoning=5)),
        (Tokens(output=7, cache_read=30), 0, Tokens(cache_read=30, output=7)),
    ],
)
def test_the_total_tells_which_part_is_in_which(given: Tokens, total: int, expected: Tokens) -> None:
    """Without one, a part that is greater than its sum cannot be in it; the total gives a part that is missing."""
    assert disjoint(given, total) == expected


@given(COUNT, COUNT, COUNT, COUNT, COUNT, COUNT)
def test_parts_are_never_negative_and_sum_to_the_total(
    prompt: int, output: int, read: int, written: int, reasoning: int, total: int
) -> None:
    """Whatever a vendor says. Nothing that was counted is lost."""
    tokens = disjoint(Tokens(prompt, read, written, output, reasoning), total)
    assert min(part for part in astuple(tokens) if isinstance(part, int)) >= 0
    assert tokens.input + tokens.cache_read + tokens.cache_write + tokens.output == tokens.total
    assert tokens.reasoning <= tokens.output
    assert tokens.prompt >= max(prompt, read + written)
    assert tokens.output >= output
    assert shown_of(tokens)["total_tokens"] == tokens.total


# --- several reports --------------------------------------------------------------------------------------------------


@given(
    st.builds(Tokens, input=COUNT, cache_read=COUNT, cache_write=COUNT, output=COUNT, searches=COUNT),
    st.lists(st.sets(st.sampled_from(["prompt", "output", "searches"])), max_size=6),
    st.randoms(use_true_random=False),
)
def test_parts_of_one_truth_in_any_order_are_that_truth(
    truth: Tokens, kept: list[set[str]], dice: random.Random
) -> None:
    """A report that leaves a count out, or says 0, lowers none that was there."""
    sides = {
        "prompt": {"input": truth.input, "cache_read": truth.cache_read, "cache_write": truth.cache_write},
        "output": {"output": truth.output},
        "searches": {"searches": truth.searches},
    }
    everything = [set(sides), *kept]
    dice.shuffle(everything)
    stands: UsageReport | None = None
    for names in everything:
        newer = report(**{name: value for side in names for name, value in sides[side].items()})
        before, stands = stands, merged(stands, newer)
        assert stands is not None
        if before is not None:
            assert all(new >= old for new, old in zip(astuple(stands.billed), astuple(before.billed), strict=True))
        assert stands.shown["total_tokens"] == stands.billed.total
    assert stands is not None
    assert stands.billed == truth
    assert stands.shown == shown_of(truth)
    assert merged(stands, None) is merged(None, stands) is stands


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        ({"input": 15, "output": 2}, {"input": 13, "output": 9}, Tokens(input=13, output=9)),
        ({"input": 10, "output": 93}, {"input": 10, "output": 78}, Tokens(input=10, output=78)),
        ({"input": 100}, {"input": 20, "cache_read": 80}, Tokens(input=20, cache_read=80)),
        ({"input": 20, "cache_read": 80}, {"input": 100}, Tokens(input=20, cache_read=80)),
        ({"input": 20, "cache_read": 80}, {"input": 30}, Tokens(input=30)),
        ({"output": 9, "reasoning": 5}, {"output": 3}, Tokens(output=3, reasoning=3)),
        ({"cache_write": 9, "cache_write_1h": 9}, {"output": 3}, Tokens(cache_write=9, cache_write_1h=9, output=3)),
        ({"others": (("m", Tokens(1)),)}, {"input": 3}, Tokens(input=3, others=(("m", Tokens(1)),))),
    ],
)
def test_vendors_correct_their_counts(older: Any, newer: Any, expected: Tokens) -> None:
    """In both directions; what is cached moves from one part to another."""
    found = merged(report(**older), report(**newer))
    assert found is not None
    assert found.billed == expected
    assert found.shown["total_tokens"] == expected.total


# --- what to believe --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "written", "expected"),
    [
        ({"input": 3, "output": 2}, 90, (Tokens(input=3, output=2), False)),
        ({"input": 3, "output": 9000}, 1, (Tokens(input=3, output=9000), False)),
        ({"input": 3}, 0, (Tokens(input=3), False)),
        ({"cache_read": 3, "output": 1}, 1, (Tokens(cache_read=3, output=1), False)),
        ({"searches": 1}, 0, (Tokens(searches=1), False)),
        ({}, 9, (Tokens(input=GUESS, output=9), True)),
        ({}, 0, (Tokens(input=GUESS), True)),
        ({"output": 7, "reasoning": 3}, 9, (Tokens(input=GUESS, output=7, reasoning=3), True)),
        ({"input": 60, "cache_read": 40}, 9, (Tokens(input=60, cache_read=40, output=9), True)),
        ({"searches": 2}, 9, (Tokens(input=GUESS, output=9, searches=2), True)),
        ({"input": MAX_TOKENS, "cache_read": 1, "output": 2}, 9, (Tokens(input=GUESS, output=2), True)),
        ({"input": 2, "output": MAX_TOKENS + 1}, 9, (Tokens(input=2, output=9), True)),
    ],
)
def test_what_was_counted_is_kept_and_only_what_is_missing_is_estimated(
    said: Any, written: int, expected: tuple[Tokens, bool]
) -> None:
    """No prompt is empty, and no text was written for nothing."""
    assert believed(report(**said), written) == expected


@pytest.mark.parametrize("written", [0, 9])
def test_an_answer_without_usage_is_estimated(written: int) -> None:
    """From the request and its text."""
    assert believed(None, written) == (Tokens(input=GUESS, output=written), True)


def test_a_sum_alone_gives_the_output() -> None:
    """What is not the prompt was written, and no less than its text."""
    alone = UsageReport({"total_tokens": 100}, Tokens())
    assert believed(alone, 9) == (Tokens(input=GUESS, output=60), True)
    assert believed(alone, 70) == (Tokens(input=GUESS, output=70), True)


@pytest.mark.parametrize(("output", "written", "expected"), [(3, 20, 20), (30, 20, 30), (0, 0, 0)])
def test_of_an_answer_that_was_cut_the_larger_counts(output: int, written: int, expected: int) -> None:
    """What the vendor has said so far, or the text so far."""
    found, _ = believed(report(input=50, output=output), written, complete=False)
    assert found == Tokens(input=50, output=expected)


@given(st.builds(Tokens, COUNT, COUNT, COUNT, COUNT, COUNT), st.integers(0, 10**6), st.booleans())
def test_what_is_believed_can_be_written_in_a_row(tokens: Tokens, written: int, complete: bool) -> None:
    """Every part is a count, the prompt is not 0, and what is shown is what is billed."""
    said = UsageReport(shown_of(tokens), tokens)
    found, _ = believed(said, written, complete)
    assert min(part for part in astuple(found) if isinstance(part, int)) >= 0
    assert found.prompt > 0
    assert max(found.prompt, found.output) <= MAX_TOKENS
    assert found.output > 0 or not written
