"""Routing hints: their places, precedence and removal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.pipeline.hints import NAMES, applied
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.server.formats.chat import decode_chat


def request(headers: dict[str, str] | None = None, **fields: Any) -> ChatRequest:
    body = {"model": "x", "messages": [{"role": "user", "content": "hi"}], **fields}
    found = applied(decode_chat(json.dumps(body).encode()), headers or {})
    assert isinstance(found, ChatRequest)
    return found


@pytest.mark.parametrize(
    ("fields", "headers", "strict"),
    [
        ({}, {}, False),
        ({"routing": {"strict": True}}, {}, True),
        ({}, {"x-proxy-strict": "true"}, True),
        ({}, {"x-proxy-strict": "TRUE "}, True),
        ({"metadata": {"routing.strict": "true"}}, {}, True),
        ({"routing": {"strict": False}}, {"x-proxy-strict": "true"}, False),
        ({"metadata": {"routing.strict": "true"}}, {"x-proxy-strict": "false"}, False),
        ({"routing": {"strict": None}}, {"x-proxy-strict": "true"}, True),
        ({"routing": None}, {}, False),
        ({"routing": {}}, {"x-proxy-strict": "false"}, False),
    ],
)
def test_body_wins_over_header_and_header_over_metadata(
    fields: dict[str, Any], headers: dict[str, str], strict: bool
) -> None:
    """Null counts as absent."""
    assert request(headers, **fields).strict is strict


def test_hints_go_no_further() -> None:
    """No provider sees them; other metadata is forwarded."""
    found = request(routing={"strict": True}, metadata={"routing.strict": "true", "user": "u"})
    assert set(found.fields) == {"model", "messages", "metadata"}
    assert found.fields["metadata"] == {"user": "u"}
    assert "metadata" not in request(metadata={"routing.strict": "true"}).fields


def test_a_request_without_hints_is_left_alone() -> None:
    """The same object: the hot path copies nothing."""
    plain = decode_chat(b'{"model": "x", "messages": [{"role": "user", "content": "hi"}], "metadata": {"a": "b"}}')
    assert applied(plain, {"authorization": "Bearer x", "x-request-id": "1"}) is plain


@pytest.mark.parametrize("name", [name for name in NAMES if name != "strict"])
def test_hints_of_later_versions_are_refused(name: str) -> None:
    """In each of the three places: a hint that does nothing would mislead."""
    places: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({"routing": {name: "x"}}, {}, f"routing.{name}"),
        ({"metadata": {f"routing.{name}": "x"}}, {}, f"metadata.routing.{name}"),
        ({}, {f"x-proxy-{name.replace('_', '-')}": "x"}, f"x-proxy-{name.replace('_', '-')}"),
    ]
    for fields, headers, param in places:
        with pytest.raises(BadRequest, match="not supported by this version") as caught:
            request(headers, **fields)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"routing": {"strikt": True}}, {}),
        ({"metadata": {"routing.strikt": "true"}}, {}),
        ({}, {"x-proxy-strickt": "true"}),
    ],
)
def test_a_misspelt_hint_is_refused_with_the_near_name(fields: dict[str, Any], headers: dict[str, str]) -> None:
    """Anywhere."""
    with pytest.raises(BadRequest, match="Did you mean strict"):
        request(headers, **fields)


def test_headers_of_other_proxies_are_none_of_ours() -> None:
    """They do not resemble any hint: proxies between client and server may add them."""
    assert request({"x-proxy-id": "7", "x-proxy-user-agent": "x", "x-proxy-model": "y"}).strict is False


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        ({"routing": {"strict": "true"}}, {}, "routing.strict"),
        ({"routing": {"strict": 1}}, {}, "routing.strict"),
        ({"metadata": {"routing.strict": "yes"}}, {}, "metadata.routing.strict"),
        ({}, {"x-proxy-strict": "1"}, "x-proxy-strict"),
        ({"routing": [1]}, {}, "routing"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(fields: dict[str, Any], headers: dict[str, str], param: str) -> None:
    """Body values are JSON, the others texts."""
    with pytest.raises(BadRequest) as caught:
        request(headers, **fields)
    assert (caught.value.code, caught.value.param) == ("invalid_value", param)
