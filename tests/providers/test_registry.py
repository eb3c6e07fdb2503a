"""A vendor's facts stand in its own file, and the registry is made of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import proxy
from proxy.providers import PROVIDERS, registry
from proxy.providers.groq import Groq
from proxy.providers.openai import OpenAI

PACKAGE = Path(proxy.__file__).parent
SHARED = ("providers/base/", "providers/compatible/")
# They say what other programs and older versions name the types.
OTHERS_NAMES = ("cli/import_", "cli/setup_clients.py", "client/older_names.py")
# The look-up that loads the price list may ask for any model of it.
ALLOWED = {("metering/price_book.py", "openai/gpt-4o")}


def test_each_type_is_named_by_its_own_file() -> None:
    """`proxy.providers.groq` holds the type `groq`."""
    assert [kind.__module__.split(".")[2] for kind in PROVIDERS.values()] == list(PROVIDERS)


def test_a_name_belongs_to_one_type() -> None:
    """Two types of one name, or a type without one, are a mistake of the program."""
    assert registry(OpenAI, Groq) == {"openai": OpenAI, "groq": Groq}
    with pytest.raises(ValueError, match="openai, openai"):
        registry(OpenAI, OpenAI)
    with pytest.raises(ValueError, match=r"\?"):
        registry(OpenAI.__mro__[1])


def strings(path: Path) -> list[tuple[int, str]]:
    """The string literals of a file, without docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


def test_no_vendor_is_named_outside_its_own_file() -> None:
    """A test for a vendor's name elsewhere is a fact about the vendor in the wrong place."""
    named = re.compile(rf"(?:{'|'.join(PROVIDERS)})(?:/.*)?")
    found = []
    for path in PACKAGE.rglob("*.py"):
        where = path.relative_to(PACKAGE).as_posix()
        if where.startswith(OTHERS_NAMES) or (where.startswith("providers/") and not where.startswith(SHARED)):
            continue
        said = [(line, text) for line, text in strings(path) if named.fullmatch(text) and (where, text) not in ALLOWED]
        found += [f"{where}:{line}: {text}" for line, text in said]
    assert found == []
