"""Values: abilities of Cohere's models that decide about a request (its model pages, November 2026).

A model that is not named here is assumed to have them: if not, the vendor refuses.
"""

from __future__ import annotations

_TEXT_ONLY = ("command-r", "command-a-03-", "command-a-reasoning-", "command-a-translate-", "command-light")
_NO_REASONING = ("command-r", "command-a-03-", "command-a-vision-", "command-a-translate-", "command-light", "c4ai-")
_MAX_OUTPUT = {"command-r": 4096, "command-light": 4096, "command-a-03-": 8192, "command-a-plus-": 64_000}


def refuses_images(model: str) -> bool:
    return model == "command" or model.startswith(_TEXT_ONLY)


def reasons(model: str) -> bool:
    return model != "command" and not model.startswith(_NO_REASONING)


def max_output(model: str) -> int | None:
    """The model's maximum output tokens. The vendor refuses a request for more, instead of giving what it can."""
    return next((most for prefix, most in _MAX_OUTPUT.items() if model.startswith(prefix)), None)
