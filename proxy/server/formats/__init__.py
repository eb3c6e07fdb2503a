"""Translates: the wire shapes that clients speak, one file per endpoint.

`FORMATS` lists the endpoints that call models: each is a `Format` (proxy/pipeline/format.py) with its paths.
"""

from __future__ import annotations

from typing import Protocol

from proxy.pipeline.format import Format
from proxy.server.formats.chat import CHAT
from proxy.server.formats.embeddings import EmbeddingsFormat
from proxy.server.formats.messages import MessagesFormat
from proxy.server.formats.rerank import CohereRerankFormat, RerankFormat
from proxy.server.formats.responses import RESPONSES


class EndpointFormat(Format, Protocol):
    """A Format and the paths of its endpoint."""

    @property
    def paths(self) -> tuple[str, ...]: ...


FORMATS: tuple[EndpointFormat, ...] = (
    CHAT,
    RESPONSES,
    MessagesFormat(),
    EmbeddingsFormat(),
    RerankFormat(),
    CohereRerankFormat(),
)
