"""Translates: the contract of a provider. A provider is one vendor's dialect: values in, values out, no clock, no
socket.

A provider is a Struct whose fields are its keys in `routing_rules.yaml`; class variables hold the facts that all
instances share. `upstream` sends what `build_request` returns, adds `authorize(key)` and feeds the answer back.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Protocol, Self

from msgspec import Meta, Struct, field

from proxy.providers.base.images import ImageRule
from proxy.providers.base.native import changed_body, members_of
from proxy.schema.chat import ChatChunk, ChatRequest, ChatResponse, ResponseMessage, TextChunk
from proxy.schema.constraints import Count, NotBlank, Variable, one_of
from proxy.schema.embeddings import EmbeddingsRequest, EmbeddingsResponse
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.schema.json import encode_sized
from proxy.schema.records import JsonObject, LocalModelSpec, Timeouts
from proxy.schema.request import NativeBody
from proxy.schema.rerank import RerankRequest, RerankResponse
from proxy.schema.sse import Event, Events


class HTTPRequest(Struct, frozen=True):
    """One upstream request without origin and credentials: `upstream` joins `path` to the provider's base URL.

    Header names are lower case.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


def post_json(path: str, body: object, request: AnyRequest, headers: Mapping[str, str] | None = None) -> HTTPRequest:
    """A POST with a JSON body built from `request` that accepts JSON or an event stream. `headers`: additional ones."""
    accept = "text/event-stream" if request.stream else "application/json"
    data = encode_sized(body, request.size)
    return HTTPRequest("POST", path, {"content-type": "application/json", "accept": accept, **(headers or {})}, data)


class HTTPResponse(Struct, frozen=True):
    """A whole upstream answer; header names are lower case, the body is capped by `upstream`."""

    status: int
    headers: dict[str, str]
    body: bytes


class Built(Struct, frozen=True):
    """One upstream request, and how it differs from the client's.

    `dropped`: parameters that the vendor lacks, which are not sent. `adapted`: sent with another value, or by means
    that may differ in effect; a mere renaming is neither. `stops`: stop sequences that the vendor does not support, at
    which the answer is cut here. `unchecked_json`: the vendor does not enforce `response_format`, so the answer is
    checked here.
    """

    http: HTTPRequest
    dropped: list[str] = []
    adapted: list[str] = []
    stops: list[str] = []
    unchecked_json: bool = False


