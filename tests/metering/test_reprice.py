"""A row holds all that its cost follows from: priced again from its parts, it costs the same."""

from __future__ import annotations

import sqlite3
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.metering.prices import cost
from proxy.metering.pricing import ModelPrice
from proxy.metering.reprice import COLUMNS, reprice, tokens_of
from proxy.schema.records import NO_NOTES, AttemptNotes, Tokens
from proxy.storage.batch import Batch, OpenCall
from proxy.storage.migrations import migrate
from proxy.storage.rows import put
from tests.storage import samples

PRICE = ModelPrice(
    *(2.5, 10, 1.25, 3, 5),
    audio_input=32,
    cached_audio_input=2.5,
    audio_output=64,
    image_output=30,
    per_request=0.001,
    per_search=0.01,
    service_tiers={"flex": 0.5, "us": 1.1},
)
OTHER = ModelPrice(1, 2)
COUNT = st.integers(0, 2**31 - 1)


@st.composite
def usage(draw: st.DrawFn, others: bool = True) -> Tokens:
    whole, read, written, output = draw(COUNT), draw(COUNT), draw(COUNT), draw(COUNT)
    heard, spoken = draw(st.integers(0, whole)), draw(st.integers(0, output))
    more = draw(st.lists(st.tuples(st.sampled_from(["x", "a/b"]), usage(others=False)), max_size=2)) if others else []
    plain = not others
    return Tokens(
        *(whole, read, written, output, draw(st.integers(0, output))),
        cache_write_1h=draw(st.integers(0, written)),
        searches=draw(st.integers(0, 9)) if others else 0,
        others=tuple(more),
        input_audio=0 if plain else heard,
        input_image=0 if plain else draw(st.integers(0, whole - heard)),
        cache_read_audio=0 if plain else draw(st.integers(0, read)),
        output_audio=0 if plain else spoken,
        output_image=0 if plain else draw(st.integers(0, output - spoken)),
        terms=() if plain else tuple(draw(st.lists(st.sampled_from(["flex", "us"]), max_size=2, unique=True))),
    )


def stored(tokens: Tokens, notes: AttemptNotes = NO_NOTES) -> dict[str, Any]:
    """The row of an attempt that used these tokens, read back from the database."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    opened, started = samples.call("c"), samples.attempt("c")
    entry = OpenCall(opened)
    entry.start(started)
    ended = entry.finish(samples.attempt_end("c", tokens=tokens, notes=notes), 2_000)
    assert ended is not None
    put(db, Batch(opened={"c": (opened, started)}, intents={started.id: started}, ended=[ended]), "owner")
    db.row_factory = sqlite3.Row
    row = dict(db.execute("SELECT * FROM attempts").fetchone())
    db.close()
    return row


@settings(max_examples=60, deadline=None)
@given(usage())
def test_a_row_priced_again_costs_what_it_cost(tokens: Tokens) -> None:
    """Through the database, whatever the usage."""
    row = stored(tokens)
    assert tokens_of(row) == tokens
    own, used = cost(PRICE, tokens), [cost(OTHER, each) for _, each in tokens.others]
    again = reprice(row, PRICE, lambda model: OTHER)
    assert own is not None
    assert again is not None
    assert again.total == own.total + sum(each.total for each in used if each is not None)
    assert set(COLUMNS) <= row.keys()


def test_notes_are_columns() -> None:
    """The model that answered, the vendor's cost, its raw usage, and the price version where it is another model's."""
    row = stored(Tokens(input=1), AttemptNotes("next", 4_910_000, "{}", "list-1"))
    kept = [row[name] for name in ("answered_model", "provider_cost_nano", "raw_usage", "price_version")]
    assert kept == ["next", 4_910_000, "{}", "list-1"]
    assert stored(Tokens(input=1))["price_version"] == "v1"


def test_what_is_unknown_stays_unknown() -> None:
    """No row, or a further model without a price."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, 0) | {
        "service_tier": None,
        "others": '[["x",[1,0,0,1,0,0,0]]]',
        "input": 5,
    }
    assert reprice(row, None) is None
    assert reprice(row, PRICE) is None
    assert reprice(row, PRICE, lambda model: OTHER) is not None
