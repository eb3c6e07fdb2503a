"""I/O: what a browser does with the pages: it keeps cookies, follows nothing by itself, and sends forms with tokens."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any

import httpx

ADMIN = "the-admin-key-of-these-tests"
SIGN_IN = "/dashboard/sign-in"


class Browser:
    """One browser at one server. `headers`: those of a form that one of our own pages sends."""

    def __init__(self, client: httpx.AsyncClient, origin: str) -> None:
        self.client = client
        self.headers = {"origin": origin, "sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}

    async def get(self, path: str = "/dashboard", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.get(path, headers=named)

    async def send(self, path: str, fields: dict[str, Any], **headers: str) -> httpx.Response:
        """A form as it stands, without a token of its own."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, data=fields, headers={**self.headers, **named})

    async def token(self, path: str = SIGN_IN) -> str:
        """The token of the forms on this page."""
        found = re.search(r'name="token" value="([0-9a-f]{64})"', (await self.get(path)).text)
        assert found is not None
        return found[1]

    async def sign_in(self, key: str = ADMIN, **fields: str) -> httpx.Response:
        return await self.send(SIGN_IN, {"token": await self.token(), "key": key, **fields})


@asynccontextmanager
async def browsing(port: int) -> AsyncIterator[Browser]:
    origin = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=origin, trust_env=False, timeout=20) as client:
        yield Browser(client, origin)


class Elements(HTMLParser):
    """The elements of a page with their attributes, as a browser reads them, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def unwanted(self) -> list[str]:
        """What our pages never have: styles and scripts of their own, images, handlers of events."""
        wrong = [tag for tag, has in self.found if tag in ("img", "style", "iframe", "object") or "style" in has]
        wrong += [tag for tag, has in self.found if tag == "script" and not has.get("src")]
        return wrong + [name for _, has in self.found for name in has if name.startswith("on")]
