"""`POST /v1/rerank`: Cohere's shape for every provider that ranks, metered and limited like chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cohere
import httpx
import pytest
import pytest_asyncio

from tests.server.api.raw import get, post
from tests.server.api.rows import row_of
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/rerank"
KEY = "proxy-key-0123456789abcdef"
ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  ranker: {{type: cohere, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
  local: {{type: embedded}}
router: {{default_model: local/smollm2-135m}}
"""
PRICING = """
version: 1
models:
  fake/*: {input: 2.00}
  ranker/*: {input: 0, per_search: 0.002, max_searches: 10}
"""
QUERY = "the red fox"
DOCUMENTS = ["a blue whale", "the red fox", "a red car"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    async with serving(write_files(database.parent, upstream_of_module.url, ROUTING, PRICING)) as running:
        yield running


def body(model: str = "fake/ok", **fields: Any) -> bytes:
    return json.dumps({"model": model, "query": QUERY, "documents": DOCUMENTS, **fields}).encode()


@pytest.mark.parametrize("model", ["fake/ok", "ranker/ok"])
async def test_documents_come_back_from_the_most_relevant_on(
    upstream: FakeUpstream, server: Server, model: str
) -> None:
    """By index, with scores; texts only where they are asked for."""
    answer = await post(server.port, body(model), PATH)
    assert answer.status == 200, answer.body
    assert [each["index"] for each in answer.json["results"]] == [1, 2, 0]
    assert all(each.keys() == {"index", "relevance_score"} for each in answer.json["results"])
    assert answer.json["model"] == model
    assert answer.json["id"] == "rerank-" + answer.headers("x-request-id")[0]
    assert answer.headers("x-proxy-model") == [model]


@pytest.mark.parametrize("model", ["fake/ok", "ranker/ok"])
@pytest.mark.parametrize("path", [PATH, "/rerank"])
async def test_top_n_and_texts(upstream: FakeUpstream, server: Server, model: str, path: str) -> None:
    """Documents are texts or objects with a text."""
    documents = [{"text": DOCUMENTS[0]}, *DOCUMENTS[1:]]
    answer = await post(server.port, body(model, documents=documents, top_n=2, return_documents=True), path)
    assert [(each["index"], each["document"]) for each in answer.json["results"]] == [
        (1, {"text": "the red fox"}),
        (2, {"text": "a red car"}),
    ]


async def test_coheres_own_sdk_reads_the_answer(upstream: FakeUpstream, server: Server) -> None:
    """Its client for version 1 of the API, unmodified, at this server's address."""
    async with httpx.AsyncClient() as connections:
        client = cohere.AsyncClient("any", base_url=f"http://127.0.0.1:{server.port}", httpx_client=connections)
        answer = await client.rerank(model="ranker/ok", query=QUERY, documents=DOCUMENTS, return_documents=True)
    assert [(each.index, each.document and each.document.text) for each in answer.results] == [
        (1, "the red fox"),
        (2, "a red car"),
        (0, "a blue whale"),
    ]
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1


async def test_tokens_are_priced(upstream: FakeUpstream, server: Server, database: Path) -> None:
    """The query counts with each document."""
    answer = await post(server.port, body(), PATH)
    row = await row_of(database, answer)
    assert (row["task_type"], row["outcome"], row["input_tokens"], row["output_tokens"]) == ("rerank", "ok", 18, 0)
    assert row["cost_nano"] == 18 * 2000
    assert answer.json["usage"]["cost"] == pytest.approx(18 * 2e-6)
    assert answer.headers("x-proxy-cost-usd") == ["0.000036000"]


async def test_searches_are_priced(upstream: FakeUpstream, server: Server, database: Path) -> None:
    """Cohere bills units of search, and says how many."""
    answer = await post(server.port, body("ranker/ok"), PATH)
    assert answer.json["meta"] == {"billed_units": {"search_units": 1}}
    assert answer.json["usage"]["cost"] == pytest.approx(0.002)
    assert (await row_of(database, answer))["cost_nano"] == 2_000_000


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": " "}, "query"),
        ({"query": None}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "one"}, "documents"),
        ({"documents": ["a", ""]}, "documents.1"),
        ({"documents": ["a", {"title": "b"}]}, "documents.1.text"),
        ({"documents": ["a", 7]}, "documents.1"),
        ({"documents": ["a"] * 10_001}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"max_tokens_per_doc": -1}, "max_tokens_per_doc"),
        ({"model": ""}, "model"),
    ],
)
async def test_bad_input_is_named(upstream: FakeUpstream, server: Server, fields: Any, param: str) -> None:
    """400, and nothing is sent."""
    answer = await post(server.port, body(**fields), PATH)
    error = answer.error()
    assert (answer.status, error["param"]) == (400, param), error
    assert upstream.ledger == []


@pytest.mark.parametrize("model", ["auto", "local/smollm2-135m"])
async def test_a_model_that_only_chats_is_named(upstream: FakeUpstream, server: Server, model: str) -> None:
    answer = await post(server.port, body(model), PATH)
    error = answer.error()
    assert (answer.status, error["param"], error["code"]) == (400, "model", "unsupported_parameter")


async def test_a_ranking_of_other_documents_is_an_error(upstream: FakeUpstream, server: Server, database: Path) -> None:
    """An index that nobody sent would be a crash in the client."""
    answer = await post(server.port, body("fake/no_finish"), PATH)
    assert (answer.status, answer.error()["code"]) == (502, "upstream_error")
    row = await row_of(database, answer)
    assert (row["outcome"], row["estimated"]) == ("upstream_error", 0)
    assert row["cost_nano"] > 0


async def test_errors_methods_and_refused_rows(upstream: FakeUpstream, server: Server, database: Path) -> None:
    assert (await post(server.port, body("fake/e503"), PATH)).status == 503
    assert (await get(server.port, PATH)).status == 405
    refused = await post(server.port, body(query=""), PATH)
    row = await row_of(database, refused)
    assert (row["task_type"], row["outcome"]) == ("rerank", "rejected")


async def test_a_key_is_needed_where_there_are_keys(upstream: FakeUpstream, tmp_path: Path) -> None:
    """The same gate as chat's."""
    async with serving(write_files(tmp_path, upstream.url, ROUTING, PRICING), {"PROXY_API_KEY": KEY}) as running:
        assert (await post(running.port, body(), PATH)).status == 401
        assert (await post(running.port, body(), PATH, authorization=f"Bearer {KEY}")).status == 200
