"""Facts: what the router knows about a request, and where it comes from."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from proxy.pipeline.hints import applied
from proxy.routing.classify import load
from proxy.routing.facts import (
    LONG_CONTEXT_TOKENS,
    Facts,
    Reading,
    TextClassifier,
    Unclassified,
    facts_of,
    with_evidence,
)
from proxy.routing.features import QUESTION
from proxy.schema.chat import ChatRequest
from proxy.schema.endpoints import AnyRequest
from proxy.server.formats.chat import decode_chat

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


def request(headers: dict[str, str] | None = None, **fields: Any) -> ChatRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], **fields}
    found = applied(decode_chat(json.dumps(body).encode()), headers or {})
    assert isinstance(found, ChatRequest)
    return found


def facts(
    name: str = "auto", headers: dict[str, str] | None = None, reading: Reading | None = None, **fields: Any
) -> Facts:
    given = headers or {}
    return facts_of(request(given, **fields), name, "k", given, reading or Reading())


def parts(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content)}]


class Fixed:
    """A classifier that always says the same. `found` None: it must not be asked for the task."""

    def __init__(self, found: Unclassified | None, difficulty: float | None = None) -> None:
        self.found = found
        self.hardness = difficulty

    def classify(self, request: AnyRequest) -> Unclassified:
        assert self.found is not None, "classified"
        return self.found

    def difficulty(self, request: AnyRequest) -> tuple[float, str]:
        assert self.hardness is not None, "judged"
        return self.hardness, "the question"

    def evidence(self, request: AnyRequest) -> tuple[str, ...]:
        return ("the word prove",)


def sure(task: str, confidence: float = 0.9, difficulty: float = 0.7) -> Reading:
    return Reading(Fixed(Unclassified(task, confidence, difficulty, "en")))


# --- the task ---------------------------------------------------------------------------------------------------------


def test_a_hint_wins_over_the_name_and_the_name_over_the_classifier() -> None:
    """A named task is certain."""
    hinted = facts("auto:code", reading=sure("reasoning"), routing={"task": "extraction"})
    named = facts("auto:code", reading=sure("reasoning"))
    plain = facts(reading=sure("reasoning"))
    assert (hinted.task, hinted.is_task_named, hinted.task_confidence) == ("extraction", True, 1.0)
    assert (named.task, named.is_task_named, named.task_evidence) == ("code", True, ("the name auto:code",))
    assert (plain.task, plain.is_task_named, plain.task_confidence) == ("reasoning", False, 0.9)
    assert (plain.task_evidence, plain.difficulty, plain.language) == ((), 0.7, "en")


def test_a_named_task_is_not_classified() -> None:
    """It costs no CPU; where no rule for the task looks at the difficulty, that stays in the middle."""
    reading = Reading(Fixed(None), hard_tasks=frozenset({"code"}))
    for found in (facts("auto:reasoning", reading=reading), facts(reading=reading, routing={"task": "chat"})):
        assert (found.difficulty, found.language) == (0.5, "und")
        assert found.difficulty_evidence == ("no rule for this task looks at it",)


def test_the_difficulty_of_a_named_task_is_judged_if_a_rule_looks_at_it() -> None:
    """For the task alone, however it was named."""
    reading = Reading(Fixed(None, 0.9), hard_tasks=frozenset({"reasoning"}))
    named, hinted = facts("auto:reasoning", reading=reading), facts(reading=reading, routing={"task": "reasoning"})
    header = facts(headers={"x-proxy-task": "reasoning"}, reading=reading)
    for found in (named, hinted, header):
        assert (found.task, found.difficulty, found.difficulty_evidence) == ("reasoning", 0.9, ("the question",))
        assert found.language == "und"


def test_the_difficulty_is_read_from_both_ends_of_the_question() -> None:
    """What stands between them, results of tools and short replies change nothing; the evidence says what was read."""
    reading = Reading(TextClassifier(load()), hard_tasks=frozenset({"reasoning"}))
    short = facts("auto:reasoning", reading=reading, messages=[{"role": "user", "content": "Is 91 prime?"}])
    assert short.difficulty_evidence == ("the 12 characters of the question",)
    head, tail = QUESTION
    question = "Prove that the sum of two odd integers is even. Then generalise it to n integers, step by step. " * 4
    question = question.strip()
    lengthy = question[:head] + " and so on" * 1000 + question[-tail:]
    turns = [{"role": "user", "content": lengthy}]
    agent = [
        *turns,
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "hello"},
        {"role": "user", "content": "continue"},
    ]
    first, later = (facts("auto:reasoning", reading=reading, messages=each) for each in (turns, agent))
    assert first.difficulty == later.difficulty != 0.5
    read = f"the first {head} and the last {tail} of the {len(lengthy)} characters of the question"
    assert first.difficulty_evidence == (read,)
    without = facts("auto:reasoning", reading=reading, messages=[{"role": "user", "content": question}])
    assert without.difficulty == first.difficulty


def test_an_unsure_classification_counts_as_chat() -> None:
    """The evidence names what it might have been."""
    found = facts(reading=sure("reasoning", confidence=0.39))
    assert (found.task, found.task_confidence) == ("chat", 0.39)
    assert found.task_evidence == ("reasoning at 0.39, below min_confidence 0.4",)
    assert facts(reading=sure("reasoning", confidence=0.4)).task == "reasoning"


def test_only_an_explanation_collects_the_evidence_of_a_text() -> None:
    """A task that was named, or that the form implies, has its evidence already."""
    classified, unsure = sure("reasoning"), sure("reasoning", confidence=0.39)
    asked = request()
    given = with_evidence(facts(reading=classified), asked, classified)
    assert given.task_evidence == ("the word prove",)
    given = with_evidence(facts(reading=unsure), asked, unsure)
    assert given.task_evidence == ("the word prove", "reasoning at 0.39, below min_confidence 0.4")
    hinted = facts(reading=classified, routing={"task": "code"})
    searching = facts(reading=classified, web_search_options={})
    assert (hinted.task_evidence, searching.task_evidence) == (("the hint task",), ("it asks for a web search",))
    for known in (hinted, searching):
        assert with_evidence(known, asked, classified) == known


LONG = "word " * (LONG_CONTEXT_TOKENS + 100)


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({"messages": parts({"type": "text", "text": "what is it?"}, IMAGE)}, "vision"),
        ({"messages": [{"role": "user", "content": LONG}]}, "long_context"),
        ({"messages": [*parts(IMAGE), {"role": "user", "content": LONG}]}, "long_context"),
        ({"web_search_options": {}}, "web_search"),
        ({"tools": [{"type": "web_search_preview"}]}, "web_search"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}], "messages": parts(IMAGE)}, "vision"),
        ({"tools": [{"type": "function", "function": {"name": "web_search"}}]}, "reasoning"),
        ({}, "reasoning"),
    ],
)
def test_the_shape_of_a_request_decides_only_where_no_task_was_named(fields: dict[str, Any], task: str) -> None:
    """Long before pictures, pictures before a web search, each before what the text looks like."""
    assert facts(reading=sure("reasoning"), **fields).task == task
    assert facts("auto:code", **fields).task == "code"
    assert facts(routing={"task": "chat"}, **fields).task == "chat"


def test_the_task_web_search_needs_a_web_search() -> None:
    """However it was found."""
    assert facts("auto:web_search").needs_web_search is True
    assert facts(reading=sure("web_search")).needs_web_search is True
    assert facts(routing={"task": "code"}, web_search_options={}).needs_web_search is True
    assert facts().needs_web_search is False


# --- what a request has -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"messages": parts(IMAGE)}, "has_images"),
        ({"messages": parts({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})}, "has_audio"),
        ({"messages": parts({"type": "video_url", "video_url": {"url": "x"}})}, "has_video"),
        ({"messages": parts({"type": "file", "file": {"file_id": "x"}})}, "has_files"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "has_tools"),
        ({"tools": [{"type": "web_search"}]}, "needs_web_search"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
            "has_json_schema",
        ),
        ({"routing": {"latency_critical": True}}, "latency_critical"),
        ({"routing": {"accuracy_critical": True}}, "accuracy_critical"),
        ({"routing": {"budget_mode": True}}, "budget_mode"),
    ],
)
def test_one_fact_of_each_kind(fields: dict[str, Any], name: str) -> None:
    """It is true where the request has it, and no other fact changes with it."""
    found = facts("auto:chat", **fields)
    flags = [each for each in Facts.__struct_fields__ if getattr(found, each) is True and each != "is_task_named"]
    assert flags == [name]


def test_hints_and_metadata_are_facts() -> None:
    """Metadata values are texts; the rest is nothing that a rule could compare."""
    found = facts(
        routing={"priority": "high", "tags": ["a"], "preferred_model": "smart", "fallback": ["x"], "no_fallback": True},
        metadata={"tier": "gold", "n": 1},
        max_tokens=50,
    )
    assert (found.priority, found.tags, found.preferred_model) == ("high", ("a",), "smart")
    assert (found.fallback, found.no_fallback) == (("x",), True)
    assert found.metadata == {"tier": "gold"}
    assert (found.key, found.output_tokens_limit, facts().output_tokens_limit) == ("k", 50, None)


def test_only_headers_that_rules_name_are_facts() -> None:
    """Credentials and addresses of clients stay out."""
    reading = Reading(headers=frozenset({"x-team", "x-absent"}))
    assert facts(headers={"x-team": "blue", "authorization": "Bearer x"}, reading=reading).headers == {"x-team": "blue"}
    assert facts(headers={"x-team": "blue"}).headers == {}


def test_the_strategy_of_a_hint_wins_over_that_of_the_name() -> None:
    """`auto:cost`, `auto:speed` and `auto:quality` name a strategy, not a task."""
    assert facts("auto:cost").strategy == "cost_optimized"
    assert facts("auto:cost").is_task_named is False
    assert facts("auto:cost", routing={"strategy": "speed_optimized"}).strategy == "speed_optimized"
    assert facts().strategy is None


def test_the_text_is_the_last_one_of_a_person_in_lower_case() -> None:
    """Results of tools are not, and the middle of a long text is skipped. Without a rule that looks at it: none."""
    reads = Reading(reads_text=True)
    talk = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": "Pay this INVOICE"},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "poem"},
    ]
    assert facts(reading=reads, messages=talk).text == "pay this invoice"
    assert facts(messages=talk).text == ""
    long = "a" * 5_000 + "b" * 5_000
    assert facts(reading=reads, messages=[{"role": "user", "content": long}]).text == "a" * 2000 + "\n" + "b" * 2000


def test_the_estimate_covers_messages_and_tools() -> None:
    """About four characters a token."""
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 4000}}]
    small = facts().input_tokens_estimate
    assert 1 <= small <= 10
    assert 900 <= facts(messages=[{"role": "user", "content": "abcd" * 1000}]).input_tokens_estimate <= 1100
    assert 1000 <= facts(tools=tools).input_tokens_estimate - small <= 1100


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_what_identifies_a_session_has_an_order() -> None:
    """The key for the prompt cache, a session header, the user, a fingerprint; or as the configuration says."""
    header = {"x-session-id": "s"}
    fields: dict[str, Any] = {"prompt_cache_key": "p", "user": "u"}
    by_key, by_header = facts(prompt_cache_key="p").session, facts(headers=header).session
    by_user, by_fingerprint = facts(user="u").session, facts().session
    assert len({by_key, by_header, by_user, by_fingerprint, ""}) == 5
    assert facts(headers=header, **fields).session == by_key
    assert facts(headers=header, user="u").session == by_header
    assert facts(headers={"x-claude-code-session-id": "s"}).session == by_header
    only = Reading(session_by=("user",))
    assert facts(headers=header, reading=only, **fields).session == by_user
    assert facts(reading=only).session == ""


def test_a_conversation_keeps_its_fingerprint() -> None:
    """The system message and the first one of the user identify it; later turns change nothing."""
    start = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    later = [*start, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "continue"}]
    other = [start[0], {"role": "user", "content": "Hello!"}]
    as_parts = [{**start[0], "role": "developer"}, {"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    assert facts(messages=start).session == facts(messages=later).session == facts(messages=as_parts).session
    assert facts(messages=start).session != facts(messages=other).session


def test_callers_do_not_share_sessions() -> None:
    """The same words under two keys are two conversations."""
    mine, yours = (facts_of(request(user="u"), "auto", key, {}, Reading()).session for key in ("a", "b"))
    assert mine != yours


def test_every_worker_finds_the_same_session() -> None:
    """Another process, with other hash seeds."""
    code = (
        "from tests.routing.test_facts import facts\n"
        "print(facts().session, facts(user='u').session, facts(headers={'x-session-id': 's'}).session)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == [facts().session, facts(user="u").session, facts(headers={"x-session-id": "s"}).session]


def test_the_work_on_a_long_text_is_bounded() -> None:
    """A fingerprint looks at both ends, the length, and characters between."""
    texts = ["a" * 10_000, "a" * 10_001, "b" + "a" * 9_999, "a" * 9_999 + "b", "a" * 4_000 + "b" * 2_000 + "a" * 4_000]
    assert len({facts(messages=[{"role": "user", "content": text}]).session for text in texts}) == len(texts)
