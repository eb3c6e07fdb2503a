"""`GET /v1/requests/{id}`: one call with its decision and the tree of its attempts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import NotFoundError

from tests.server.api.raw import HELLO, get
from tests.server.api.rows import row_with_id
from tests.server.api.test_keys import add, secret
from tests.serving import ROUTING, Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADMIN = "the-admin-key-of-these-tests"
ANN, BOB = secret("ann"), secret("bob")
MODELS = """
models:
  twice: {{use: fake/e500, fallback: [fake/ok]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("requests")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(upstream_of_module: FakeUpstream, folder: Path) -> AsyncIterator[Server]:
    """A server with two callers and an admin."""
    files = write_files(folder, upstream_of_module.url, ROUTING + MODELS)
    for name in ("ann", "bob"):
        add(folder / "usage.db", name)
    async with serving(files, {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


async def ask(server: Server, key: str, model: str, **fields: Any) -> Any:
    """The raw answer to the unmodified SDK."""
    client = server.client.with_options(api_key=key)
    return await client.chat.completions.with_raw_response.create(model=model, messages=HELLO, **fields)


async def of(server: Server, request_id: str, key: str, path: str = "/v1/requests/") -> Any:
    return await get(server.port, path + request_id, authorization=f"Bearer {key}")


async def test_a_call_with_its_attempts(shared: Server) -> None:
    """Each attempt with its model, its outcome and its cost; the costs add up to that of the answer."""
    answer = await ask(shared, ANN, "twice")
    found = (await of(shared, answer.headers["x-request-id"], ANN)).json
    assert (found["id"], found["key_id"]) == (answer.headers["x-request-id"], "ann")
    assert (found["requested_model"], found["provider"], found["model"]) == ("twice", "fake", "ok")
    assert (found["outcome"], found["success"], found["status"], found["fallback"]) == ("ok", True, 200, True)
    assert found["config_version"] == answer.headers["x-proxy-config"]
    failed, answered = found["attempts"]
    assert (failed["model"], failed["outcome"], failed["status"]) == ("fake/e500", "upstream_error", 500)
    assert (failed["message"], answered["message"]) == ("fake: The server had an error.", None)
    assert (answered["model"], answered["outcome"], answered["parent"]) == ("fake/ok", "ok", None)
    assert answered["upstream_request_id"] and answered["duration_ms"] > 0
    assert failed["cost_usd"] + answered["cost_usd"] == pytest.approx(found["cost_usd"])
    assert found["cost_usd"] == pytest.approx(answer.parse().usage.cost)
    nothing = dict.fromkeys(("step", "rule", "strategy", "facts", "snapshot"))
    assert found["decision"] == {**nothing, "candidates": [], "not_allowed": 0}


async def test_a_stream_has_its_first_token(shared: Server) -> None:
    """In milliseconds since the call began."""
    streamed = await ask(shared, ANN, "fake/ok", stream=True)
    async for _ in streamed.parse():
        pass
    found = (await of(shared, streamed.headers["x-request-id"], ANN)).json
    assert (found["stream"], found["attempts"][0]["first_token_ms"] > 0) == (True, True)


async def test_a_key_reads_its_own_calls_only(shared: Server) -> None:
    """Another key's call is as unknown as one that never was; an admin reads all."""
    request_id = (await ask(shared, ANN, "fake/ok")).headers["x-request-id"]
    assert (await of(shared, request_id, ANN)).status == 200
    assert (await of(shared, request_id, ADMIN, "/requests/")).json["key_id"] == "ann"
    other, never = [await of(shared, each, BOB) for each in (request_id, "nobody")]
    for answer in (other, never):
        assert (answer.status, answer.error()["code"]) == (404, "not_found")
    assert (await get(shared.port, f"/v1/requests/{request_id}")).status == 401


async def test_a_refused_call_has_no_attempts(shared: Server, folder: Path) -> None:
    """It is there, with the reason."""
    with pytest.raises(NotFoundError) as caught:
        await ask(shared, ANN, "nothing/of-the-kind")
    request_id = caught.value.response.headers["x-request-id"]
    await row_with_id(folder / "usage.db", request_id)
    found = (await of(shared, request_id, ANN)).json
    assert (found["attempts"], found["outcome"], found["error_code"]) == ([], "rejected", "model_not_found")
