"""Routing hints: their places, precedence and removal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.pipeline.hints import applied
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.schema.hints import Hints
from proxy.server.formats.chat import decode_chat


def request(headers: dict[str, str] | None = None, **fields: Any) -> ChatRequest:
    body = {"model": "x", "messages": [{"role": "user", "content": "hi"}], **fields}
    found = applied(decode_chat(json.dumps(body).encode()), headers or {})
    assert isinstance(found, ChatRequest)
    return found


@pytest.mark.parametrize(
    ("fields", "headers", "strict"),
    [
        ({}, {}, False),
        ({"routing": {"strict": True}}, {}, True),
        ({}, {"x-proxy-strict": "true"}, True),
        ({}, {"x-proxy-strict": "TRUE "}, True),
        ({"metadata": {"routing.strict": "true"}}, {}, True),
        ({"routing": {"strict": False}}, {"x-proxy-strict": "true"}, False),
        ({"metadata": {"routing.strict": "true"}}, {"x-proxy-strict": "false"}, False),
        ({"routing": {"strict": None}}, {"x-proxy-strict": "true"}, True),
        ({"routing": None}, {}, False),
        ({"routing": {}}, {"x-proxy-strict": "false"}, False),
    ],
)
def test_body_wins_over_header_and_header_over_metadata(
    fields: dict[str, Any], headers: dict[str, str], strict: bool
) -> None:
    """Null counts as absent."""
    assert request(headers, **fields).hints.strict is strict


def test_hints_go_no_further() -> None:
    """No provider sees them; other metadata is forwarded."""
    found = request(routing={"strict": True}, metadata={"routing.strict": "true", "user": "u"})
    assert set(found.fields) == {"model", "messages", "metadata"}
    assert found.fields["metadata"] == {"user": "u"}
    assert "metadata" not in request(metadata={"routing.strict": "true"}).fields


def test_a_request_without_hints_is_left_alone() -> None:
    """The same object: the hot path copies nothing."""
    plain = decode_chat(b'{"model": "x", "messages": [{"role": "user", "content": "hi"}], "metadata": {"a": "b"}}')
    assert applied(plain, {"authorization": "Bearer x", "x-request-id": "1"}) is plain


def test_an_experiment_is_named_in_each_of_the_three_places() -> None:
    """Body, header, metadata; the names of experiments are short."""
    assert request(routing={"experiment": "e1"}).hints.experiment == "e1"
    assert request({"x-proxy-experiment": "e1"}).hints.experiment == "e1"
    assert request(metadata={"routing.experiment": "e1"}).hints.experiment == "e1"
    for wrong in ("", "x" * 65, 3, ["e1"]):
        with pytest.raises(BadRequest) as refused:
            request(routing={"experiment": wrong})
        assert refused.value.param == "routing.experiment"


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"routing": {"strikt": True}}, {}),
        ({"metadata": {"routing.strikt": "true"}}, {}),
        ({}, {"x-proxy-strickt": "true"}),
    ],
)
def test_a_misspelt_hint_is_refused_with_the_near_name(fields: dict[str, Any], headers: dict[str, str]) -> None:
    """Anywhere."""
    with pytest.raises(BadRequest, match="Did you mean strict"):
        request(headers, **fields)


def test_headers_of_other_proxies_are_none_of_ours() -> None:
    """They do not resemble any hint: proxies between client and server may add them."""
    assert request({"x-proxy-id": "7", "x-proxy-user-agent": "x", "x-proxy-model": "y"}).hints.strict is False


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        ({"routing": {"strict": "true"}}, {}, "routing.strict"),
        ({"routing": {"strict": 1}}, {}, "routing.strict"),
        ({"metadata": {"routing.strict": "yes"}}, {}, "metadata.routing.strict"),
        ({}, {"x-proxy-strict": "1"}, "x-proxy-strict"),
        ({"routing": [1]}, {}, "routing"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(fields: dict[str, Any], headers: dict[str, str], param: str) -> None:
    """Body values are JSON, the others texts."""
    with pytest.raises(BadRequest) as caught:
        request(headers, **fields)
    assert (caught.value.code, caught.value.param) == ("invalid_value", param)


EVERY: dict[str, Any] = {
    "task": "code",
    "priority": "high",
    "latency_critical": True,
    "accuracy_critical": False,
    "budget_mode": True,
    "preferred_model": "openai/gpt-6-sol",
    "strategy": "cost_optimized",
    "fallback": ["smart", "groq/openai/gpt-oss-20b"],
    "no_fallback": False,
    "max_cost_usd": 0.05,
    "deadline_ms": 2500,
    "strict": True,
    "trace": True,
    "tags": ["nightly", "batch"],
    "allow_downgrade": False,
    "progress": True,
}
VALUES: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in EVERY.items()}
EXPECTED = Hints(**VALUES)


def text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value).lower() if value in (True, False) else str(value)


def test_every_hint_has_the_same_meaning_in_each_of_the_three_places() -> None:
    """In headers and metadata everything is text, and lists are separated by commas."""
    header_texts = {f"x-proxy-{name.replace('_', '-')}": text(value) for name, value in EVERY.items()}
    metadata = {f"routing.{name}": text(value) for name, value in EVERY.items()}
    assert request(routing=EVERY).hints == EXPECTED
    assert request(header_texts).hints == EXPECTED
    assert request(metadata=metadata).hints == EXPECTED
    assert {*EVERY, "ensemble", "experiment"} == set(Hints.__struct_fields__)


def test_an_ensemble_is_described_in_the_body_only() -> None:
    """An object has no form as text. Its keys are checked once the ensemble is known."""
    assert request(routing={"ensemble": {"strategy": "voting"}}).hints.ensemble == {"strategy": "voting"}
    for fields, headers in (({"routing": {"ensemble": "voting"}}, {}), ({}, {"x-proxy-ensemble": "voting"})):
        with pytest.raises(BadRequest, match="expected an object, in the body"):
            request(headers, **fields)


def test_an_empty_fallback_list_differs_from_none() -> None:
    """An empty list says: no fallback; its absence leaves the configured order."""
    assert request(routing={"fallback": []}).hints.fallback == ()
    assert request({"x-proxy-fallback": ""}).hints.fallback == ()
    assert request().hints.fallback is None


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        ("task", "summarisation", "expected reasoning, .* or web_search. Did you mean summarization?"),
        ("task", 3, "expected reasoning"),
        ("priority", "hight", "expected low, normal or high. Did you mean high?"),
        ("strategy", "cost_optimised", "Did you mean cost_optimized?"),
        ("strategy", ["cost_optimized"], "expected task_based"),
        ("budget_mode", "yes", "expected true or false"),
        ("no_fallback", 1, "expected true or false"),
        ("trace", "true", "expected true or false"),
        ("preferred_model", "", "expected 1 to 200 printable characters"),
        ("preferred_model", "a" * 201, "expected 1 to 200 printable characters"),
        ("preferred_model", "a\nb", "expected 1 to 200 printable characters"),
        ("fallback", "smart", "expected a list of at most 16 names"),
        ("fallback", [1], "expected 1 to 200 printable characters"),
        ("fallback", ["x"] * 17, "expected a list of at most 16 names"),
        ("tags", [" "], "expected 1 to 64 printable characters"),
        ("tags", {"a": 1}, "expected a list of at most 16 names"),
        ("max_cost_usd", -0.01, "expected a number of at least 0"),
        ("max_cost_usd", True, "expected a number of at least 0"),
        ("max_cost_usd", "0.1", "expected a number of at least 0"),
        ("deadline_ms", 0, "expected a whole number from 1 to 86400000"),
        ("deadline_ms", 1.5, "expected a whole number from 1 to 86400000"),
        ("deadline_ms", 10**30, "expected a whole number from 1 to 86400000"),
    ],
)
def test_an_invalid_value_is_refused_with_the_valid_ones(hint: str, value: Any, message: str) -> None:
    """And with the nearest one, if one is near."""
    with pytest.raises(BadRequest, match=message) as caught:
        request(routing={hint: value})
    assert (caught.value.code, caught.value.param) == ("invalid_value", f"routing.{hint}")


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", "-1", "x", ""])
def test_a_cost_in_a_header_is_a_finite_number(value: str) -> None:
    """What Python alone takes for a number would bind nothing."""
    with pytest.raises(BadRequest, match="expected a number"):
        request({"x-proxy-max-cost-usd": value})


def test_an_unknown_hint_is_refused_with_the_known_ones() -> None:
    """Also where no name is near."""
    with pytest.raises(BadRequest, match=r"Unknown hint 'zzzz'\. Hints: task, priority,"):
        request(routing={"zzzz": 1})
