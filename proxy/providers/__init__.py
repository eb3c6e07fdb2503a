"""Translates: one dialect per vendor. `PROVIDERS` maps `type:` in routing_rules.yaml to the Struct of its keys."""

from __future__ import annotations

from proxy.providers.anthropic import Anthropic
from proxy.providers.base.contract import Provider
from proxy.providers.cohere import Cohere
from proxy.providers.embedded import Embedded
from proxy.providers.google import Google
from proxy.providers.groq import Groq
from proxy.providers.lmstudio import LMStudio
from proxy.providers.localai import LocalAI
from proxy.providers.mistral import Mistral
from proxy.providers.ollama import Ollama
from proxy.providers.openai import OpenAI
from proxy.providers.perplexity import Perplexity
from proxy.providers.together import Together
from proxy.providers.vllm import VLLM


def registry(*kinds: type[Provider]) -> dict[str, type[Provider]]:
    """Provider types by their names. Raises ValueError for a type without a name, or two of one name."""
    named = {kind.type: kind for kind in kinds}
    if len(named) < len(kinds) or "" in named:
        raise ValueError(f"provider types need unique names: {', '.join(kind.type or '?' for kind in kinds)}")
    return named


PROVIDERS = registry(
    *(OpenAI, Anthropic, Groq, Mistral, Google, Cohere, Perplexity, Together),
    *(Ollama, VLLM, LMStudio, LocalAI),
    Embedded,
)
