"""Who a request is from, by the key it carries."""

from __future__ import annotations

import pytest

from proxy.auth import CREDENTIAL_HEADERS, Auth, credential
from proxy.errors import ProxyError
from proxy.records import Caller, Secret

KEY, ADMIN_KEY = "key-0123456789", "admin-0123456789"


@pytest.fixture
def auth() -> Auth:
    return Auth(Secret(KEY), Secret(ADMIN_KEY))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"authorization": "Bearer abc"}, "abc"),
        ({"authorization": "bearer abc"}, "abc"),
        ({"authorization": "BEARER   abc  "}, "abc"),
        ({"authorization": "abc"}, "abc"),
        ({"x-api-key": " abc "}, "abc"),
        ({"api-key": "abc"}, "abc"),
        ({"authorization": "Bearer abc", "x-api-key": "other"}, "abc"),
        ({"authorization": "", "x-api-key": "abc"}, "abc"),
        ({"authorization": "Bearer ", "api-key": "abc"}, "abc"),
        ({"x-api-key": "abc", "api-key": "other"}, "abc"),
        ({}, ""),
        ({"cookie": "abc"}, ""),
    ],
)
def test_the_credential_is_in_the_first_header_that_has_one(headers: dict[str, str], expected: str) -> None:
    """OpenAI's, Anthropic's and Azure's, in this order; the scheme's case does not matter."""
    assert credential(headers) == expected


@pytest.mark.parametrize("name", CREDENTIAL_HEADERS)
async def test_each_key_names_its_caller(auth: Auth, name: str) -> None:
    """By each header; only the admin key is an admin's."""
    assert await auth.identify({name: KEY}) == Caller("default")
    assert await auth.identify({name: ADMIN_KEY}) == Caller("admin", admin=True)


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "x",
        KEY[:-1],
        f"{KEY}x",
        KEY.upper(),
        f"Basic {KEY}",
        f"{KEY},{ADMIN_KEY}",
        "\xff\xfe",
        "\udcff",
        "k" * 100_000,
    ],
    ids=lambda sent: ascii(sent[:20]),
)
async def test_every_other_credential_is_the_same_401(auth: Auth, sent: str) -> None:
    """Missing, malformed and unknown keys are not told apart."""
    with pytest.raises(ProxyError) as caught:
        await auth.identify({"authorization": sent})
    error = caught.value
    assert (error.status, error.code, error.type) == (401, "invalid_api_key", "authentication_error")
    assert error.headers == {"www-authenticate": "Bearer"}
    with pytest.raises(ProxyError) as missing:
        await auth.identify({})
    assert error.body() == missing.value.body()


async def test_the_key_is_not_in_the_error(auth: Auth) -> None:
    """Neither the right one nor the one that was sent."""
    with pytest.raises(ProxyError) as caught:
        await auth.identify({"x-api-key": "guess-0123456789"})
    text = repr(caught.value.body()) + repr(caught.value)
    assert [key for key in (KEY, ADMIN_KEY, "guess-0123456789") if key in text] == []


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer anything"}, {"x-api-key": "x"}])
async def test_without_any_key_everybody_is_served(headers: dict[str, str]) -> None:
    """Such a server is on loopback only, so whoever asks owns it."""
    auth = Auth(None, None)
    assert auth.keyless
    assert await auth.identify(headers) == Caller(None, admin=True)


@pytest.mark.parametrize(("key", "admin_key"), [(Secret(KEY), None), (None, Secret(ADMIN_KEY))])
async def test_one_key_closes_the_server(key: Secret | None, admin_key: Secret | None) -> None:
    """Whichever of the two it is."""
    auth = Auth(key, admin_key)
    assert not auth.keyless
    with pytest.raises(ProxyError):
        await auth.identify({})


async def test_the_same_text_for_both_keys_is_not_an_admin() -> None:
    """A key that was copied to both variables gives the smaller right."""
    assert await Auth(Secret(KEY), Secret(KEY)).identify({"api-key": KEY}) == Caller("default")


def test_keys_cannot_be_read_from_the_object(auth: Auth) -> None:
    """What is kept are hashes, so a dump of it is no leak."""
    assert KEY not in repr(vars(auth))
