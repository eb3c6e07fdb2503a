"""Translates: the vendor's citations into OpenAI's annotations."""

from __future__ import annotations

from typing import Any


def url_citations(citations: list[Any], start: int, end: int) -> list[dict[str, Any]]:
    """The `url_citation`s of one block. The vendor cites by block, so each covers the whole text of the block, from
    `start` to `end` in the content.
    """
    found = []
    for citation in citations:
        url = _url(citation)
        if url is not None:
            title = citation.get("title")
            where = {"start_index": start, "end_index": end, "title": title if isinstance(title, str) else ""}
            found.append({"type": "url_citation", "url_citation": {**where, "url": url}})
    return found


def without_url(citations: list[Any]) -> list[dict[str, Any]]:
    """Citations of documents, by page or character. OpenAI has no form for them; they pass unchanged."""
    return [citation for citation in citations if isinstance(citation, dict) and _url(citation) is None]


def _url(citation: object) -> str | None:
    if not isinstance(citation, dict):
        return None
    for name in ("url", "source"):  # of a web search; of a search result that the client sent
        value = citation.get(name)
        if isinstance(value, str) and value.startswith(("https://", "http://")):
            return value
    return None
