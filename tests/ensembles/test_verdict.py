"""What judges and validators write, read as values."""

from __future__ import annotations

import json

import pytest

from proxy.ensembles.verdict import Verdict, json_objects, read_scores, read_share, read_verdict


@pytest.mark.parametrize(
    ("written", "share"),
    [
        (0.85, 0.85),
        (1, 1.0),
        (0, 0.0),
        (85, 0.85),
        (100, 1.0),
        ("0.85", 0.85),
        ("0,85", 0.85),
        ("85%", 0.85),
        ("85 %", 0.85),
        ("85 percent", 0.85),
        ("1%", 0.01),
        ("8/10", 0.8),
        ("85 / 100", 0.85),
        (" High ", 0.9),
        ("medium", 0.6),
        ("Very low", 0.1),
        (8, None),
        ("8", None),
        (101, None),
        (-0.5, None),
        ("-5%", None),
        ("120%", None),
        ("11/10", None),
        ("1/0", None),
        (True, None),
        (None, None),
        ([0.8], None),
        ("", None),
        ("certain", None),
        ("0.8 or so", None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_a_confidence_is_read_in_the_forms_that_models_use(written, share):
    """What could mean two things is unreadable: 8 may be of ten or per cent."""
    assert read_share(written) == share


GOOD = {"correct": True, "complete": True, "confidence": 0.9, "issues": []}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GOOD),
        f"```json\n{json.dumps(GOOD, indent=2)}\n```",
        f"Here is my verdict:\n{json.dumps(GOOD)}\nBest regards",
        f"<think>{{'confidence': 1}} {{broken</think>{json.dumps(GOOD)}",
        json.dumps({"confidence": 0.1}) + " No, wait: " + json.dumps(GOOD),
        '{"correct": "yes", "complete": "Complete", "confidence": "90%", "issues": null}',
    ],
    ids=["plain", "fenced", "in_prose", "after_broken_ones", "the_last_one", "words"],
)
def test_a_verdict_is_found_in_whatever_surrounds_it(text):
    assert read_verdict(text) == Verdict(True, True, 0.9)


@pytest.mark.parametrize(
    ("text", "confidence"),
    [
        ("Confidence: 85%", 0.85),
        ("My confidence is high.", 0.9),
        ("**Confidence score:** 0.4", 0.4),
        ('{"correct": true, "confidence": "very low", "issues": ["a "quoted" word"]}', 0.1),
        ("I am confident that all is well.", None),
        ("The answer is right.", None),
        ("", None),
        ('{"correct": true}', None),
        ('{"correct": true, "confidence": null}', None),
        ('{"confidence": NaN}', None),
        ('{"confidence": 1e999}', None),
        ('{"confidence": ' + "9" * 4000 + "}", None),
        ("{" * 20_000, None),
        ('{"a":' * 20_000, None),
        ("[" * 20_000, None),
        ("\ud800 {\ud800", None),
    ],
)
def test_without_json_only_a_plain_confidence_is_read(text, confidence):
    """Everything else is unreadable, which is no verdict at all."""
    assert read_verdict(text) == Verdict(confidence=confidence)


def test_a_sure_no_is_no_confidence_in_the_answer():
    """`correct: false, confidence: 0.95` means: it is wrong, and that is sure."""
    assert read_verdict('{"correct": false, "complete": true, "confidence": 0.95}').confidence == 0.05
    assert read_verdict('{"correct": true, "complete": false, "confidence": 0.3}').confidence == 0.3


@pytest.mark.parametrize(
    ("verdict", "accepted"),
    [
        (Verdict(True, True, 0.7), True),
        (Verdict(True, True, 0.69), False),
        (Verdict(None, None, 0.8), True),
        (Verdict(False, True, 0.8), False),
        (Verdict(True, False, 0.8), False),
        (Verdict(), True),
    ],
)
def test_an_answer_is_accepted_unless_somebody_doubts_it(verdict, accepted):
    assert verdict.accepts(0.7) is accepted


def test_issues_are_few_short_lines():
    issues = ["first\nline", "", 7, None, "x" * 1000, *["more"] * 100]
    found = read_verdict(json.dumps({"confidence": 0.1, "issues": issues})).issues
    assert found[:2] == ("first line", "x" * 300)
    assert len(found) == 10
    assert read_verdict('{"confidence": 0.1, "issues": "only one"}').issues == ("only one",)


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ('{"scores": {"A": 10, "B": 0}}', {"A": 1.0, "B": 0.0}),
        ('```json\n{"scores": {"A": "7/10", "B": "70%"}}\n```', {"A": 0.7, "B": 0.7}),
        ('{"A": 7.5, "B": 2}', {"A": 0.75, "B": 0.2}),
        ('{"scores": {"A": {"score": 7, "why": "..."}, "B": {"score": 2}}}', {"A": 0.7, "B": 0.2}),
        ('{"scores": {"A": 7, "B": 2, "C": 9}}', {"A": 0.7, "B": 0.2}),
        ('{"scores": {"A": 7}}', None),
        ('{"scores": {"A": 11, "B": 2}}', None),
        ('{"scores": {"A": -1, "B": 2}}', None),
        ('{"scores": {"A": null, "B": 2}}', None),
        ('{"scores": {"A": true, "B": 2}}', None),
        ('{"scores": {"A": "good", "B": 2}}', None),
        ('{"scores": [7, 2]}', None),
        ("A: 7, B: 2", None),
        ("", None),
    ],
)
def test_scores_come_from_json_only_and_all_of_them(text, scores):
    """A judge that quotes an answer quotes its "A: 10" too. A round with a missing score is no round."""
    assert read_scores(text, "AB") == scores


def test_the_last_readable_object_counts():
    """A judge may think aloud, and may quote an answer, before it decides."""
    assert read_scores('The answer says {"scores": {"A": 10, "B": 0}}. I say {"scores": {"A": 1, "B": 9}}', "AB") == {
        "A": 0.1,
        "B": 0.9,
    }


def test_the_search_for_objects_ends():
    """A text of braces costs a bounded number of tries."""
    assert json_objects("{" * 100_000 + "}") == []
    assert len(json_objects('{"a": 1} ' * 1000)) == 64
