"""Translates: the sources of a grounded answer (`groundingMetadata`) into OpenAI's annotations, and counts searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def url_citations(grounding: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """One `url_citation` for each source of each segment; indexes count characters of `text`, the whole content."""
    chunks, supports = _maps(grounding.get("groundingChunks")), _maps(grounding.get("groundingSupports"))
    data = text.encode()
    found: list[dict[str, Any]] = []
    for support in supports:
        start, end = _segment(support.get("segment"), text, data)
        indices = support.get("groundingChunkIndices")
        for index in indices if isinstance(indices, list) else []:
            source = _source(chunks[index]) if isinstance(index, int) and 0 <= index < len(chunks) else None
            if source is not None:
                cited = {"start_index": start, "end_index": end, **source}
                found.append({"type": "url_citation", "url_citation": cited})
    return found


def queries(grounding: Mapping[str, Any]) -> int:
    """The number of searches."""
    asked = grounding.get("webSearchQueries")
    return sum(isinstance(query, str) and bool(query) for query in asked) if isinstance(asked, list) else 0


def _segment(segment: object, text: str, data: bytes) -> tuple[int, int]:
    """The vendor counts UTF-8 bytes within a part. If the offsets do not match its quotation, the text is searched for
    the quotation.
    """
    said = segment if isinstance(segment, Mapping) else {}
    start, end = (_offset(said.get(name), len(data)) for name in ("startIndex", "endIndex"))
    quoted = said.get("text")
    if isinstance(quoted, str) and data[start:end] != quoted.encode():
        place = text.find(quoted)
        if place >= 0:
            return place, place + len(quoted)
    return len(data[:start].decode("utf-8", "ignore")), len(data[:end].decode("utf-8", "ignore"))


def _offset(value: object, most: int) -> int:
    return min(max(value, 0), most) if isinstance(value, int) else 0


def _source(chunk: Mapping[str, Any]) -> dict[str, str] | None:
    """Title and address of a web page, a place on a map or a document that has an address."""
    for name in ("web", "maps", "retrievedContext"):
        source = chunk.get(name)
        if isinstance(source, Mapping) and isinstance(source.get("uri"), str):
            title = source.get("title")
            return {"title": title if isinstance(title, str) else source["uri"], "url": source["uri"]}
    return None


def _maps(value: object) -> list[Mapping[str, Any]]:
    return [each if isinstance(each, Mapping) else {} for each in value] if isinstance(value, list) else []
