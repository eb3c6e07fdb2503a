"""The endpoint seam: a made-up wire shape is served end to end by one class, and a vendor's own shape untouched."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from msgspec import UNSET, structs

from proxy.pipeline.call import Call
from proxy.pipeline.format import CutShort, PerRequest
from proxy.providers.base.native import changed_body
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, Message
from proxy.schema.endpoints import AnyResponse
from proxy.schema.errors import BadRequest, ProxyError, UpstreamError
from proxy.schema.json import with_member
from proxy.schema.json_structure import STEP_BYTES
from proxy.schema.request import NativeBody
from proxy.schema.usage import Usage
from tests.server.api.rows import row_with_id
from tests.serving import serving, write_files
from tests.upstream import FakeUpstream


class LinesWriter:
    keep_alive = b"~\n"
    held = 0

    def __init__(self, call: Call) -> None:
        self.call = call

    def write(self, chunks: list[ChatChunk]) -> bytes:
        if (native := self.call.answering.native) is not None:
            return native.take()
        texts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
        return "".join(f"+{text}\n" for text in texts if text).encode()

    def tail(self, usage: Usage) -> bytes:
        if (native := self.call.answering.native) is not None:
            return native.tail()
        return f"={usage['total_tokens']}\n".encode()

    def error(self, error: ProxyError) -> bytes:
        return f"!{error.code}\n".encode()


class Lines:
    """Bodies are `model: prompt`, with a leading `>` to stream; `native` also sends the body below as it is."""

    paths = ("/v1/lines",)

    def __init__(self, native: bytes | None = None, dialect: str = "openai") -> None:
        self.native = NativeBody(dialect, "/chat/completions", native) if native else None

    def decode(self, body: bytes) -> ChatRequest:
        model, colon, prompt = body.decode().removeprefix(">").partition(": ")
        if not colon:
            raise BadRequest("line: expected `model: prompt`.", param="line")
        fields = {"messages": [{"role": "user", "content": prompt}], "stream": body.startswith(b">")}
        return ChatRequest(
            model=model,
            messages=[Message("user", prompt)],
            stream=body.startswith(b">"),
            native=self.native,
            fields=fields,
        )

    def unread(self, model: str) -> ChatRequest:
        return ChatRequest(model=model, messages=[], fields={})

    def whole(self, call: Call, answer: AnyResponse) -> bytes:
        if (native := call.answering.native) is not None:
            return native.whole
        response: ChatResponse = answer  # type: ignore[assignment]
        return f"{response['choices'][0]['message']['content']} ({call.usage()['total_tokens']})".encode()

    def writer(self, call: Call) -> LinesWriter:
        return LinesWriter(call)

    def error(self, error: ProxyError) -> bytes:
        return f"{error.code}: {error.message}".encode()


async def post(port: int, body: str) -> httpx.Response:
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient() as client:
        return await client.post(f"http://127.0.0.1:{port}/v1/lines", content=body, headers=headers)


async def test_a_made_up_endpoint_is_served_whole_and_streamed_and_metered(tmp_path: Path):
    """It has its own bodies, answers, frames and errors; everything else is the pipeline's."""
    async with FakeUpstream() as upstream, serving(write_files(tmp_path, upstream.url), formats=(Lines(),)) as server:
        whole = await post(server.port, "fake/ok(n_tokens=3): hello")
        streamed = await post(server.port, ">fake/ok(n_tokens=3): hello")
        refused = await post(server.port, "no prompt")
        broken = await post(server.port, ">fake/cut_clean(k=2): hello")
        row = await row_with_id(tmp_path / "usage.db", streamed.headers["x-request-id"])
    text, _, total = whole.text.rpartition(" ")
    *pieces, end = streamed.text.splitlines()
    assert text == "".join(piece.removeprefix("+") for piece in pieces)
    assert total == f"({end.removeprefix('=')})"
    assert (refused.status_code, refused.text) == (400, "invalid_value: line: expected `model: prompt`.")
    assert broken.text.splitlines()[-1] == "!upstream_truncated"
    assert (row["outcome"], row["input_tokens"] + row["output_tokens"]) == ("ok", int(end.removeprefix("=")))


