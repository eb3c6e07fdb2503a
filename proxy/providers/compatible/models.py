"""Translates: the answer of an OpenAI-shaped server to `GET /models` into model ids."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from proxy.providers.base.contract import HTTPResponse
from proxy.schema.errors import UpstreamError

MAX_IDS = 5_000
_MAX_ID = 200  # characters


class _Model(Struct):
    id: Any = None


class _Page(Struct):
    """The answer. Ollama without a model sends `"data": null`."""

    data: list[_Model] | None


# Together answers with the bare list (November 2026).
_decode = msgspec.json.Decoder(_Page | list[_Model]).decode


def parse_models(response: HTTPResponse) -> tuple[str, ...]:
    """Unique ids in the server's order, at most MAX_IDS. Values that cannot be an id are skipped. Raises UpstreamError
    if the answer is not a list of models.
    """
    try:
        answer = _decode(response.body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise UpstreamError("The provider's answer is not a list of models.") from None
    models = answer.data or [] if isinstance(answer, _Page) else answer
    ids = dict.fromkeys(model.id for model in models if isinstance(model.id, str) and _is_id(model.id))
    return tuple(ids)[:MAX_IDS]


def _is_id(text: str) -> bool:
    return 0 < len(text) <= _MAX_ID and text.isprintable() and text.strip() == text
