"""pricing.yaml beside a price list: what differs, what the row becomes, and a file where nothing else changes."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ConfigError, Source, configure
from proxy.config.price_changes import Difference, differences, updated
from proxy.config.price_file import with_prices
from proxy.metering.pricing import ModelPrice, PastPrice, Tier

TODAY = date(2026, 11, 22)
ROW = ModelPrice(input=2, output=10, context=1000)


def rows_of(data: bytes) -> dict[str, ModelPrice]:
    return configure(Source("r", b"version: 1\nproviders: {}\n"), Source("pricing.yaml", data), {}).pricing.models


def written(text: str, **rows: ModelPrice) -> str:
    source = Source("pricing.yaml", text.encode())
    return with_prices(source, {f"a/{name}": row for name, row in rows.items()}, TODAY).decode()


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "listed", "expected"),
    [
        (ROW, ModelPrice(input=2, output=10), []),
        (ROW, ModelPrice(input=3, output=10), [("input", 2, 3)]),
        (ROW, ModelPrice(input=2, output=10, cached_input=0.2), [("cached_input", None, 0.2)]),
        (ModelPrice(input=2, output=10, cached_input=0.2, per_request=1), ModelPrice(input=2, output=10), []),
        (ROW, ModelPrice(input=2, output=10, context=5), []),
        (ROW, ModelPrice(input=2, output=10, tiers=[Tier(100, input=4)]), [("tiers", None, "above 100")]),
        (
            ModelPrice(tiers=[Tier(100, input=4), Tier(200, input=5)]),
            ModelPrice(tiers=[Tier(100, input=4, output=9), Tier(200, input=6)]),
            [("tiers.0.output", None, 9), ("tiers.1.input", 5, 6)],
        ),
        (
            ModelPrice(tiers=[Tier(100, input=4)]),
            ModelPrice(tiers=[Tier(200, input=4)]),
            [("tiers", "above 100", "above 200")],
        ),
    ],
)
def test_a_difference_is_what_the_list_says_otherwise(row, listed, expected):
    """What it does not say, and what is no price, is none."""
    found = differences("a/b", row, listed)
    assert [(each.key, each.file, each.listed) for each in found] == expected
    assert [each.writable for each in found] == [each.file != "above 100" for each in found]


def test_an_update_keeps_what_it_cost_until_yesterday():
    """Bills of then can be checked later."""
    assert updated(ROW, ModelPrice(input=3, output=10, cached_input=0.3), TODAY) == ModelPrice(
        input=3,
        output=10,
        cached_input=0.3,
        context=1000,
        history=[PastPrice("2026-11-21", input=2, output=10)],
    )


def test_a_second_update_on_one_day_keeps_one_past_price():
    """The price of an hour was nobody's price."""
    once = updated(ROW, ModelPrice(input=3, output=10), TODAY)
    twice = updated(once, ModelPrice(input=4, output=10), TODAY)
    assert (twice.input, twice.history) == (4, once.history)


def test_a_price_that_was_not_known_is_no_past_price():
    """Only what changed from a number to another one."""
    assert updated(ROW, ModelPrice(input=2, output=10, cached_input=1), TODAY).history == []


def test_other_tiers_are_left_to_a_person():
    """Nothing of them is written."""
    row = ModelPrice(input=2, tiers=[Tier(100, input=4)])
    assert updated(row, ModelPrice(input=2, tiers=[Tier(200, input=5)]), TODAY) == row


# --- files ------------------------------------------------------------------------------------------------------------

BEFORE = """\
# Ours.
version: 1
updated: "2025-01-01"   # the day
models:
  # the first
  a/flow:   {input: 2, output: 10,   # dear
    context: 1000}   # end
  a/block:
    input: 2     # in
    output: 10
    context: 1000
    history:
      - {until: 2025-12-31, input: 9}
    tiers:
      - above_input_tokens: 100
        input: 4
  a/list: {input: 2, output: 10, history: [{until: 2025-12-31, input: 9}]}
  a/empty: {}
  a/other: {input: 2, output: 10}
"""


