"""Why a server is not reached, in words: name, refusal, TLS, certificate; on real sockets, both transports."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from proxy.upstream.transports.aiohttp import AiohttpTransport
from proxy.upstream.transports.base import ConnectFailed, ConnectionLost, HeaderBlock, Outgoing, Transport
from proxy.upstream.transports.failures import ProxyRefused, why_lost, why_not_connected
from proxy.upstream.transports.httpx import HttpxTransport
from proxy.upstream.transports.names import NameLookups
from tests.certificates import Made, authority, server
from tests.upstream import refusing
from tests.upstream.transports.middle import listening

KINDS = pytest.mark.parametrize("kind", [AiohttpTransport, HttpxTransport], ids=["aiohttp", "httpx"])
FIXED = HeaderBlock({"accept-encoding": "identity"})
PATIENT_S = 20.0


def tls_server(made: Made, folder: Path, **limits: ssl.TLSVersion) -> AbstractContextManager[int]:
    """A port where a server shows this certificate."""
    context = made.server_context(folder)
    for name, value in limits.items():
        setattr(context, name, value)
    return listening(lambda sock: None, context)


def plain_server(answer: bytes) -> AbstractContextManager[int]:
    """A port where a server answers whatever comes with these bytes."""

    def handle(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    return listening(handle)


async def failure_of(transport: Transport, url: str, kind: type[Exception] = ConnectFailed) -> str:
    with pytest.raises(kind) as failed:
        await transport.send(Outgoing("POST", url, FIXED, {}, b"{}"), PATIENT_S, lambda: None)
    await transport.close()
    return str(failed.value)


async def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


def trusting(name: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=authority(name).certificate.decode())
    return context


@KINDS
@pytest.mark.parametrize(
    ("made", "host", "said"),
    [
        (lambda: server("127.0.0.1", None), "127.0.0.1", "its certificate is self-signed"),
        (lambda: server("127.0.0.1", "Strange"), "127.0.0.1", "not from an authority that is trusted here"),
        (lambda: server("127.0.0.1", "Known", -9, -2), "127.0.0.1", "its certificate has expired"),
        (lambda: server("127.0.0.1", "Known", 2, 9), "127.0.0.1", "its certificate is not valid yet"),
        (lambda: server("10.9.8.7", "Known"), "127.0.0.1", "its certificate is for another address"),
        (lambda: server("other.example", "Known"), "models.example", "its certificate is for another host name"),
    ],
    ids=["self-signed", "unknown authority", "expired", "not yet", "address", "name"],
)
async def test_a_certificate_says_what_is_wrong_with_it(
    kind: Callable[..., Transport], made: Callable[[], Made], host: str, said: str, tmp_path: Path
) -> None:
    """Each kind on its own, and without the host's name."""
    with tls_server(made(), tmp_path) as port:
        why = await failure_of(kind(trusting("Known"), loopback), f"https://{host}:{port}/v1")
    assert said in why
    assert host not in why


@KINDS
async def test_a_server_without_tls_says_so(kind: Callable[..., Transport]) -> None:
    """And one that ends the handshake."""
    with plain_server(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n") as port:
        assert "does not speak TLS at this port" in await failure_of(kind(), f"https://127.0.0.1:{port}/")
    with plain_server(b"") as port:
        assert "closed the connection" in await failure_of(kind(), f"https://127.0.0.1:{port}/")


@KINDS
async def test_a_server_that_wants_tls_says_so(kind: Callable[..., Transport], tmp_path: Path) -> None:
    """The request had left by then, so it counts as lost."""
    alert = b"\x15\x03\x01\x00\x02\x02\x46"
    with plain_server(alert) as port:
        why = await failure_of(kind(), f"http://127.0.0.1:{port}/", ConnectionLost)
    assert "should its base_url begin with https://" in why
    with plain_server(b"SSH-2.0-x\r\n") as port:
        assert await failure_of(kind(), f"http://127.0.0.1:{port}/", ConnectionLost) == ""


@KINDS
async def test_a_version_of_tls_in_common_is_missing(kind: Callable[..., Transport], tmp_path: Path) -> None:
    """An old server, or an old client."""
    context = trusting("Known")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    made = server("127.0.0.1", "Known")
    with tls_server(made, tmp_path, maximum_version=ssl.TLSVersion.TLSv1_2) as port:
        assert "TLS" in await failure_of(kind(context), f"https://127.0.0.1:{port}/")


@KINDS
async def test_a_refusal_and_an_unknown_name_are_told_apart(kind: Callable[..., Transport]) -> None:
    """Also where the system's look-up says so."""
    with refusing() as url:
        assert "it refused the connection." in await failure_of(kind(), url)

    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def silent(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    why = await failure_of(kind(None, NameLookups(unknown)), "http://models.example/v1")
    assert why == "its host name does not exist (DNS). Is it spelled right?"
    looks: list[Callable[[str, int], list[str]]] = [silent, lambda host, port: []]
    for look in looks:
        assert "(DNS)" in await failure_of(kind(None, NameLookups(look)), "https://models.example/v1")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EHOSTUNREACH, "x"), "no route leads to its address."),
        (OSError(errno.ENETUNREACH, "x"), "no route leads to its address."),
        (OSError(errno.ETIMEDOUT, "x"), "it did not answer at its address."),
        (OSError(errno.EMFILE, "x"), "this machine has no room for another connection (EMFILE)."),
        (OSError(errno.ECONNRESET, "x"), "it closed the connection before it was set up."),
        (UnicodeError("x"), "its host name is not valid."),
        (ExceptionGroup("all", [OSError(errno.ECONNREFUSED, "x")]), "it refused the connection. Is the server up, and"),
        (OSError("nobody knows"), ""),
        (ValueError("x"), ""),
    ],
)
def test_the_system_s_words_are_translated(error: Exception, said: str) -> None:
    """However deep they are hidden."""
    outer = RuntimeError("outer")
    outer.__cause__ = error
    found = why_not_connected(outer, "https://models.example", by_proxy=False, in_container=lambda: False)
    assert found.startswith(said)
    assert bool(found) is bool(said)


def test_localhost_inside_a_container_is_explained() -> None:
    """Only there, and only for the own machine."""
    error = OSError(errno.ECONNREFUSED, "x")
    for url, is_told in (
        ("http://localhost:1", True),
        ("http://127.0.0.1:1/v1", True),
        ("http://[::1]:1", True),
        ("http://10.0.0.1:1", False),
    ):
        inside, outside = (
            why_not_connected(error, url, by_proxy=False, in_container=lambda here=here: here)  # type: ignore[misc]
            for here in (True, False)
        )
        assert ("Inside a container" in inside) is is_told
        assert "container" not in outside


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (407, "user name and a password (407)"),
        (403, "does not allow it (403)"),
        (502, "could not reach it (502)"),
        (0, "HTTP"),
    ],
)
def test_the_proxy_s_refusal_is_named(status: int, said: str) -> None:
    """By its status."""
    assert said in why_not_connected(ProxyRefused(status), "https://models.example", by_proxy=True)


def test_a_chain_of_causes_without_end_is_left() -> None:
    """Errors may refer to each other."""
    one, two = RuntimeError("one"), RuntimeError("two")
    one.__cause__, two.__cause__ = two, one
    assert why_not_connected(one, "http://a.example", by_proxy=False) == why_lost(one) == ""
