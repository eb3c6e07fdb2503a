"""Translates: calls and attempts into attributes of spans and metrics, named by the GenAI semantic conventions.

No text of prompts or answers. Metrics only have values that the configuration names, and fixed words: clients
cannot increase the number of series.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as ai
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes

from proxy.pipeline.attempt import Attempt
from proxy.pipeline.call import Call
from proxy.providers.base.contract import Provider
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.endpoints import AnyRequest
from proxy.schema.records import NANO_PER_USD, CallEnd, Endpoint, Outcome
from proxy.schema.rerank import RerankRequest
from proxy.server.metrics import labels_of

Value = str | int | float | bool
Attributes = dict[str, Value]

MAX_TEXT = 256  # characters of text that a client or a vendor chose
_INT64 = range(-(2**63), 2**63)
_NUMBERS = {
    "temperature": ai.GEN_AI_REQUEST_TEMPERATURE,
    "top_p": ai.GEN_AI_REQUEST_TOP_P,
    "top_k": ai.GEN_AI_REQUEST_TOP_K,
    "frequency_penalty": ai.GEN_AI_REQUEST_FREQUENCY_PENALTY,
    "presence_penalty": ai.GEN_AI_REQUEST_PRESENCE_PENALTY,
    "seed": ai.GEN_AI_REQUEST_SEED,
}


class Where(Struct, frozen=True):
    """Facts of one configuration: the `provider/model` names that it knows, and each provider's attributes."""

    configured: frozenset[str] = frozenset()
    providers: dict[str, Attributes] = {}


def provider_attributes(name: str, provider: Provider, endpoint: Endpoint) -> Attributes:
    """The vendor and its address. An OpenAI-shaped server elsewhere has the name of its section."""
    is_other = provider.is_generic and provider.base_url is not None
    found: Attributes = {ai.GEN_AI_PROVIDER_NAME: name if is_other else provider.telemetry_name or provider.type}
    address = urlsplit(endpoint.base_url)
    if address.hostname:
        found[server_attributes.SERVER_ADDRESS] = address.hostname
        found[server_attributes.SERVER_PORT] = address.port or (443 if address.scheme == "https" else 80)
    return found


def shown(text: str) -> str:
    """Text that can be sent: one bad string would lose its whole batch."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode()


def operation(request: AnyRequest) -> str:
    if isinstance(request, EmbeddingsRequest):
        return ai.GenAiOperationNameValues.EMBEDDINGS.value
    return "rerank" if isinstance(request, RerankRequest) else ai.GenAiOperationNameValues.CHAT.value


def call_span(call: Call, end: CallEnd) -> Attributes:
    """The server's span. `mmproxy.cost_usd` is missing if a price is unknown."""
    request, fields = call.request, call.request.fields
    found: Attributes = {
        ai.GEN_AI_OPERATION_NAME: operation(request),
        ai.GEN_AI_REQUEST_MODEL: shown(request.model),
        ai.GEN_AI_REQUEST_STREAM: request.stream,
        http_attributes.HTTP_RESPONSE_STATUS_CODE: end.status,
        "mmproxy.request_id": call.id,
        "mmproxy.outcome": str(end.outcome),
        "mmproxy.attempts": len(call.attempts),
    }
    for field, name in _NUMBERS.items():
        value = fields.get(field)
        if isinstance(value, float) or (isinstance(value, int) and value in _INT64 and not isinstance(value, bool)):
            found[name] = value
    if (limit := request.output_limit(0)) and limit in _INT64:
        found[ai.GEN_AI_REQUEST_MAX_TOKENS] = limit
    if call.attempts:
        found[ai.GEN_AI_RESPONSE_MODEL] = shown(call.shown_model)
        found |= _tokens([attempt for attempt in call.attempts if attempt.ended])
        if (cost := call.cost_usd()) is not None:
            found["mmproxy.cost_usd"] = cost
    for name, said in (
        (ai.GEN_AI_CONVERSATION_ID, call.labels.session),
        ("mmproxy.key", call.caller.key_id),
        ("mmproxy.rule", call.decided.rule),
        ("mmproxy.strategy", call.decided.strategy),
        ("mmproxy.ensemble", call.decided.ensemble),
        ("mmproxy.downgraded_from", end.downgraded_from),
        (error_attributes.ERROR_TYPE, _error(end.error_code, end.outcome)),
    ):
        if said is not None:
            found[name] = shown(said)
    if end.first_token_ms is not None:
        found["mmproxy.first_token_ms"] = end.first_token_ms
    return found


