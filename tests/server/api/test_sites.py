"""Site templates over HTTP: the catalog, the match, and `site` in a chat request."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from openai import BadRequestError

from proxy.config.sites import shipped_sites
from proxy.server.api.sites import MAX_BODY
from tests.server.api.raw import Answer, get, request, send
from tests.serving import PRICING, ROUTING, Server, serving, write_files

pytestmark = pytest.mark.asyncio(loop_scope="module")
OWN = """
sites:
  acme:
    name: Acme
    category: shops
    domains: [acme.example]
    description: Anvils.
    tasks:
      item: {{about: One anvil, say: [weight of this anvil], fields: {{weight_kg: number}}}}
"""


ANSWER = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "ok",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "{}"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()


class Recorder:
    """A provider that keeps the bodies it gets, and answers each with `{}`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        self.bodies.append(json.loads(await reader.readexactly(int(length[1]) if length else 0)))
        start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        writer.write(start % len(ANSWER) + ANSWER)
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Server, Recorder]]:
    recorder = Recorder()
    async with await asyncio.start_server(recorder.answer, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        async with serving(write_files(tmp_path_factory.mktemp("sites"), url, ROUTING + OWN, PRICING)) as server:
            yield server, recorder


async def match(server: Server, body: Any, path: str = "/api/sites/match") -> Answer:
    return await send(server.port, request(body if isinstance(body, bytes) else json.dumps(body).encode(), path=path))


def error_of(answer: Answer) -> tuple[int, str, str | None]:
    error = answer.json["error"]
    return answer.status, error["code"], error["param"]


# --- the catalog ------------------------------------------------------------------------------------------------------


async def test_the_catalog_is_listed(place: tuple[Server, Recorder]) -> None:
    """One line for each site, the configuration's own first, with and without /v1; each has a template."""
    server, _ = place
    listed = (await get(server.port, "/api/sites")).json
    assert [card["id"] for card in listed["data"]] == ["acme", *shipped_sites()]
    assert (await get(server.port, "/v1/api/sites")).json == listed
    assert sum(listed["categories"].values()) == len(listed["data"])
    whole = (await get(server.port, "/api/sites/reddit")).json
    assert [task["id"] for task in whole["tasks"]] == next(c["tasks"] for c in listed["data"] if c["id"] == "reddit")
    assert whole["tasks"][0]["schema"]["properties"]["posts"]["type"] == "array"


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("category=weather", {"weather-com", "weather-gov", "wetter-com"}),
        ("domain=EN.wikipedia.org", {"wikipedia"}),
        ("domain=acme.example&category=shops", {"acme"}),
        ("domain=evilreddit.com", set()),
        ("category=news&sign_in=required", {"new-york-times"}),
        ("category=code&javascript=true", {"docker-hub"}),
    ],
)
async def test_filters_narrow_the_list(place: tuple[Server, Recorder], query: str, ids: set[str]) -> None:
    """Several hold together."""
    server, _ = place
    assert {card["id"] for card in (await get(server.port, f"/api/sites?{query}")).json["data"]} == ids


@pytest.mark.parametrize(
    ("query", "param"),
    [("category=cats", "category"), ("sign_in=maybe", "sign_in"), ("javascript=1", "javascript"),
     ("domain=a..b", "domain"), ("colour=red", "colour"), ("category=news&category=jobs", "category")],
)  # fmt: skip
async def test_a_wrong_filter_is_named(place: tuple[Server, Recorder], query: str, param: str) -> None:
    """400, not an empty list."""
    server, _ = place
    assert error_of(await get(server.port, f"/api/sites?{query}")) == (400, "invalid_value", param)


async def test_an_unknown_site_is_a_404_with_near_ids(place: tuple[Server, Recorder]) -> None:
    """In the message."""
    server, _ = place
    answer = await get(server.port, "/api/sites/redit")
    assert error_of(answer) == (404, "not_found", "site")
    assert "Did you mean reddit?" in answer.json["error"]["message"]


