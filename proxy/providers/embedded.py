"""Translates: the model that comes with the product; llama.cpp's server speaks OpenAI's chat API on a loopback port."""

from __future__ import annotations

from msgspec.structs import replace

from proxy.errors import BadRequest
from proxy.providers.base import Built
from proxy.providers.selfhosted import SelfHosted
from proxy.records import LocalModelSpec
from proxy.schema import ChatRequest


class Embedded(SelfHosted, frozen=True, kw_only=True):
    """`model_path` names any GGUF file (null: SmolLM2-135M-Instruct), `context` its window in tokens."""

    model_path: str | None = None
    start: str = "on_first_use"
    context: int = 2048

    def build_request(self, request: ChatRequest, model: str) -> Built:
        """Each request has a connection of its own: an idle one would occupy one of the child's HTTP threads, and the
        server closes it at moments of its own choosing.
        """
        for index, message in enumerate(request.messages):
            if isinstance(message.content, list) and any(part.get("type") != "text" for part in message.content):
                raise BadRequest(
                    f"{model} reads text only: message {index} holds something else.",
                    param=f"messages.{index}.content",
                    code="unsupported_content",
                )
        built = super().build_request(request, model)
        return replace(built, http=replace(built.http, headers={**built.http.headers, "connection": "close"}))

    @property
    def local_model(self) -> LocalModelSpec | None:
        return LocalModelSpec(self.model_path, self.context, self.start)

    @property
    def free(self) -> bool:
        return True
