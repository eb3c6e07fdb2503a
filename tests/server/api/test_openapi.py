"""`GET /schema/openapi.json`: every route of the application with its role, in a document that is valid OpenAPI 3.1."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_asyncio
from litestar.routes import ASGIRoute, HTTPRoute

from proxy.server.api.guard import is_page
from proxy.server.api.openapi import DESCRIBED, ROLES, document, operations
from tests.server.api.raw import chat, get, post, request, send
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
TYPES = {"string", "number", "integer", "boolean", "array", "object", "null"}
OPERATION = {"operationId", "summary", "x-role", "security", "responses", "parameters", "requestBody"}


@pytest_asyncio.fixture(loop_scope="module")
async def described(server: Server) -> dict[str, Any]:
    answer = await get(server.port, "/schema/openapi.json")
    assert (answer.status, answer.headers("content-type")) == (200, ["application/json"])
    return dict(answer.json)


def each(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in described["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(child)


async def test_every_route_is_in_the_document(server: Server, described: dict[str, Any]) -> None:
    """HTTP and ASGI handlers, with and without /v1; what Litestar adds for OPTIONS goes without saying. Pages are no
    part of it.
    """
    routes = [route for route in server._application.litestar.routes if not is_page(route.path)]
    assert {type(route) for route in routes} == {HTTPRoute, ASGIRoute}
    served = {
        (re.sub(r":\w+\}", "}", route.path), method.lower())
        for route in routes
        for method in (route.methods if isinstance(route, HTTPRoute) else ["POST"])
        if method != "OPTIONS"
    }
    at_azure = ("/chat/completions", "/responses", "/completions", "/embeddings", "/rerank")
    azure = {(f"/openai/deployments/{{model}}{path}", "post") for path in at_azure}
    assert {(path, method) for path, method, _ in each(described)} == served | azure
    assert {("/v1/chat/completions", "post"), ("/chat/completions", "post"), ("/metrics", "get")} <= served
    public = {path.removeprefix("/v1") for path in described["paths"] if path.startswith("/v1/")}
    assert public <= described["paths"].keys()


async def test_every_operation_has_a_role(described: dict[str, Any]) -> None:
    """Open routes say so; all others name the ways to send a key."""
    for path, method, operation in each(described):
        assert operation["x-role"] in ROLES, f"{method} {path}: declare its role at the handler"
        schemes = [name for requirement in operation["security"] for name in requirement]
        assert schemes == ([] if operation["x-role"] == "none" else ["bearer", "x-api-key", "api-key"])
    roles = {path: operation["x-role"] for path, _, operation in each(described)}
    assert (roles["/v1/chat/completions"], roles["/livez"], roles["/schema/openapi.json"]) == ("key", "none", "none")


async def test_a_role_is_what_the_route_asks_for(upstream: FakeUpstream, tmp_path: Any) -> None:
    """On a server with keys, a route answers without one exactly if its role is none."""
    async with serving(write_files(tmp_path, upstream.url), {"PROXY_API_KEY": "a-key-of-the-data-plane"}) as running:
        paths = (await get(running.port, "/schema/openapi.json")).json
        for path, method, operation in each(paths):
            place = re.sub(r"\{\w+\}", "x", path)
            asked = request(b"{}" if method == "post" else b"", method=method.upper(), path=place)
            answer = await send(running.port, asked)
            assert (answer.status == 401) == (operation["x-role"] != "none"), (method, path, answer.status)


async def test_what_is_described_is_served(server: Server) -> None:
    """No entry of the table outlives its route."""
    served = {(method, path.removeprefix("/v1")) for path, method, _ in operations(server._application.litestar.routes)}
    assert DESCRIBED.keys() <= served


async def test_the_document_is_valid_openapi(described: dict[str, Any]) -> None:
    """By the rules of OpenAPI 3.1: required fields, unique ids, declared parameters, references that lead somewhere."""
    assert re.fullmatch(r"3\.1\.\d+", described["openapi"])
    assert described.keys() <= {"openapi", "info", "servers", "paths", "components", "tags", "security"}
    assert described["info"]["title"] and described["info"]["version"]
    ids = [operation["operationId"] for _, _, operation in each(described)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"\w+", name) for name in ids)
    for path, method, operation in each(described):
        assert path.startswith("/") and method in METHODS
        assert operation.keys() <= OPERATION
        parameters = operation.get("parameters", [])
        in_path = [each_["name"] for each_ in parameters if each_["in"] == "path" and each_["required"]]
        assert in_path == re.findall(r"\{(\w+)\}", path)
        assert all(each_["in"] in ("path", "query", "header") and "schema" in each_ for each_ in parameters)
        assert operation["responses"]
        for status, answer in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert answer["description"]
            assert all(re.fullmatch(r"[\w-]+/[\w.+-]+", media) for media in answer.get("content", {}))
    for scheme in described["components"]["securitySchemes"].values():
        assert {"http": {"type", "scheme"}, "apiKey": {"type", "in", "name"}}[scheme["type"]] == scheme.keys()


async def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    """And every schema in `components` is used."""
    targets = {node["$ref"] for node in nodes(described) if "$ref" in node}
    assert targets == {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}


async def test_schemas_are_json_schema(described: dict[str, Any]) -> None:
    """Types are those of JSON; what is required exists."""
    for schema in nodes(described["components"]["schemas"]):
        kinds = schema.get("type", [])
        if isinstance(kinds, str | list) and not isinstance(schema.get("properties", {}).get("type"), str):
            assert set([kinds] if isinstance(kinds, str) else kinds) <= TYPES
        assert set(schema.get("required", [])) <= schema.get("properties", {}).keys()


def fits(value: Any, schema: dict[str, Any], schemas: dict[str, Any], *, whole: bool = True) -> bool:
    """Whether a value is what a schema of ours says. `whole`: an object has no other keys than its properties."""
    if "$ref" in schema:
        return fits(value, schemas[schema["$ref"].rpartition("/")[2]], schemas, whole=whole)
    if "anyOf" in schema:
        return any(fits(value, option, schemas, whole=whole) for option in schema["anyOf"])
    kind = schema.get("type")
    if kind == "object":
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        return (
            isinstance(value, dict)
            and set(schema.get("required", [])) <= value.keys()
            and (not whole or not properties or value.keys() <= properties.keys())
            and all(fits(value[key], properties[key], schemas, whole=whole) for key in value if key in properties)
            and (
                not isinstance(others, dict)
                or all(fits(each_, others, schemas, whole=whole) for each_ in value.values())
            )
        )
    if kind == "array":
        return isinstance(value, list) and all(
            fits(item, schema.get("items", {}), schemas, whole=whole) for item in value
        )
    python: dict[str, Any] = {"string": str, "integer": int, "boolean": bool, "null": type(None), "number": int | float}
    return kind is None or isinstance(value, python[kind])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/models/auto",
        "/v1/usage?group_by=model,provider,day,task,tag",
        "/v1/requests?limit=1",
        "/livez",
        "/readyz",
        "/health",
    ],
)
async def test_answers_are_as_described(server: Server, described: dict[str, Any], path: str) -> None:
    """What is really sent fits the schema of its status."""
    await post(server.port, chat())
    answer = await get(server.port, path)
    pattern = "/v1/models/{model_id}" if path.startswith("/v1/models/") else path.partition("?")[0]
    responses = described["paths"][pattern]["get"]["responses"]
    schema = responses[str(answer.status)]["content"]["application/json"]["schema"]
    assert fits(answer.json, schema, described["components"]["schemas"]), answer.json


VARIANTS = [{"name": "a", "prompt_version": 1}, {"name": "b", "prompt_version": 2, "parameters": {"temperature": 0}}]
LIFE: tuple[tuple[str, str, Any, int], ...] = (  # of a prompt and an experiment: method, path, body, status
    ("POST", "/v1/prompts", {"id": "of-shape", "template": "{x}", "labels": ["production"]}, 201),
    ("POST", "/v1/prompts/of-shape/versions", {"messages": [{"role": "user", "content": "{x}!"}]}, 201),
    ("PUT", "/v1/prompts/of-shape/labels/staging", {"version": 2, "note": "why"}, 200),
    ("GET", "/v1/prompts", None, 200),
    ("GET", "/v1/prompts/of-shape/versions", None, 200),
    ("GET", "/v1/prompts/of-shape/versions/2", None, 200),
    ("GET", "/v1/prompts/of-shape/labels", None, 200),
    ("GET", "/v1/prompts/of-shape/diff?from=1&to=2", None, 200),
    ("POST", "/v1/prompts/of-shape/render", {"variables": {"x": "y"}}, 200),
    ("POST", "/v1/experiments", {"id": "of-e", "prompt": "of-shape", "variants": VARIANTS}, 201),
    ("PUT", "/v1/experiments/of-e", {"prompt": "of-shape", "variants": VARIANTS, "minimum_samples": 5}, 200),
    ("GET", "/v1/experiments", None, 200),
    ("GET", "/v1/experiments/of-e/results", None, 200),
    ("POST", "/v1/experiments/of-e/start", None, 200),
    ("GET", "/v1/experiments/of-e", None, 200),
    ("GET", "/v1/experiments/of-e/variant?unit=ann", None, 200),
    *[("POST", "/v1/experiments/of-e/outcomes", {"variant": "a", "success": True}, 201)] * 12,
    *[("POST", "/v1/experiments/of-e/outcomes", {"variant": "b", "success": False, "unit": None}, 201)] * 12,
    ("GET", "/v1/experiments/of-e/results", None, 200),
    ("POST", "/v1/experiments/of-e/promote", None, 200),
    ("POST", "/v1/experiments/of-e/revert", None, 200),
    ("POST", "/v1/experiments/of-e/start", None, 200),
    ("POST", "/v1/experiments/of-e/stop", None, 200),
    ("POST", "/v1/experiments/of-e/start", None, 409),
    ("DELETE", "/v1/experiments/of-e", None, 200),
    ("GET", "/v1/experiments/of-e", None, 404),
    ("DELETE", "/v1/prompts/of-shape", None, 200),
)


async def test_prompts_and_experiments_answer_as_described(server: Server, described: dict[str, Any]) -> None:
    """Each step of their life, and the body that it takes."""
    schemas = described["components"]["schemas"]
    for method, path, body, status in LIFE:
        sent = request(b"" if body is None else json.dumps(body).encode(), method=method, path=path)
        answer = await send(server.port, sent)
        assert answer.status == status, (method, path, answer.json)
        pattern = path.partition("?")[0].replace("of-shape", "{prompt_id}").replace("of-e", "{experiment_id}")
        pattern = re.sub("(versions|labels)/[^/]+", lambda found: f"{found[1]}/{{{found[1][:-1]}}}", pattern)
        operation = described["paths"][pattern][method.lower()]
        schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
        assert schema and fits(answer.json, schema, schemas), (method, path, answer.json)
        if body is not None and method == "POST":
            assert fits(body, operation["requestBody"]["content"]["application/json"]["schema"], schemas)


async def test_chat_answers_and_errors_are_as_described(server: Server, described: dict[str, Any]) -> None:
    """Whole, each chunk of a stream, an error; and every header of a whole answer is listed."""
    operation, schemas = described["paths"]["/v1/chat/completions"]["post"], described["components"]["schemas"]
    contents = operation["responses"]["200"]["content"]
    assert fits(json.loads(chat()), operation["requestBody"]["content"]["application/json"]["schema"], schemas)
    whole = await post(server.port, chat())
    assert fits(whole.json, contents["application/json"]["schema"], schemas, whole=False)  # vendors add fields
    sent = {line.split(":")[0].lower() for line in whole.head.decode().split("\r\n")[1:]}
    assert {name for name in sent if name.startswith("x-")} - {"x-content-type-options"} <= operation["responses"][
        "200"
    ]["headers"].keys()
    events = (await post(server.port, chat(stream=True))).events
    assert all(fits(event, contents["text/event-stream"]["schema"], schemas, whole=False) for event in events[:-1])
    refused = await post(server.port, b"{")
    error = operation["responses"]["400"]["content"]["application/json"]["schema"]
    assert fits(refused.json, error, schemas)


async def test_the_request_knows_openais_parameters(described: dict[str, Any]) -> None:
    """Also those that the proxy only passes on."""
    properties = described["components"]["schemas"]["ChatBody"]["properties"]
    assert {"model", "messages", "stream", "logit_bias", "reasoning_effort", "service_tier"} <= properties.keys()


async def test_routes_without_a_role_are_noticed(server: Server) -> None:
    """The role stands at the handler; without one the document has none, and the test above says where."""
    routes = server._application.litestar.routes
    paths = document(routes)["paths"]
    assert all(operation["x-role"] is not None for _, _, operation in each({"paths": paths}))