# --- the match --------------------------------------------------------------------------------------------------------


async def test_the_best_template_comes_with_reasons(place: tuple[Server, Recorder]) -> None:
    """Shipped and own sites, with and without /v1, with and without assets."""
    server, _ = place
    asked = {"instructions": "get trending communities", "assets": ["https://reddit.com"]}
    for path in ("/api/sites/match", "/v1/api/sites/match"):
        found = (await match(server, asked, path)).json
        assert (found["site"]["id"], found["task"]["id"]) == ("reddit", "trending")
        assert found["reasons"] and found["runners_up"] and found["confidence"] > 0.9
        assert found["assets"] == [{"host": "reddit.com", "site": "reddit"}]
    own = (await match(server, {"instructions": "weight of this anvil"})).json
    assert (own["site"]["id"], own["task"]["id"]) == ("acme", "item")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"instructions": "x", "assets": ["https://a.example", "not a url"]}, 400, "assets[1]"),
        ({"instructions": "x", "assets": ["javascript:alert(1)"]}, 400, "assets[0]"),
        ({"instructions": "x", "assets": ["https://reddit.com"] * 10_000}, 400, "assets"),
        ({"instructions": "x" * 4001}, 400, "instructions"),
        ({"instructions": 5}, 400, "instructions"),
        ({"instructions": "x", "assets": "https://reddit.com"}, 400, "assets"),
        ({"instructions": "x", "assets": [5]}, 400, "assets.0"),
        ({}, 400, "instructions"),
        ({"instructions": "x", "asset": []}, 400, None),
        ({"instructions": "get trending communities", "assets": ["https://evilreddit.com"]}, 404, "assets"),
        ({"instructions": "write a poem"}, 404, "instructions"),
        (b"{", 400, None),
        (b'{"instructions": "' + b"x" * MAX_BODY + b'"}', 413, None),
    ],
)
async def test_what_cannot_be_matched_is_refused(
    place: tuple[Server, Recorder], body: Any, status: int, param: str | None
) -> None:
    """With the field at fault, and the nearest sites where nothing fits."""
    server, _ = place
    answer = await match(server, body)
    assert (answer.status, answer.json["error"]["param"]) == (status, param), answer.json
    if param == "assets" and status == 404:
        assert answer.json["error"]["nearest"][0] == "reddit"


async def test_where_there_are_keys_each_route_needs_one(tmp_path: Path) -> None:
    """As all other routes."""
    path = write_files(tmp_path, "http://127.0.0.1:1/v1")
    async with serving(path, {"PROXY_API_KEY": "a-key-of-the-data-plane"}) as server:
        assert (await get(server.port, "/api/sites")).status == 401
        assert (await match(server, {"instructions": "x"})).status == 401


# --- in a chat --------------------------------------------------------------------------------------------------------


async def chat(server: Server, site: Any, **more: Any) -> Any:
    asked = {"messages": [{"role": "user", "content": "the page"}], **more, "extra_body": {"site": site}}
    return await server.client.chat.completions.with_raw_response.create(model="fake/ok", **asked)


async def test_a_chat_gets_prompt_and_schema_of_the_task(place: tuple[Server, Recorder]) -> None:
    """Before its own messages, in strict mode; the vendor sees no `site`, the client what was applied."""
    server, recorder = place
    recorder.bodies.clear()
    answer = await chat(server, {"id": "reddit", "task": "comments"})
    assert answer.headers["x-proxy-site"] == "reddit/comments"
    (sent,) = recorder.bodies
    whole = (await get(server.port, "/api/sites/reddit")).json
    task = next(task for task in whole["tasks"] if task["id"] == "comments")
    assert sent["messages"] == [
        {"role": "system", "content": task["prompt"]},
        {"role": "user", "content": "the page"},
    ]
    assert sent["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reddit_comments", "strict": True, "schema": task["schema"]},
    }
    assert "site" not in sent


