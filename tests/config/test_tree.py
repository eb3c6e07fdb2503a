"""YAML 1.2 with positions, and files that are made to hurt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.problems import Problem
from proxy.config.tree import MAX_BYTES, Mapping, Node, Scalar, Sequence, parse, plain_value
from tests.slowness import usual_s


def tree_of(text: str) -> Mapping:
    problems: list[Problem] = []
    root = parse(text.encode(), "f.yaml", problems)
    assert (problems, isinstance(root, Mapping)) == ([], True)
    assert root is not None
    return root


def plain(node: Node) -> object:
    if isinstance(node, Mapping):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    return [plain(item) for item in node.items] if isinstance(node, Sequence) else node.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.50", 1.5),
        ("6e2", 600.0),
        ("yes", "yes"),
        ("on", "on"),
        ("2026-11-22", "2026-11-22"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("> 5", "> 5"),
        ("0b1", "0b1"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_an_unquoted_value_means_what_yaml_1_2_says(text: str, value: object) -> None:
    """No surprises of YAML 1.1: `on` and `yes` are text, dates are text, 010 is ten."""
    assert (plain_value(text), type(plain_value(text))) == (value, type(value))


def test_a_directive_cannot_bring_yaml_1_1_back() -> None:
    """`%YAML 1.1` changes nothing."""
    assert plain(tree_of("%YAML 1.1\n---\non: yes\n")) == {"on": "yes"}


def test_every_node_knows_where_it_was_written() -> None:
    """Lines and columns count from 1; keys and values have their own."""
    root = tree_of("a: 1\nb:\n  - x\n  - {c:  y}\n")
    b = root.entries["b"]
    assert isinstance(b.node, Sequence)
    inner = b.node.items[1]
    assert isinstance(inner, Mapping)
    places = [root.entries["a"].mark, root.entries["a"].node.mark, b.mark, b.node.items[0].mark]
    places += [inner.entries["c"].mark, inner.entries["c"].node.mark]
    assert [(mark.line, mark.column) for mark in places] == [(1, 1), (1, 4), (2, 1), (3, 5), (4, 6), (4, 10)]


def test_windows_line_ends_and_a_byte_order_mark_are_fine() -> None:
    """What editors leave in a file does not move positions."""
    root = tree_of("\ufeffa: 1\r\nb: 2\r\n")
    assert (plain(root), root.entries["b"].mark.line) == ({"a": 1, "b": 2}, 2)


def test_an_alias_is_the_node_it_names() -> None:
    """Plain reuse is allowed; the second of two anchors of one name counts from where it stands."""
    assert plain(tree_of("a: &x [1]\nb: *x\nc: &x 2\nd: *x\n")) == {"a": [1], "b": [1], "c": 2, "d": 2}


def laughs(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def test_a_billion_laughs_are_refused_at_once() -> None:
    """Sizes are added up before anything is expanded."""
    problems: list[Problem] = []
    assert parse(laughs(10, 10).encode(), "f.yaml", problems) is None
    assert [str(problem) for problem in problems] == ["f.yaml:5:50: more than 50,000 values once aliases are expanded"]
    assert usual_s(lambda: parse(laughs(10, 10).encode(), "f.yaml", [])) < 0.1


@pytest.mark.slow
def test_a_wide_file_is_refused_by_the_same_cap() -> None:
    """The cap counts written values too."""
    problems: list[Problem] = []
    assert parse(("a: [" + "1," * 60_000 + "]").encode(), "f.yaml", problems) is None
    assert [problem.message for problem in problems] == ["more than 50,000 values once aliases are expanded"]


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 100_000, "a: " + "{b: " * 5_000, "- " * 5_000, "? " * 5_000])
@pytest.mark.sampled(3)
def test_depth_is_refused_in_short_time(text: str) -> None:
    """No recursion, and no reading on once the cap is reached."""
    problems: list[Problem] = []
    assert parse(text.encode(), "f.yaml", problems) is None
    assert [problem.message for problem in problems] == ["nested deeper than 32 levels"]
    assert usual_s(lambda: parse(text.encode(), "f.yaml", []), 1) < 5


def test_the_largest_file_that_is_allowed_is_read() -> None:
    """One MB is in, one byte more is out."""
    problems: list[Problem] = []
    text = b"a: " + b"x" * (MAX_BYTES - 3)
    root = parse(text, "f.yaml", problems)
    assert root is not None
    node = root.entries["a"].node
    assert isinstance(node, Scalar)
    assert (len(str(node.value)), problems) == (MAX_BYTES - 3, [])
    assert parse(text + b"x", "f.yaml", problems) is None


@given(
    st.one_of(
        st.binary(max_size=60), st.text(alphabet="a:- \n[]{}&*!|>'\"#%@`?,\t\\\u2028x1", max_size=60).map(str.encode)
    )
)
def test_any_bytes_end_in_a_tree_or_a_problem(data: bytes) -> None:
    """Nothing but `parse`'s own two answers comes out."""
    problems: list[Problem] = []
    root = parse(data, "f.yaml", problems)
    assert root is not None or problems
