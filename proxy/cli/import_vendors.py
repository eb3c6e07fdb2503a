"""Values: the vendor prefixes of LiteLLM's model names, and their counterparts here.

Source: LiteLLM's documentation and its `get_llm_provider`, November 2026.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from msgspec import Struct


class Vendor(Struct, frozen=True):
    """`type` in routing_rules.yaml, the variables that may hold the key (the first is named), and the address.

    Without an address the type's own is used, or the file has to name one (`needs_address`).
    """

    type: str
    keys: tuple[str, ...] = ()
    base_url: str | None = None
    needs_address: bool = False
    is_private: bool = False


def _compatible(base_url: str, *keys: str) -> Vendor:
    return Vendor("openai", keys, base_url)


_SERVER = Vendor("openai", needs_address=True)
VENDORS = {
    "openai": Vendor("openai", ("OPENAI_API_KEY",)),
    "anthropic": Vendor("anthropic", ("ANTHROPIC_API_KEY",)),
    "gemini": Vendor("google", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "groq": Vendor("groq", ("GROQ_API_KEY",)),
    "mistral": Vendor("mistral", ("MISTRAL_API_KEY",)),
    "cohere": Vendor("cohere", ("COHERE_API_KEY", "CO_API_KEY")),
    "cohere_chat": Vendor("cohere", ("COHERE_API_KEY", "CO_API_KEY")),
    "perplexity": Vendor("perplexity", ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY")),
    "together_ai": Vendor("together", ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_API_KEY")),
    "ollama": Vendor("ollama", base_url="http://localhost:11434", is_private=True),
    "ollama_chat": Vendor("ollama", base_url="http://localhost:11434", is_private=True),
    "hosted_vllm": Vendor("vllm", needs_address=True, is_private=True),
    "lm_studio": Vendor("lmstudio", base_url="http://localhost:1234/v1", is_private=True),
    "llamafile": Vendor("openai", base_url="http://127.0.0.1:8080/v1", is_private=True),
    "openrouter": _compatible("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "deepseek": _compatible("https://api.deepseek.com", "DEEPSEEK_API_KEY"),
    "xai": _compatible("https://api.x.ai/v1", "XAI_API_KEY"),
    "fireworks_ai": _compatible("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"),
    "deepinfra": _compatible("https://api.deepinfra.com/v1/openai", "DEEPINFRA_API_KEY"),
    "nvidia_nim": _compatible("https://integrate.api.nvidia.com/v1", "NVIDIA_NIM_API_KEY"),
    "cerebras": _compatible("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "sambanova": _compatible("https://api.sambanova.ai/v1", "SAMBANOVA_API_KEY"),
    "ai21": _compatible("https://api.ai21.com/studio/v1", "AI21_API_KEY"),
    "ai21_chat": _compatible("https://api.ai21.com/studio/v1", "AI21_API_KEY"),
    "moonshot": _compatible("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "dashscope": _compatible("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
    "zai": _compatible("https://api.z.ai/api/paas/v4", "ZAI_API_KEY"),
    "minimax": _compatible("https://api.minimax.io/v1", "MINIMAX_API_KEY"),
    "volcengine": _compatible("https://ark.cn-beijing.volces.com/api/v3", "VOLCENGINE_API_KEY"),
    "novita": _compatible("https://api.novita.ai/v3/openai", "NOVITA_API_KEY"),
    "hyperbolic": _compatible("https://api.hyperbolic.xyz/v1", "HYPERBOLIC_API_KEY"),
    "nebius": _compatible("https://api.studio.nebius.ai/v1", "NEBIUS_API_KEY"),
    "featherless_ai": _compatible("https://api.featherless.ai/v1", "FEATHERLESS_AI_API_KEY"),
    "friendliai": _compatible("https://api.friendli.ai/serverless/v1", "FRIENDLIAI_API_KEY", "FRIENDLI_TOKEN"),
    "github": _compatible("https://models.inference.ai.azure.com", "GITHUB_API_KEY"),
    "meta_llama": _compatible("https://api.llama.com/compat/v1", "LLAMA_API_KEY"),
    "lambda_ai": _compatible("https://api.lambda.ai/v1", "LAMBDA_API_KEY"),
    "nscale": _compatible("https://inference.api.nscale.com/v1", "NSCALE_API_KEY"),
    "vercel_ai_gateway": _compatible("https://ai-gateway.vercel.sh/v1", "VERCEL_AI_GATEWAY_API_KEY"),
    "codestral": _compatible("https://codestral.mistral.ai/v1", "CODESTRAL_API_KEY"),
    "huggingface": _compatible("https://router.huggingface.co/v1", "HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "jina_ai": _compatible("https://api.jina.ai/v1", "JINA_AI_API_KEY"),
    "voyage": _compatible("https://api.voyageai.com/v1", "VOYAGE_API_KEY"),
    "baseten": _compatible("https://inference.baseten.co/v1", "BASETEN_API_KEY"),
    "aiml": _compatible("https://api.aimlapi.com/v1", "AIML_API_KEY"),
    "anyscale": _compatible("https://api.endpoints.anyscale.com/v1", "ANYSCALE_API_KEY"),
    "empower": _compatible("https://app.empower.dev/api/v1", "EMPOWER_API_KEY"),
    "galadriel": _compatible("https://api.galadriel.com/v1", "GALADRIEL_API_KEY"),
    "litellm_proxy": Vendor("openai", ("LITELLM_PROXY_API_KEY",), needs_address=True),
    "xinference": _SERVER,
    "infinity": _SERVER,
    "openai_like": _SERVER,
    "custom_openai": _SERVER,
    "aiohttp_openai": _SERVER,
    "custom": _SERVER,
}
NATIVE = ("openai", "anthropic", "gemini", "groq", "mistral", "cohere", "perplexity", "together_ai")

# Vendors that cannot be called with a key and OpenAI's or their own public API.
_SIGNED = "its requests are signed with AWS credentials, which this proxy does not do"
_GOOGLE = "it needs a Google Cloud access token; the same Gemini models answer as gemini/<model> with GEMINI_API_KEY"
_OWN_API = "its API is its own, and this proxy does not speak it"
_ACCOUNT = "it signs in with a person's account, which this proxy does not do"
UNSUPPORTED = {
    "bedrock": _SIGNED,
    "bedrock_converse": _SIGNED,
    "sagemaker": _SIGNED,
    "sagemaker_chat": _SIGNED,
    "vertex_ai": _GOOGLE,
    "vertex_ai_beta": _GOOGLE,
    "github_copilot": _ACCOUNT,
    "chatgpt": _ACCOUNT,
    "auto_router": "`auto` picks a model here, by the rules and tasks of routing_rules.yaml",
    "text-completion-openai": "it is the old completion API of a server, not its chat API",
    "text-completion-codestral": "it is a completion API, not a chat API",
} | dict.fromkeys(
    (
        *(
            "replicate",
            "watsonx",
            "watsonx_text",
            "petals",
            "palm",
            "nlp_cloud",
            "aleph_alpha",
            "oobabooga",
            "clarifai",
        ),
        *("predibase", "triton", "snowflake", "oci", "sap", "maritalk", "gigachat", "azure_text", "vllm", "bytez"),
        *("deepgram", "elevenlabs", "assemblyai", "topaz", "recraft", "runwayml", "fal_ai", "stability"),
    ),
    _OWN_API,
)

# Models without a vendor prefix -> their vendor, by name.
_BARE = (
    (re.compile(r"(gpt-|o[1-9](-|$)|chatgpt-|text-embedding-|ft:gpt|codex-|omni-moderation)"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "vertex_ai"),
    (re.compile(r"(command|embed-|rerank-|c4ai-)"), "cohere"),
)

# Keys for servers that check none.
PLACEHOLDERS = re.compile(
    r"(sk-)?(none|null|empty|dummy|fake|any|anything|x+|test|no-?key|not-?needed|not-?required|unused|ignored?|na|n/a"
    r"|ollama|lm-?studio|vllm|local|localhost|no-?api-?key(-required)?|placeholder|key|1234|123|0+)?([-_]?key)?",
    re.IGNORECASE,
)


def vendor_of_bare(model: str) -> str | None:
    """The vendor of a model id without one, as LiteLLM guesses it."""
    return next((vendor for pattern, vendor in _BARE if pattern.match(model)), None)


def host_of(url: str) -> str:
    """Host and port of an address, for a provider's name."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""
