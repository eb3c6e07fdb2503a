"""Values: the endpoint seam. A Format is one wire shape that clients speak; each route lends the pipeline its own.

The pipeline knows requests, answers and chunks; only a Format knows bytes. A new endpoint is one file in
`server/formats` and one entry in its registry.

A Format may read a vendor's own wire shape (`/v1/messages`). Its requests then carry a `NativeBody`: a deployment of
that vendor gets the client's bytes and answers with its own, both untouched, and the call is metered all the same.
Every other deployment gets the translated request. `Attempt.native` tells the Format which of the two happened, and
`UpstreamError.received` holds the vendor's own error if it refused such a body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from proxy.pipeline.call import Call
from proxy.schema.chat import ChatChunk
from proxy.schema.endpoints import AnyRequest, AnyResponse
from proxy.schema.errors import ProxyError
from proxy.schema.usage import Usage


class StreamWriter(Protocol):
    """Writes the frames of one stream."""

    @property
    def held(self) -> int:
        """About how many bytes later frames may repeat of what was said."""
        ...

    @property
    def keep_alive(self) -> bytes:
        """The frame sent while the client waits. Must not change the writer: several clients may get the same frame."""
        ...

    def write(self, chunks: list[ChatChunk]) -> bytes:
        """The frames to send now. Anything that marks the answer as complete is held back for `tail`."""
        ...

    def tail(self, usage: Usage) -> bytes:
        """The end of the stream, sent once the call is settled."""
        ...

    def error(self, error: ProxyError) -> bytes:
        """The last frame of a stream that fails after its first byte."""
        ...


class CutShort:
    """Base of a StreamWriter for clients that take the end of a stream for the end of an answer: after an error frame,
    the connection is aborted.
    """

    has_failed = False


class Format(Protocol):
    """One wire shape: bytes from a client to a request, answers and errors back to bytes."""

    def decode(self, body: bytes) -> AnyRequest:
        """The validated request. Raises BadRequest, which names the field."""
        ...

    def unread(self, model: str) -> AnyRequest:
        """A placeholder for an invalid request, for its row and the log."""
        ...

    def whole(self, call: Call, answer: AnyResponse) -> bytes:
        """The body of a whole answer to a settled call."""
        ...

    def writer(self, call: Call) -> StreamWriter:
        """The writer for a streamed answer. Called only for requests with `stream`."""
        ...

    def error(self, error: ProxyError) -> bytes:
        """The body of an error answer."""
        ...


class PerRequest:
    """Base of a Format that reads headers of a request, or whose errors name its id: each request gets its own
    instance.
    """

    def bound(self, call_id: str, headers: Mapping[str, str]) -> Format:
        """The Format of one request. Header names are lower case."""
        raise TypeError(f"{type(self).__name__} does not say how it is bound")
