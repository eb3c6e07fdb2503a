"""Values: what rules and strategies may know about one request."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct


class Facts(Struct, frozen=True, kw_only=True):
    """Everything that decides a route, beside the configuration and the state of the deployments.

    `is_task_named`: the client named the task (a hint, or `auto:<task>`); `task_confidence` is then 1. `headers`: only
    those that rules name, lower case. `text`: the window of the conversation that `text_matches` looks at, lower case.
    `budget_spent`: the share of the caller's budget, 0 to 1; None: it has none.
    """

    task: str = "chat"
    is_task_named: bool = False
    task_confidence: float = 1.0
    task_evidence: tuple[str, ...] = ()
    difficulty: float = 0.5
    language: str = "und"
    input_tokens_estimate: int = 0
    output_tokens_limit: int | None = None
    has_images: bool = False
    has_audio: bool = False
    has_video: bool = False
    has_files: bool = False
    has_tools: bool = False
    has_json_schema: bool = False
    needs_web_search: bool = False
    priority: str = "normal"
    latency_critical: bool = False
    accuracy_critical: bool = False
    budget_mode: bool = False
    preferred_model: str | None = None
    strategy: str | None = None
    metadata: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    key: str | None = None
    tags: tuple[str, ...] = ()
    session: str = ""
    text: str = ""
    budget_spent: float | None = None
