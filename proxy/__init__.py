"""multi-model-proxy: one OpenAI-compatible endpoint in front of every provider, with every request metered."""

__version__ = "0.1.0"
