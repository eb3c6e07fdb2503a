"""Values: requests to `/v1/embeddings` and their answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self, TypedDict

from msgspec import structs

from proxy.schema.errors import UpstreamError
from proxy.schema.request import Request
from proxy.schema.usage import UsageReport


class EmbeddingsRequest(Request, frozen=True, kw_only=True):
    """One request to `/v1/embeddings`: `inputs` are texts or lists of token ids.

    `base64` is the encoding that the client wants, not the one requested from the vendor.
    """

    task_type: ClassVar[str | None] = "embeddings"

    inputs: list[str] | list[list[int]]
    dimensions: int | None = None
    base64: bool = False

    @property
    def prompts(self) -> int:
        return len(self.inputs)

    def texts(self) -> list[str]:
        """The inputs; each token id is replaced by a word of four characters that is one token."""
        return [text if isinstance(text, str) else " the" * len(text) for text in self.inputs]

    def parts(self, limits: Iterable[int | None]) -> list[Self]:
        most = min((limit for limit in limits if limit is not None), default=len(self.inputs))
        if len(self.inputs) <= most:
            return [self]
        pieces: list[Any] = [self.inputs[start : start + most] for start in range(0, len(self.inputs), most)]
        return [structs.replace(self, inputs=piece, fields={**self.fields, "input": piece}) for piece in pieces]

    def joined(self, answers: Sequence[Any]) -> EmbeddingsResponse:
        """All vectors, in input order."""
        return {"embeddings": [vector for answer in answers for vector in answer["embeddings"]]}

    def check(self, response: Any) -> None:
        """Raises UpstreamError unless there is one vector per input."""
        if len(response["embeddings"]) != len(self.inputs):
            message = f"The provider sent {len(response['embeddings'])} embeddings for {len(self.inputs)} inputs."
            raise UpstreamError(message)


class EmbeddingsResponse(TypedDict, total=False):
    """Vectors in input order, as numbers; the API layer encodes them as the client requested."""

    model: str
    embeddings: list[list[float]]
    usage: UsageReport
