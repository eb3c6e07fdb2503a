"""Translates: a chat request -> Facts, what rules and strategies may know about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any, Protocol

from msgspec import Struct, structs

from proxy.metering import tokens
from proxy.routing.classify import TASKS as CLASSIFIED
from proxy.routing.classify import Classifier
from proxy.routing.content import content_needs
from proxy.routing.conversation import Conversation, conversation_of, question_of
from proxy.routing.settings import AUTO_STRATEGIES, SESSION_KEYS, TASKS
from proxy.schema.chat import text_of
from proxy.schema.endpoints import AnyRequest
from proxy.schema.json import encode

LONG_CONTEXT_TOKENS = 100_000
WINDOW = 2_000  # characters at each end of a text; the middle of a longer one is not read
_END, _SPREAD = 250, 100  # of a long text the first 250 characters, the last 250 and about 100 between identify it
SESSION_HEADERS = ("x-session-id", "x-claude-code-session-id")
MIDDLE = 0.5  # the difficulty of a request that was not judged
_WITH_TASK = ("found with the task",)
_NOT_READ = ("no rule for this task looks at it",)


class KeptFacts(Struct, frozen=True, kw_only=True):
    """The facts that the row of a call keeps, so that it can be decided again (`stored_facts`).

    `is_task_named`: the client named the task (a hint, or `auto:<task>`); `task_confidence` is then 1. `headers`: only
    those that rules name, lower case. `fallback` and `no_fallback` are the client's hints. `budget_spent`: the share of
    the caller's budget, 0 to 1; None: it has none.
    """

    task: str = "chat"
    is_task_named: bool = False
    task_confidence: float = 1.0
    difficulty: float = MIDDLE
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
    fallback: tuple[str, ...] | None = None
    no_fallback: bool = False
    budget_spent: float | None = None
    metadata: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    tags: tuple[str, ...] = ()


class Facts(KeptFacts, frozen=True, kw_only=True):
    """Everything that decides a route, apart from the configuration and the state of the deployments.

    `requested`: the name that the client sent. `task_evidence`: that of a classified text only in an explanation, see
    `with_evidence`. `text`: the window of the last text that a person wrote, lower case;
    empty if no rule uses it.
    """

    requested: str = "auto"
    task_evidence: tuple[str, ...] = ()
    difficulty_evidence: tuple[str, ...] = ()
    key: str | None = None
    session: str = ""
    text: str = ""


class Classified(Protocol):
    """A classifier's result for a conversation."""

    @property
    def task(self) -> str: ...

    @property
    def confidence(self) -> float: ...

    @property
    def difficulty(self) -> float: ...

    @property
    def language(self) -> str: ...


class Unclassified(Struct, frozen=True):
    """The result without a classifier."""

    task: str = "chat"
    confidence: float = 0.0
    difficulty: float = MIDDLE
    language: str = "und"


class RequestClassifier(Protocol):
    """Classifies requests by their texts."""

    def classify(self, request: AnyRequest) -> Classified: ...

    def difficulty(self, request: AnyRequest) -> tuple[float, str]:
        """The difficulty alone, for a request whose task is known, and the evidence."""
        ...

    def evidence(self, request: AnyRequest) -> tuple[str, ...]:
        """Why `classify` finds that task."""
        ...


class NoClassifier:
    """The classifier of a server that has none."""

    def classify(self, request: AnyRequest) -> Classified:
        return Unclassified()

    def difficulty(self, request: AnyRequest) -> tuple[float, str]:
        return MIDDLE, "there is no classifier"

    def evidence(self, request: AnyRequest) -> tuple[str, ...]:
        return ()


