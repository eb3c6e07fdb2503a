"""`keys.<name>.store_text`: prompts and answers are stored for the keys that ask for it, and nobody else reads them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from html import escape
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio
from openai import BadRequestError, InternalServerError, NotFoundError

from tests.server.api.raw import get
from tests.server.api.rows import row_with_id
from tests.server.api.test_keys import add, secret
from tests.server.web.browser import browsing
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADMIN = "the-admin-key-of-these-tests"
ANN, BOB, EVE = secret("ann"), secret("bob"), secret("eve")
ENSEMBLES = """
ensembles: {{enabled: true, vote: {{strategy: voting, members: [fake/ok, "fake/ok(tag=b)", "fake/ok(tag=c)"]}}}}
"""
KEYS = "keys: {{ann: {{store_text: true}}, bob: {{store_text: false}}, eve: {{store_text: true}}}}\n"
LONG = "fake/fast(n_tokens=80000)"
CANARY = "the canary sings"
ASKED: list[Any] = [{"role": "user", "content": CANARY}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(upstream_of_module: FakeUpstream, folder: Path) -> AsyncIterator[Server]:
    files = write_files(folder, upstream_of_module.url, ROUTING + ENSEMBLES + KEYS)
    for name in ("ann", "bob", "eve"):
        add(folder / "usage.db", name)
    async with serving(files, {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


async def ask(server: Server, key: str, model: str = "fake/ok", **fields: Any) -> str:
    """Asks with the unmodified SDK, reads all of the answer, and returns the id of the call."""
    client = server.client.with_options(api_key=key)
    options = {"messages": ASKED, **fields}
    answer = await client.chat.completions.with_raw_response.create(model=model, **options)
    if fields.get("stream"):
        async for _ in answer.parse():
            pass
    return str(answer.headers["x-request-id"])


async def text_of(server: Server, call_id: str, key: str) -> Any:
    return (await get(server.port, f"/v1/requests/{call_id}", authorization=f"Bearer {key}")).json["text"]


def database(folder: Path) -> bytes:
    """Everything in its files."""
    return b"".join(file.read_bytes() for file in folder.glob("usage.db*") if file.is_file())


def content(n_tokens: int = 10) -> str:
    return " ".join(f"tok{number}" for number in range(n_tokens))


async def test_what_a_provider_said_of_its_error_is_kept_with_the_texts(shared: Server) -> None:
    """Whole, for the keys that ask for it, on the page of the request too; without secrets, as in the answer. For other
    keys the page has it without quotations.
    """
    said = {}
    for key in (ANN, BOB):
        with pytest.raises(InternalServerError) as error:
            await ask(shared, key, "fake/e500")
        call_id = str(error.value.response.headers["x-request-id"])
        text = await text_of(shared, call_id, key)
        async with browsing(shared.port) as browser:
            await browser.sign_in(ADMIN)
            page = (await browser.get(f"/dashboard/requests/{call_id}")).text
        said[key] = (list((text or {}).get("errors", {}).values()), error.value.body, page)
    (kept, body, page), (none, _, other) = said[ANN], said[BOB]
    message = str(cast("dict[str, Any]", body)["message"])
    assert kept == [message] and escape(message) in page
    assert none == [] and escape(message) in other and "store_text" in other and "store_text" not in page


async def test_what_an_error_quotes_is_kept_for_those_keys_only(shared: Server, folder: Path) -> None:
    """For other keys, the row, the API and the page have the message without it, and the database has it nowhere."""
    secret_words = "zebras quarrel vividly"
    for key in (BOB, ANN):
        with pytest.raises(BadRequestError) as error:
            await ask(shared, key, "fake/quoting", messages=[{"role": "user", "content": secret_words}])
        assert secret_words in str(error.value.body)  # the client has it whole
        call_id = str(error.value.response.headers["x-request-id"])
        found = (await get(shared.port, f"/v1/requests/{call_id}", authorization=f"Bearer {key}")).json
        message = found["attempts"][0]["message"]
        assert message.endswith(
            "Invalid value at messages.0.content: it contains [...] which is not supported. You sent: [...]"
        )
        async with browsing(shared.port) as browser:
            await browser.sign_in(ADMIN)
            page = (await browser.get(f"/dashboard/requests/{call_id}")).text
        if key == BOB:
            assert found["text"] is None and escape(message) in page and "zebras" not in page
        else:
            assert secret_words in str(found["text"]["errors"]) and secret_words in page
        assert b"zebras" not in database(folder)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_key_that_asks_for_it_finds_its_prompt_and_its_answer(shared: Server, stream: bool) -> None:
    """At once after the answer; a stream is stored folded. An admin finds them too."""
    call_id = await ask(shared, ANN, stream=stream)
    found = await text_of(shared, call_id, ANN)
    assert found["request"]["messages"] == ASKED
    assert found["request"]["model"] == "fake/ok"
    (message,) = found["answer"]
    assert (message["role"], message["content"].strip()) == ("assistant", content())
    assert found["cut"] == []
    assert await text_of(shared, call_id, ADMIN) == found


async def test_calls_of_tools_and_several_choices_are_stored(shared: Server) -> None:
    """Each choice is one message; streamed arguments are whole."""
    call_id = await ask(shared, ANN, "fake/tools(n=2)", stream=True)
    (message,) = (await text_of(shared, call_id, ANN))["answer"]
    assert len(message["tool_calls"]) == 2
    assert [json.loads(call["function"]["arguments"]) for call in message["tool_calls"]]
    call_id = await ask(shared, ANN, n=2)
    assert len((await text_of(shared, call_id, ANN))["answer"]) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_an_ensemble_stores_its_own_answer(shared: Server, stream: bool) -> None:
    """Not those of its members."""
    found = await text_of(shared, await ask(shared, ANN, "ensemble:vote", stream=stream), ANN)
    assert (found["request"]["model"], found["request"]["messages"]) == ("ensemble:vote", ASKED)
    (message,) = found["answer"]
    assert message["content"].strip() == content()


async def test_embeddings_store_what_was_asked(shared: Server) -> None:
    """Vectors are no text."""
    client = shared.client.with_options(api_key=ANN)
    answer = await client.embeddings.with_raw_response.create(model="fake/ok", input=[CANARY])
    found = await text_of(shared, answer.headers["x-request-id"], ANN)
    assert (found["request"]["input"], found["answer"]) == ([CANARY], [])


async def test_nobody_else_reads_it(shared: Server) -> None:
    """Another key, with or without texts of its own, does not even learn that the call exists; lists have no texts."""
    call_id = await ask(shared, ANN)
    for key in (BOB, EVE):
        answer = await get(shared.port, f"/v1/requests/{call_id}", authorization=f"Bearer {key}")
        assert answer.status == 404
        assert CANARY.encode() not in answer.bytes
    for key in (ANN, ADMIN):
        listed = await get(shared.port, "/v1/requests", authorization=f"Bearer {key}")
        assert CANARY.encode() not in listed.bytes
        assert "text" not in listed.json["data"][0]


async def test_a_key_that_does_not_ask_for_it_stores_nothing(shared: Server, folder: Path) -> None:
    """Neither does a call that was refused before a model was asked."""
    bobs = await ask(shared, BOB)
    assert await text_of(shared, bobs, ADMIN) is None
    with pytest.raises(NotFoundError) as caught:
        await ask(shared, ANN, "nothing/of-the-kind")
    refused = caught.value.response.headers["x-request-id"]
    await row_with_id(folder / "usage.db", refused)
    assert await text_of(shared, refused, ANN) is None
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        assert db.execute("SELECT 1 FROM call_texts WHERE call_id IN (?, ?)", (bobs, refused)).fetchall() == []


async def test_texts_are_encrypted_where_they_lie(shared: Server, folder: Path) -> None:
    """Neither the prompt nor the answer stands in the database or its log in clear."""
    call_id = await ask(shared, ANN)
    assert await text_of(shared, call_id, ANN)
    # Read by another process: closing the file in this one would free the server's locks on it.
    names = [str(folder / f"usage.db{suffix}") for suffix in ("", "-wal")]
    reading = await asyncio.create_subprocess_exec("cat", *names, stdout=asyncio.subprocess.PIPE)
    data, _ = await reading.communicate()
    assert call_id.encode() in data
    assert CANARY.encode() not in data
    assert content().encode() not in data


async def test_a_text_in_another_calls_row_is_not_shown(shared: Server, folder: Path) -> None:
    """It is bound to its key and its call."""
    anns, eves = await ask(shared, ANN), await ask(shared, EVE)
    assert await text_of(shared, anns, ANN)
    assert await text_of(shared, eves, EVE)
    with closing(sqlite3.connect(folder / "usage.db")) as db:
        db.execute(
            "UPDATE call_texts SET sealed = (SELECT sealed FROM call_texts WHERE call_id = ?) WHERE call_id = ?",
            (anns, eves),
        )
        db.commit()
    assert await text_of(shared, eves, EVE) is None


async def test_a_failed_call_stores_what_there_is(shared: Server) -> None:
    """The prompt of a call that nobody answered, and what came before a stream broke off."""
    with pytest.raises(InternalServerError) as caught:
        await ask(shared, ANN, "fake/e500")
    found = await text_of(shared, caught.value.response.headers["x-request-id"], ANN)
    assert (found["request"]["messages"], found["answer"]) == (ASKED, [])
    headers = {"authorization": f"Bearer {ANN}"}
    async with httpx.AsyncClient(base_url=shared.base_url, headers=headers, trust_env=False) as client:
        body = {"model": "fake/cut_rst(k=3)", "messages": ASKED, "stream": True}
        broken = await client.post("/chat/completions", json=body)
    assert "upstream" in broken.text
    found = await text_of(shared, broken.headers["x-request-id"], ANN)
    assert found["answer"][0]["content"].split() == ["tok0", "tok1", "tok2"]


async def test_a_client_that_leaves_leaves_its_text(shared: Server) -> None:
    """What had come by then."""
    headers = {"authorization": f"Bearer {ANN}"}
    body = {"model": "fake/stall_after(k=3)", "messages": ASKED, "stream": True}
    async with (
        httpx.AsyncClient(base_url=shared.base_url, headers=headers, trust_env=False) as client,
        client.stream("POST", "/chat/completions", json=body) as answer,
    ):
        seen = ""
        async for piece in answer.aiter_text():
            seen += piece
            if "tok2" in seen:
                break
    call_id = answer.headers["x-request-id"]

    async def is_stored() -> bool:
        return await text_of(shared, call_id, ANN) is not None

    await until(is_stored)
    found = await text_of(shared, call_id, ANN)
    assert found["answer"][0]["content"].split() == ["tok0", "tok1", "tok2"]


async def test_a_large_prompt_is_stored_by_its_heads(shared: Server) -> None:
    """Its size in the database is bounded; short texts beside the long one are whole."""
    messages = [{"role": "user", "content": "x" * 700_000}, {"role": "user", "content": CANARY}]
    call_id = await ask(shared, ANN, messages=messages)
    found = await text_of(shared, call_id, ANN)
    long, short = found["request"]["messages"]
    assert long["content"] == "x" * 4096 + f" [{700_000 - 4096} more characters]"
    assert short == messages[1]
    assert found["cut"] == ["request"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_large_answer_is_bounded(shared: Server, stream: bool) -> None:
    """A stream is stored up to the bound, a whole answer by its heads."""
    headers = {"authorization": f"Bearer {ANN}"}
    async with httpx.AsyncClient(base_url=shared.base_url, headers=headers, trust_env=False, timeout=60) as client:
        body = {"model": LONG, "messages": ASKED, "stream": stream}
        answer = await client.post("/chat/completions", json=body)
    found = await text_of(shared, answer.headers["x-request-id"], ANN)
    (message,) = found["answer"]
    assert message["content"].startswith("tok0 tok1 ")
    assert len(message["content"]) < 512 * 1024
    assert found["cut"] == ["answer"]


async def test_without_a_key_nothing_is_stored_or_shown(upstream_of_module: FakeUpstream, tmp_path: Path) -> None:
    """Not even texts that a key stored earlier."""
    files = write_files(tmp_path, upstream_of_module.url, ROUTING + KEYS.replace("ann", "default"))
    async with serving(files, {"PROXY_API_KEY": ANN}) as server:
        stored = await ask(server, ANN)
        assert await text_of(server, stored, ANN)
    async with serving(files) as server:
        call_id = await ask(server, "any")
        for each in (stored, call_id):
            answer = await get(server.port, f"/v1/requests/{each}")
            assert (answer.status, answer.json["text"]) == (200, None)
    with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
        assert db.execute("SELECT call_id FROM call_texts").fetchall() == [(stored,)]


@pytest.mark.parametrize("breakage", ["the table is gone", "the key cannot be read"])
async def test_a_text_that_cannot_be_written_fails_no_call(
    upstream_of_module: FakeUpstream, tmp_path: Path, capfd: pytest.CaptureFixture[str], breakage: str
) -> None:
    """The call is answered and metered, the log says it once, without the text."""
    files = write_files(tmp_path, upstream_of_module.url, ROUTING + KEYS.replace("ann", "default"))
    if breakage == "the key cannot be read":
        (tmp_path / "usage.db-vault-key").write_bytes(b"short")
        (tmp_path / "usage.db-vault-key").chmod(0o600)
    async with serving(files, {"PROXY_API_KEY": ANN}) as server:
        if breakage == "the table is gone":
            with closing(sqlite3.connect(tmp_path / "usage.db")) as db:
                db.execute("DROP TABLE call_texts")
        calls = await asyncio.gather(*(ask(server, ANN, stream=number % 2 == 0) for number in range(4)))
        for call_id in calls:
            answer = await get(server.port, f"/v1/requests/{call_id}", authorization=f"Bearer {ANN}")
            assert (answer.json["outcome"], answer.json["text"]) == ("ok", None)
    logged = "".join(capfd.readouterr())
    assert logged.count("texts_degraded") == 1
    assert CANARY not in logged


@pytest.mark.parametrize(
    "odd", [b'"\\ud83d"', b'"\\u0000"', '"\U0001f600\u2028"'.encode(), b"[]", b'[{"type": "text", "text": "a"}]']
)
async def test_odd_texts_are_stored_as_they_came(shared: Server, odd: bytes) -> None:
    """Or refused before a model is asked: nothing that a client sends stops the storing of others."""
    body = b'{"model": "fake/ok", "messages": [{"role": "user", "content": ' + odd + b"}]}"
    headers = {"authorization": f"Bearer {ANN}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=shared.base_url, headers=headers, trust_env=False) as client:
        answer = await client.post("/chat/completions", content=body)
    if answer.status_code == 200:
        found = await text_of(shared, answer.headers["x-request-id"], ANN)
        assert found["request"]["messages"] == json.loads(body)["messages"]
    assert await text_of(shared, await ask(shared, ANN), ANN) is not None
