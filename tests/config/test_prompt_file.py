"""Prompts as YAML: what was written is read again, and what cannot be read is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.config.prompt_file import read_prompts, written
from proxy.prompts.checked import checked_version
from proxy.prompts.presets import preset_of, shown_fields
from proxy.prompts.templates import variables_of
from proxy.schema.errors import BadRequest
from proxy.schema.prompts import PromptHead, PromptVersion
from proxy.server.api.prompt_bodies import check_usable
from proxy.server.shipped_prompts import SHIPPED, shipped

# What a template can be: anything but NUL and blank.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60).filter(
    lambda text: bool(text.strip())
)


def read(text: str) -> Any:
    return read_prompts(text.encode(), "file", check_usable)


def text(template: str, **fields: Any) -> PromptVersion:
    escaped = template.replace("{", "{{").replace("}", "}}")
    return checked_version({"template": escaped, **fields})


@given(st.lists(TEXTS, min_size=1, max_size=3), TEXTS)
@example(["for YAML these end a line, too: \x85 \u2028\n- a"], "\x01")
@settings(max_examples=25)
@pytest.mark.slow
def test_what_was_written_is_read_again(templates: list[str], notes: str) -> None:
    """Every text, however it looks to a YAML parser."""
    versions = [
        replace(text(each, notes=notes, parameters={"stop": [each]}), version=number)
        for number, each in enumerate(templates, 3)
    ]
    head = PromptHead(id="p", name="yes", labels={"production": versions[-1].version, "on": 3})
    (found,) = read(written([(head, versions)]))
    assert [shown_fields(each) for each in found.versions] == [shown_fields(each) for each in versions]
    assert (found.id, found.name, found.labels) == ("p", "yes", {"on": 0, "production": len(versions) - 1})


@pytest.mark.parametrize(
    "value", ["no", "1.0", "0o7", "~", "null", "2026-11-29", "# x", "- a", "a: b", "'", '"', "|", "é"]
)
def test_words_that_yaml_may_mistake_stay_text(value: str) -> None:
    """They are quoted."""
    (found,) = read(written([(PromptHead(id="p", name=value), [text(value)])]))
    assert (found.name, found.versions[0].template) == (value, value)


def test_a_short_entry_is_one_version() -> None:
    """Its labels are a list."""
    (found,) = read("version: 1\nprompts:\n  p: {template: 'Hi {x}', labels: [production], model: auto}\n")
    assert (found.versions[0].variables, found.labels, found.name) == (("x",), {"production": 0}, "p")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{template: 'Hi {x.y}'}", "prompts.p.template: line 1, column 4"),
        ("{}", "prompts.p.template: give either"),
        ("{template: a, modle: b}", "Did you mean model?"),
        ("{versions: []}", "prompts.p.versions: expected a list"),
        ("{versions: [{template: a}, {template: '{'}]}", "prompts.p.versions.1.template: line 1"),
        ("{versions: [{template: a, labels: [b]}]}", "prompts.p.versions.0.Unknown field 'labels'"),
        ("{template: a, versions: [{template: a}]}", "Unknown field 'template'"),
        ("{template: a, parameters: {temperature: hot}}", "prompts.p.parameters.temperature: Expected"),
        (
            "{template: a, labels: {production: 2}}",
            "prompts.p.labels.production: expected the number of a version, 1 to 1",
        ),
        ("{template: a, labels: [latest]}", "`latest` always means the newest version"),
        ("{template: a, labels: a}", "prompts.p.labels: expected a list of labels"),
        ("{template: a, name: ''}", "prompts.p.name: expected 1 to"),
        ("a text", "prompts.p: expected keys and values"),
        ("{template: !x a}", "tags"),
    ],
)
def test_a_mistake_is_named_with_its_place(entry: str, says: str) -> None:
    """The path in the file."""
    with pytest.raises(BadRequest) as refused:
        read(f"version: 1\nprompts:\n  p: {entry}\n")
    assert says in refused.value.message


@pytest.mark.parametrize(
    "file",
    [
        "",
        "[]",
        "version: 2\nprompts: {}",
        "version: 1",
        "prompts: {}",
        "a: ]",
        "version: 1\nprompts: {}\nx: 1",
        "&a [*a]",
    ],
)
def test_another_file_is_refused(file: str) -> None:
    """Whatever it is."""
    with pytest.raises(BadRequest) as refused:
        read(file)
    assert refused.value.param == "prompts"


def test_an_id_that_is_none_is_named() -> None:
    with pytest.raises(BadRequest, match=r"prompts\.a b: expected 1 to 64 letters"):
        read("version: 1\nprompts: {'a b': {template: x}}")


def test_the_shipped_prompts_can_be_used() -> None:
    """Under the names and with the variables that programs rely on."""
    found = {each.id: each for each in shipped()}
    assert tuple(found) == SHIPPED
    assert {name: set(each.versions[0].variables) for name, each in found.items()} == {
        "extraction_v1": {"target_fields", "html_content"},
        "reasoning_v1": {"goal", "url", "actions", "history"},
    }
    assert all(each.labels == {"production": 0} for each in found.values())
    assert variables_of(preset_of(found["extraction_v1"].versions[0]).templates) == ("target_fields", "html_content")