WHOLE = b"""{ "choices":[{"index":0, "message" : {"role":"assistant","content":"Hi"},"finish_reason":"stop"}],
 "x_vendor": 1.50, "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}}"""
STREAM = b""": comment\r\n\r\nevent: named\r\ndata: {"choices":[{"index":0,"delta":{"content":"H\\u0069"}}] }\r\n\r\n
data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],
data: "usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}}

data: [DONE]

"""


@asynccontextmanager
async def vendor(answer: bytes, content_type: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server with one answer, written byte by byte; its URL, and the bodies that it got."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        bodies.append(await reader.readexactly(size))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nconnection: close\r\n\r\n" % content_type)
        for byte in answer:
            writer.write(bytes([byte]))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", bodies


@pytest.mark.parametrize("stream", [False, True])
async def test_a_vendors_own_bytes_pass_untouched_and_are_metered(tmp_path: Path, stream: bool):
    """Both ways: spaces, escapes, unknown fields, comments and names of events; to the bill they are tokens."""
    body = b'{ "model" : "m", "x_unknown": 1.50,  "stream": %s}' % (b"true" if stream else b"false")
    answer, content_type = (STREAM, b"text/event-stream") if stream else (WHOLE, b"application/json")
    async with vendor(answer, content_type) as (url, bodies):
        async with serving(write_files(tmp_path, url), formats=(Lines(body),)) as server:
            got = await post(server.port, f"{'>' if stream else ''}fake/m: hello")
            renamed = await post(server.port, f"{'>' if stream else ''}fake/other: hello")
        row = await row_with_id(tmp_path / "usage.db", got.headers["x-request-id"])
    assert (got.content, renamed.content) == (answer, answer)
    assert bodies[0] == body
    assert bodies[1] == b'{"model":"other","x_unknown":1.50,"stream":%s}' % (b"true" if stream else b"false")
    assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("ok", 4, 2)


async def test_another_dialect_gets_the_translated_request(tmp_path: Path):
    """A body in one vendor's shape is of no use to the others."""
    format = Lines(b"{}", dialect="anthropic")
    async with (
        vendor(WHOLE, b"application/json") as (url, bodies),
        serving(write_files(tmp_path, url), formats=(format,)) as server,
    ):
        got = await post(server.port, "fake/m: hello")
    assert got.text == "Hi (6)"
    assert b'"messages"' in bodies[0]


FOR_ANYONE = b'{"model":"m","routing":{"trace":true},"max_tokens":900,"metadata":{"routing.task":"code","a":"b"}}'
CAPPED = """
version: 1
storage: {{url: "sqlite:///{db}"}}
providers:
  fake: {{type: openai, base_url: "{upstream}", allow_private: true, parameters: {{seed: 7, max_tokens: 5}}}}
router: {{default_model: fake/ok}}
"""


class OwnFields(Lines):
    """As `Lines`, for a body that also holds hints and a limit."""

    def decode(self, body: bytes) -> ChatRequest:
        request = super().decode(body)
        fields = {**json.loads(FOR_ANYONE), **request.fields}
        native = request.native.without_hints(fields) if request.native is not None else None
        return structs.replace(request, fields=fields, max_tokens=900, native=native)


async def test_a_vendor_gets_neither_hints_nor_less_than_its_parameters(tmp_path: Path):
    """Both are changes of single members; those of the operator are reported."""
    async with vendor(WHOLE, b"application/json") as (url, bodies):
        files = write_files(tmp_path, url, CAPPED)
        async with serving(files, formats=(OwnFields(FOR_ANYONE),)) as server:
            got = await post(server.port, "fake/m: hello")
    assert got.status_code == 200
    assert json.loads(bodies[0]) == {"model": "m", "max_tokens": 900, "metadata": {"a": "b"}, "seed": 7}
    assert got.headers["x-proxy-adapted-params"] == "seed"


