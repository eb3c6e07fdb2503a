"""Stored prompts: immutable versions, labels with history, changes that do not overwrite each other."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.schema.prompts import Brought, LabelMove, PromptHead, PromptVersion
from proxy.storage.base import StoreError
from proxy.storage.prompt_rows import PromptRefused
from proxy.storage.prompts import PromptStore


def text(template: str, **fields: Any) -> PromptVersion:
    messages = [{"role": "user", "content": template}]
    return PromptVersion(version=1, template=template, messages=messages, created_ns=5, **fields)


def made(path: Path, **labels: int) -> PromptStore:
    store = PromptStore(path)
    store.create(PromptHead(id="p", name="P", labels=labels, created_ns=5), text("one"), "ann")
    return store


def head(store: PromptStore) -> PromptHead:
    return store.heads(["p"])["p"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


def test_a_version_comes_back_as_it_was_saved(path: Path) -> None:
    """With every field."""
    store = made(path)
    full = text("{a}", variables=("a",), model="m", parameters={"x": [1]}, tools=[{"t": 1}], notes="n")
    _, added = store.add_version("p", full, None)
    assert store.version("p", 2) == added
    assert (added.version, added.parameters, added.variables) == (2, {"x": [1]}, ("a",))
    assert store.version("p", 3) is None


def test_numbers_are_never_used_again(path: Path) -> None:
    """An archived version stays readable and counts on."""
    store = made(path)
    store.add_version("p", text("two"), None)
    assert store.archive_version("p", 2, None, 9).live == (1,)
    store.add_version("p", text("three"), None)
    assert head(store).live == (1, 3)
    found = store.version("p", 2)
    assert found is not None and (found.template, found.archived_ns) == ("two", 9)


def test_writers_at_the_same_time_get_numbers_of_their_own(path: Path) -> None:
    """From whatever process."""
    store = made(path)
    with ThreadPoolExecutor(8) as threads:
        added = list(threads.map(lambda n: PromptStore(path).add_version("p", text(str(n)), None)[1], range(24)))
    assert sorted(version.version for version in added) == list(range(2, 26))
    assert {version.version: version.template for version in added} == {
        version.version: version.template for version in store.versions("p", 99, 24)
    }


def test_of_two_changes_on_one_revision_the_second_is_refused(path: Path) -> None:
    """Nothing of it is stored."""
    store = made(path)
    seen = head(store).revision
    store.add_version("p", text("ann's"), seen)
    with pytest.raises(PromptRefused, match='its ETag is now "2"') as refused:
        store.add_version("p", text("bob's"), seen)
    assert refused.value.kind == "changed"
    assert [version.template for version in store.versions("p", 99, 9)] == ["ann's", "one"]


def test_labels_move_and_keep_their_history(path: Path) -> None:
    """Who moved them, when and why; a move to where the label is already is none."""
    store = made(path, production=1)
    store.add_version("p", text("two"), None, ["staging"], "bob")
    store.move_label("p", LabelMove("production", 2, 7, "ann", "better"), None)
    before = head(store).revision
    assert store.move_label("p", LabelMove("production", 2, 8, "ann"), None).revision == before
    store.move_label("p", LabelMove("staging", None, 9), None)
    assert head(store).labels == {"production": 2}
    assert store.moves("p", 10) == [
        LabelMove("staging", None, 9),
        LabelMove("production", 2, 7, "ann", "better"),
        LabelMove("staging", 2, 5, "bob"),
        LabelMove("production", 1, 5, "ann"),
    ]


def test_a_prompt_is_archived_and_restored(path: Path) -> None:
    """Meanwhile it cannot be changed, and its id is taken."""
    store = made(path)
    assert store.archive("p", None, 9).archived_ns == 9
    assert (store.ids(9), store.page(), [each.id for each in store.page(archived=True)]) == ([], [], ["p"])
    for change in (
        lambda: store.add_version("p", text("two"), None),
        lambda: store.move_label("p", LabelMove("a", 1, 9), None),
        lambda: store.create(PromptHead(id="p", name="P"), text("x")),
    ):
        with pytest.raises(PromptRefused, match="archived"):
            change()
    assert store.restore("p", None).archived_ns is None
    assert store.ids(9) == ["p"]


def test_what_is_in_use_is_not_archived(path: Path) -> None:
    """By a label, as the last one, or by a running experiment."""
    made(path, production=1)

    def in_use(db: sqlite3.Connection, prompt: str, version: int | None) -> str | None:
        assert db.in_transaction
        return "checkout" if version in (None, 2) else None

    store = PromptStore(path, in_use=in_use)
    store.add_version("p", text("two"), None)
    for change, why in (
        (lambda: store.archive_version("p", 1, None, 9), "label production"),
        (lambda: store.archive_version("p", 2, None, 9), "experiment checkout"),
        (lambda: store.archive("p", None, 9), "experiment checkout"),
    ):
        with pytest.raises(PromptRefused, match=why) as refused:
            change()
        assert refused.value.kind == "in_use"
    alone = PromptStore(path)
    alone.move_label("p", LabelMove("production", 2, 9), None)
    alone.archive_version("p", 1, None, 9)
    alone.move_label("p", LabelMove("production", None, 9), None)
    with pytest.raises(PromptRefused, match="the only one"):
        alone.archive_version("p", 2, None, 9)


def test_a_file_is_brought_once(path: Path) -> None:
    """The same file again changes nothing; other words are new versions, and labels follow them."""
    store = PromptStore(path)
    file = [Brought("p", "P", [text("one"), text("two")], {"production": 1}), Brought("q", "Q", [text("one")])]
    assert store.bring(file, 7, "ann") == {"p": [1, 2], "q": [1]}
    before = store.all()
    assert store.bring(file, 8) == {"p": [1, 2], "q": [1]}
    assert store.all() == before
    assert store.bring([Brought("p", "New", [text("three"), text("one")], {"production": 0})], 9) == {"p": [3, 1]}
    assert (head(store).labels, head(store).name, head(store).live) == ({"production": 3}, "New", (1, 2, 3))


def test_a_file_is_brought_whole_or_not_at_all(path: Path) -> None:
    """A prompt that cannot be changed refuses all of it."""
    store = made(path)
    store.archive("p", None, 9)
    with pytest.raises(PromptRefused, match="archived"):
        store.bring([Brought("a", "A", [text("x")]), Brought("p", "P", [text("y")])], 9)
    assert store.ids(9) == []


def test_shipped_prompts_leave_ids_alone_that_were_used(path: Path) -> None:
    """Also those that were archived."""
    store = made(path)
    store.archive("p", None, 9)
    shipped = [Brought("p", "P", [text("shipped")]), Brought("q", "Q", [text("shipped")])]
    assert store.bring(shipped, 9, only_new=True) == {"q": [1]}
    assert store.bring(shipped, 9, only_new=True) == {}
    assert store.ids(9) == ["q"]


def test_pages_follow_each_other(path: Path) -> None:
    """By id, and versions from the newest."""
    store = PromptStore(path)
    store.bring([Brought(name, name, [text("a"), text("b"), text("c")]) for name in "abcde"], 7)
    assert [each.id for each in store.page(limit=2)] == ["a", "b"]
    assert [each.id for each in store.page(after="b", limit=2)] == ["c", "d"]
    assert [each.version for each in store.versions("a", 3, 1)] == [2]


def test_a_database_of_an_older_version_has_no_prompts(path: Path) -> None:
    """Until the first change, which brings its schema up to date."""
    store = PromptStore(path)
    assert not store.is_there
    made(path)
    assert store.is_there
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE prompts RENAME TO gone")
    assert not store.is_there


def test_a_broken_database_is_reported(path: Path) -> None:
    """With its place, for the operator."""
    path.write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match=str(path)):
        PromptStore(path).heads(["p"])
