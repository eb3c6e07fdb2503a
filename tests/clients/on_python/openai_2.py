# client: openai 2 (Python); environment: openai-2; checks: openai_3.py; wires: openai responses anthropic
"""OpenAI's Python SDK, the major version before."""
