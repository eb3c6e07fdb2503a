"""Translates: the body of any chat endpoint into the stored prompt that it uses."""

from __future__ import annotations

from typing import Any

from proxy.prompts.uses import FIELD, name_of, use_of
from proxy.schema.prompts import PREFIX, PromptUse


def taken(fields: dict[str, Any], own: str = "messages") -> tuple[dict[str, Any], PromptUse | None]:
    """The fields without the stored prompt, and the prompt. `own`: the field of the client's own messages, which may be
    missing then, as the model may. Nearly all requests have none: their fields are returned unchanged.

    Raises BadRequest, which names the field.
    """
    model = fields.get("model")
    if FIELD not in fields and not (isinstance(model, str) and model.startswith(PREFIX)):
        return fields, None
    use = use_of(fields.get(FIELD), model)
    rest = {name: value for name, value in fields.items() if name != FIELD}
    if use is None:
        return rest, None
    if use.leaves_model:
        rest["model"] = name_of(use)
    if not rest.get(own):
        rest[own] = []
    return rest, use
