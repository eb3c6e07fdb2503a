"""Values: requests to `/v1/rerank` and their answers."""

from __future__ import annotations

from typing import Any, ClassVar, TypedDict

from proxy.schema.errors import UpstreamError
from proxy.schema.request import Request
from proxy.schema.usage import UsageReport


class RerankRequest(Request, frozen=True, kw_only=True):
    """One request to `/v1/rerank`, Cohere's shape. `documents` are texts."""

    task_type: ClassVar[str | None] = "rerank"

    query: str
    documents: list[str]
    top_n: int | None = None
    return_documents: bool = False

    @property
    def prompts(self) -> int:
        return len(self.documents)

    @property
    def repeated(self) -> str:
        """A reranker reads the query with every document."""
        return self.query

    def texts(self) -> list[str]:
        return self.documents

    def check(self, response: Any) -> None:
        """Raises UpstreamError for documents that were not sent, or that are ranked twice."""
        places = [each["index"] for each in response["results"]]
        if len(set(places)) != len(places) or any(not 0 <= place < len(self.documents) for place in places):
            raise UpstreamError("The provider ranked a document that was not sent, or one document twice.")


class Ranked(TypedDict, total=False):
    index: int
    relevance_score: float


class RerankResponse(TypedDict, total=False):
    """`results`, most relevant first. `searches`: the search units that Cohere bills, if reported."""

    id: str
    results: list[Ranked]
    usage: UsageReport
    searches: int
