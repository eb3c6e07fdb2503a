"""Translates: Perplexity's additions to OpenAI's answers: searches, their results, and markers in the text."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from msgspec.structs import replace

from proxy.providers.base.answers import mapping, objects
from proxy.providers.base.usage import read
from proxy.providers.compatible.responses.answer import Reader, citation, shown_alone
from proxy.schema.usage import NOTHING, UsageReport, count, counted

# The texts contain numbers of the search results they cite: their ids, or, after `web:`, their positions in the list.
_MARKER = re.compile(r"\[(web:)?(\d{1,4})\]")
_SEARCHES = ("search_web", "web_search")  # its own name for a search, and the name in requests


class PerplexityReader(Reader):
    text_joint: ClassVar[str] = ""
    thought_joint: ClassVar[str] = ""

    def finish(self, body: dict[str, Any], has_calls: bool) -> str:
        """The finish_reason. The API does not mark truncation: an answer that uses its whole limit was truncated."""
        written, limit = count(mapping(body.get("usage")).get("output_tokens")), body.get("max_output_tokens")
        if not has_calls and isinstance(limit, int) and written >= limit > 0:
            return "length"
        return super().finish(body, has_calls)

    def text_of(self, items: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        text, annotations = super().text_of(items)
        return text, annotations or _marked(text, results_of(items))

    def thoughts_in(self, item: dict[str, Any]) -> list[str]:
        if item.get("type") == "reasoning" and isinstance(item.get("thought"), str):
            return [item["thought"]]
        return super().thoughts_in(item)

    def call(self, item: dict[str, Any], place: int) -> dict[str, Any]:
        """A call, with the thought signature where Google's OpenAI-compatible API has it."""
        call = super().call(item, place)
        if isinstance(item.get("thought_signature"), str):
            call["extra_content"] = {"google": {"thought_signature": item["thought_signature"]}}
        return call

    def beside(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """`citations` and `search_results` beside the choices, as in the older API; {} without a search."""
        results = results_of(items)
        if not results:
            return {}
        urls = dict.fromkeys(result["url"] for result in results if isinstance(result.get("url"), str))
        return {"citations": list(urls), "search_results": results}

    def usage_of(self, body: dict[str, Any], items: list[dict[str, Any]]) -> UsageReport | None:
        """Web searches are billed separately."""
        raw = mapping(body.get("usage"))
        calls = mapping(raw.get("tool_calls_details"))
        found = [counted(mapping(calls.get(name)).get("invocation")) for name in _SEARCHES]
        listed_here = sum(item.get("type") == "search_results" for item in items)
        searches = next((number for number in found if number is not None), listed_here)
        report = shown_alone(read(raw) or (NOTHING if searches else None))
        return None if report is None else replace(report, billed=replace(report.billed, searches=searches))


def _marked(text: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Citations from the markers in the text, for answers that list none."""
    by_id = {result.get("id"): result for result in results if isinstance(result.get("id"), int)}
    by_place = dict(enumerate(results, 1))
    found = []
    for match in _MARKER.finditer(text):
        result = (by_place if match[1] else by_id).get(int(match[2]))
        if result is not None:
            place = {"start_index": match.start(), "end_index": match.end()}
            found.append(citation({**result, **place}, 0))
    return [each for each in found if each is not None]


def results_of(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All search results, in order."""
    return [each for item in items if item.get("type") == "search_results" for each in objects(item.get("results"))]
