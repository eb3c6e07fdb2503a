"""Which requests are the same one: by the client's key, the SDK's count, or because they are equal."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.pipeline.sharing import FRESH_S, Share, Sharing, without_patience
from proxy.schema.errors import BadRequest
from proxy.schema.records import Caller, StoredCaller
from proxy.storage.kept_answers import Place
from tests.pipeline.world import chat_body

PATH = "/v1/chat/completions"
PLAIN = Sharing("v1")
JOINING = Sharing("v1", join_retries=True)


BODY = chat_body()


def share(
    sharing: Sharing = PLAIN, body: bytes = BODY, path: str = PATH, key: str | None = None, **headers: str
) -> Share | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return sharing.share(Caller(key), path, named, body)


def place(**changes: Any) -> Place:
    found = share(**changes)
    assert found is not None
    return found.place


def test_requests_that_ask_for_nothing_share_nothing() -> None:
    """And the configuration is not asked twice."""
    for sharing in (PLAIN, Sharing("v1", cache_s={"other": 5.0}), JOINING):
        assert share(sharing) is None
    assert (PLAIN.concerns({"content-type": "x"}), JOINING.concerns({})) == (False, True)
    assert PLAIN.concerns({"idempotency-key": "a"})
    assert PLAIN.concerns({"x-proxy-cache": "5"})
    assert Sharing("v1", cache_s={"m": 5.0}).concerns({})


def test_a_key_is_the_same_for_one_caller_whatever_the_body() -> None:
    """The body and the endpoint are compared, so that another request is found out."""
    one = place(idempotency_key="a")
    assert place(idempotency_key="a", body=chat_body(seed=1)).name == one.name
    assert place(idempotency_key="a", body=chat_body(seed=1)).request != one.request
    assert place(idempotency_key="a", path="/v1/embeddings").request != one.request
    assert place(idempotency_key="b").name != one.name
    assert place(idempotency_key="a", key="mobile").caller != one.caller
    found = share(Sharing("v1", 5.0), idempotency_key="a", x_proxy_cache="60")
    assert found is not None
    assert (found.kind, found.ttl_s, found.bypasses_cache, found.survives) == ("key", 5.0, True, True)


def test_a_key_that_may_use_other_models_gets_no_answer_of_its_predecessor() -> None:
    """A key of the same name with another allow-list: the answer may be of a model that it may not use."""
    places = {
        found.place
        for models in (None, ("a",), ("a", "b"), ("a",))
        if (found := PLAIN.share(StoredCaller("m", models=models), PATH, {"x-proxy-cache": "5"}, BODY)) is not None
    }
    assert len(places) == 3


def test_equal_requests_are_equal_in_everything_that_may_change_the_answer() -> None:
    """Path, bytes, version, hints and headers of rules; not in other headers, nor in how long they accept."""
    rules = Sharing("v1", headers=frozenset({"x-tier"}))
    one = place(sharing=rules, x_proxy_cache="60")
    for same in ({"x_proxy_cache": "61"}, {"x_proxy_cache": "60", "user_agent": "b"}):
        assert place(sharing=rules, **same) == one
    for other in (
        {"body": chat_body(seed=1)},
        {"path": "/chat/completions"},
        {"sharing": Sharing("v2", headers=frozenset({"x-tier"}))},
        {"x_tier": "gold"},
        {"x_proxy_task": "code"},
        {"key": "mobile"},
    ):
        assert place(**{"sharing": rules, "x_proxy_cache": "60", **other}) != one


@pytest.mark.parametrize(
    ("header", "expected"), [(None, 30.0), ("5", 5.0), ("off", None), (" OFF ", None), ("0", None)]
)
def test_the_header_goes_before_the_configuration(header: str | None, expected: float | None) -> None:
    """Seconds, or no cache at all."""
    headers: Any = {} if header is None else {"x_proxy_cache": header}
    found = share(Sharing("v1", cache_s={"x": 30.0}), **headers)
    assert (found and found.ttl_s) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"idempotency_key": ""},
        {"idempotency_key": "x" * 256},
        {"idempotency_key": "a\nb"},
        {"x_proxy_cache": ""},
        {"x_proxy_cache": "-5"},
        {"x_proxy_cache": "inf"},
        {"x_proxy_cache": "3e9"},
        {"x_proxy_cache": "an hour"},
    ],
)
def test_a_header_that_says_nothing_is_refused(headers: Any) -> None:
    """400 names it."""
    with pytest.raises(BadRequest) as caught:
        share(**headers)
    assert caught.value.param == next(iter(headers)).replace("_", "-")


def test_a_retry_is_what_the_sdk_counts_as_one() -> None:
    """Of whole calls; the first begins anew. A body that cannot be read gets its own error later."""
    first, retry = (share(JOINING, x_stainless_retry_count=count) for count in "01")
    assert first is not None
    assert retry is not None
    assert (first.place, first.begins, retry.begins, retry.ttl_s) == (retry.place, True, False, FRESH_S)
    for count in ("", "-1", "one", "1.5"):
        assert share(JOINING, x_stainless_retry_count=count) is None
    assert share(JOINING, body=chat_body(stream=True), x_stainless_retry_count="1") is None
    assert share(JOINING, body=b"{", x_stainless_retry_count="1") is not None


def test_a_shared_call_does_not_end_with_its_clients_patience() -> None:
    """Its repeat comes for the answer."""
    assert without_patience({"x-stainless-read-timeout": "5", "x-stainless-timeout": "5", "a": "b"}) == {"a": "b"}