async def test_what_the_request_says_wins(place: tuple[Server, Recorder]) -> None:
    """Its own format stays, and its own system message comes last."""
    server, recorder = place
    recorder.bodies.clear()
    own = [{"role": "system", "content": "Answer in French."}, {"role": "user", "content": "the page"}]
    await chat(server, {"id": "acme"}, messages=own, response_format={"type": "json_object"})
    (sent,) = recorder.bodies
    assert sent["response_format"] == {"type": "json_object"}
    assert sent["messages"][1:] == own


@pytest.mark.parametrize(
    ("question", "task"),
    [
        ("top comments of this thread, please", "comments"),
        ("xyzzy", "trending"),
        ("x " * 1000 + "comments", "trending"),
    ],
)
async def test_without_a_task_the_question_chooses(place: tuple[Server, Recorder], question: str, task: str) -> None:
    """Its first 1000 characters; else it is the site's first task."""
    server, _ = place
    answer = await chat(server, {"id": "reddit"}, messages=[{"role": "user", "content": question}])
    assert answer.headers["x-proxy-site"] == f"reddit/{task}"


@pytest.mark.parametrize(
    ("site", "param"),
    [
        ("reddit", "site"),
        ([], "site"),
        ({}, "site.id"),
        ({"id": 5}, "site.id"),
        ({"id": "redit"}, "site.id"),
        ({"id": "reddit", "task": "trend"}, "site.task"),
        ({"id": "reddit", "task": []}, "site.task"),
        ({"id": "reddit", "tasks": "trending"}, "site"),
        ({"id": "x" * 10_000}, "site.id"),
    ],
)
async def test_a_wrong_site_is_a_400_that_names_it(place: tuple[Server, Recorder], site: Any, param: str) -> None:
    """Nothing reaches a provider, and the message is short."""
    server, recorder = place
    recorder.bodies.clear()
    with pytest.raises(BadRequestError) as refused:
        await chat(server, site)
    assert refused.value.param == param
    assert len(str(refused.value)) < 500 and not recorder.bodies


async def test_a_null_site_is_none(place: tuple[Server, Recorder]) -> None:
    """Some clients send nulls."""
    server, recorder = place
    recorder.bodies.clear()
    answer = await chat(server, None)
    assert "x-proxy-site" not in answer.headers
    assert recorder.bodies[0]["messages"] == [{"role": "user", "content": "the page"}]


async def test_other_endpoints_refuse_a_site(place: tuple[Server, Recorder]) -> None:
    """By name, rather than ask a model without schema and prompt."""
    server, recorder = place
    recorder.bodies.clear()
    with pytest.raises(BadRequestError) as refused:
        await server.client.responses.create(model="fake/ok", input="x", extra_body={"site": {"id": "reddit"}})
    assert (refused.value.param, refused.value.code) == ("site", "unsupported_parameter")
    with pytest.raises(BadRequestError) as at_embeddings:
        await server.client.embeddings.create(model="fake/ok", input="x", extra_body={"site": {"id": "reddit"}})
    assert at_embeddings.value.param == "site"
    assert not recorder.bodies


async def test_explain_routes_the_request_with_its_schema(place: tuple[Server, Recorder]) -> None:
    """And a trace tells the site."""
    server, _ = place
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "site": {"id": "acme"}}
    answer = await send(server.port, request(json.dumps(body).encode(), path="/v1/route/explain"))
    assert answer.json["facts"]["has_json_schema"] is True, answer.json["facts"]
    traced = await server.client.chat.completions.create(
        model="fake/ok",
        messages=[{"role": "user", "content": "hi"}],
        extra_body={"site": {"id": "acme"}, "routing": {"trace": True}},
    )
    assert traced.to_dict()["routing"]["site"] == "acme/item"  # type: ignore[index]
