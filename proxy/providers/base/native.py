"""Translates: a body in a vendor's own wire shape, with the necessary changes to the client's bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from proxy.schema.json import decode_object, with_member
from proxy.schema.request import NativeBody


def changed_body(native: NativeBody, changes: Mapping[str, Any]) -> bytes:
    """The client's bytes with these members changed; the same bytes if nothing changes."""
    body = native.body
    for name, value in changes.items():
        body = with_member(body, name, value)
    return body


def members_of(native: NativeBody) -> dict[str, Any]:
    """The members of the body after the changes of `native`."""
    members = decode_object(native.body) | native.changes
    return {name: value for name, value in members.items() if value is not UNSET}
