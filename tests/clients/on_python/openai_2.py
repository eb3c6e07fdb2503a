# client: openai 2 (Python); environment: openai-2; checks: openai_3.py; wires: openai native anthropic
# set: `OpenAI(base_url="URL/v1", api_key=KEY)`
"""OpenAI's Python SDK, the major version before."""
