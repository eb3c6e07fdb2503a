"""Addresses of other vendors: their own SDKs, with nothing but another base URL."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cohere
import groq
import pytest
import pytest_asyncio
from mistralai.client import Mistral
from openai import AsyncAzureOpenAI, NotFoundError

from proxy.server.api.aliases import OfDeployment, own_path
from proxy.server.formats.chat import CHAT
from tests.server.api.raw import get, post
from tests.server.api.rows import row_of
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTING = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, price: null, retries: 0, timeout_s: {timeouts}}}
  ranker: {{type: cohere, base_url: "{upstream}", api_key_env: null, allow_private: true, price: null, retries: 0}}
models: {{plain: {{use: fake/ok}}}}
router: {{default_model: fake/ok}}
"""
HELLO: list[Any] = [{"role": "user", "content": "hi"}]
BODY: dict[str, Any] = {"model": "fake/ok", "messages": HELLO}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, database: Path) -> AsyncIterator[Server]:
    async with serving(write_files(database.parent, upstream_of_module.url, ROUTING)) as running:
        yield running


def root(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/models/a/b", "/v1/models/a/b"),
        ("/openai/models", "/models"),
        ("/openai/chat/completions", "/chat/completions"),
        ("/v1/v1/embeddings", "/v1/embeddings"),
        ("/v1/v1/v1/models", "/v1/models"),
        ("/v1/openai/v1/models", "/v1/models"),
        ("/v1/v2/rerank", "/v2/rerank"),
        ("/openai/v1/v1/models", "/v1/models"),
        ("/openai/deployments/m/chat/completions", "/chat/completions m"),
        ("/openai/deployments/a/b/chat/completions", "/chat/completions a/b"),
        ("/deployments/a/b/c/embeddings", "/embeddings a/b/c"),
        ("/v1/deployments/m/embeddings", "/embeddings m"),
        ("/openai/v1/deployments/m/rerank", "/rerank m"),
        ("/openai/deployments/a/b", "/deployments/a/b"),
        ("/openai/deployments/chat/completions", "/deployments/chat/completions"),
        ("/openai", "/openai"),
        ("/v1/v1", "/v1/v1"),
        ("/openaiv1/models", "/openaiv1/models"),
    ],
)
async def test_an_alias_is_one_of_our_paths(given: str, ours: str) -> None:
    """With the deployment that it names; what it is stays what it is."""
    path, model = own_path(given)
    assert " ".join(filter(None, (path, model))) == ours
    assert own_path(path) == (path, None)


@pytest.mark.parametrize("path", ["/openai/v1", "/v1/v1", "/openai", "/v1/openai/v1"])
async def test_every_endpoint_is_behind_an_alias(server: Server, path: str) -> None:
    """With its errors: what does not exist there is a 404, and the method counts."""
    assert (await post(server.port, json.dumps(BODY).encode(), f"{path}/chat/completions")).status == 200
    assert (await get(server.port, f"{path}/models")).json["object"] == "list"
    assert (await get(server.port, f"{path}/chat/completions")).status == 405
    missing = await post(server.port, b"{}", f"{path}/nothing")
    assert (missing.status, missing.error()["code"]) == (404, "not_found")


async def test_groqs_sdk(server: Server) -> None:
    """Its base URL has no path."""
    async with groq.AsyncGroq(base_url=root(server), api_key="any", max_retries=0) as client:
        answer = await client.chat.completions.create(model="fake/ok", messages=HELLO)
        assert answer.choices[0].message.content
        stream = await client.chat.completions.create(model="fake/ok", messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert (await client.models.list()).data


@pytest.mark.parametrize("model", ["plain", "fake/ok"])
@pytest.mark.parametrize("at", ["endpoint", "base_url", "v1"])
async def test_azures_sdk(server: Server, database: Path, model: str, at: str) -> None:
    """By its endpoint or a base URL; the key is in `api-key`, and the version counts for nothing."""
    options: dict[str, Any] = {
        "endpoint": {"azure_endpoint": root(server)},
        "base_url": {"base_url": f"{root(server)}/openai"},
        "v1": {"base_url": f"{root(server)}/v1"},
    }[at]
    async with AsyncAzureOpenAI(api_key="any", api_version="2024-10-21", max_retries=0, **options) as client:
        raw = await client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
        assert (raw.parse().model, raw.headers["x-proxy-model"]) == ("fake/ok", "fake/ok")
        stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        vectors = await client.embeddings.create(model="fake/ok", input=["a", "b"])
        assert len(vectors.data) == 2
        with pytest.raises(NotFoundError) as caught:
            await client.chat.completions.create(model="nobody", messages=HELLO)
        assert caught.value.code == "model_not_found"
        if at != "v1":
            assert [each async for each in client.models.list()]


async def test_the_deployment_in_the_path_decides(server: Server, database: Path) -> None:
    """Over the body's model, and without one."""
    path = "/openai/deployments/fake/ok/chat/completions?api-version=2023-05-15"
    for model in ({"model": "whatever"}, {"model": None}, {"model": ""}, {}):
        answer = await post(server.port, json.dumps({"messages": HELLO, **model}).encode(), path)
        assert answer.status == 200, answer.body
        assert (await row_of(database, answer))["requested_model"] == "fake/ok"


async def test_deployments_do_not_share_an_answer(server: Server) -> None:
    """Equal bodies with one Idempotency-Key are requests to different models: the second is a mistake."""
    body, key = json.dumps({"messages": HELLO}).encode(), "one-key-for-two"
    first, again, other = [
        await post(server.port, body, f"/openai/deployments/{model}/chat/completions", idempotency_key=key)
        for model in ("fake/ok", "fake/ok", "plain")
    ]
    assert (first.status, again.headers("idempotent-replayed"), other.status) == (200, ["true"], 422)


async def test_a_deployment_of_a_body_that_is_none_is_refused_as_usual(server: Server) -> None:
    """With the words of the endpoint."""
    path = "/openai/deployments/plain/chat/completions"
    for body, code in (
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"{}", "invalid_value"),
        (b"\xff", "invalid_json"),
    ):
        answer = await post(server.port, body, path)
        assert (answer.status, answer.error()["code"]) == (400, code), body
        assert answer.error()["code"] == (await post(server.port, body, "/v1/chat/completions")).error()["code"]


