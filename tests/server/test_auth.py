"""Who a request is from, by the key it carries."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from proxy.pipeline.limits import FAILURES_PER_MINUTE, FailedLogins
from proxy.schema.errors import ProxyError
from proxy.schema.records import Caller, Secret, StoredCaller
from proxy.server.auth import (
    CREDENTIAL_HEADERS,
    FRESH_S,
    KEY_NAME,
    LOOK_S,
    MAX_UNKNOWN,
    STALE_S,
    Auth,
    StoredKeys,
    credential,
    digest_of,
    own_key,
)
from proxy.storage.base import StoreError
from proxy.storage.keys import KeysFound, StoredKey
from tests.slowness import takes

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


# --- keys of the database ---------------------------------------------------------------------------------------------


class Database:
    """What stands behind `StoredKeys`: keys by name, a clock, faults, and how often it was asked."""

    def __init__(self) -> None:
        self.keys: dict[str, StoredKey] = {}
        self.made = False
        self.down = False
        self.gate = threading.Event()
        self.gate.set()
        self.now_s = 1000.0
        self.looks: list[list[bytes]] = []

    def make(self, text: str, **changes: object) -> None:
        self.made = True
        fields = {"name": text, "role": "key", "last4": text[-4:], "models": None, "created_ns": 1, **changes}
        self.keys[text] = StoredKey(id=f"key_{text}", **fields)  # type: ignore[arg-type]

    def look(self, digests: Sequence[bytes]) -> KeysFound:
        self.looks.append(list(digests))
        self.gate.wait()
        if self.down:
            raise StoreError("disk I/O error")
        by_hash = {digest_of(text): key for text, key in self.keys.items()}
        return KeysFound(
            {digest: by_hash[digest] for digest in digests if digest in by_hash}, bool(self.keys), self.made
        )


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def stored(database: Database) -> StoredKeys:
    return StoredKeys(database.look, lambda: database.now_s)


async def settled(stored: StoredKeys) -> None:
    """Waits until what was asked in the background is answered."""
    if stored._looking is not None:
        await stored._looking


async def test_a_stored_key_is_its_name_and_role(database: Database) -> None:
    """With the list that was made with it; the environment's keys go on beside it."""
    database.make("mobile", models=("cheap",), expires_ns=2**62)
    database.make("boss", role="admin")
    auth = Auth(Secret(KEY), None, StoredKeys(database.look))
    mobile = StoredCaller("mobile", models=("cheap",), expires_ns=2**62)
    assert await auth.identify({"authorization": "Bearer mobile"}) == mobile
    assert await auth.identify({"x-api-key": "boss"}) == StoredCaller("boss", admin=True)
    assert await auth.identify({"api-key": KEY}) == Caller("default")


@pytest.mark.parametrize("sent", ["", "unknown", "revoked", "expired", "mmp-malformed", "x" * 10_000])
async def test_every_key_that_does_not_open_is_the_same_401(database: Database, sent: str) -> None:
    """Whether it never was, is no longer, or could not be (S04)."""
    database.make("live")
    database.make("expired", expires_ns=time.time_ns() - 1)
    auth = Auth(None, None, StoredKeys(database.look), needs_key=True)
    for _ in range(2):
        with pytest.raises(ProxyError) as caught:
            await auth.identify({"authorization": f"Bearer {sent}"})
        with pytest.raises(ProxyError) as missing:
            await auth.identify({})
        assert (caught.value.status, caught.value.body()) == (401, missing.value.body())
        assert caught.value.headers == missing.value.headers


async def test_a_key_in_use_is_looked_up_about_once_a_second_and_never_waited_for(
    database: Database, stored: StoredKeys
) -> None:
    """Between FRESH_S and STALE_S it is asked again behind the request's back."""
    database.make("mobile")
    digest = digest_of("mobile")
    for _ in range(1000):
        await stored.find(digest)
    assert len(database.looks) == 1
    database.now_s += FRESH_S
    database.gate.clear()
    for _ in range(1000):
        assert await stored.find(digest) == StoredCaller("mobile")
    database.gate.set()
    await settled(stored)
    assert len(database.looks) == 2