def test_a_cap_changes_the_member_that_limits_the_output():
    """Under the vendor's own name, which is also the one reported."""
    native = NativeBody("openai", "/responses", b'{"max_output_tokens":900}', limit="max_output_tokens")
    request = ChatRequest(model="m", messages=[], max_tokens=900, native=native, fields={"max_completion_tokens": 900})
    shorter, names = request.capped(5)
    assert names == ["max_output_tokens"]
    assert shorter.native is not None
    assert changed_body(shorter.native, shorter.native.changes) == b'{"max_output_tokens":5}'
    assert request.capped(1000)[0].native == native


@pytest.mark.parametrize("size", [10, 3 * STEP_BYTES])
def test_a_member_is_removed_and_the_others_stay(size: int):
    """In large bodies too."""
    long = b"x" * size
    body = b'{"a": 1.50, "b": "%b", "c":{"d" : [ ]}, "e":"%b"}' % (long, long)
    for name in "abce":
        rest = {key: value for key, value in json.loads(body).items() if key != name}
        assert json.loads(with_member(body, name, UNSET)) == rest
    assert with_member(body, "z", UNSET) is body


@asynccontextmanager
async def refusing(status: int, answer: bytes) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        writer.write(head % (status, len(answer)) + answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


class OwnErrors(Lines):
    def error(self, error: ProxyError) -> bytes:
        received = error.received if isinstance(error, UpstreamError) else None
        return super().error(error) if received is None else received.body


@pytest.mark.parametrize(("dialect", "is_own"), [("openai", True), ("anthropic", False)])
async def test_a_vendors_own_error_passes_with_its_status(tmp_path: Path, dialect: str, is_own: bool):
    """Only to a client whose body went to that vendor as it was."""
    said = b'{ "error": {"message": "no", "x": 1.50}}'
    async with (
        refusing(529, said) as url,
        serving(write_files(tmp_path, url), formats=(OwnErrors(b"{}", dialect),)) as server,
    ):
        got = await post(server.port, "fake/m: hello")
        row = await row_with_id(tmp_path / "usage.db", got.headers["x-request-id"])
    assert (got.content == said) is is_own
    assert got.status_code == row["status"]
    assert (got.status_code == 529) is is_own


class CutLines(CutShort, LinesWriter):
    def error(self, error: ProxyError) -> bytes:
        self.has_failed = True
        return super().error(error)


class BoundLines(PerRequest, Lines):
    """Tells its request's id and a header in its errors, and aborts streams that fail."""

    def __init__(self, call_id: str = "", header: str = "") -> None:
        super().__init__()
        self.call_id, self.header = call_id, header

    def bound(self, call_id: str, headers: Mapping[str, str]) -> BoundLines:
        return BoundLines(call_id, headers["content-type"])

    def writer(self, call: Call) -> LinesWriter:
        return CutLines(call)

    def error(self, error: ProxyError) -> bytes:
        return f"{self.call_id} {self.header}".encode()


async def test_a_format_of_each_request_knows_its_id_and_headers(tmp_path: Path):
    """One object serves one request."""
    async with (
        FakeUpstream() as upstream,
        serving(write_files(tmp_path, upstream.url), formats=(BoundLines(),)) as server,
    ):
        got = await post(server.port, "no prompt")
    assert got.text == f"{got.headers['x-request-id']} application/json"


@pytest.mark.parametrize("header", [{}, {"idempotency-key": "k"}])
async def test_a_stream_that_fails_is_cut_behind_its_error(tmp_path: Path, header: dict[str, str]):
    """So that no client takes its end for the end of an answer."""
    got = b""
    async with (
        FakeUpstream() as upstream,
        serving(write_files(tmp_path, upstream.url), formats=(BoundLines(),)) as server,
    ):
        url, body = f"http://127.0.0.1:{server.port}/v1/lines", ">fake/cut_clean(k=2): hello"
        headers = {"content-type": "application/json", **header}
        with pytest.raises(httpx.RemoteProtocolError):
            async with (
                httpx.AsyncClient() as client,
                client.stream("POST", url, content=body, headers=headers) as answer,
            ):
                async for piece in answer.aiter_bytes():
                    got += piece
    assert got.splitlines()[-1] == b"!upstream_truncated"
