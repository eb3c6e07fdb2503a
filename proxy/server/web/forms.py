"""Performs I/O: what the pages with forms share: the fields as they were typed, who sent them, and where to go then."""

from __future__ import annotations

from typing import Any

from litestar import Response

from proxy.schema.errors import BadRequest
from proxy.server.web.doors import MAX_FORM, Doors, PageRequest
from proxy.server.web.rendering import PAGE_HEADERS

MOST_FIELDS = 250  # a prompt has up to 200 variables


async def fields_of(doors: Doors, request: PageRequest, most_bytes: int = MAX_FORM) -> dict[str, str]:
    """The fields of a form. Browsers write the ends of lines in their own way. Raises ProxyError as `Doors.form`."""
    form = await doors.form(request, request.user, most_bytes, MOST_FIELDS)
    return {name: value.replace("\r\n", "\n") for name, value in form.items()}


async def sender_of(doors: Doors, request: PageRequest) -> str:
    """Who sent a form, for a history: the name of the admin key that signed in."""
    return (await doors.caller(request.user)).key_id or "dashboard"


def revision_in(form: dict[str, str]) -> int:
    """The state that the page of the form has shown. Raises BadRequest."""
    text = form.get("revision", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadRequest("The form lacks its revision. Load the page again.", param="revision")
    return int(text)


def to_page(doors: Doors, path: str) -> Response[Any]:
    """Leads to a page after a form has done its work, so that loading that page again does not repeat it."""
    location = f"{doors.root}/dashboard{path}"
    return Response(b"", status_code=303, headers={**PAGE_HEADERS, "location": location})