class TextClassifier:
    """Classifies requests with `classifier`."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    def classify(self, request: AnyRequest) -> Classified:
        return self._classifier.classify(_conversation(request))

    def difficulty(self, request: AnyRequest) -> tuple[float, str]:
        return self._classifier.difficulty(question_of(request.messages))

    def evidence(self, request: AnyRequest) -> tuple[str, ...]:
        return self._classifier.evidence(_conversation(request))


def _conversation(request: AnyRequest) -> Conversation:
    wants_schema = _wants_schema(request.fields.get("response_format"))
    return conversation_of(request.messages, bool(request.fields.get("tools")), wants_schema)


def _wants_schema(response_format: object) -> bool:
    return isinstance(response_format, dict) and response_format.get("type") == "json_schema"


class Reading(Struct, frozen=True):
    """How facts are read. A classified task below `min_confidence` counts as chat. `headers`, `reads_text` and
    `hard_tasks` (those whose difficulty matters): what the rules use. `session_by`: what identifies a conversation,
    in order.
    """

    classifier: RequestClassifier = NoClassifier()
    min_confidence: float = 0.4
    headers: frozenset[str] = frozenset()
    reads_text: bool = False
    hard_tasks: frozenset[str] = frozenset()
    session_by: tuple[str, ...] = SESSION_KEYS


def facts_of(request: AnyRequest, name: str, key: str | None, headers: Mapping[str, str], reading: Reading) -> Facts:
    """The facts of a request to `name`: `auto` or one of its variants, with aliases resolved. `key`: the caller's."""
    hints, fields = request.hints, request.fields
    media = {part.needs for part in content_needs(request)}
    tools = fields.get("tools")
    own_tools, searches = _tools(tools) if tools else (False, False)
    needs_search = searches or fields.get("web_search_options") is not None
    size = tokens.estimate_prompt(request) + (len(encode(tools)) // 4 if tools else 0)
    task, confidence, evidence, judged = _task(request, name, reading)
    difficulty, why = _difficulty(request, task, judged, reading)
    if judged is not None and (shape := _shape(size, "images" in media, needs_search)) is not None:
        task, confidence, evidence = shape[0], 1.0, (shape[1],)
    metadata = fields.get("metadata")
    return Facts(
        requested=request.model,
        task=task,
        is_task_named=judged is None,
        task_confidence=confidence,
        task_evidence=evidence,
        difficulty=difficulty,
        difficulty_evidence=why,
        language="und" if judged is None else judged.language,
        input_tokens_estimate=size,
        output_tokens_limit=request.output_limit(None),
        has_images="images" in media,
        has_audio="audio" in media,
        has_video="video" in media,
        has_files="files" in media,
        has_tools=own_tools,
        has_json_schema=_wants_schema(fields.get("response_format")),
        needs_web_search=needs_search or task == "web_search",
        priority=hints.priority or "normal",
        latency_critical=hints.latency_critical or False,
        accuracy_critical=hints.accuracy_critical or False,
        budget_mode=hints.budget_mode or False,
        preferred_model=hints.preferred_model,
        strategy=hints.strategy or AUTO_STRATEGIES.get(name.removeprefix("auto:")),
        fallback=hints.fallback,
        no_fallback=hints.no_fallback,
        metadata=_texts(metadata) if isinstance(metadata, dict) else {},
        headers={each: headers[each] for each in reading.headers if each in headers} if reading.headers else {},
        key=key,
        tags=hints.tags,
        session=session_of(request, key, headers, reading.session_by),
        text=_window(_last_said(request)).lower() if reading.reads_text else "",
    )


def with_evidence(facts: Facts, request: AnyRequest, reading: Reading) -> Facts:
    """The facts, with the evidence for a task found in the text. It decides nothing, so no call collects it."""
    if facts.is_task_named or facts.task not in CLASSIFIED:
        return facts
    return structs.replace(facts, task_evidence=(*reading.classifier.evidence(request), *facts.task_evidence))


def _task(request: AnyRequest, name: str, reading: Reading) -> tuple[str, float, tuple[str, ...], Classified | None]:
    """Task, confidence, evidence, and the classification (None if the client named the task: then no text is
    classified).
    """
    if request.hints.task is not None:
        return request.hints.task, 1.0, ("the hint task",), None
    if (named := name.removeprefix("auto:")) in TASKS:
        return named, 1.0, (f"the name {name}",), None
    found = reading.classifier.classify(request)
    if found.confidence < reading.min_confidence:
        low = f"{found.task} at {found.confidence:.2f}, below min_confidence {reading.min_confidence:g}"
        return "chat", found.confidence, (low,), found
    return found.task, found.confidence, (), found


def _difficulty(
    request: AnyRequest, task: str, judged: Classified | None, reading: Reading
) -> tuple[float, tuple[str, ...]]:
    """The difficulty, and the evidence. For a task that the client named, it is judged only if a rule uses it."""
    if judged is not None:
        return judged.difficulty, _WITH_TASK
    if task not in reading.hard_tasks:
        return MIDDLE, _NOT_READ
    found, evidence = reading.classifier.difficulty(request)
    return found, (evidence,)


def _shape(size: int, has_images: bool, needs_search: bool) -> tuple[str, str] | None:
    """The task that the form of a request implies, and the evidence."""
    if size > LONG_CONTEXT_TOKENS:
        return "long_context", f"about {size} input tokens, over {LONG_CONTEXT_TOKENS}"
    if has_images:
        return "vision", "an image"
    return ("web_search", "it asks for a web search") if needs_search else None


def _tools(tools: Any) -> tuple[bool, bool]:
    """Whether there are tools other than a web search, and whether there is a web search."""
    kinds = [tool.get("type") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    searches = [isinstance(kind, str) and kind.startswith("web_search") for kind in kinds]
    return not all(searches), any(searches)


def _texts(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if isinstance(value, str)}


# --- sessions ---------------------------------------------------------------------------------------------------------


def session_of(request: AnyRequest, key: str | None, headers: Mapping[str, str], by: Iterable[str]) -> str:
    """The conversation that a request belongs to: a hash, the same on every worker; empty if nothing identifies it.

    It covers the caller's key: two callers never share a conversation.
    """
    for source in by:
        if parts := _IDENTIFY[source](request, headers):
            text = "\0".join((source, key or "", *parts))
            return blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()
    return ""


def _field(name: str) -> Callable[[AnyRequest, Mapping[str, str]], tuple[str, ...]]:
    def read(request: AnyRequest, headers: Mapping[str, str]) -> tuple[str, ...]:
        value = request.fields.get(name)
        return (value,) if isinstance(value, str) and value else ()

    return read


def _header(request: AnyRequest, headers: Mapping[str, str]) -> tuple[str, ...]:
    return next(((headers[name],) for name in SESSION_HEADERS if headers.get(name)), ())


def _fingerprint(request: AnyRequest, headers: Mapping[str, str]) -> tuple[str, ...]:
    """The first system message and the first user message, with which all turns of a conversation begin."""
    first: dict[str, str] = {}
    for message in request.messages:
        role = "system" if message.role == "developer" else message.role
        if role in ("system", "user") and role not in first:
            first[role] = text_of(message.content)
            if role == "user":
                break
    return tuple([f"{role}:{len(text)}:{_extract(text)}" for role, text in first.items()])


def _extract(text: str) -> str:
    """A short text itself, else its ends and characters spread over it."""
    if len(text) <= 2 * _END:
        return text
    return f"{text[:_END]}\n{text[-_END:]}\n{text[:: len(text) // _SPREAD]}"


_IDENTIFY: dict[str, Callable[[AnyRequest, Mapping[str, str]], tuple[str, ...]]] = {
    "prompt_cache_key": _field("prompt_cache_key"),
    "session": _header,
    "user": _field("user"),
    "fingerprint": _fingerprint,
}


def _last_said(request: AnyRequest) -> str:
    """The last text that a person wrote; tool results do not count."""
    said = (text_of(message.content) for message in reversed(request.messages) if message.role == "user")
    return next((text for text in said if text), "")


def _window(text: str) -> str:
    """The first and the last WINDOW characters: however long the text, the work is bounded."""
    return text if len(text) <= 2 * WINDOW else f"{text[:WINDOW]}\n{text[-WINDOW:]}"