def attempt_span(call: Call, attempt: Attempt, where: Where) -> Attributes:
    """The span of one request to a provider. The attempt has ended."""
    ended, deployment = attempt.ended, attempt.deployment
    assert ended is not None
    found: Attributes = {
        ai.GEN_AI_OPERATION_NAME: operation(call.request),
        ai.GEN_AI_REQUEST_MODEL: shown(deployment.model),
        ai.GEN_AI_RESPONSE_MODEL: shown(ended.notes.answered_model or deployment.model),
        **where.providers.get(deployment.provider_name, {}),
        **_tokens([attempt]),
        "mmproxy.provider": deployment.provider_name,
        "mmproxy.attempt": attempt.seq,
        "mmproxy.outcome": str(ended.outcome),
        "mmproxy.usage_source": ended.usage_source,
    }
    if ended.status is not None:
        found[http_attributes.HTTP_RESPONSE_STATUS_CODE] = ended.status
    if ended.cost_nano is not None:
        found["mmproxy.cost_usd"] = ended.cost_nano / NANO_PER_USD
    if (first_ms := attempt.own_first_token_ms) is not None:
        found[ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = first_ms / 1000
    if (error := _error(ended.error_code, ended.outcome)) is not None:
        found[error_attributes.ERROR_TYPE] = shown(error)
    return found


def measured(call: Call, attempt: Attempt, where: Where) -> Attributes:
    """The attributes for metrics of one attempt's duration and usage."""
    provider, model = labels_of(where.configured, attempt.deployment.name)
    found: Attributes = {
        ai.GEN_AI_OPERATION_NAME: operation(call.request),
        ai.GEN_AI_REQUEST_MODEL: model,
        ai.GEN_AI_RESPONSE_MODEL: model,
        **where.providers.get(provider, {}),
    }
    if attempt.ended is not None and (answered := attempt.ended.notes.answered_model) is not None:
        found[ai.GEN_AI_RESPONSE_MODEL] = labels_of(where.configured, f"{provider}/{answered}")[1]
    return found


def failure(outcome: Outcome, status: int | None) -> Mapping[str, Value]:
    """The attribute for metrics with the kind of an error; empty if there was none."""
    if _error(None, outcome) is None:
        return {}
    return {error_attributes.ERROR_TYPE: str(status) if status is not None and status >= 400 else str(outcome)}


def _error(code: str | None, outcome: Outcome) -> str | None:
    """The error's type; None if there was none, or if the client or a faster answer ended the attempt."""
    if outcome in (Outcome.OK, Outcome.CLIENT_CLOSED, Outcome.CANCELLED):
        return None
    return code or str(outcome)


def _tokens(attempts: list[Attempt]) -> Attributes:
    """The conventions count cached tokens as input, and reasoning as output."""
    tokens = [attempt.ended.tokens for attempt in attempts if attempt.ended is not None]
    found: Attributes = {
        ai.GEN_AI_USAGE_INPUT_TOKENS: sum(each.prompt for each in tokens),
        ai.GEN_AI_USAGE_OUTPUT_TOKENS: sum(each.output for each in tokens),
    }
    for name, count in (
        (ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, sum(each.cache_read for each in tokens)),
        (ai.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS, sum(each.cache_write for each in tokens)),
        (ai.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS, sum(each.reasoning for each in tokens)),
    ):
        if count:
            found[name] = count
    return found
