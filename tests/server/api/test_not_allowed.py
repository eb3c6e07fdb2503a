"""Models that a key may not use: an admin sees their names, everybody else only how many there are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.server.api.raw import HELLO, get, post
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADMIN, KEY = "the-admin-key-of-these-tests", "the-key-of-the-callers"
SECRET = "fake/ok(tag=secret)"
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
models:
  texts: {{use: fake/ok, fallback: ["fake/ok(tag=secret)"]}}
router: {{fallback: ["fake/ok(tag=spare)"]}}
tasks: {{default: ["fake/ok(tag=secret)", fake/ok]}}
keys:
  default: {{models: [fake/ok]}}
  admin: {{models: [fake/ok]}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def narrow(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """Both keys may use one model only."""
    folder: Path = tmp_path_factory.mktemp("narrow")
    files = write_files(folder, upstream_of_module.url, ROUTING)
    async with serving(files, {"PROXY_API_KEY": KEY, "PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


def reasons(told: dict[str, Any]) -> dict[str, str | None]:
    return {each["model"]: each["rejected"] for each in told["candidates"]}


BARRED = {"auto": [SECRET, "fake/ok(tag=spare)"], "texts": [SECRET]}


@pytest.mark.parametrize("model", ["auto", "texts"])
async def test_the_explanation_names_them_to_an_admin_only(narrow: Server, model: str) -> None:
    """Others get their number. For both, the one that remains is chosen."""
    body = json.dumps({"model": model, "messages": HELLO}).encode()
    ours, admins = [(await post(narrow.port, body, "/v1/route/explain", x_api_key=key)).json for key in (KEY, ADMIN)]
    assert ours["chosen"] == admins["chosen"] == "fake/ok"
    assert ours["not_allowed"] == admins["not_allowed"] == len(BARRED[model])
    assert reasons(admins) == {"fake/ok": None, **dict.fromkeys(BARRED[model], "not_allowed")}
    assert reasons(ours) == {"fake/ok": None}
    assert SECRET not in json.dumps(ours)


async def test_so_do_the_trace_and_the_stored_request(narrow: Server) -> None:
    """Of one call by the narrow key."""
    body = json.dumps({"model": "auto", "messages": HELLO, "routing": {"trace": True}}).encode()
    answer = await post(narrow.port, body, x_api_key=KEY)
    traced = answer.json["routing"]
    path = "/v1/requests/" + answer.headers("x-request-id")[0]
    ours, admins = [(await get(narrow.port, path, x_api_key=key)).json["decision"] for key in (KEY, ADMIN)]
    assert traced["not_allowed"] == ours["not_allowed"] == admins["not_allowed"] == 2
    assert traced["candidates"] == ours["candidates"]
    assert reasons(admins) == {"fake/ok": None, **dict.fromkeys(BARRED["auto"], "not_allowed")}
    assert SECRET not in json.dumps([traced, ours])
