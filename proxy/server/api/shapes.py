"""Values: the shapes of the API's answers, for the OpenAPI document; chat's are in `proxy.schema.chat`."""

from __future__ import annotations

from typing import Any, TypedDict

from proxy.schema.ensembles import StoredRating
from proxy.schema.usage import Usage


class ErrorFields(TypedDict, total=False):
    message: str
    type: str
    param: str | None
    code: str | None
    metadata: dict[str, Any]


class ErrorAnswer(TypedDict):
    error: ErrorFields


class CompletionChoice(TypedDict, total=False):
    text: str
    index: int
    logprobs: None
    finish_reason: str | None
    reasoning_content: str


class CompletionAnswer(TypedDict, total=False):
    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None


class InputUsage(TypedDict, total=False):
    prompt_tokens: int
    total_tokens: int
    cost: float | None
    cost_details: dict[str, float]


class Embedding(TypedDict):
    object: str
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(TypedDict):
    id: str
    object: str
    data: list[Embedding]
    model: str
    usage: InputUsage


class RerankResult(TypedDict, total=False):
    index: int
    relevance_score: float
    document: dict[str, str]


class RerankAnswer(TypedDict, total=False):
    id: str
    model: str
    results: list[RerankResult]
    meta: dict[str, Any]
    usage: InputUsage


class ModelCard(TypedDict, total=False):
    id: str
    object: str
    created: int
    owned_by: str
    resolves_to: str
    pricing: dict[str, float | None] | None
    context_length: int
    max_output_tokens: int
    capabilities: list[str]
    shutdown_date: str


class ModelList(TypedDict):
    object: str
    data: list[ModelCard]


class UsageSums(TypedDict, total=False):
    model: str | None
    provider: str | None
    key: str | None
    rule: str | None
    task: str | None
    strategy: str | None
    ensemble: str | None
    prompt: str | None
    experiment: str | None
    variant: str | None
    tag: str | None
    session: str | None
    agent: str | None
    hour: str
    day: str
    calls: int
    successes: int
    errors: int
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_usd: float | None
    charged_usd: float | None
    unpriced_calls: int
    fallbacks: int
    replays: int
    avg_latency_ms: float | None
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    p50_first_token_ms: float | None
    savings_usd: float | None


class UsageAnswer(TypedDict):
    since: str | None
    until: str | None
    total: UsageSums
    groups: list[UsageSums]
    budget: dict[str, Any] | None


class LoggedRequest(TypedDict):
    id: str
    timestamp: str
    key_id: str | None
    requested_model: str
    model: str | None
    provider: str | None
    stream: bool
    task_type: str | None
    outcome: str
    status: int | None
    error_code: str | None
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_usd: float | None
    charged_usd: float | None
    estimated: bool
    latency_ms: float | None
    first_token_ms: float | None
    attempts: int
    fallback: bool
    success: bool
    step: str | None
    rule: str | None
    strategy: str | None
    ensemble: str | None
    prompt: str | None
    prompt_version: int | None
    prompt_label: str | None
    experiment: str | None
    variant: str | None
    tags: list[str]
    session: str | None
    agent: str | None
    parent_agent: str | None


class RequestList(TypedDict):
    object: str
    data: list[LoggedRequest]
    has_more: bool
    next_cursor: str | None


class AttemptNode(TypedDict, total=False):
    """An attempt; or, with `attempts`, a group of one attempt and those it caused."""

    id: str
    parent: str | None
    seat: int
    model: str
    outcome: str
    status: int | None
    code: str | None
    message: str | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usage_source: str | None
    cost_usd: float | None
    duration_ms: float | None
    first_token_ms: float | None
    upstream_request_id: str | None
    price_version: str | None
    attempts: list[AttemptNode]


class DecisionAnswer(TypedDict):
    step: str | None
    rule: str | None
    strategy: str | None
    facts: dict[str, Any] | None
    snapshot: str | None
    candidates: list[CandidateAnswer]
    not_allowed: int


class RequestAnswer(TypedDict):
    id: str
    timestamp: str
    key_id: str | None
    requested_model: str
    model: str | None
    provider: str | None
    stream: bool
    task_type: str | None
    config_version: str
    outcome: str
    status: int | None
    error_code: str | None
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    estimated: bool
    latency_ms: float | None
    first_token_ms: float | None
    fallback: bool
    success: bool
    cost_usd: float | None
    charged_usd: float | None
    prompt: str | None
    prompt_version: int | None
    prompt_label: str | None
    experiment: str | None
    variant: str | None
    tags: list[str]
    session: str | None
    agent: str | None
    parent_agent: str | None
    dropped: list[str]
    replay_of: str | None
    decision: DecisionAnswer
    attempts: list[AttemptNode]
    feedback: list[StoredRating]
    text: dict[str, Any] | None


class CostRange(TypedDict):
    low: float | None
    high: float | None


class RuleTried(TypedDict):
    name: str
    matched: bool
    why: str


class CandidateAnswer(TypedDict, total=False):
    model: str
    order: int | None
    rejected: str | None
    estimated_cost_usd: CostRange | None
    warm_tokens: int
    rests: str


class ExplainAnswer(TypedDict):
    requested: str
    facts: dict[str, Any]
    step: str
    rule: str | None
    strategy: str | None
    rules: list[RuleTried]
    candidates: list[CandidateAnswer]
    not_allowed: int
    chosen: str | None
    fallbacks: list[str]
    estimated_cost_usd: CostRange
    budget: dict[str, Any] | None
    snapshot: str


class ResponseAnswer(TypedDict, total=False):
    """A Response, with the cost in its usage."""

    id: str
    object: str
    created_at: int
    completed_at: int | None
    status: str
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    store: bool
    tool_choice: Any
    tools: list[dict[str, Any]]
    usage: dict[str, Any] | None


class ResponseEvent(TypedDict, total=False):
    """One named event of a streamed Response; the other fields depend on its type."""

    type: str
    sequence_number: int