@pytest.mark.parametrize("age_s", [0.0, FRESH_S, STALE_S, 3600.0])
async def test_revoked_and_new_keys_count_within_two_seconds(
    database: Database, stored: StoredKeys, age_s: float
) -> None:
    """However long ago the key was asked about before."""
    database.make("mobile")
    assert await stored.find(digest_of("mobile")) == StoredCaller("mobile")
    assert await stored.find(digest_of("new")) is None
    database.now_s += age_s
    del database.keys["mobile"]
    database.make("new")
    for digest in (digest_of("mobile"), digest_of("new")):
        await stored.find(digest)
    database.now_s += STALE_S
    assert await stored.find(digest_of("mobile")) is None
    assert await stored.find(digest_of("new")) == StoredCaller("new")
    assert STALE_S < 2


async def test_many_who_ask_at_once_are_one_look(database: Database, stored: StoredKeys) -> None:
    """500 keys after a start: no stampede, and never two looks at a time (R17)."""
    for n in range(500):
        database.make(f"key-{n}")
    database.gate.clear()
    asking = [asyncio.create_task(stored.find(digest_of(f"key-{n % 500}"))) for n in range(5000)]
    while not database.looks:  # noqa: ASYNC110 - it is another thread that looks
        await asyncio.sleep(0.001)
    database.gate.set()
    callers = await asyncio.gather(*asking)
    assert [caller.key_id for caller in callers if caller] == [f"key-{n % 500}" for n in range(5000)]
    assert len(database.looks) <= 2
    assert sum(map(len, database.looks)) == 500


async def test_unknown_keys_are_remembered_but_not_without_end(database: Database, stored: StoredKeys) -> None:
    """A client that makes up keys costs a look for each, and no memory."""
    for _ in range(100):
        await stored.find(digest_of("made up"))
    assert len(database.looks) == 1
    for first in range(0, MAX_UNKNOWN + 1000, 500):  # so many in one second, also on a slow machine
        await asyncio.gather(*(stored.find(digest_of(f"made up {n}")) for n in range(first, first + 500)))
    assert len(stored._unknown) == MAX_UNKNOWN


async def test_while_the_database_is_down_known_keys_serve_and_others_wait(
    database: Database, stored: StoredKeys
) -> None:
    """503, never 401: an unknown key may be a right one (R16). When it is back, all is as before."""
    database.make("mobile")
    auth = Auth(None, None, stored, needs_key=True)
    await auth.identify({"api-key": "mobile"})
    with pytest.raises(ProxyError):
        await auth.identify({"api-key": "wrong"})
    database.down = True
    for _ in range(60):
        database.now_s += 1
        assert await auth.identify({"api-key": "mobile"}) == StoredCaller("mobile")
        for sent in ("wrong", "other"):
            with pytest.raises(ProxyError) as caught:
                await auth.identify({"api-key": sent})
            just_told = sent == "wrong" and database.now_s < 1000 + STALE_S
            expected = (401, "invalid_api_key") if just_told else (503, "storage_unavailable")
            assert (caught.value.status, caught.value.code) == expected
        await settled(stored)
    assert len(database.looks) <= 2 + 3 * 60
    database.down = False
    database.make("other")
    database.now_s += 2
    assert await auth.identify({"api-key": "other"}) == StoredCaller("other")
    with pytest.raises(ProxyError) as again:
        await auth.identify({"api-key": "wrong"})
    assert again.value.status == 401


async def test_a_database_that_hangs_holds_a_request_for_a_second_at_most(
    database: Database, stored: StoredKeys
) -> None:
    """And only the first; one thread waits for the disk, not one for each request."""
    database.gate.clear()
    with takes(LOOK_S, 1), pytest.raises(ProxyError) as caught:
        await stored.find(digest_of("a"))
    with takes(0, 1):
        for n in range(100):
            with pytest.raises(ProxyError):
                await stored.find(digest_of(f"b {n}"))
    assert caught.value.status == 503
    assert len(database.looks) == 1
    database.gate.set()
    await settled(stored)


