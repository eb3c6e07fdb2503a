"""Translates: the model that comes with the product; llama.cpp's server speaks OpenAI's chat API on a loopback port."""

from __future__ import annotations

from proxy.providers.selfhosted import SelfHosted
from proxy.records import LocalModelSpec


class Embedded(SelfHosted, frozen=True, kw_only=True):
    """`model_path` names any GGUF file (null: SmolLM2-135M-Instruct), `context` its window in tokens."""

    model_path: str | None = None
    start: str = "on_first_use"
    context: int = 2048

    @property
    def local_model(self) -> LocalModelSpec | None:
        return LocalModelSpec(self.model_path, self.context, self.start)

    @property
    def free(self) -> bool:
        return True
