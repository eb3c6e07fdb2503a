"""Which prompt a body asks for."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.prompts.uses import id_of, label_of, name_of, use_of
from proxy.schema.errors import BadRequest
from proxy.schema.prompts import PromptUse


@pytest.mark.parametrize(
    ("field", "model", "expected"),
    [
        (None, "auto", None),
        (None, "prompt:p", PromptUse("p", leaves_model=True)),
        (None, "prompt:p@staging", PromptUse("p", label="staging", leaves_model=True)),
        (None, "prompt:p@12", PromptUse("p", 12, leaves_model=True)),
        (None, "prompt:p@latest", PromptUse("p", label="latest", leaves_model=True)),
        ({"id": "p"}, "auto", PromptUse("p")),
        ({"id": "p"}, None, PromptUse("p", leaves_model=True)),
        ({"id": "p", "version": 2}, "auto", PromptUse("p", 2)),
        ({"id": "p", "version": "2"}, "auto", PromptUse("p", 2)),
        ({"id": "p", "version": "latest"}, "auto", PromptUse("p", label="latest")),
        ({"id": "p", "label": "a", "variables": {"x": 1}}, "auto", PromptUse("p", label="a", variables={"x": 1})),
        ({"id": "p", "version": None, "label": None, "variables": None}, "auto", PromptUse("p")),
        ({"variables": {"x": 1}}, "prompt:p@a", PromptUse("p", label="a", variables={"x": 1}, leaves_model=True)),
        ({"id": "p", "version": 3}, "prompt:p", PromptUse("p", 3, leaves_model=True)),
        ({"id": "p", "label": "a"}, "prompt:p@a", PromptUse("p", label="a", leaves_model=True)),
    ],
)
def test_a_body_names_a_prompt(field: Any, model: Any, expected: PromptUse | None) -> None:
    """In its field, by the name of its model, or in both."""
    assert use_of(field, model) == expected


@pytest.mark.parametrize(
    ("field", "model", "param"),
    [
        ("a text", "auto", "prompt"),
        (["p"], "auto", "prompt"),
        ({}, "auto", "prompt.id"),
        ({"id": 5}, "auto", "prompt.id"),
        ({"id": "p", "verison": 2}, "auto", "prompt.verison"),
        ({"id": "p", "version": 0}, "auto", "prompt.version"),
        ({"id": "p", "version": True}, "auto", "prompt.version"),
        ({"id": "p", "version": "two"}, "auto", "prompt.version"),
        ({"id": "p", "version": 10**12}, "auto", "prompt.version"),
        ({"id": "p", "label": "a b"}, "auto", "prompt.label"),
        ({"id": "p", "version": 1, "label": "a"}, "auto", "prompt.label"),
        ({"id": "p", "variables": []}, "auto", "prompt.variables"),
        (None, "prompt:", "model"),
        (None, "prompt:p@", "model"),
        ({"id": "q"}, "prompt:p", "prompt.id"),
        ({"id": "p", "version": 1}, "prompt:p@2", "prompt.version"),
        ({"id": "p", "version": 1}, "prompt:p@a", "prompt.version"),
        ({"id": "p", "label": "b"}, "prompt:p@a", "prompt.label"),
    ],
)
def test_a_field_that_cannot_be_read_is_named(field: Any, model: Any, param: str) -> None:
    """Also where field and model disagree."""
    with pytest.raises(BadRequest) as refused:
        use_of(field, model)
    assert refused.value.param == param


@pytest.mark.parametrize("use", [PromptUse("p"), PromptUse("p", 3), PromptUse("p", label="a")])
def test_a_use_has_a_name(use: PromptUse) -> None:
    """By which it can be asked for again."""
    found = use_of(None, name_of(use))
    assert found is not None
    assert (found.id, found.version, found.label) == (use.id, use.version, use.label)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a@b", "-a", "x" * 65, "pmpt_1", "export", "import", 5, "é"])
def test_an_id_is_safe_in_paths_and_names(name: Any) -> None:
    """And cannot be taken for one of OpenAI's."""
    with pytest.raises(BadRequest):
        id_of(name)


@pytest.mark.parametrize("name", ["latest", "12", "", "a b", "x" * 65, None])
def test_a_label_is_no_number(name: Any) -> None:
    """Nor the name of the newest version."""
    with pytest.raises(BadRequest):
        label_of(name)