async def test_a_request_that_is_cancelled_takes_nothing_from_the_others(
    database: Database, stored: StoredKeys
) -> None:
    """They wait for the same look."""
    database.make("mobile")
    database.gate.clear()
    first, second = (asyncio.create_task(stored.find(digest_of("mobile"))) for _ in range(2))
    while not database.looks:  # noqa: ASYNC110 - it is another thread that looks
        await asyncio.sleep(0.001)
    first.cancel()
    database.gate.set()
    assert await second == StoredCaller("mobile")
    assert first.cancelled()


async def test_the_first_key_closes_a_keyless_server(database: Database, stored: StoredKeys) -> None:
    """Within two seconds. No request opens it again, even once every key has been revoked."""
    auth = Auth(None, None, stored)
    await auth.refresh()
    assert auth.keyless
    assert await auth.identify({}) == Caller(None, admin=True)
    database.make("mobile")
    database.now_s += STALE_S
    with pytest.raises(ProxyError):
        await auth.identify({})
    assert not auth.keyless
    database.keys.clear()
    database.now_s += 10
    with pytest.raises(ProxyError):
        await auth.identify({"api-key": "mobile"})


async def test_only_revoked_keys_count_as_gone(database: Database, stored: StoredKeys) -> None:
    """A database that cannot be read, or was replaced by a new one, revokes nothing."""
    database.make("mobile")
    assert await stored.exist_still()
    database.down = True
    assert await stored.exist_still()
    database.down, database.made = False, False
    database.keys.clear()
    database.now_s += STALE_S
    assert await stored.exist_still()
    database.made = True
    assert not await stored.exist_still()


async def test_a_server_for_others_is_never_keyless(database: Database, stored: StoredKeys) -> None:
    """Also when its database was deleted under it."""
    auth = Auth(None, None, stored, needs_key=True)
    assert not auth.keyless
    with pytest.raises(ProxyError) as caught:
        await auth.identify({})
    assert caught.value.status == 401
    assert database.looks == []


async def test_wrong_keys_are_counted_and_right_ones_never_refused_for_them(database: Database) -> None:
    """After too many the answer is a 429; whoever has a key, old or new, does not notice (S08)."""
    database.make("mobile")
    auth = Auth(Secret(KEY), None, StoredKeys(database.look), note_failure=FailedLogins().note)
    statuses = []
    for n in range(1000):
        with pytest.raises(ProxyError) as caught:
            await auth.identify({"api-key": f"wrong {n}"}, "192.0.2.1")
        statuses.append(caught.value.status)
    assert statuses.index(429) == FAILURES_PER_MINUTE
    assert statuses[-1] == 429
    assert await auth.identify({"api-key": KEY}, "192.0.2.1") == Caller("default")
    assert await auth.identify({"api-key": "mobile"}, "192.0.2.1") == StoredCaller("mobile")
    with pytest.raises(ProxyError) as elsewhere:
        await auth.identify({"api-key": "wrong"}, "192.0.2.2")
    assert elsewhere.value.status == 401


@pytest.mark.parametrize("value", ["mmp-key", "mmp-key\n", " mmp-key\r\n", "\tmmp-key "])
async def test_blanks_around_a_key_of_the_environment_do_not_count(value: str) -> None:
    """A file of secrets ends with a newline."""
    auth = Auth(own_key({"PROXY_API_KEY": value}, "PROXY_API_KEY"), None)
    assert (await auth.identify({"authorization": "Bearer mmp-key"})).key_id == KEY_NAME


def test_a_blank_key_is_refused_and_an_empty_one_is_none() -> None:
    """A server that was meant to have a key must not serve without one."""
    assert own_key({}, "PROXY_API_KEY") is None
    assert own_key({"PROXY_API_KEY": ""}, "PROXY_API_KEY") is None
    with pytest.raises(ValueError, match="PROXY_API_KEY is blank"):
        own_key({"PROXY_API_KEY": " \n"}, "PROXY_API_KEY")
