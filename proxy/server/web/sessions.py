"""Translates: who signed in <-> the cookie that says so, and the tokens of forms.

A cookie is encrypted with a secret that every worker has and that dies with the server. It names the admin key by its
SHA-256, so that a key that is revoked or expires ends its sessions, and no key stands in a cookie. `signed_out` knows
those that ended before.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

import msgspec
from cryptography.fernet import Fernet, InvalidToken
from msgspec import Struct

COOKIE = "mmproxy_session"
SESSION_S = 12 * 3600  # after which one signs in again
_MAX_COOKIE = 2_048


class Session(Struct, frozen=True):
    """One browser. `digest`: the SHA-256 of its admin key, in hex; `by_link`: it came by the link of the start."""

    id: str
    digest: str | None = None
    by_link: bool = False

    @property
    def is_signed_in(self) -> bool:
        return self.by_link or self.digest is not None


NOBODY = Session("")


def new_session(digest: bytes | None = None, *, by_link: bool = False) -> Session:
    """A session with an id of its own. Signing in makes a new one: nobody can plant an id beforehand."""
    return Session(secrets.token_urlsafe(18), None if digest is None else digest.hex(), by_link)


class Sessions:
    """Encrypts cookies and makes tokens with one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._fernet = Fernet(base64.urlsafe_b64encode(self._derived("cookies")))

    @property
    def link_token(self) -> str:
        """What the link of the start carries."""
        return base64.urlsafe_b64encode(self._derived("link")).decode().rstrip("=")

    def is_link_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.link_token.encode())

    def cookie(self, session: Session, now_s: int) -> str:
        """The value of the session's cookie."""
        return self._fernet.encrypt_at_time(msgspec.json.encode(session), now_s).decode().rstrip("=")

    def session(self, cookie_header: str, now_s: int, name: str = COOKIE) -> Session | None:
        """The session in a request's cookies; None: there is none, or it is not ours or too old."""
        found = _cookie_of(cookie_header, name)
        if found is None or len(found) > _MAX_COOKIE:
            return None
        try:
            value = found.encode()  # a cookie with its padding would need quotes
            text = self._fernet.decrypt_at_time(value + b"=" * (-len(value) % 4), SESSION_S, now_s)
            return msgspec.json.decode(text, type=Session)
        except (InvalidToken, msgspec.MsgspecError, UnicodeEncodeError):
            return None

    def form_token(self, session: Session) -> str:
        """What every form of this session carries."""
        return self._derived(f"form {session.id}").hex()

    def is_form_token(self, session: Session, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.form_token(session).encode())

    def _derived(self, purpose: str) -> bytes:
        return hmac.digest(self._secret, purpose.encode(), hashlib.sha256)


def _cookie_of(header: str, name: str) -> str | None:
    """The value of the first cookie of this name: browsers send the one of the longest path first.

    Not `http.cookies`: one odd cookie of another program on this host hides all others from it, and before Python
    3.11.10 a quoted value of 31 kB takes it twelve seconds (CVE-2024-7592).
    """
    for pair in header.split(";"):
        key, is_pair, value = pair.partition("=")
        if is_pair and key.strip() == name:
            return value.strip()
    return None
