"""Translates: OpenAI's own dialect, with the rules of its models (facts checked in November 2026)."""

from __future__ import annotations

from typing import ClassVar

from proxy.providers.base.images import ImageRule
from proxy.providers.compatible import Compatible
from proxy.providers.compatible.request import Draft
from proxy.providers.openai.images import IMAGE_RULES
from proxy.providers.openai.rules import obey, rules_of
from proxy.schema.constraints import Variable

_MAX_STOPS = 4


class OpenAI(Compatible, frozen=True, kw_only=True):
    """api.openai.com and every server that speaks its chat API, by `type: openai` and `base_url`."""

    organization_env: Variable | None = None

    type: ClassVar[str] = "openai"
    image_rules: ClassVar[tuple[ImageRule, ...]] = IMAGE_RULES
    audio_tokens_per_s: ClassVar[int | None] = 10
    base: ClassVar[str | None] = "https://api.openai.com/v1"
    key_env: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    catalogue: ClassVar[str | None] = "openai"
    embeddings_batch: ClassVar[int | None] = 2048

    @property
    def header_variables(self) -> dict[str, str]:
        return {"openai-organization": self.organization_env} if self.organization_env else {}

    def shape(self, draft: Draft) -> None:
        """OpenAI refuses unknown fields in messages, and some models refuse parameters that others accept. Servers at
        another address get the client's fields unchanged: some read, and some need, fields of earlier answers.
        """
        rules = rules_of(draft.model)
        if rules is not None:
            obey(draft, rules)
        if rules is not None or self.base_url is None:
            draft.strip_echoes(keep=("annotations",))
            draft.refuse_parts(("video_url",))
            draft.refuse_parts(("image_url", "input_audio", "file"), roles=("system", "developer", "assistant", "tool"))
        elif self.reasoning_back is not None:
            draft.give_back_reasoning(self.reasoning_back)
        draft.cap_stops(_MAX_STOPS)
