"""Events in a row that differ only in their text: each text is what the event alone says."""

from __future__ import annotations

import json
from operator import itemgetter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.providers.base.runs import Steps, TextRuns
from proxy.schema.sse import Event, Events


def only_text(data: bytes) -> dict[str, str]:
    """Of an event `{"n": 1, "text": TEXT}`."""
    value = json.loads(data)
    if not isinstance(value, dict) or value.keys() != {"n", "text"} or value["n"] != 1 or not value["text"]:
        raise ValueError
    return value


STEPS: Steps = (only_text, itemgetter("text"))


def event(text: str, n: int = 1, *, ascii_only: bool = False) -> bytes:
    return json.dumps({"n": n, "text": text}, ensure_ascii=ascii_only, separators=(",", ":")).encode()


def runs_of(data: list[bytes], runs: TextRuns | None = None) -> list[str]:
    return (runs or TextRuns(b'"text":"')).read(Events([Event("", each) for each in data]), 0, STEPS)


_texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('",\\{}:n\x7f'), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(_texts, st.booleans()), min_size=1, max_size=6))
def test_any_text_is_read(texts: list[tuple[str, bool]]) -> None:
    """Quotation marks, commas, escapes, line ends."""
    assert runs_of([event(text, ascii_only=escaped) for text, escaped in texts]) == [text for text, _ in texts]


@pytest.mark.parametrize(
    "other",
    [
        event("x", n=2),
        event(""),
        b'{"n":1,"text":"x","more":0}',
        b'{"n":1,"text":"x","text":""}',
        b'{"text":"x","n":1,"tools":[]}',
        b"[DONE]",
        b'{"n":1,"text":"x',
        b'{"n":1,"text":"a","b"}',
        b'{"n":1,"text":"a\\"}',
    ],
)
def test_an_event_of_another_kind_ends_a_run(other: bytes) -> None:
    """Wherever it is, and also if all before and after it are alike."""
    assert runs_of([event("a"), event("b"), other, event("c")]) == ["a", "b"]
    assert runs_of([other, event("c")]) == []


def test_a_later_run_may_look_different() -> None:
    """The order of its fields, a name, white space."""
    runs = TextRuns(b'"text":"')
    assert runs_of([event("a"), event("b")], runs) == ["a", "b"]
    assert runs_of([b'{"text":"c","n":1}', b'{"text":"d","n":1}'], runs) == ["c", "d"]
    assert runs_of([b'{"text": "e", "n": 1}', event("f")], runs) == ["e", "f"]
    assert runs_of([event("g"), event("h")], runs) == ["g", "h"]


def test_events_of_one_name_are_a_run() -> None:
    """The next name may mean anything."""
    events = Events([Event("a", event("1")), Event("a", event("2")), Event("b", event("3"))])
    assert TextRuns(b'"text":"').read(events, 0, STEPS) == ["1", "2"]
    assert TextRuns(b'"text":"').read(events, 2, STEPS) == ["3"]
