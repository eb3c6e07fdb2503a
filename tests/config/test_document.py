"""docs/configuration.md matches the code: every key with its type and default, every message, every snippet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct, inspect

from proxy.config import ConfigError, Source, configure
from proxy.config.constraints import unwrapped
from proxy.config.problems import looks_like_key
from proxy.config.reader import described
from proxy.config.server import ServerConfig
from proxy.config.settings import EnsemblesFile, PricingFile, RoutingFile
from proxy.ensembles.base import Ensemble
from proxy.ensembles.registry import STRATEGIES
from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Provider
from tests.config.files import PRICES
from tests.config.mistakes import HEAD, MISTAKES, PRICE_MISTAKES

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs" / "configuration.md"
BEGIN, END = "<!-- messages: begin -->\n", "<!-- messages: end -->\n"
REWRITE = "WRITE_DOCS=1 scripts/test tests/config/test_document.py"
TESTS_ONLY = {"an unknown provider with nothing", "a vendor's own rule", "no address"}  # with providers made for tests
NAMES = {
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.IntType: "whole number",
    inspect.FloatType: "number",
    inspect.AnyType: "any value",
    inspect.StructType: "section",
}

# --- keys -------------------------------------------------------------------------------------------------------------


def reachable(*roots: type) -> dict[str, type]:
    """Every Struct that a file may contain, by name, from the top down."""
    found: dict[str, type] = {}
    left = list(roots)
    while left:
        cls = left.pop(0)
        if cls.__name__ not in found:
            found[cls.__name__] = cls
            left += [inner for field in described(cls).fields for inner in structs_in(field.type)]
    return found


def structs_in(kind: inspect.Type) -> Iterator[type]:
    if isinstance(kind, inspect.StructType):
        yield kind.cls
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from structs_in(member)
    elif isinstance(kind, inspect.ListType):
        yield from structs_in(kind.item_type)
    elif isinstance(kind, inspect.DictType):
        yield from structs_in(kind.value_type)


def written_type(kind: inspect.Type) -> str:
    """The type of a key as the document writes it; the default shows whether it may be null."""
    kind = unwrapped(kind).kind
    if isinstance(kind, inspect.UnionType):
        kinds = [written_type(member) for member in kind.types if not isinstance(member, inspect.NoneType)]
        return " or ".join(dict.fromkeys(kinds))
    if isinstance(kind, inspect.ListType):
        return f"list of {written_type(kind.item_type)}"
    if isinstance(kind, inspect.DictType):
        return f"mapping to {written_type(kind.value_type)}"
    return NAMES[type(kind)]


def written_default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    value: Any = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, Struct):
        return "`{}`"
    text = value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value), indent=-1).decode()
    return f"`{text.removesuffix('.0')}`"


def keys_of(cls: type) -> dict[str, tuple[str, str]]:
    """The keys that a Struct adds to those of its parent: type and default."""
    parent = cls.__mro__[1]
    inherited = {field.name for field in described(parent).fields} if parent is not Struct else set()
    own = [field for field in described(cls).fields if field.name not in inherited]
    return {field.encode_name: (written_type(field.type), written_default(field)) for field in own}


def documented_structs() -> dict[str, dict[str, tuple[str, str]]]:
    """The keys in the code, table by table. Keys that only some provider types have form one table."""
    structs = reachable(RoutingFile, Provider, EnsemblesFile, Ensemble, *STRATEGIES.values(), PricingFile)
    parents = {parent.__name__: parent for cls in structs.values() for parent in cls.__mro__[1:-2] if parent != Struct}
    tables = {name: keys_of(cls) for name, cls in {**parents, **structs}.items()}
    known = {field.name for field in described(Provider).fields}
    extra = [field for kind in PROVIDERS.values() for field in described(kind).fields if field.name not in known]
    tables["by type"] = {f.encode_name: (written_type(f.type), written_default(f)) for f in extra}
    return tables


def tables_in(page: str) -> dict[str, dict[str, tuple[str, str]]]:
    """The tables of the document, each after `<!-- keys: NAME -->`."""
    row = re.compile(r"^\| `([^`|]+)` \| ([^|]+) \| ([^|]+) \| \S.*\|$", re.MULTILINE)
    parts = re.split(r"^<!-- keys: (.+) -->\n", page, flags=re.MULTILINE)[1:]
    return {
        name: {key: (kind.strip(), default.strip()) for key, kind, default in row.findall(text.partition("\n\n")[0])}
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_every_key_is_in_the_document_and_no_other() -> None:
    """Each has its type and default, in the table of its section."""
    written, known = tables_in(PAGE.read_text()), documented_structs()
    assert sorted(written) == sorted(known)
    for name, keys in known.items():
        assert written[name] == keys, f"docs/configuration.md, <!-- keys: {name} -->"


def test_every_variable_of_the_environment_is_in_the_document() -> None:
    """All variables that the code reads or that override `server`, except those that only our own processes use."""
    source = "".join(path.read_text() for path in (TOP / "proxy").rglob("*.py"))
    handed_on = set(re.findall(r"^[A-Z]+_VARIABLE = \"(\w+)\"", source, re.MULTILINE))
    read = set(re.findall(r"\bPROXY_[A-Z_]+[A-Z]", source)) - handed_on
    read |= {f"PROXY_{field.encode_name.upper()}" for field in described(ServerConfig).fields}
    assert set(re.findall(r"^\| `(PROXY_[A-Z_]+)`", PAGE.read_text(), re.MULTILINE)) == read


# --- snippets ---------------------------------------------------------------------------------------------------------


def snippets() -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("snippet", snippets())
@pytest.mark.sampled(4)
def test_a_snippet_loads(snippet: str) -> None:
    """It loads unchanged, or with the two required sections added. Its first line names its file."""
    name = snippet.partition("\n")[0].removeprefix("# ")
    text = snippet if "\nversion:" in snippet else f"{snippet}version: 1\n"
    prices = (TOP / "pricing.yaml").read_text()
    if name == "pricing.yaml":
        configure(Source("routing_rules.yaml", b"version: 1\nproviders: {}\n"), Source(name, text.encode()), {})
        return
    assert name == "routing_rules.yaml"
    if "\nproviders:" not in text:
        text += "providers: {openai: {}, anthropic: {}, google: {}, groq: {}}\n"
    configure(Source(name, text.encode()), Source("pricing.yaml", prices.encode()), {})


# --- messages ---------------------------------------------------------------------------------------------------------


def messages() -> str:
    """The table of mistakes, each with the line at fault and the whole message."""
    lines = ["| mistake | the line | message |", "|---|---|---|"]
    for name, text, _ in MISTAKES:
        if name not in TESTS_ONLY:
            lines += rows(name, text, PRICES)
    for name, text, _ in PRICE_MISTAKES:
        lines += rows(name, HEAD, f"version: 1\n{text}\n")
    return "\n".join(lines) + "\n"


def rows(name: str, routing: str | bytes, pricing: str) -> Iterator[str]:
    """One row per message, with the product's own providers."""
    rules, prices = routing if isinstance(routing, bytes) else routing.encode(), pricing.encode()
    files = {"routing_rules.yaml": rules, "pricing.yaml": prices}
    with pytest.raises(ConfigError) as raised:
        configure(Source("routing_rules.yaml", rules), Source("pricing.yaml", prices), {})
    for problem in raised.value.problems:
        line = files[problem.file].decode("utf-8", "replace").split("\n")[problem.line - 1] if problem.line else ""
        yield f"| {name} | {code(shortened(line))} | {code(str(problem))} |"


