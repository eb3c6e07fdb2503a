"""Translates: one dialect per vendor. `PROVIDERS` maps `type:` in routing_rules.yaml to the Struct of its keys."""

from __future__ import annotations

from proxy.providers.base import Provider
from proxy.providers.embedded import Embedded
from proxy.providers.hosted import Groq, Mistral, Together
from proxy.providers.openai import OpenAI
from proxy.providers.selfhosted import VLLM, LMStudio, LocalAI, Ollama

PROVIDERS: dict[str, type[Provider]] = {
    "openai": OpenAI,
    "groq": Groq,
    "mistral": Mistral,
    "together": Together,
    "ollama": Ollama,
    "vllm": VLLM,
    "lmstudio": LMStudio,
    "localai": LocalAI,
    "embedded": Embedded,
}
