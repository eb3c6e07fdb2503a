"""What notebooks show: the answer and what it cost, as text and as HTML, and never a key."""

from __future__ import annotations

import pytest

from proxy import APISettings, MultiModelAPI, SyncMultiModelAPI
from proxy.client.errors import RateLimited
from proxy.client.reading import answer_of, ensemble_answer_of, explanation_of, usage_report_of
from proxy.client.results import Chunk, money

KEY = "sk-proj-0123456789abcdefghij"
DATA = {
    "id": "chatcmpl-1",
    "model": "openai/gpt-4o-mini",
    "choices": [{"message": {"content": "<b>$49.99</b>"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1200, "completion_tokens": 34, "total_tokens": 1234, "cost": 0.00042},
}
PANEL = {
    "strategy": "voting",
    "confidence": 0.6667,
    "votes": {"$49.99": 2, "$12": 1},
    "members": [{"model": "<x>", "role": "member", "outcome": "ok", "cost_usd": 0.0001}],
}


def test_an_answer_shows_its_text_and_what_it_cost() -> None:
    """What models write is text and no HTML."""
    answer = answer_of(DATA, {})
    assert repr(answer).startswith("Answer(text='<b>$49.99</b>', model='openai/gpt-4o-mini', usage=Usage(")
    html = answer._repr_html_()
    assert "&lt;b&gt;$49.99&lt;/b&gt;" in html and "openai/gpt-4o-mini · 1,234 tokens · $0.00042 · stop" in html


def test_an_ensemble_shows_its_members() -> None:
    found = ensemble_answer_of({**DATA, "routing": {"ensemble": PANEL}}, {})
    assert "votes={'$49.99': 2, '$12': 1}" in repr(found) and "confidence=0.6667" in repr(found)
    html = found._repr_html_()
    assert "confidence 67%" in html and "<td>&lt;x&gt;</td><td>member</td><td>ok</td><td>0.0001</td>" in html


def test_usage_is_a_table_with_its_total_last() -> None:
    report = {
        "since": None,
        "until": None,
        "total": {"calls": 3},
        "groups": [{"model": "a", "calls": 3}],
        "budget": None,
    }
    html = usage_report_of(report)._repr_html_()
    assert html == (
        "<table><tr><th>model</th><th>calls</th></tr><tr><td>a</td><td>3</td></tr><tr><td></td><td>3</td></tr></table>"
    )


def test_an_explanation_shows_its_candidates() -> None:
    data = {
        "requested": "auto",
        "chosen": "a/b",
        "fallbacks": [],
        "facts": {"task": "code"},
        "candidates": [{"model": "c/d", "order": None, "rejected": "no_images"}],
        "estimated_cost_usd": {"low": 0.1, "high": 0.2},
    }
    html = explanation_of(data)._repr_html_()
    assert "auto → a/b" in html and "task code" in html and "<td>no_images</td>" in html


def test_a_long_answer_is_cut_in_html_only() -> None:
    long = {**DATA, "choices": [{"message": {"content": "x" * 5000}, "finish_reason": "stop"}]}
    assert len(answer_of(long, {})._repr_html_()) < 4300
    assert len(answer_of(long, {}).text) == 5000


@pytest.mark.parametrize(
    ("cost", "text"), [(None, ""), (0.0, "$0"), (0.00042, "$0.00042"), (12.5, "$12.5"), (100.0, "$100")]
)
def test_money_has_the_digits_it_needs(cost: float | None, text: str) -> None:
    assert money(cost) == text


@pytest.mark.parametrize("kind", [MultiModelAPI, SyncMultiModelAPI])
def test_a_client_does_not_show_its_key(kind) -> None:
    shown = repr(kind(base_url="http://h:1", api_key=KEY))
    assert shown == f"{kind.__name__}(base_url='http://h:1/v1')"
    assert KEY not in repr(kind(APISettings(providers={"openai": {"api_key": KEY}})))


def test_small_things_are_short() -> None:
    assert repr(Chunk("Hi")) == "Chunk('Hi')"
    assert repr(Chunk("", finish_reason="stop")) == "Chunk('', finish_reason='stop')"
    error = RateLimited("Too many.", status=429, code="rate_limit_exceeded", retry_after=3.0)
    assert repr(error) == "RateLimited('Too many.', status=429, code='rate_limit_exceeded', retry_after=3.0)"
