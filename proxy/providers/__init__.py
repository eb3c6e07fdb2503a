"""Translates: one dialect per vendor. `PROVIDERS` maps `type:` in routing_rules.yaml to the Struct of its keys."""

from __future__ import annotations

from proxy.providers.anthropic import Anthropic
from proxy.providers.base.contract import Provider
from proxy.providers.cohere import Cohere
from proxy.providers.embedded import Embedded
from proxy.providers.google import Google
from proxy.providers.groq import Groq
from proxy.providers.mistral import Mistral
from proxy.providers.openai import OpenAI
from proxy.providers.perplexity import Perplexity
from proxy.providers.selfhosted import VLLM, LMStudio, LocalAI, Ollama
from proxy.providers.together import Together

PROVIDERS: dict[str, type[Provider]] = {
    "openai": OpenAI,
    "anthropic": Anthropic,
    "groq": Groq,
    "mistral": Mistral,
    "google": Google,
    "cohere": Cohere,
    "perplexity": Perplexity,
    "together": Together,
    "ollama": Ollama,
    "vllm": VLLM,
    "lmstudio": LMStudio,
    "localai": LocalAI,
    "embedded": Embedded,
}
