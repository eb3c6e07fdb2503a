"""Translates: the application's routes into an OpenAPI 3.1 document, and serves it.

The routes come from the running application, so none can be missing; `DESCRIBED` documents them. Types alone would say
little: handlers return encoded bytes, and the routes that call models are plain ASGI.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from litestar import Response, get
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.routes import ASGIRoute, BaseRoute, HTTPRoute

from proxy import __version__
from proxy.ensembles.report import EnsembleReport
from proxy.schema.chat import ChatChunk, ChatResponse
from proxy.schema.ensembles import StoredRating
from proxy.schema.json import encode
from proxy.schema.records import Tokens
from proxy.schema.usage import Service, Usage, UsageReport
from proxy.server.api.admin import PlanBody
from proxy.server.api.aliases import AT_AZURE, ENDPOINTS
from proxy.server.api.answers import NO_STORE
from proxy.server.api.described import CSV, JSON, Described
from proxy.server.api.experiment_operations import EXPERIMENTS
from proxy.server.api.operation_shapes import (
    HealthAnswer,
    MessageAnswer,
    PlanAnswer,
    Readiness,
    ReloadAnswer,
    TokenCount,
)
from proxy.server.api.outcome_queries import REPORT, FeedbackBody
from proxy.server.api.prompt_operations import PROMPTS
from proxy.server.api.queries import REQUESTS, USAGE
from proxy.server.api.shapes import (
    CompletionAnswer,
    EmbeddingsAnswer,
    ErrorAnswer,
    ExplainAnswer,
    ModelCard,
    ModelList,
    RequestAnswer,
    RequestList,
    RerankAnswer,
    ResponseAnswer,
    ResponseEvent,
    UsageAnswer,
)
from proxy.server.api.site_operations import SITE_TEMPLATES
from proxy.server.formats.chat import KNOWN_FIELDS, ChatBody
from proxy.server.formats.completions import CompletionBody
from proxy.server.formats.embeddings import EmbeddingsBody
from proxy.server.formats.messages.request import MessagesBody
from proxy.server.formats.rerank import RerankBody
from proxy.server.formats.responses.request import ResponsesBody

PATH = "/schema/openapi.json"
ROLES = ("none", "key", "admin")
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}


# --- descriptions of the routes ---------------------------------------------------------------------------------------


_CHAT_HEADERS = {
    "x-request-id": "The call's id; its rows in the database carry it.",
    "x-proxy-model": "The deployment that answered, `provider/model`.",
    "x-proxy-provider": "Its provider.",
    "x-proxy-rule": "The rule that chose the model, if one did.",
    "x-proxy-strategy": "The strategy that ranked the candidates, if one did.",
    "x-proxy-attempts": "How many requests to providers it took.",
    "x-proxy-config": "The version of the configuration that the call ran on: 12 hex digits.",
    "x-proxy-site": "The site and the task of a site template, if the request names one.",
    "x-proxy-dropped-params": "Parameters that were dropped because the provider does not support them.",
    "x-proxy-adapted-params": "Parameters that were sent in another form.",
    "x-proxy-cost-usd": "The cost of the call in US dollars; whole answers only, and only if the price is known.",
    "x-ratelimit-limit-requests": "The key's limit per minute, if it has one; `-tokens` likewise.",
    "x-ratelimit-remaining-requests": "The remaining part of the limit; `-tokens` likewise.",
    "x-ratelimit-reset-requests": "Time until the limit is fully available again, like 8.64s; `-tokens` likewise.",
    "idempotent-replayed": "`true`: the answer was bought before, by a request with the same key or by its first try.",
    "x-proxy-cache": "Where the exact cache was asked for: `hit`, `miss`, or `bypass` with an Idempotency-Key.",
    "x-proxy-replay-of": "The call whose answer this is, if that was bought before.",
    "x-proxy-lost-call": "An earlier call with this Idempotency-Key, whose process died.",
    "x-proxy-kept": "`false`: the answer is too large to be kept for its Idempotency-Key.",
    "x-proxy-overhead-ms": "Milliseconds in the proxy itself, without waits for providers; whole answers only.",
}
_CHAT_ERRORS = (400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 502, 503, 504)
_NOT_STORED = Described("404: no Response is stored here.", {}, errors=(401, 404, 429, 503))


_NO_STREAM = object()  # None: a stream without a schema


def _model_call(summary: str, body: Any, answer: Any, stream: Any = _NO_STREAM) -> Described:
    """An endpoint that calls a model."""
    contents = {JSON: answer} if stream is _NO_STREAM else {JSON: answer, "text/event-stream": stream}
    return Described(summary, {"200": contents}, body=body, headers=_CHAT_HEADERS, errors=_CHAT_ERRORS)


_READY: dict[str, dict[str, Any]] = {"200": {JSON: Readiness}, "503": {JSON: Readiness}}
# By method and path without /v1. Other routes are described by their docstrings, with an untyped JSON answer.
DESCRIBED: dict[tuple[str, str], Described] = {
    ("POST", "/chat/completions"): _model_call(
        "A chat completion, whole or as a stream of events that ends with `data: [DONE]`.",
        ChatBody,
        ChatResponse,
        stream=ChatChunk,
    ),
    ("POST", "/completions"): _model_call(
        "A completion of each prompt, whole or as a stream of events that ends with `data: [DONE]`.",
        CompletionBody,
        CompletionAnswer,
        stream=CompletionAnswer,
    ),
    ("POST", "/messages"): _model_call(
        "A message in Anthropic's shape, whole or as a stream of named events that ends with `message_stop`.",
        MessagesBody,
        MessageAnswer,
        stream=None,
    ),
    ("POST", "/messages/count_tokens"): Described(
        "How many tokens the prompt of a message has: Anthropic's own count, for others an estimate. Free.",
        {"200": {JSON: TokenCount}},
        body=MessagesBody,
        errors=(400, 401, 403, 404, 413, 415, 503),
    ),
    ("POST", "/responses"): _model_call(
        "A Response, whole or as a stream of named events. Nothing is stored.",
        ResponsesBody,
        ResponseAnswer,
        stream=ResponseEvent,
    ),
    ("POST", "/embeddings"): _model_call(
        "Embedding vectors of texts, as numbers or as base64 of little-endian float32.",
        EmbeddingsBody,
        EmbeddingsAnswer,
    ),
    ("POST", "/rerank"): _model_call("Documents ranked by relevance to a query.", RerankBody, RerankAnswer),
    ("POST", "/v2/rerank"): _model_call(
        "The same exactly as Cohere's second API answers, for its SDK: without model and usage.",
        RerankBody,
        RerankAnswer,
    ),
    ("GET", "/responses/{response_id}"): _NOT_STORED,
    ("DELETE", "/responses/{response_id}"): _NOT_STORED,
    ("POST", "/responses/{response_id}"): Described(
        "404: OpenAI's `compact` and `input_tokens` are not here.", {}, errors=(401, 404, 429, 503)
    ),
    ("GET", "/responses/{response_id}/input_items"): _NOT_STORED,
    ("GET", "/models"): Described("Every model name that can be called.", {"200": {JSON: ModelList}}, errors=(401,)),
    ("GET", "/models/{model_id}"): Described(
        "One model; its id may contain slashes.", {"200": {JSON: ModelCard}}, errors=(401, 404, 503)
    ),
    ("GET", "/usage"): Described(
        "Usage and cost of the caller's own calls; of all calls for an admin.",
        {"200": {JSON: UsageAnswer, CSV: None}},
        query=USAGE,
        errors=(400, 401, 429, 503),
    ),
    ("GET", "/requests"): Described(
        "The caller's own calls, all calls for an admin: newest first, page by page.",
        {"200": {JSON: RequestList, CSV: None}},
        query=REQUESTS,
        headers={"x-next-cursor": "Of CSV: the cursor of the next page, if there is one."},
        errors=(400, 401, 429, 503),
    ),
    ("GET", "/requests/{request_id}"): Described(
        "One of the caller's own calls, any call for an admin: its decision and its attempts.",
        {"200": {JSON: RequestAnswer}},
        errors=(401, 404, 429, 503),
    ),
    ("POST", "/route/explain"): Described(
        "How a chat request with this body would be routed, and why. Nothing is called or spent.",
        {"200": {JSON: ExplainAnswer}},
        body=ChatBody,
        headers={"x-proxy-config": "The version of the configuration that decided: 12 hex digits."},
        errors=(400, 401, 403, 404, 413, 415, 503),
    ),
    ("POST", "/feedback"): Described(
        "Rates the answer of one of the caller's own calls, of any call for an admin. Returns what is stored.",
        {"200": {JSON: StoredRating}},
        body=FeedbackBody,
        errors=(400, 401, 404, 409, 413, 415, 429, 503),
    ),
    ("GET", "/ensembles/{name}/report"): Described(
        "Is the ensemble worth it? From the caller's own calls; from all calls for an admin.",
        {"200": {JSON: EnsembleReport}},
        query=REPORT,
        errors=(400, 401, 404, 429, 503),
    ),
    ("GET", "/livez"): Described("Is the process alive?", {"200": {JSON: Readiness}}),
    ("GET", "/readyz"): Described("Can the server take calls?", _READY),
    ("GET", "/health"): Described(
        "The server and its parts.", {"200": {JSON: HealthAnswer}, "503": {JSON: HealthAnswer}}
    ),
    ("GET", "/metrics"): Described(
        "Counters for Prometheus.",
        {"200": {"text/plain": None, "application/openmetrics-text": None}},
        errors=(401, 403),
    ),
    ("POST", "/admin/reload"): Described(
        "Reloads both configuration files; 409 if they are invalid, and nothing has changed.",
        {"200": {JSON: ReloadAnswer}, "409": {JSON: ReloadAnswer}},
        errors=(401, 403),
    ),
    ("POST", "/admin/config/plan"): Described(
        "What another configuration would change for the last calls: models, cost per day, capabilities, rules.",
        {"200": {JSON: PlanAnswer}},
        body=PlanBody,
        errors=(400, 401, 403, 409, 429, 503),
    ),
    **PROMPTS,
    **EXPERIMENTS,
    **SITE_TEMPLATES,
    ("GET", PATH): Described("This document.", {"200": {JSON: None}}),
}
_ASGI_METHODS = dict.fromkeys(
    ("/chat/completions", "/responses", "/messages", "/completions", "/embeddings", "/rerank", "/v2/rerank"), "POST"
)
_PREFIX = re.compile(r"/(?:v1|openai/deployments/\{model\})(?=/)")  # of paths that are one endpoint


def openapi_route(routes: Callable[[], Iterable[BaseRoute]]) -> HTTPRouteHandler:
    """`GET /schema/openapi.json`. `routes` is called at the first request, when all routes are registered."""
    made: list[bytes] = []

    @get(PATH, sync_to_thread=False, role="none")
    def openapi() -> Response[bytes]:
        """This document."""
        if not made:
            made.append(encode(document(routes())))
        return Response(made[0], media_type=JSON, headers=NO_STORE)

    return openapi


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for path, method, handler in operations(routes):
        paths.setdefault(path, {})[method.lower()] = _operation(path, method, handler)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "multi-model-proxy",
            "version": __version__,
            "description": "One OpenAI-compatible endpoint in front of every model. Every path is also served behind "
            "`/openai`, as Groq's SDK asks for it, and behind a doubled `/v1`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(), "securitySchemes": _SCHEMES},
    }


def operations(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str, BaseRouteHandler]]:
    """Path, method and handler of every operation, and its alias at Azure; except HEAD and OPTIONS."""
    for route in routes:
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        if path.startswith("/dashboard"):  # pages are for people
            continue
        if isinstance(route, HTTPRoute):
            for method, handler in route.route_handler_map.items():
                if method not in ("HEAD", "OPTIONS"):
                    yield path, method, handler[0] if isinstance(handler, tuple) else handler
        elif isinstance(route, ASGIRoute):
            yield path, _ASGI_METHODS.get(_endpoint(path), "GET"), route.route_handler
            if path in ENDPOINTS:
                yield f"{AT_AZURE}{path}", "POST", route.route_handler


def _endpoint(path: str) -> str:
    """The path by which an endpoint is described."""
    return _PREFIX.sub("", path, count=1) if _PREFIX.match(path) else path


def _operation(path: str, method: str, handler: BaseRouteHandler) -> dict[str, Any]:
    role = handler.opt.get("role")
    said = DESCRIBED.get((method, _endpoint(path))) or _by_docstring(handler)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", path)
    ] + [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in said.query.items()
    ]
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{path}").strip("_"),
        "summary": said.summary,
        "x-role": role,
        "security": [] if role == "none" else [{name: []} for name in _SCHEMES],
        "responses": _responses(said),
    }
    if parameters:
        operation["parameters"] = parameters
    if said.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": _reference(said.body)}}}
    return operation


def _by_docstring(handler: BaseRouteHandler) -> Described:
    text = (handler.fn.__doc__ or handler.handler_name).strip()
    return Described(" ".join(text.split()), {"200": {JSON: None}}, errors=(400, 401, 403, 404, 500))


def _responses(said: Described) -> dict[str, Any]:
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in said.headers.items()}
    found: dict[str, Any] = {}
    for status, contents in said.answers.items():
        content = {media: {"schema": _reference(type_)} if type_ else {} for media, type_ in contents.items()}
        answer: dict[str, Any] = {"description": "The answer." if status < "300" else "Not now.", "content": content}
        found[status] = answer | ({"headers": headers} if headers else {})
    for status_code in said.errors:
        content = {JSON: {"schema": _reference(ErrorAnswer)}}
        found.setdefault(str(status_code), {"description": "An error.", "content": content})
    return found


def _reference(type_: Any) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{type_.__name__}"}


def _schemas() -> dict[str, Any]:
    types: list[Any] = [ErrorAnswer, Usage]
    for said in DESCRIBED.values():
        types += [said.body, *(type_ for contents in said.answers.values() for type_ in contents.values())]
    wanted = {type_.__name__: type_ for type_ in types if type_ is not None}
    _, schemas = msgspec.json.schema_components(wanted.values(), ref_template="#/components/schemas/{name}")
    for answer in (ChatResponse, ChatChunk):  # inside the proxy their usage also says what is billed
        schemas[answer.__name__]["properties"]["usage"] = {"anyOf": [_reference(Usage), {"type": "null"}]}
    del schemas[UsageReport.__name__], schemas[Tokens.__name__], schemas[Service.__name__]
    body = schemas[ChatBody.__name__]
    body["description"] = "OpenAI's request. Fields unknown to the proxy are forwarded to OpenAI-compatible providers."
    for name in sorted(KNOWN_FIELDS - body["properties"].keys()):
        body["properties"][name] = {}
    return schemas