def shortened(line: str) -> str:
    """A line made visible; empty if it is not text or may contain a key."""
    if "\ufffd" in line or any(map(looks_like_key, line.split())):
        return ""
    visible = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in line.strip(" "))
    visible = visible.replace("\\u0009", "\\t")
    return visible if len(visible) <= 72 else visible[:69] + "..."


def code(text: str) -> str:
    if not text:
        return ""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def test_the_table_of_messages_matches_the_code() -> None:
    """It is generated from the table of mistakes that the other tests use, and has at least thirty rows."""
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    committed, _, after = rest.partition(END)
    table = messages()
    if os.environ.get("WRITE_DOCS"):
        PAGE.write_text(before + BEGIN + table + END + after)
        return
    assert table.count("\n") - 2 >= 30
    assert committed == table, f"docs/configuration.md is out of date; regenerate its table with: {REWRITE}"


def test_common_mistakes_are_all_in_the_table() -> None:
    """Every release must answer these well."""
    named = {case[0] for case in (*MISTAKES, *PRICE_MISTAKES)}
    wanted = ["text for a number", "an unknown key", "an unknown name", "a duplicate key", "a circular reference"]
    wanted += [
        "not a number",
        "a bad time zone",
        "an API key in plain text",
        "an alias bomb",
        "a file of 10 MB",
        "not UTF-8",
        "a tab",
    ]
    assert [name for name in wanted if name not in named] == []