async def test_a_large_body_gets_its_model_too() -> None:
    """It is not decoded at once."""
    content = "x" * 3_000_000
    body = json.dumps({"model": "a", "messages": [{"role": "user", "content": content}]}).encode()
    for given in (body, body.replace(b'"model": "a", ', b"")):
        request: Any = OfDeployment(CHAT, "b/c").decode(given)
        assert (request.model, request.fields["messages"][0]["content"] == content) == ("b/c", True)


async def test_coheres_sdk_ranks(server: Server) -> None:
    """Both generations, each with its own answer."""
    for model, units in (("ranker/ok", 1.0), ("fake/ok", None)):
        async with cohere.AsyncClientV2(base_url=root(server), api_key="any") as second:
            answer = await second.rerank(
                model=model, query="the red fox", documents=["a whale", "the red fox"], top_n=1
            )
        assert [each.index for each in answer.results] == [1]
        assert answer.meta is not None and answer.meta.api_version is not None
        assert answer.meta.api_version.version == "2"
        assert (answer.meta.billed_units and answer.meta.billed_units.search_units) == units
        async with cohere.AsyncClient(base_url=root(server), api_key="any") as first:
            older = await first.rerank(model=model, query="the red fox", documents=["a whale", "the red fox"])
        assert [each.index for each in older.results] == [1, 0]


async def test_the_second_ranking_has_coheres_fields_and_no_others(server: Server) -> None:
    """The cost is in the headers; an error has Cohere's message beside OpenAI's fields."""
    body = {"model": "fake/ok", "query": "a", "documents": ["a", "b"], "max_tokens_per_doc": 100}
    answer = await post(server.port, json.dumps(body).encode(), "/v2/rerank")
    assert answer.json.keys() == {"id", "results", "meta"}
    assert answer.json["results"][0].keys() == {"index", "relevance_score"}
    assert answer.headers("x-proxy-cost-usd")
    refused = await post(server.port, json.dumps({**body, "documents": []}).encode(), "/v2/rerank")
    assert refused.json["message"] == refused.error()["message"]
    async with cohere.AsyncClientV2(base_url=root(server), api_key="any") as client:
        with pytest.raises(cohere.NotFoundError):
            await client.rerank(model="nobody", query="a", documents=["a"])


async def test_mistrals_sdk_embeds(server: Server) -> None:
    """It wants an id."""
    async with Mistral(server_url=root(server), api_key="any") as client:
        answer = await client.embeddings.create_async(model="fake/ok", inputs=["a", "b"])
        assert (answer.id.startswith("embd-"), len(answer.data)) == (True, 2)
        said = await client.chat.complete_async(model="fake/ok", messages=HELLO)
        assert said.choices[0].message is not None


async def test_aliases_do_not_lead_around_the_guard(server: Server) -> None:
    """A key-less server is only called by its own names."""
    for path in ("/openai/health", "/openai/metrics", "/v1/v1/models", "/openai/v1/models"):
        answer = await get(server.port, path, host="evil.example")
        assert answer.status == 403, path


async def test_the_document_names_azures_paths(server: Server) -> None:
    """Like the endpoints they are."""
    paths = (await get(server.port, "/schema/openapi.json")).json["paths"]
    for endpoint in ("/chat/completions", "/embeddings", "/rerank"):
        alias = paths[f"/openai/deployments/{{model}}{endpoint}"]["post"]
        assert alias["requestBody"] == paths[f"/v1{endpoint}"]["post"]["requestBody"]
        assert [each["name"] for each in alias["parameters"]] == ["model"]
    assert "/v2/rerank" in paths
