"""multi-model-proxy: one OpenAI-compatible endpoint in front of every provider, metered from the first request."""

__version__ = "0.1.0"
