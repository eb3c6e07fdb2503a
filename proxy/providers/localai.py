"""Translates: the dialect of LocalAI."""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.base.errors import ErrorRules
from proxy.providers.compatible.selfhosted import SelfHosted


class LocalAI(SelfHosted, frozen=True, kw_only=True):
    type: ClassVar[str] = "localai"
    base: ClassVar[str | None] = "http://localhost:8080/v1"
    error_rules: ClassVar[ErrorRules] = ErrorRules(
        statuses={422: 400}, phrases=((500, "could not load model", 404, "model_not_found"),)
    )
