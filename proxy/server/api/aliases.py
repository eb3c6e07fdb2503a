"""Translates: other vendors' paths, which their SDKs append to a base URL, into ours.

    /openai/v1/...                     Groq's SDK
    /openai/deployments/{model}/...    AzureOpenAI; a deployment is a model here, and `api-version` is ignored
    /deployments/{model}/...           AzureOpenAI with a base URL of its own
    /v1/v1/...  /v1/v2/...             clients that add /v1 or /v2 to a base URL that ends with it

The deployment in the path decides, as at Azure, and may contain slashes: `openai/gpt-6-sol`.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from proxy.pipeline.format import Format
from proxy.schema.endpoints import AnyRequest
from proxy.schema.json import with_member

DEPLOYMENT = "proxy.deployment"  # in a request's scope: the model that its path names
ENDPOINTS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/rerank")
AT_AZURE = "/openai/deployments/{model}"
_DOUBLED = ("/v1/v1/", "/v1/v2/", "/v1/openai/", "/v1/deployments/")
_DEPLOYMENTS = "/deployments/"


def own_path(path: str) -> tuple[str, str | None]:
    """Our own path for `path` (itself if it is no alias), and the deployment that it names."""
    while path.startswith(_DOUBLED):
        path = path[3:]
    if path.startswith("/openai/"):
        return own_path(path[7:])
    endpoint = next((each for each in ENDPOINTS if path.endswith(each)), None)
    if endpoint is None or not path.startswith(_DEPLOYMENTS):
        return path, None
    model = path[len(_DEPLOYMENTS) : -len(endpoint)]
    return (endpoint, model) if model else (path, None)


class OfDeployment:
    """The Format of an endpoint whose model is in the path."""

    def __init__(self, format: Format, model: str) -> None:
        self._format = format
        self._model = model
        self.unread, self.whole, self.writer, self.error = format.unread, format.whole, format.writer, format.error

    def decode(self, body: bytes) -> AnyRequest:
        with suppress(msgspec.DecodeError, RecursionError, UnicodeError):  # the endpoint reports the error
            body = with_member(body, "model", self._model)
        return self._format.decode(body)
