"""Values: the requests and answers of all endpoints, as one type each."""

from __future__ import annotations

from proxy.schema.chat import ChatRequest, ChatResponse
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.rerank import RerankRequest, RerankResponse

AnyRequest = ChatRequest | EmbeddingsRequest | RerankRequest
AnyResponse = ChatResponse | EmbeddingsResponse | RerankResponse
