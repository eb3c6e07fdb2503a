"""Values: the sections `router`, `models`, `rules` and `tasks` of routing_rules.yaml."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, field

from proxy.schema.constraints import Count, Lifetime, NotBlank, NotNegative, Positive, one_of
from proxy.schema.hints import PRIORITIES

TASKS = (
    "reasoning",
    "extraction",
    "classification",
    "summarization",
    "code",
    "chat",
    "long_context",
    "vision",
    "web_search",
)
DEFAULT_TASK = "default"  # the entry under `tasks` for every task without one of its own
STRATEGIES = ("task_based", "cost_optimized", "speed_optimized", "quality_optimized")
AUTO_STRATEGIES = {"cost": "cost_optimized", "speed": "speed_optimized", "quality": "quality_optimized"}
SESSION_KEYS = ("prompt_cache_key", "session", "user", "fingerprint")
_CODES = """
    af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu hy id it ja ka km kn ko lt lv mk ml mr my ne nl no
    pa pl pt ro ru sk sl so sq sv sw ta te th tl tr uk und ur vi zh
"""
LANGUAGES = tuple(_CODES.split())  # those that the classifier distinguishes; "und": it found none
Share = Annotated[float, Meta(ge=0, le=1)]
Task = Annotated[str, one_of(*TASKS)]
Strategy = Annotated[str, one_of(*STRATEGIES)]
Priority = Annotated[str, one_of(*PRIORITIES)]


class Breaker(Struct, frozen=True, forbid_unknown_fields=True):
    """`failures` of the last 6 * `failures` attempts open it for `open_s` seconds, doubled each time up to
    `max_open_s`.
    """

    failures: Count = 5
    open_s: Positive = 30
    max_open_s: Positive = 300


class Sticky(Struct, frozen=True, forbid_unknown_fields=True):
    """How a conversation is recognised, for how many idle seconds it stays where it is warm, and when it moves:
    if the other deployment costs less than `max_switch_cost_ratio` of what the warm one costs.
    """

    by: list[Annotated[str, one_of(*SESSION_KEYS)]] = field(default_factory=lambda: list(SESSION_KEYS))
    ttl_s: Lifetime = 600
    max_switch_cost_ratio: NotNegative = 1.0


class Hedge(Struct, frozen=True, forbid_unknown_fields=True):
    """A second candidate starts if no first token came within `after`: `p95` of the first deployment, or seconds."""

    enabled: bool = False
    after: Annotated[str, one_of("p95")] | Positive = "p95"
    max_extra_cost_ratio: NotNegative = 0.1


class RouterConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Section `router`. `enabled` false: `auto` is the default model, whatever the request says."""

    enabled: bool = True
    default_model: str | None = None
    strategy: Strategy = "task_based"
    min_confidence: Share = 0.4
    fallback: list[str] = []
    auto_retry: bool = True
    max_retries: Annotated[int, Meta(ge=0, le=10)] = 3
    deadline_s: Positive = 900
    retry_delay_s: Positive = 2
    retry_budget: Share = 0.2
    breaker: Breaker = Breaker()
    sticky: Sticky = Sticky()
    retry_after_timeout: bool = False
    join_retries: bool = False
    hedge: Hedge = Hedge()
    exploration: Share = 0.0


class ModelEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One name under `models:`. `weighted` maps names to shares; `use` and `weighted` exclude each other.

    `cache_s`: how long an answer is reused for equal requests of its caller. `cache` replaces the providers' `cache`
    for requests to this name.
    """

    use: str | None = None
    fallback: list[str] = []
    context_fallback: list[str] = []
    content_fallback: list[str] = []
    weighted: dict[str, Positive] | None = None
    cache_s: Lifetime | None = None
    cache: Annotated[str, one_of("auto", "off")] | None = None


class When(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename={"not_": "not"}):
    """The conditions of a rule. All that are given must hold; a list holds if any of its values does."""

    task: Task | list[Task] | None = None
    priority: Priority | list[Priority] | None = None
    language: NotBlank | list[NotBlank] | None = None
    has_images: bool | None = None
    has_audio: bool | None = None
    has_video: bool | None = None
    has_files: bool | None = None
    has_tools: bool | None = None
    has_json_schema: bool | None = None
    needs_web_search: bool | None = None
    latency_critical: bool | None = None
    accuracy_critical: bool | None = None
    budget_mode: bool | None = None
    budget_spent_over: Share | None = None
    difficulty_over: Share | None = None
    difficulty_under: Share | None = None
    input_tokens_over: NotNegative | None = None
    input_tokens_under: Positive | None = None
    text_matches: NotBlank | list[NotBlank] | None = None
    metadata: dict[str, NotBlank | list[NotBlank]] | None = None
    header: dict[str, NotBlank | list[NotBlank]] | None = None
    key: NotBlank | list[NotBlank] | None = None
    tag: NotBlank | list[NotBlank] | None = None
    any: list[When] | None = None
    not_: When | None = None


class Among(Struct, frozen=True, forbid_unknown_fields=True):
    """`use` of a rule: the best of these names by a strategy, or an ensemble. With `prefer: reliable_tools` those
    with the fewest broken tool calls come first.
    """

    strategy: Strategy | None = None
    among: list[NotBlank] | None = None
    prefer: Annotated[str, one_of("reliable_tools")] | None = None
    ensemble: NotBlank | None = None

    def __post_init__(self) -> None:
        if self.ensemble is None and (self.strategy is None or self.among is None):
            raise ValueError("needs strategy and among, or ensemble")
        if self.ensemble is not None and (self.strategy, self.among, self.prefer) != (None, None, None):
            raise ValueError("has ensemble and other keys; keep ensemble alone")


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `rules`. `use` is a name, a fallback order, the best of several names, or an ensemble."""

    name: NotBlank
    when: When
    use: NotBlank | list[NotBlank] | Among
