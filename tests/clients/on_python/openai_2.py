# client: openai 2 (Python); environment: openai-2; checks: openai_3.py; wires: openai native anthropic
"""OpenAI's Python SDK, the major version before."""
