"""Routing without a server: whose list of models holds."""

from __future__ import annotations

from pathlib import Path

from proxy.config import load
from proxy.schema.records import Caller, StoredCaller
from proxy.server.offline import Offline
from proxy.storage.keys import StoredKey


def key(name: str, models: tuple[str, ...] | None, created_ns: int, revoked_ns: int | None = None) -> StoredKey:
    return StoredKey(f"key_{created_ns}", name, "key", "last", models, created_ns, revoked_ns=revoked_ns)


def test_of_several_keys_with_one_name_the_latest_counts(tmp_path: Path) -> None:
    """A revoked one only if there is no other. A name without a key has no list of its own."""
    (tmp_path / "routing_rules.yaml").write_text("version: 1\nproviders: {}\n")
    keys = [
        key("app", ("a",), 1),
        key("app", ("b",), 3),
        key("app", ("c",), 2),
        key("app", ("d",), 4, revoked_ns=5),
        key("gone", ("e",), 1, revoked_ns=2),
    ]
    offline = Offline(load(tmp_path / "routing_rules.yaml", None, {}), keys=keys)
    assert offline.caller("app") == StoredCaller("app", models=("b",))
    assert offline.caller("gone") == StoredCaller("gone", models=("e",))
    assert (offline.caller("other"), offline.caller(None)) == (Caller("other"), Caller(None))
