"""What judges read: conversations and answers as texts, cut to size, between markers that nobody can forge."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.ensembles.judge import comparison, validation
from proxy.ensembles.transcript import answer_text, clean, conversation_text, cut, marked
from proxy.schema.chat import Message
from tests.ensembles.scripted import calls, chat, message_of, request, response, text_asked


def test_a_conversation_is_told_message_by_message():
    messages = [
        Message("system", "Be brief."),
        Message("user", [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x"}}]),
        Message("assistant", None, tool_calls=calls(("look", '{"at": "it"}'))["tool_calls"]),
        Message("tool", "a cat"),
        Message("user", [{"type": "input_audio"}, {"type": "unheard_of"}]),
    ]
    assert conversation_text(messages) == (
        "system: Be brief.\n\n"
        "user: What is this?\n[image]\n\n"
        'assistant: [calls the tool look with {"at": "it"}]\n\n'
        "tool: a cat\n\n"
        "user: [audio]\n[other content]"
    )


def test_a_long_conversation_keeps_its_beginning_and_its_end():
    messages = [Message("system", "first"), *(Message("user", f"{at} " + "x" * 50) for at in range(100))]
    text = conversation_text(messages, 500)
    assert text.startswith("system: first\n\nuser: 0 x")
    assert re.search(r"\[\.\.\. \d+ messages left out \.\.\.\]", text)
    assert text.split("\n\n")[-1].startswith("user: 99 x")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_single_long_message_has_all_the_room(count):
    """The last message is what is asked, so it is cut as little as possible."""
    messages = [*[Message("system", "short")] * (count - 1), Message("user", "a" * 900 + "THE END")]
    text = conversation_text(messages, 500)
    assert text.endswith("THE END")
    assert "characters left out" in text
    assert 450 < len(text) < 600
    assert "messages left out" not in text


texts = st.text(alphabet=st.characters(exclude_categories=[]), max_size=300)
messages_of_texts = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), max_size=12)


@settings(max_examples=60)
@given(messages_of_texts, st.integers(50, 400))
def test_a_conversation_has_a_bounded_length(messages, limit):
    """Whatever is in it, it can be sent as JSON, and its last words are there."""
    text = conversation_text(messages, limit)
    assert len(text) <= limit + 60 * (2 + len(messages))
    assert text.encode().decode() == text
    if messages:
        assert text.endswith(clean(str(messages[-1].content)[-20:]))


@given(texts, st.integers(1, 100))
def test_a_cut_text_keeps_both_ends(text, limit):
    found = cut(text, limit)
    assert found == text if len(text) <= limit else f"{len(text) - limit} characters left out" in found


@given(st.lists(st.tuples(st.just("answer"), texts), min_size=1, max_size=4))
def test_no_piece_contains_the_code_of_the_markers(pieces):
    _, code = marked(pieces)
    assert not any(code in text for _, text in pieces)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("42", "42"),
        ("", "[an empty answer]"),
        ({"refusal": "No."}, "[refuses: No.]"),
        (calls(("f", "{}"), ("g", '{"a": 1}')), '[calls the tool f with {}]\n[calls the tool g with {"a": 1}]'),
        ({**calls(("f", "{}")), "content": "Let me look."}, "Let me look.\n[calls the tool f with {}]"),
        ("\ud800", "?"),
    ],
)
def test_an_answer_is_told_with_its_calls_and_refusals(said, text):
    assert answer_text(message_of(response(said))) == text


def test_judges_know_the_tools_and_the_form_that_was_asked_for():
    tool = {"type": "function", "function": {"name": "look_up", "description": "Looks it up.", "parameters": {}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"title": "A kettle"}}}
    asked = request(tools=[tool], response_format=wanted)
    answers = [message_of(response("a")), message_of(response("b"))]
    for judged in (comparison("j", asked, answers, "accuracy"), validation("j", asked, answers[0])):
        assert "look_up: Looks it up." in text_asked(judged)
        assert '"title":"A kettle"' in text_asked(judged)
        assert judged.fields["response_format"]["json_schema"]["name"] == "judgement"


def test_sixteen_answers_have_sixteen_names():
    answers = [message_of(response(f"answer {at}")) for at in range(16)]
    judged = comparison("j", chat([{"role": "user", "content": "?"}]), answers, "coherence")
    assert re.findall(r"<answer (\w) ", text_asked(judged)) == [*"ABCDEFGHIJKLMNOP"]
