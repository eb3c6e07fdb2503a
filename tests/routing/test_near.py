"""Names like a word: found by a bounded number of comparisons."""

from __future__ import annotations

import pytest

from proxy.routing.near import NearNames
from tests.slowness import usual_s

MODELS = [f"together/meta-llama/Llama-{major}-{size}B-Instruct" for major in range(20) for size in range(40)]
NAMES = ["auto", "auto:reasoning", "openai/gpt-5-mini", "openai/gpt-5", "anthropic/claude-sonnet-4-5", *MODELS]


@pytest.mark.parametrize(
    ("word", "first"),
    [
        ("openai/gtp-5-mini", "openai/gpt-5-mini"),
        ("OpenAI/GPT-5", "openai/gpt-5"),
        ("auto:resoning", "auto:reasoning"),
        ("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
        ("together/meta-llama/Llama-7-33B", "together/meta-llama/Llama-7-33B-Instruct"),
        ("together/meta-llama/Llama-77-B-Instruct", "together/meta-llama/Llama-7-7B-Instruct"),
    ],
)
def test_a_misspelt_name_is_found(word: str, first: str) -> None:
    """Letters that are swapped, left out or in another case, among many names that are all alike."""
    assert NearNames(NAMES).find(word, most=3, cutoff=0.5)[0] == first


@pytest.mark.parametrize("word", ["", " ", "zzzzz", "x" * 10_000, "漢字"])
def test_what_is_like_nothing_finds_nothing(word: str) -> None:
    """No suggestion is better than a wrong one."""
    assert NearNames(NAMES).find(word, most=3, cutoff=0.5) == []
    assert NearNames([]).find(word, most=3, cutoff=0.5) == []


def test_a_look_up_is_cheap_however_long_the_word_and_the_list() -> None:
    """Comparing an unknown model name with all others took 3.7 ms: 270 of them a second filled a core."""
    near = NearNames([f"{name}-{number}" for number in range(10) for name in NAMES])
    for word in (
        "together/meta-llama/Llama-77-B-Instruct" * 10,
        "openai/gpt",
        "abcdefghijklmnopqrstuvwxyz/-0123456789",
    ):
        assert usual_s(lambda: [near.find(word, most=3, cutoff=0.5) for _ in range(100)]) / 100 < 0.0006  # noqa: B023


def test_letters_that_changed_places_are_near() -> None:
    """`taks` shares more pairs with `tags` than with `task`."""
    for names in (["tags", "task"], ["task", "tags"]):
        assert NearNames(names).find("taks", most=2, cutoff=0.3)[0] == "task"
