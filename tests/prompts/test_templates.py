"""Templates: plain substitution, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.prompts.templates import check_text, parse, variables_of
from proxy.schema.errors import BadRequest

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
# What attacks on template engines look like; each would give itself away if anything looked at it.
PAYLOADS = [
    "{x.__class__}",
    "{0}",
    "{}",
    "{a!r}",
    "{a:>10}",
    "{a[0]}",
    "{x.__init__.__globals__}",
    "{% %}",
    "{% for a in b %}",
    "{ a }",
    "{a-b}",
    "{é}",
    "{a",
    "a}",
    "{{a}",
    "{" + "a" * 65 + "}",
]


def render(text: str, **values: str) -> str:
    return parse(text, "template").render(values)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_is_no_variable_is_refused(payload: str) -> None:
    """With its place; it is never evaluated."""
    with pytest.raises(BadRequest) as refused:
        parse(f"one\ntwo {payload}", "template")
    assert refused.value.param == "template"
    assert refused.value.message.startswith("template: line 2, column ")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("{{7*7}}", "{7*7}"),
        ("${x}", "$1"),  # a dollar sign, then a variable
        ('Return {{"price": null}} for {x}', 'Return {"price": null} for 1'),
        ("{{{x}}}", "{1}"),
        ("{{{{x}}}}", "{{x}}"),
        ("#{x} <%= x %> `x` \\{x}", "#1 <%= x %> `x` \\1"),
        ("", ""),
    ],
)
def test_doubled_braces_are_literal(text: str, rendered: str) -> None:
    """Everything else is text."""
    assert render(text, x="1") == rendered


@pytest.mark.parametrize("payload", [*PAYLOADS, "{{7*7}}", "${x}", "{x}", "{y}", "{{x}}"])
def test_values_are_never_looked_at(payload: str) -> None:
    """Neither by their own variable nor by another one."""
    assert render("{x}|{y}|{x}", x=payload, y="{x}") == f"{payload}|{{x}}|{payload}"


@given(st.lists(st.tuples(st.text(), NAMES), max_size=8), st.text(), st.data())
def test_rendering_is_plain_substitution(pieces: list[tuple[str, str]], end: str, data: Any) -> None:
    """The texts as they are, doubled braces halved, and the values between them."""
    values = {name: data.draw(st.text()) for name in {name for _, name in pieces}}

    def escaped(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    text = "".join(f"{escaped(before)}{{{name}}}" for before, name in pieces) + escaped(end)
    found = parse(text, "template")
    expected = "".join(before + values[name] for before, name in pieces) + end
    assert found.render(values) == expected
    assert found.size(values) == len(expected)
    assert variables_of([found]) == tuple(dict.fromkeys(name for _, name in pieces))


@given(st.text(alphabet="{}ax_ .!:0", max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """With nothing else in between; what was parsed has every character of the text."""
    try:
        found = parse(text, "t")
    except BadRequest as error:
        assert error.param == "t"
        return
    back = "".join(
        each.replace("{", "{{").replace("}", "}}") + (f"{{{name}}}" if name else "")
        for each, name in zip(found.texts, (*found.names, ""), strict=True)
    )
    assert back == text


@pytest.mark.parametrize(("text", "says"), [("a\0b", "NUL (character 2)"), ("ab\ud800", "character 3 is half")])
def test_what_no_database_keeps_is_refused(text: str, says: str) -> None:
    """With its place."""
    with pytest.raises(BadRequest, match="notes: ") as refused:
        check_text(text, "notes")
    assert says in refused.value.message