def test_only_what_changes_is_touched():
    """Comments, order, quotes and layout stay; new keys find their place."""
    past = PastPrice("2026-11-21", input=2, output=10)
    old = PastPrice("2025-12-31", input=9)
    after = written(
        BEFORE,
        flow=ModelPrice(input=3, output=10, cached_input=0.3, context=1000, history=[past]),
        block=ModelPrice(
            input=0.125, output=10, cache_write=5, context=1000, history=[past, old], tiers=[Tier(100, input=4.5)]
        ),
        list=ModelPrice(input=2, output=11, history=[past, old]),
        empty=ModelPrice(input=1, output=2),
    )
    assert (
        after
        == """\
# Ours.
version: 1
updated: "2026-11-22"   # the day
models:
  # the first
  a/flow:   {input: 3, output: 10,   # dear
    cached_input: 0.3,
    history: [{until: 2026-11-21, input: 2, output: 10}],
    context: 1000}   # end
  a/block:
    input: 0.125     # in
    output: 10
    cache_write: 5
    context: 1000
    history:
      - {until: 2026-11-21, input: 2, output: 10}
      - {until: 2025-12-31, input: 9}
    tiers:
      - above_input_tokens: 100
        input: 4.5
  a/list: {input: 2, output: 11, history: [{until: 2026-11-21, input: 2, output: 10}, {until: 2025-12-31, input: 9}]}
  a/empty: {input: 1, output: 2, }
  a/other: {input: 2, output: 10}
"""
    )


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodels: {a/b: {input: &price 2, output: *price}}\n",
        "version: 1\nmodels: {a/b: &row {input: 2, output: 10}, a/c: *row}\n",
        "version: 1\nmodels:\n  a/b:\n    input:\n    output: 10\n",
        "version: 1\nmodels:\n  a/b: {? input : 2}\n  a/c: {input: 3\n    }\n  a/d: &x {input: 2}\n  a/e: *x\n",
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left_to_its_writer(text):
    """One place may mean several prices."""
    source = Source("pricing.yaml", text.encode())
    try:
        data = with_prices(source, {"a/b": ModelPrice(input=3, output=10)}, TODAY)
    except ConfigError as error:
        assert "change the prices by hand" in str(error)
    else:
        assert rows_of(data) == rows_of(source.data) | {"a/b": ModelPrice(input=3, output=10)}


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark_stay(ends, mark):
    """As the editor of its writer has them."""
    text = mark + ends.join(["version: 1", "models:", "  a/b:", "    input: 2", "    context: 9", ""])
    after = written(text, b=ModelPrice(input=3, output=4, context=9))
    assert after == mark + ends.join(
        ["version: 1", "models:", "  a/b:", "    input: 3", "    output: 4", "    context: 9", ""]
    )


PRICE = st.none() | st.sampled_from([0, 0.0375, 1, 2.5, 1e-6, 987.654])
TIERS: st.SearchStrategy[list[Tier]] = st.just([]) | st.builds(
    lambda one, two: [Tier(10, input=one), Tier(20, output=two)], PRICE, PRICE
)
PAST: st.SearchStrategy[list[PastPrice]] = st.just([]) | st.just([PastPrice("2025-01-01", input=1)])
ROWS = st.builds(
    ModelPrice, input=PRICE, output=PRICE, cached_input=PRICE, per_request=PRICE, tiers=TIERS, history=PAST
)
STYLES = {
    "flow": "{{{0}}}",
    "lines": "{{\n    {0}}}",
    "comments": "{{ # x\n    {0}   # y\n  }}",
}


def yaml_of(row: ModelPrice, style: str) -> str:
    def value(each: object) -> str:
        if isinstance(each, list):
            return "[" + ", ".join(map(value, each)) + "]"
        if isinstance(each, Tier | PastPrice):
            return value({key: got for key in each.__struct_fields__ if (got := getattr(each, key)) is not None})
        if isinstance(each, dict):
            return "{" + ", ".join(f"{key}: {value(got)}" for key, got in each.items()) + "}"
        return f"{each:.9f}" if isinstance(each, float) else str(each)

    said = {key: getattr(row, key) for key in row.__struct_fields__ if getattr(row, key) not in (None, [])}
    if style == "block":
        return "".join(f"\n    {key}: {value(each)}  # {key}" for key, each in said.items()) or " {}"
    between = ",\n    " if style == "lines" else ", "
    return STYLES[style].format(between.join(f"{key}: {value(each)}" for key, each in said.items()))


@given(ROWS, ROWS, st.sampled_from(["block", *STYLES]))
def test_whatever_changes_the_file_says_it_and_nothing_else_does(before, listed, style):
    """Rows of every shape, in each layout; the other rows and all comments are as they were."""
    text = f"# top\nversion: 1\nmodels:\n  a/x: {{input: 7}} # x\n  a/b: {yaml_of(before, style)}\n  a/y: {{}} # y\n"
    source = Source("pricing.yaml", text.encode())
    row = updated(rows_of(source.data)["a/b"], listed, TODAY)
    data = with_prices(source, {"a/b": row}, TODAY)
    assert rows_of(data) == {"a/x": ModelPrice(input=7), "a/b": row, "a/y": ModelPrice()}
    assert [
        line for line in text.split("\n") if "#" in line and "a/b" not in line and ":" not in line.split("#")[0]
    ] == [
        line
        for line in data.decode().split("\n")
        if "#" in line and "a/b" not in line and ":" not in line.split("#")[0]
    ]
    assert Difference("a/b", "input", 1, 2) not in differences("a/b", row, listed)
    assert [each for each in differences("a/b", row, listed) if each.writable] == []