class Rotation(Struct, frozen=True, forbid_unknown_fields=True):
    """Several API keys, used in turn: the variables that hold them."""

    rotate: list[Variable]

    def __post_init__(self) -> None:
        if not self.rotate:
            raise ValueError("rotate must name at least one variable")
        twice = next((name for name in self.rotate if self.rotate.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"rotate names {twice} twice")


class ProviderLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """The vendor's limits for each API key; None: unknown."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None


class StreamDecoder(Protocol):
    """Turns the events of one stream into canonical chunks; holds the state of that stream only."""

    def feed(self, event: Event) -> list[ChatChunk]:
        """Chunks of one event. Raises UpstreamError for an error event inside a 200."""
        ...

    def texts(self, events: Events, at: int) -> TextChunk | None:
        """One chunk for the events from number `at` on, as far as each only adds text to the same choice. It has a
        piece for each of these, which are not fed then. None, or fewer than there are, is never wrong.
        """
        ...

    def close(self) -> list[ChatChunk]:
        """The stream ended. Raises UpstreamTruncated when no finish_reason arrived for every choice."""
        ...

    @property
    def finished(self) -> bool:
        """True once every choice has its finish_reason: only usage can follow."""
        ...

    @property
    def done(self) -> bool:
        """True once the vendor's end marker arrived (`[DONE]`): nothing follows, do not wait for the connection to
        close.
        """
        ...


class Provider(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One vendor dialect and the keys of its section under `providers:`. Subclasses override what their
    vendor supports.
    """

    enabled: bool = True
    api_key_env: Variable | list[Variable] | Rotation | None = None
    limits: ProviderLimits = ProviderLimits()
    base_url: NotBlank | None = None
    base_url_env: Variable | None = None
    headers: dict[str, str] = {}
    headers_env: dict[str, Variable] = {}
    proxy: NotBlank | None = None
    timeout_s: Timeouts = field(default_factory=Timeouts)
    models: dict[str, NotBlank] = {}
    parameters: dict[str, Any] = {}
    max_concurrent: Count | None = None
    allow_private: bool = False
    transport: Annotated[str, one_of("aiohttp", "httpx")] = "aiohttp"
    price: Annotated[str, one_of("free")] | None = None
    trust_cost: bool = False
    trace_context: bool = False
    ca_file: NotBlank | None = None
    retries: Annotated[int, Meta(ge=0, le=10)] = 2

    # The vendor's name: the value of `type` in routing_rules.yaml.
    type: ClassVar[str] = ""
    # The vendor's public API, used when `base_url` is not set.
    base: ClassVar[str | None] = None
    # The path of another API on the vendor's server, which this provider does not speak.
    other_api: ClassVar[str | None] = None
    # True: `base_url` may be any server that speaks this vendor's dialect.
    is_generic: ClassVar[bool] = False
    # Environment variables that may hold the key for the public API.
    key_env: ClassVar[tuple[str, ...]] = ()
    # The vendor's name in the price list of genai-prices; None: its prices are not listed.
    catalogue: ClassVar[str | None] = None
    # The vendor's name in OpenTelemetry's GenAI conventions; None: its type.
    telemetry_name: ClassVar[str | None] = None
    # Headers of every request, including those built elsewhere. The configuration and the request may override them.
    usual_headers: ClassVar[Mapping[str, str]] = MappingProxyType({})
    # Answer headers that may hold the vendor's id of a request, the most specific first.
    id_headers: ClassVar[tuple[str, ...]] = ("x-request-id", "cf-ray")
    # The result of `max_choices` for all models.
    choices_at_once: ClassVar[int | None] = None
    # How many inputs one embeddings call takes; None: any number.
    embeddings_batch: ClassVar[int | None] = None
    # True if tool calls of two conversations may have the same id, as with servers that count them or send none.
    counts_call_ids: ClassVar[bool] = False
    # Bounds of the tokens of images and of a second of audio; models that no rule names have no bound.
    image_rules: ClassVar[tuple[ImageRule, ...]] = ()
    audio_tokens_per_s: ClassVar[int | None] = None
    # The treatment of `max_tokens: -1` (no limit): `sent` unchanged, `left out` if that means the same; None: refused.
    no_limit: ClassVar[str | None] = None
    # True: every model searches, whatever the request asks for.
    searches_always: ClassVar[bool] = False

    @property
    def default_base_url(self) -> str | None:
        """Where requests go when `base_url` is not set."""
        return self.base

    @property
    def local_model(self) -> LocalModelSpec | None:
        """The model to run on this machine before the first request; None for everything that runs elsewhere."""
        return None

    @property
    def about(self) -> str | None:
        """A caveat about its answers, as one sentence; None: nothing to say."""
        return None

    @property
    def keyless(self) -> bool:
        """True if the server needs no key (self-hosted, embedded): a missing key does not disable it."""
        return not self.key_variables

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Environment variables that may hold the key. The first one that is set counts; in a rotation, every one.

        The vendor's public API needs a key. A custom base URL needs one only if the file says so.
        """
        if self.api_key_env is None:
            return self.key_env if self.base_url is None else ()
        if isinstance(self.api_key_env, str):
            return (self.api_key_env,)
        return tuple(self.api_key_env.rotate if isinstance(self.api_key_env, Rotation) else self.api_key_env)

    @property
    def rotates(self) -> bool:
        """True if every key that is set is used, not only the first."""
        return isinstance(self.api_key_env, Rotation)

    @property
    def header_variables(self) -> dict[str, str]:
        """Headers that belong to the origin -> the environment variable that holds their value."""
        return {}

    @property
    def free(self) -> bool:
        """True if calls cost nothing unless pricing.yaml says otherwise."""
        return self.allow_private or self.price == "free"

    def version_path(self, *versions: str) -> str:
        """The first of `versions` (`/v1`), or "" if the base URL already ends with one of them."""
        return "" if (self.base_url or "").partition("?")[0].rstrip("/").endswith(versions) else versions[0]

    @property
    def takes_no_limit(self) -> str | None:
        """`no_limit`, or what is known about the server at another address."""
        return self.no_limit

    def authorize(self, key: str) -> dict[str, str]:
        """Headers that carry the provider's key."""
        return {"authorization": f"Bearer {key}"}

    @property
    def models_path(self) -> str | None:
        """The path of a list of models in OpenAI's form; None if the price list is the source."""
        return None

    def build_request(self, request: ChatRequest, model: str) -> Built:
        """The request for the upstream model id `model`. Raises BadRequest for content that the vendor does not
        support.
        """
        raise TypeError(f"{type(self).__name__} does not build requests")

    @property
    def native_root(self) -> str:
        """The path between the base URL and the path of a `NativeBody`."""
        return ""

    def takes_native(self, native: NativeBody) -> bool:
        """True if a body in this wire shape goes to the provider unchanged."""
        return native.dialect == self.type

    def build_native(self, request: AnyRequest, native: NativeBody, model: str) -> Built:
        """A request in the vendor's own wire shape. The provider's `parameters` supply what the client left out."""
        given = members_of(native) if self.parameters else {}
        return self.built_native(
            native, model, {name: value for name, value in self.parameters.items() if name not in given}
        )

    def built_native(self, native: NativeBody, model: str, added: Mapping[str, Any]) -> Built:
        """The same bytes except for the model, `native.changes`, and `added`, which is reported."""
        headers = {"content-type": "application/json", **native.headers}
        body = changed_body(native, {"model": model, **native.changes, **added})
        return Built(
            HTTPRequest("POST", f"{self.native_root}{native.path}", headers, body), adapted=[*native.adapted, *added]
        )

    def native_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The headers to pass on with an answer in the vendor's own wire shape."""
        return {}

    def parse_response(self, response: HTTPResponse, request: ChatRequest | None = None) -> ChatResponse:
        """A whole 2xx answer to `request` in OpenAI's shape. Dialects that rename tools restore their names from
        `request`.

        Raises UpstreamError if the answer breaks the vendor's contract.
        """
        raise TypeError(f"{type(self).__name__} does not parse responses")

    def parse_error(self, response: HTTPResponse) -> UpstreamError:
        """A non-2xx answer as an error with OpenAI's status, type and code."""
        raise TypeError(f"{type(self).__name__} does not parse errors")

    def stream_decoder(self, request: ChatRequest) -> StreamDecoder:
        """A decoder for one streamed answer to `request`."""
        raise TypeError(f"{type(self).__name__} does not decode streams")

    @property
    def writes_cache(self) -> bool:
        """True if prompts are marked for the vendor's cache without a request for it."""
        return False

    def caching(self, mode: str) -> Self:
        """The same provider with its `cache` set, if the vendor caches marked prompts."""
        return self

    def max_choices(self, model: str) -> int | None:
        """The number of choices (`n`) that one call of this model can answer; None: no limit."""
        return self.choices_at_once

    def choices_per_call(self, request: AnyRequest, model: str) -> int | None:
        """As `max_choices`, for a vendor whose API choice depends on the request."""
        return self.max_choices(model)

    def by_other_api(self, request: AnyRequest, model: str) -> AnyRequest | None:
        """The same request for the vendor's other API. None: there is none for it, or it goes there already."""
        return None

    def least_output(self, request: AnyRequest, model: str) -> int:
        """The smallest output limit that the vendor accepts: a smaller one is raised to it, and costs as much."""
        return 1

    def reasoning_state(self, message: ResponseMessage) -> dict[str, JsonObject]:
        """Tool call id -> the state that the vendor needs back unchanged with that call on the next turn; {}: none."""
        return {}

    def build_embeddings(self, request: EmbeddingsRequest, model: str) -> Built:
        """As `build_request`, for `/v1/embeddings`."""
        raise self._lacks("embeddings", model)

    def parse_embeddings(self, response: HTTPResponse) -> EmbeddingsResponse:
        """As `parse_response`; vectors in the order of the inputs."""
        raise TypeError(f"{type(self).__name__} does not parse embeddings")

    def build_rerank(self, request: RerankRequest, model: str) -> Built:
        """As `build_request`, for `/v1/rerank`."""
        raise self._lacks("rerank", model)

    def parse_rerank(self, response: HTTPResponse) -> RerankResponse:
        """As `parse_response`, for `/v1/rerank`."""
        raise TypeError(f"{type(self).__name__} does not parse rankings")

    def _lacks(self, what: str, model: str) -> BadRequest:
        message = f"The provider of {model} has no {what}. Name a model of a provider that does."
        return BadRequest(message, param="model", code="unsupported_parameter")
