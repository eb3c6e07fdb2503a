"""Orchestrates: the credentials of a request -> Caller. Keys are compared by their hashes, in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from proxy.errors import ProxyError
from proxy.records import Caller, Secret

CREDENTIAL_HEADERS = ("authorization", "x-api-key", "api-key")


class Auth:
    """Knows the server's own keys. Without any it accepts whatever key a client sends (loopback only, see `proxy
    serve`).
    """

    def __init__(self, key: Secret | None, admin_key: Secret | None) -> None:
        self._callers = [
            (_digest(secret.reveal()), caller)
            for secret, caller in ((admin_key, Caller("admin", admin=True)), (key, Caller("default")))
            if secret is not None
        ]

    @property
    def keyless(self) -> bool:
        return not self._callers

    def identify(self, headers: Mapping[str, str]) -> Caller:
        """Who asks. Raises ProxyError 401; the answer is the same for a missing, a malformed and an unknown key."""
        if not self._callers:
            return Caller(admin=True)
        digest = _digest(credential(headers))
        found: Caller | None = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise ProxyError(
                "Invalid API key. Send the proxy's key as `Authorization: Bearer KEY`, `x-api-key` or `api-key`.",
                status=401,
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        return found


def credential(headers: Mapping[str, str]) -> str:
    """The key a client sent, from the first of the three headers that holds one."""
    for name in CREDENTIAL_HEADERS:
        value = headers.get(name, "").strip()
        scheme, _, token = value.partition(" ")
        if name == "authorization" and scheme.lower() == "bearer":
            value = token.strip()
        if value:
            return value
    return ""


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()
