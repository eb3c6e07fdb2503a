"""`/v1/prompts`: versions, labels, rendering, comparison and files, and who may do what."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from proxy.server.shipped_prompts import SHIPPED
from tests.server.api.raw import Answer, request, send
from tests.server.api.test_keys import add, secret
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")
ADMIN = "the-admin-key-of-these-tests"
PAYLOADS = ["{x.__class__}", "{0}", "{a!r}", "{a:>10}", "{% %}", "{a", "}"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """With keys: an admin's, and ann's."""
    folder = tmp_path_factory.mktemp("prompts")
    add(folder / "usage.db", "ann")
    async with serving(write_files(folder, upstream_of_module.url), {"PROXY_ADMIN_KEY": ADMIN}) as running:
        yield running


async def call(server: Server, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await send(server.port, request(data, method=method, path=f"/v1/prompts{path}", headers=named))


async def made(server: Server, name: str, template: str = "Hi {x}", **fields: Any) -> None:
    answer = await call(server, "POST", "", {"id": name, "template": template, **fields})
    assert answer.status == 201, answer.body


async def test_a_new_server_has_the_shipped_prompts(server: Server) -> None:
    """Without any setup, under the label that uses mean."""
    listed = (await call(server, "GET", "")).json
    assert [each["id"] for each in listed["data"]][:2] == list(SHIPPED)
    found = (await call(server, "GET", "/extraction_v1")).json
    assert (found["variables"], found["labels"]) == (["target_fields", "html_content"], {"production": 1})
    answer = await call(
        server, "POST", "/extraction_v1/render", {"variables": {"target_fields": ["a"], "html_content": "{b}"}}
    )
    assert '\n["a"]\n' in answer.json["text"] and "\n{b}\n" in answer.json["text"]
    assert '{"price": null}' in answer.json["text"]


async def test_a_prompt_is_created_and_read(server: Server) -> None:
    """All fields come back; the id has an older name too."""
    fields = {"model": "fake/ok", "parameters": {"temperature": 0.5}, "notes": "n", "response_format": {"type": "text"}}
    answer = await call(server, "POST", "", {"template_id": "made", "name": "Made", "template": "{a} {b}", **fields})
    assert (answer.status, answer.headers("etag")) == (201, ['"1"'])
    expected = {"id": "made", "template_id": "made", "name": "Made", "version": 1, "template": "{a} {b}", **fields}
    for found in (answer.json, (await call(server, "GET", "/made")).json):
        assert {name: found[name] for name in expected} == expected
        assert found["messages"] == [{"role": "user", "content": "{a} {b}"}]
        assert (found["variables"], found["performance_score"], found["archived_at"]) == (["a", "b"], None, None)
    assert (await call(server, "POST", "", {"id": "made", "template": "x"})).error()["code"] == "conflict"


async def test_versions_are_added_and_never_changed(server: Server) -> None:
    """A new one is the latest plus one, and can get labels at once."""
    await made(server, "grown", labels=["production"])
    for number, path in ((2, "/grown"), (3, "/grown/versions")):
        answer = await call(server, "POST", path, {"template": f"v{number}", "labels": ["staging"]})
        assert (answer.status, answer.json["version"], answer.headers("etag")) == (201, number, [f'"{number}"'])
    versions = (await call(server, "GET", "/grown/versions?limit=2")).json
    assert [(each["version"], each["labels"]) for each in versions["data"]] == [(3, ["staging"]), (2, [])]
    assert versions["has_more"]
    rest = (await call(server, "GET", "/grown/versions?before=2")).json
    assert ([each["version"] for each in rest["data"]], rest["has_more"]) == ([1], False)
    for query, version in (("", 1), ("?version=2", 2), ("?label=staging", 3), ("?version=latest", 3)):
        assert (await call(server, "GET", f"/grown{query}")).json["version"] == version
    assert (await call(server, "GET", "/grown/versions/2")).json["template"] == "v2"


async def test_a_label_moves_and_tells_where_it_was(server: Server) -> None:
    """It can be taken off, too."""
    await made(server, "moved", labels=["production"])
    await call(server, "POST", "/moved", {"template": "two"})
    answer = await call(server, "PUT", "/moved/labels/production", {"version": 2, "note": "better"})
    assert answer.json["labels"] == {"production": 2}
    assert (await call(server, "DELETE", "/moved/labels/production")).json["labels"] == {}
    told = (await call(server, "GET", "/moved/labels")).json
    assert [(each["version"], each["note"]) for each in told["history"]] == [(None, None), (2, "better"), (1, None)]
    assert (await call(server, "PUT", "/moved/labels/latest", {"version": 1})).error()["param"] == "label"
    assert (await call(server, "PUT", "/moved/labels/a", {"version": 9})).status == 404
    assert (await call(server, "DELETE", "/moved/labels/b")).status == 404


async def test_a_change_of_what_has_changed_is_refused(server: Server) -> None:
    """With `If-Match`; without it the last one counts."""
    await made(server, "raced")
    (seen,) = (await call(server, "GET", "/raced")).headers("etag")
    assert (await call(server, "POST", "/raced", {"template": "ann's"}, if_match=seen)).status == 201
    changes: list[tuple[str, str, Any]] = [
        ("POST", "", {"template": "bob's"}),
        ("PUT", "/labels/a", {"version": 1}),
        ("DELETE", "/versions/1", None),
        ("DELETE", "", None),
    ]
    for method, path, body in changes:
        refused = await call(server, method, f"/raced{path}", body, if_match=seen)
        assert (refused.status, refused.error()["code"], refused.error()["param"]) == (412, "conflict", "if-match")
    assert (await call(server, "GET", "/raced")).json["latest_version"] == 2
    assert (await call(server, "POST", "/raced", {"template": "x"}, if_match="*")).status == 201
    assert (await call(server, "POST", "/raced", {"template": "x"}, if_match="two")).error()["param"] == "if-match"


async def test_an_archived_prompt_stays_readable(server: Server) -> None:
    """It cannot be changed until it is restored."""
    await made(server, "ended")
    assert (await call(server, "DELETE", "/ended")).json["archived_at"] is not None
    assert (await call(server, "GET", "/ended")).json["template"] == "Hi {x}"
    assert "ended" not in [each["id"] for each in (await call(server, "GET", "")).json["data"]]
    assert "ended" in [each["id"] for each in (await call(server, "GET", "?archived=true")).json["data"]]
    assert (await call(server, "POST", "/ended", {"template": "x"})).status == 409
    assert (await call(server, "POST", "/ended/render", {"variables": {"x": 1}})).status == 404
    assert (await call(server, "POST", "/ended/restore")).json["archived_at"] is None
    assert (await call(server, "POST", "/ended/render", {"variables": {"x": 1}})).json["text"] == "Hi 1"


async def test_versions_are_compared(server: Server) -> None:
    """Fields, variables and texts."""
    await made(server, "compared", "one\ntwo {a}")
    await call(server, "POST", "/compared", {"template": "one\nthree {b}", "model": "auto"})
    found = (await call(server, "GET", "/compared/diff?from=1&to=2")).json
    assert (found["fields"], found["variables_added"], found["variables_removed"]) == (
        ["template", "model"],
        ["b"],
        ["a"],
    )
    assert "\n-two {a}\n+three {b}\n" in found["text"]
    assert (await call(server, "GET", "/compared/diff?from=1&to=7")).status == 404


async def test_a_file_goes_from_one_server_to_another(server: Server, guarded: Server) -> None:
    """With all versions and labels; a second time changes nothing."""
    await made(server, "carried", "one {a}\n\n  two\n", labels=["production"])
    await call(server, "POST", "/carried", {"messages": [{"role": "system", "content": "s"}], "labels": ["staging"]})
    file = await call(server, "GET", "/export?id=carried")
    assert file.headers("content-type") == ["application/yaml"]
    for _ in range(2):
        brought = await call(
            guarded, "POST", "/import", file.body, authorization=f"Bearer {ADMIN}", content_type="text/yaml"
        )
        assert (brought.status, brought.json) == (200, {"imported": [{"id": "carried", "versions": [1, 2]}]})
    there = await call(guarded, "GET", "/export?id=carried", authorization=f"Bearer {ADMIN}")
    assert there.body == file.body
    broken = await call(server, "POST", "/import", b"version: 1\nprompts: {a: {template: '{'}}")
    assert "prompts.a.template: line 1, column 1" in broken.error()["message"]


async def test_keys_read_and_admins_write(guarded: Server) -> None:
    """Nobody reads without a key."""
    ann, admin = f"Bearer {secret('ann')}", f"Bearer {ADMIN}"
    writes: list[tuple[str, str, Any]] = [
        ("POST", "", {"id": "a", "template": "x"}),
        ("POST", "/extraction_v1", {"template": "x"}),
        ("DELETE", "/extraction_v1", None),
        ("POST", "/extraction_v1/restore", None),
        ("DELETE", "/extraction_v1/versions/1", None),
        ("PUT", "/extraction_v1/labels/a", {"version": 1}),
        ("DELETE", "/extraction_v1/labels/production", None),
        ("POST", "/import", b"version: 1"),
    ]
    for method, path, body in writes:
        assert (await call(guarded, method, path, body, authorization=ann)).error()["code"] == "admin_required"
    variables = {"target_fields": "a", "html_content": "b"}
    reads: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("GET", "/extraction_v1", None),
        ("GET", "/extraction_v1/versions", None),
        ("GET", "/extraction_v1/versions/1", None),
        ("GET", "/extraction_v1/labels", None),
        ("GET", "/extraction_v1/diff?from=1&to=1", None),
        ("GET", "/export", None),
        ("POST", "/extraction_v1/render", {"variables": variables}),
    ]
    for method, path, body in reads:
        assert (await call(guarded, method, path, body, authorization=ann)).status == 200, path
        assert (await call(guarded, method, path, body)).status == 401, path
    assert (await call(guarded, "POST", "", {"id": "a", "template": "x"}, authorization=admin)).status == 201
    move = await call(guarded, "PUT", "/a/labels/production", {"version": 1}, authorization=admin)
    assert move.status == 200
    told = (await call(guarded, "GET", "/a/labels", authorization=ann)).json["history"]
    assert told[0]["moved_by"] == "admin"


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_payloads_are_refused_when_they_are_saved(server: Server, payload: str) -> None:
    """With their place, in a text and in messages."""
    error = (await call(server, "POST", "", {"id": "bad", "template": f"a\n{payload}"})).error()
    assert (error["param"], error["code"]) == ("template", "invalid_value")
    assert error["message"].startswith("template: line 2, column 1: ")
    messages = [{"role": "user", "content": [{"type": "text", "text": payload}]}]
    assert (await call(server, "POST", "", {"id": "bad", "messages": messages})).error()[
        "param"
    ] == "messages.0.content"
    assert (await call(server, "GET", "/bad")).status == 404


@pytest.mark.parametrize(
    ("template", "text"),
    [("{{7*7}}", "{7*7}"), ("${x}", "${{7*7}}{x}"), ("{{x.__class__}}", "{x.__class__}"), ("<%= x %>", "<%= x %>")],
)
async def test_payloads_that_are_no_placeholders_are_literal(server: Server, template: str, text: str) -> None:
    """From the saved version to the rendered message; a value is put in once."""
    name = f"literal-{template.encode().hex()}"
    assert (await call(server, "POST", "", {"id": name, "template": template})).status == 201
    values = {"x": "{{7*7}}{x}"} if "{x}" in template else {}
    assert (await call(server, "POST", f"/{name}/render", {"variables": values})).json["text"] == text


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"template": "x" * 10_000_000}, 413, None),
        ({"template": "x" * 300_000}, 400, "template"),
        ({"template": " ".join(f"{{v{n}}}" for n in range(10_000))}, 400, "template"),
        ({"template": "x", "variables": [f"v{n}" for n in range(10_000)]}, 400, "variables"),
        ({"template": "a\0b"}, 400, "template"),
        (b'{"id": "big", "template": "a\\ud800"}', 400, None),
        ({"id": "a/b", "template": "x"}, 400, "id"),
        ({"id": "pmpt_1", "template": "x"}, 400, "id"),
        ({"id": None, "template": "x"}, 400, "id"),
        ({"template": "x", "tempate": "y"}, 400, "tempate"),
        ({"template": "x", "model": "no/such"}, 400, "model"),
        ({"template": "x", "model": "ensemble:none"}, 400, "model"),
        ({"template": "x", "parameters": {"temperature": "hot"}}, 400, "parameters.temperature"),
        ({"template": "x", "parameters": {"tool_choice": {"function": {"name": "f"}}}}, 400, "parameters.tool_choice"),
        ({"template": "x", "parameters": {"max_tokens": 0}}, 400, "parameters.max_tokens"),
        ({"template": "x", "labels": ["1"]}, 400, "labels"),
        ({"template": "x", "name": "a\nb"}, 400, "name"),
        ({"messages": [{"content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.tool_call_id"),
        (b"[]", 400, None),
        (b"{", 400, None),
    ],
)
async def test_what_cannot_be_saved_is_named(server: Server, fields: Any, status: int, param: str | None) -> None:
    """A clear 4xx; nothing is stored."""
    body = fields if isinstance(fields, bytes) else {"id": "big", **fields}
    answer = await call(server, "POST", "", body)
    assert (answer.status, answer.error()["param"]) == (status, param)
    assert (await call(server, "GET", "/big")).status == 404


async def test_unknown_names_say_what_exists(server: Server) -> None:
    """On every route."""
    for method, path, body in (
        ("GET", "/extraction", None),
        ("GET", "/extraction/versions", None),
        ("GET", "/extraction/labels", None),
        ("POST", "/extraction/render", {}),
        ("POST", "/extraction", {"template": "x"}),
        ("DELETE", "/extraction", None),
        ("PUT", "/extraction/labels/a", {"version": 1}),
        ("GET", "/export?id=extraction", None),
    ):
        answer = await call(server, method, path, body)
        assert answer.status == 404, path
        assert "Did you mean extraction_v1?" in answer.error()["message"], path
    assert "Versions: 1." in (await call(server, "GET", "/extraction_v1/versions/9")).error()["message"]
    assert "Labels: production" in (await call(server, "GET", "/extraction_v1?label=prod")).error()["message"]
    assert (await call(server, "GET", "?limt=1")).error()["param"] == "limt"
