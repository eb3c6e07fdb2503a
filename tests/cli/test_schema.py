"""`proxy schema`: a file that loads is valid, and an invalid file does not load."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from proxy.config import ConfigError, Source, configure
from proxy.config.constraints import unwrapped
from proxy.config.files import key_texts
from proxy.config.json_schema import pricing_schema, routing_schema
from proxy.config.problems import Mark, Problem
from proxy.config.reader import Reader, described
from proxy.config.settings import EnsemblesFile, PricingFile, RoutingFile
from proxy.config.tree import Entry, Mapping, Node, Scalar, Sequence
from proxy.ensembles.base import Ensemble
from proxy.ensembles.registry import STRATEGIES
from proxy.providers import PROVIDERS
from tests.cli.commands import ROOT, proxy
from tests.cli.values import Validator, value_of
from tests.config.files import TYPES
from tests.config.key_texts import texts_in
from tests.config.mistakes import MISTAKES, PRICE_MISTAKES
from tests.ensembles import first

PAGE, TEXTS = ROOT / "docs" / "configuration.md", ROOT / "proxy" / "config" / "key_texts.json"
REWRITE = "WRITE_DOCS=1 scripts/test tests/cli/test_schema.py"
KINDS: dict[str, type[Ensemble]] = {**STRATEGIES, **first.STRATEGIES}
ROUTING = routing_schema(PROVIDERS, key_texts())
PRICING = pricing_schema(key_texts())

# What only the check knows: other values, other files, names, addresses, the shape of keys.
BEYOND = {
    *("a language by its name", "languages spelled otherwise"),  # patterns are allowed
    *("a bad time zone", "a bad day", "not a number", "infinite"),
    *("no address", "a private address", "a metadata address", "an API key in a header"),
    *("a connection header", "a vendor's own rule", "an unknown name", "an unknown name, nothing similar"),
    *("an unknown provider in a name", "an ambiguous id", "an unknown route", "a route inside a model"),
    *("an unknown ensemble", "an unknown ensemble in a rule"),
    *("a rotation of no keys", "a rotation that names a variable twice"),
    *("a site's field of an unknown type", "a site's bad pattern", "a site's bad domain", "a site's bad id"),
    *("a hard limit alone", "a hard limit below the soft one", "an unknown baseline"),
    *("a role without a model", "a circular reference", "an alias that refers to itself", "a name defined twice"),
    *("a budget for an unknown provider", "an unknown model in a rule", "a rule with an empty list"),
    *("a rule that chooses a route", "two rules of one name", "a rule that can never match"),
    *("a rule that excludes itself", "a rule that reads a credential"),
}


@pytest.mark.parametrize(("file", "schema"), [("routing", ROUTING), ("pricing", PRICING)])
def test_the_command_prints_the_schema_and_nothing_else(tmp_path: Path, file: str, schema: dict[str, Any]) -> None:
    """So that it can be redirected to a file."""
    done = proxy("schema", file, cwd=tmp_path)
    assert (done.returncode, done.stderr, json.loads(done.stdout)) == (0, "", schema)


def test_the_shipped_files_are_valid() -> None:
    """Including the sections in comments."""
    text = (ROOT / "routing_rules.yaml").read_text()
    for shown in (text, re.sub(r"^# (server|storage):", r"\1:", text, flags=re.MULTILINE)):
        assert Validator(ROUTING).wrong(value_of(shown)) == set()
    assert Validator(PRICING).wrong(value_of((ROOT / "pricing.yaml").read_text())) == set()


def test_the_snippets_of_the_manual_are_valid() -> None:
    """Each with the two required sections added."""
    for snippet in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        schema = PRICING if snippet.startswith("# pricing.yaml") else ROUTING
        whole = {"version": 1, **({} if schema is PRICING else {"providers": {}}), **value_of(snippet)}
        assert Validator(schema).wrong(whole) == set(), snippet


# --- mistakes ---------------------------------------------------------------------------------------------------------


def readable(text: str | bytes) -> bool:
    try:
        value_of(text)
    except ValueError:
        return False
    return True


MADE = [case for case in MISTAKES if readable(case[1])]


@pytest.mark.parametrize(("name", "text", "lines"), MADE, ids=[case[0] for case in MADE])
def test_an_editor_sees_every_mistake_that_a_schema_can_express(name: str, text: str, lines: list[str]) -> None:
    """All except those about names, addresses or the form of API keys."""
    assert {case[0] for case in MADE} >= BEYOND
    wrong = Validator(routing_schema(TYPES, {})).wrong(value_of(text))
    assert bool(wrong) is (name not in BEYOND), wrong


@pytest.mark.parametrize(("name", "text"), [case[:2] for case in PRICE_MISTAKES if readable(case[1])])
def test_an_editor_sees_each_mistake_in_the_prices(name: str, text: str) -> None:
    """A date is checked by its form; names are not checked."""
    wrong = Validator(PRICING).wrong(value_of(f"version: 1\n{text}\n"))
    assert bool(wrong) is not name.startswith("a successor"), wrong


# --- every key --------------------------------------------------------------------------------------------------------


def structs(*roots: type) -> list[type]:
    """Every Struct below."""
    found: list[type] = []
    left: list[Any] = [described(root) for root in roots]
    while left:
        kind = unwrapped(left.pop()).kind
        if isinstance(kind, inspect.StructType) and kind.cls not in found:
            found.append(kind.cls)
            left += [field.type for field in kind.fields]
        left += list(getattr(kind, "types", ()))
        left += [inner for name in ("item_type", "value_type") if (inner := getattr(kind, name, None))]
    return found


def test_files_with_every_key_load_and_are_valid() -> None:
    """Every key is in one of them, so a new key needs its line there."""
    folder = ROOT / "tests" / "fixtures" / "config"
    routing, pricing = folder / "routing_rules.yaml", folder / "pricing.yaml"
    files = Source(routing.name, routing.read_bytes()), Source(pricing.name, pricing.read_bytes())
    configure(*files, {}, strategies=KINDS)
    whole = routing_schema(PROVIDERS, key_texts(), KINDS)
    assert Validator(whole).wrong(value_of(routing.read_bytes())) == set()
    assert Validator(PRICING).wrong(value_of(pricing.read_bytes())) == set()
    for text, roots in (
        (routing.read_text(), [RoutingFile, EnsemblesFile, *PROVIDERS.values(), *KINDS.values()]),
        (pricing.read_text(), [PricingFile]),
    ):
        keys = {field.encode_name for cls in structs(*roots) for field in described(cls).fields}
        assert [key for key in sorted(keys) if not re.search(rf"\b{key}:", text)] == []


def test_every_key_is_explained() -> None:
    """In the words of the manual."""
    for schema in (ROUTING, PRICING):
        sections = {"the file": schema, **schema["$defs"]}
        for section, keys in sections.items():
            assert [key for key, said in keys["properties"].items() if not said.get("description")] == [], section


def test_the_explanations_are_those_of_the_manual() -> None:
    """WRITE_DOCS=1 regenerates them."""
    texts = texts_in(PAGE.read_text())
    if os.environ.get("WRITE_DOCS"):
        TEXTS.write_text(json.dumps(texts, indent=2, ensure_ascii=False) + "\n")
        return
    assert key_texts() == texts, f"docs/configuration.md has changed; regenerate the texts with: {REWRITE}"


HUGE = 2**53 + 1  # not the same everywhere as a whole number
SAMPLES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 300, 65536, HUGE, 0.5, 1.5, -0.5, 1e9),
    *(
        "",
        " ",
        "x",
        "auto",
        "process",
        "free",
        "text_1",
        "tools",
        "USD",
        "1M tokens",
        "json",
        "sqlite:///a",
        "sqlite:///",
    ),
    *("2026-11-22", "2026-W47-7", "20261122", [], ["x"], ["tools"], [0.5], [None], [["x"]], {}, {"x": "y"}, {"x": 1}),
    *({"x": None}, {"until": "2026-01-01"}, [{"until": "2026-01-01"}], [{"above_input_tokens": 1}]),
]
ONE_BY_ONE = {"providers", "models", "tasks", "ensembles"}  # sections with names of their own, see below


def node_of(value: Any) -> Node:
    mark = Mark("file")
    if isinstance(value, dict):
        return Mapping(mark, {key: Entry(mark, node_of(inner)) for key, inner in value.items()})
    return Sequence(mark, [node_of(item) for item in value]) if isinstance(value, list) else Scalar(mark, value)


def loads(field: inspect.Field, value: Any) -> bool:
    problems: list[Problem] = []
    Reader(problems, {}).read(node_of(value), field.type, ("key",))
    return not problems


def fields() -> list[tuple[dict[str, Any], dict[str, Any], str, inspect.Field]]:
    """Each field of each Struct, with its schema and the file it belongs to."""
    kinds = {cls: f"provider.{name}" for name, cls in PROVIDERS.items()}
    found = []
    for file, roots in ((ROUTING, [RoutingFile, *kinds]), (PRICING, [PricingFile])):
        for cls in structs(*roots):
            own = file if cls in (RoutingFile, PricingFile) else file["$defs"][kinds.get(cls, cls.__name__)]
            one_by_one = ONE_BY_ONE if cls in (RoutingFile, PricingFile) else set()
            found += [
                (file, own["properties"][f.encode_name], f"{cls.__name__}.{f.name}", f)
                for f in described(cls).fields
                if f.name not in one_by_one
            ]
    return found


@pytest.mark.sampled(8)
@pytest.mark.parametrize("case", fields(), ids=lambda case: case[2])
def test_a_value_is_valid_if_and_only_if_it_loads(
    case: tuple[dict[str, Any], dict[str, Any], str, inspect.Field],
) -> None:
    """Except for what a schema cannot know: names of time zones, and how a huge number was written."""
    file, schema, _, field = case
    check = Validator(file)
    knows_zones = unwrapped(field.type).extra.get("check") == "time_zone"
    real = check.valid(schema, 1e300)
    for value in SAMPLES:
        beyond = (knows_zones and isinstance(value, str)) or (real and value == HUGE)
        assert check.valid(schema, value) is (loads(field, value) or beyond), repr(value)


MODELS: list[Any] = ["x/y", None, 1, [], {}, {"use": "x/y"}, {"use": None}, {"weighted": {}}, {"weighted": {"x/y": 1}}]
MODELS += [
    {"use": "x/y", "fallback": ["x/z"]},
    {"use": "x/y", "weighted": {"x/y": 1}},
    {"use": "x/y", "weighted": None},
]
NAMES = ["x", "a/b", "", " ", "auto", "auto:x", "automatic", "ensemble:x", "ensemble", "x" * 200, "x" * 201]


@pytest.mark.parametrize("entry", MODELS, ids=repr)
def test_an_entry_of_models_is_valid_if_it_loads(entry: Any) -> None:
    """It has `use` or `weighted`, not both."""
    assert agrees({"models": {"mine": entry}})


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_your_own_is_valid_if_it_loads(name: str) -> None:
    """Also as an alias."""
    assert agrees({"models": {name: "x/y"}})
    assert agrees({"aliases": {name: "x/y"}})


@pytest.mark.parametrize("entry", ["x/y", ["x/y"], [["x/y"]], [" "], "", 1, {}, {"x": "y"}], ids=repr)
@pytest.mark.parametrize("task", ["code", "default", "coding", "web-search"])
def test_an_entry_of_tasks_is_valid_if_it_loads(task: str, entry: Any) -> None:
    """Its name is a task or `default`."""
    assert agrees({"tasks": {task: entry}})


PROVIDER_SECTIONS: list[Any] = [
    *({"groq": {}}, {"groq": None}, {"groq": []}, {"groq": {"type": "openai"}}, {"groq": {"type": "x"}}),
    *({"mine": {}}, {"mine": None}, {"mine": {"type": "openai", "retries": 1}}, {"mine": {"type": None}}),
    *({"mine": {"type": "openai", "context": 4096}}, {"mine": {"type": "embedded", "context": 4096}}),
    *(
        {"Mine": {"type": "openai"}},
        {"auto": {"type": "openai"}},
        {"anthropic": {"retries": 1}},
        {"anthropic": {"x": 1}},
    ),
]


@pytest.mark.parametrize("providers", PROVIDER_SECTIONS, ids=repr)
def test_a_provider_is_valid_if_it_loads(providers: Any) -> None:
    """Its keys are those of its `type`, or of the type that its name implies."""
    assert agrees({"providers": providers})


@pytest.mark.parametrize(
    "row", ["openai/x", "openai/*", "a/b/c", "a/b/*", "x", "/x", "x/", "/x/y", "*", "*/x", "a/*/b", "a/x*", "//", "/*"]
)
def test_the_name_of_a_row_is_valid_if_it_loads(row: str) -> None:
    """provider/model or provider/*."""
    prices = {"version": 1, "models": {row: {}}}
    try:
        configure(source({"version": 1, "providers": {}}), source(prices), {})
        expected = True
    except ConfigError:
        expected = False
    assert (Validator(PRICING).wrong(prices) == set()) is expected


def source(value: object) -> Source:
    return Source("file", json.dumps(value).encode())


def agrees(sections: dict[str, Any]) -> bool:
    """True where the schema and the check say the same of a routing file with these sections."""
    whole = {"version": 1, "providers": {"x": {"type": "openai"}}, **sections}
    try:
        configure(source(whole), None, {})
        return Validator(ROUTING).wrong(whole) == set()
    except ConfigError:
        return Validator(ROUTING).wrong(whole) != set()
