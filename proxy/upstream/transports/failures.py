"""Translates: the exceptions behind a connection that failed into words for the operator.

A closed set of phrases: callers may read them, so none contains a host, an address or a path.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

_MAX_CAUSES = 32
_UNTRUSTED = "its certificate is not from an authority that is trusted here; name its file in ca_file"
_CERTIFICATES = {  # OpenSSL's codes (X509_V_ERR_...)
    2: _UNTRUSTED,
    9: "its certificate is not valid yet; is this machine's clock right?",
    10: "its certificate has expired",
    18: "its certificate is self-signed; name it with ca_file if you trust it",
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    23: "its certificate was revoked",
    62: "its certificate is for another host name",
    64: "its certificate is for another address",
}
_NO_TLS = "it does not speak TLS at this port; should its base_url begin with http:// instead?"
_TLS = {  # by OpenSSL's words for the reason
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "UNKNOWN_PROTOCOL": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": "it supports only TLS versions that are too old",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it supports no TLS version that this proxy supports",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection during the TLS handshake",
}
_CLOSED = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED)
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL)
_SPENT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_UNKNOWN_NAMES = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
_OF_PROXY = {
    403: "its HTTP proxy does not allow it (403)",
    405: "its HTTP proxy opens no tunnels (405)",
    407: "its HTTP proxy requires a user name and a password (407)",
}
_NO_TEXT = re.compile(r"no status line: b['\"]\\x[01]|illegal request line")  # our readers' errors for such answers


class ProxyRefused(Exception):
    """The HTTP proxy opened no tunnel. `status` 0: it did not answer in HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def why_not_connected(
    error: BaseException, url: str, *, by_proxy: bool, in_container: Callable[[], bool] | None = None
) -> str:
    """The text after "cannot be reached: ", with its full stop; "" if the exceptions reveal nothing.

    `by_proxy`: the connection was to an HTTP proxy, so that a failure below TLS is the proxy's.
    """
    causes = list(_causes(error))
    for phrase in (_of_proxy, _of_certificate, _of_tls):
        found = next((text for cause in causes if (text := phrase(cause))), None)
        if found:
            return _sentence(found)
    who = "its HTTP proxy" if by_proxy else "it"
    found = next((text for cause in causes if (text := _of_system(cause, who, by_proxy))), "")
    if "refused" in found and not by_proxy and _is_loopback(url) and (in_container or is_container)():
        return f"{found} Inside a container, localhost is the container itself."
    return _sentence(found)


def why_lost(error: BaseException) -> str:
    """As `why_not_connected`, for a connection that broke after its request was sent."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and "CERTIFICATE_REQUIRED" in str(cause):
            return _of_tls(cause) or ""
        if _NO_TEXT.match(str(cause)):
            return "what it sent is not HTTP; should its base_url begin with https:// instead?"
    return ""


@cache
def is_container() -> bool:
    """True if the usual signs of a container are present."""
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(mark.exists() for mark in marks)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all its causes, including those in groups."""
    todo, seen = [error], set[int]()
    while todo and len(seen) < _MAX_CAUSES:
        each = todo.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        todo += [cause for cause in (*inner, each.__cause__, each.__context__) if cause is not None]


def _of_proxy(error: BaseException) -> str | None:
    if not isinstance(error, ProxyRefused):
        return None
    if not error.status:
        return "its HTTP proxy closed the connection, or does not speak HTTP"
    return _OF_PROXY.get(error.status, f"its HTTP proxy could not reach it ({error.status})")


def _of_certificate(error: BaseException) -> str | None:
    code = getattr(error, "verify_code", None)  # aiohttp's subclasses have none
    if not isinstance(error, ssl.SSLCertVerificationError) or code is None:
        return None
    return _CERTIFICATES.get(code, "its certificate is not valid")


def _of_tls(error: BaseException) -> str | None:
    if not isinstance(error, ssl.SSLError) or not hasattr(error, "reason"):
        return None
    reason = error.reason or ("UNEXPECTED_EOF_WHILE_READING" if isinstance(error, ssl.SSLEOFError) else "")
    if reason in _TLS:
        return _TLS[reason]
    if "CERTIFICATE_REQUIRED" in reason:
        return "it requires a client certificate, which is not supported"
    return f"the TLS handshake failed ({reason.lower().replace('_', ' ')})" if reason else "the TLS handshake failed"


def _of_system(error: BaseException, who: str, by_proxy: bool) -> str | None:
    name = "the name of its HTTP proxy" if by_proxy else "its host name"
    if isinstance(error, socket.gaierror):
        if error.errno in _UNKNOWN_NAMES:
            return f"{name} does not exist (DNS). Is it spelled right?"
        return f"{name} could not be looked up (DNS)"
    if isinstance(error, UnicodeError):
        return f"{name} is not valid"
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.ECONNREFUSED:
        return f"{who} refused the connection. Is the server up, and is the port right?"
    if error.errno in _CLOSED or (error.errno is None and isinstance(error, ConnectionError)):
        return f"{who} closed the connection before it was set up"
    if error.errno in _NO_WAY:
        return f"no route leads to {who if by_proxy else 'its address'}"
    if error.errno == errno.ETIMEDOUT:
        return f"{who} did not answer at its address"
    if error.errno in _SPENT:
        return f"this machine has no room for another connection ({errno.errorcode[error.errno]})"
    return None


def _sentence(phrase: str) -> str:
    return phrase if not phrase or phrase.endswith(("?", ".")) else f"{phrase}."


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.") or host.endswith(".localhost")
