"""Translates: one entry of LiteLLM's `model_list` into a deployment: a model, and the link on which it is called."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from proxy.cli.import_parameters import parameters_of
from proxy.cli.import_prices import budget_of, row_of
from proxy.cli.import_source import ACTION, CHANGED, LOST, NOTE, Section, variable_of
from proxy.cli.import_vendors import PLACEHOLDERS, UNSUPPORTED, VENDORS, Vendor, host_of, vendor_of_bare
from proxy.config.addresses import wrong_header, wrong_header_name, wrong_url
from proxy.config.problems import looks_like_key, names_a_key, shown
from proxy.providers import PROVIDERS

SERVED = ("chat", "completion", "responses", "embedding", "embeddings", "rerank", "text")
_OTHER_USE = re.compile(
    r"whisper|(^|[/-])tts-|dall-e|gpt-image|transcribe|realtime|(^|/)sora|imagen|moderation|stable-diffusion|flux"
)
_MOST_RETRIES = 10
_LONGEST_NAME = 200
_AZURE_KEY, _AZURE_BASE = "AZURE_API_KEY", "AZURE_API_BASE"
_DATED = re.compile(r"20\d\d-\d\d-\d\d(-preview)?")


class Link(Struct, frozen=True):
    """The connection to a server, which becomes one provider. Equal links share one."""

    prefix: str
    type: str
    base_url: str | None = None
    base_url_env: str | None = None
    keys: tuple[str, ...] = ()
    rotates: bool = False
    allow_private: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    headers_env: tuple[tuple[str, str], ...] = ()
    organization_env: str | None = None
    timeouts: tuple[tuple[str, float], ...] = ()
    retries: int | None = None
    max_concurrent: int | None = None
    parameters: str = "{}"


class Deployment(Struct):
    """One entry of `model_list` that can be called. `limits`: requests and tokens a minute; `row`: of pricing.yaml."""

    group: str
    model: str
    link: Link
    source: Section
    weights: dict[str, float] = {}
    order: float = math.inf
    limits: tuple[float | None, float | None] = (None, None)
    row: dict[str, Any] = {}
    budget: dict[str, float] = {}

    @property
    def is_wildcard(self) -> bool:
        return "*" in self.model or "*" in self.group


class Defaults(Struct):
    """LiteLLM's settings that apply to every deployment."""

    timeout: float | None = None
    stream_timeout: float | None = None
    retries: float | None = None
    max_concurrent: float | None = None
    parameters: dict[str, Any] = {}
    credentials: dict[str, Section] = {}


class Secrets(Struct):
    """Names for keys that are in the file in plain text. `taken`: variables that the file refers to."""

    taken: set[str]
    names: dict[str, str] = field(default_factory=dict)

    def name_of(self, value: str, wanted: str) -> str:
        if value not in self.names:
            name, count = wanted, 1
            while name in self.taken:
                count += 1
                name = f"{wanted}_{count}"
            self.taken.add(name)
            self.names[value] = name
        return self.names[value]


def read_deployment(entry: Section, defaults: Defaults, secrets: Secrets) -> Deployment | None:
    """The deployment; None if it cannot be called here, with a finding that says why."""
    group, params = entry.text("model_name"), entry.section("litellm_params")
    info = entry.section("model_info")
    model = params.text("model") if params else None
    if group is None or params is None or model is None or model.endswith("/"):
        entry.about(LOST, "names no model_name or no litellm_params.model, so it is left out")
        return None
    if (where := variable_of(model)) is not None or "{{" in model:
        params.say(LOST, "model", f"is read from {where or 'a template'}; write the model's name, then import again")
        return None
    if looks_like_key(model):
        params.say(LOST, "model", "looks like a key, so it is left out")
        return None
    if not is_name(group):
        entry.say(LOST, "model_name", "cannot be a name here, so it is left out; auto and ensemble are reserved")
        return None
    _lend(params, defaults)
    mode = info.text("mode") if info else None
    if (mode is not None and mode not in SERVED) or (mode is None and _OTHER_USE.search(f"{model} {group}")):
        entry.about(
            LOST,
            f"{shown(group)}: this proxy has no endpoint for {shown(mode or '') or 'what ' + shown(model) + ' does'}",
        )
        return None
    if mode is not None and mode.startswith(("embedding", "rerank")):
        defaults = replace(defaults, parameters={})
    if model == "*":
        return Deployment(group, model, Link("openai", "openai"), params)
    named = params.text("custom_llm_provider")
    found = _Reading(params, defaults, secrets, named).link(model)
    if found is None:
        return None
    link, upstream = found
    row = row_of(params, info)
    made = Deployment(group, upstream, link, params, row=row)
    made.weights = {name: value for name in ("weight", "rpm", "tpm") if (value := params.number(name))}
    made.limits = (made.weights.get("rpm"), made.weights.get("tpm"))
    order = params.number("order")
    made.order = math.inf if order is None else order
    amount, period = params.number("max_budget"), params.text("budget_duration")
    if amount is not None:
        made.budget = budget_of(params, "budget_duration", amount, period)
    _finish(entry, params, info)
    return made


def is_name(name: str) -> bool:
    """True for a valid name under `models:` or `aliases:`."""
    is_reserved = name == "auto" or name.startswith(("auto:", "ensemble:"))
    return 1 <= len(name) <= _LONGEST_NAME and name.isprintable() and not is_reserved and not looks_like_key(name)


def _lend(params: Section, defaults: Defaults) -> None:
    """Copies the entries of a named credential."""
    name = params.text("litellm_credential_name")
    lent = defaults.credentials.get(name or "")
    if lent is not None:
        params.lend(lent)
    elif name is not None:
        params.say(LOST, "litellm_credential_name", f"credential_list has no {shown(name)}")


def _finish(entry: Section, params: Section, info: Section | None) -> None:
    """Reports the unread keys of an entry."""
    for name in ("drop_params", "use_litellm_proxy", "stream_options"):
        if name in params:
            params.say(NOTE, name, "not needed: the proxy always does so, and reports what it drops")
    params.rest()
    if info is not None:
        for name in info.names():
            if name.startswith("supports_"):
                info.read(name)
                info.about(NOTE, "capabilities are known from pricing.yaml; a row there can list them (`supports`)")
        info.read("id", "mode", "base_model", "db_model", "description", "version", "metadata")
        info.rest()
    entry.rest()


class _Reading:
    """Reads the link of one entry."""

    def __init__(self, params: Section, defaults: Defaults, secrets: Secrets, named: str | None) -> None:
        self.params, self.defaults, self.secrets, self.named = params, defaults, secrets, named

    def link(self, model: str) -> tuple[Link, str] | None:
        """The link, and the model's id at its server. None if it cannot be called here."""
        prefix, upstream = self._vendor(model)
        if prefix in ("azure", "azure_ai"):
            link = self._azure(prefix, upstream)
            return None if link is None else (link, upstream)
        if prefix in UNSUPPORTED or prefix is None:
            why = UNSUPPORTED.get(prefix or "", "no vendor stands before the model, and its name tells none")
            self.params.say(LOST, "model", f"{shown(model)} cannot be called: {why}")
            return None
        vendor = VENDORS.get(prefix)
        address = self.params.text("api_base") or self.params.text("base_url")
        self.params.read("api_base", "base_url", "api_version")
        if vendor is None:
            if address is None:
                why = f"{shown(prefix)} is not known here; a provider with type: openai and its base_url may call it"
                self.params.say(LOST, "model", why)
                return None
            self.params.say(CHANGED, "model", f"{shown(prefix)} is taken for a server that speaks OpenAI's API")
            vendor = Vendor("openai", needs_address=True)
        if vendor.needs_address and address is None:
            self.params.say(LOST, "model", f"{shown(prefix)} needs an api_base, so {shown(upstream)} is left out")
            return None
        if address is not None and host_of(address) == host_of(PROVIDERS[vendor.type].base or "https://none"):
            address = None  # the vendor's own address
        kept = address if address is not None else vendor.base_url
        base, base_env, is_private = self._address(kept, prefix, vendor)
        keys = self._keys(vendor, prefix, is_custom=address is not None, is_private=is_private)
        return self._rest(Link(prefix, vendor.type, base, base_env, keys, allow_private=is_private)), upstream

    def _vendor(self, model: str) -> tuple[str | None, str]:
        first, slash, rest = model.partition("/")
        if self.named is not None:
            return self.named, rest if slash and first == self.named else model
        if slash and (first in VENDORS or first in UNSUPPORTED or first in ("azure", "azure_ai")):
            return first, rest
        if (bare := vendor_of_bare(model)) is not None:
            return bare, model
        if "api_base" in self.params or "base_url" in self.params:
            self.params.say(CHANGED, "model", f"{shown(model)} is taken for a model of a server like OpenAI's")
            return "openai", model
        return (first, rest) if slash else (None, model)

    def _address(self, address: str | None, prefix: str, vendor: Vendor) -> tuple[str | None, str | None, bool]:
        """`base_url`, `base_url_env` and `allow_private`."""
        if address is None:
            return None, None, False
        if (variable := variable_of(address)) is not None:
            return None, variable, vendor.is_private
        if "://" not in address:
            address = f"http://{address}"
        if wrong_url(address, allow_private=True) or "$" in address or "{" in address or looks_like_key(address):
            variable = self.secrets.name_of(address, f"{_upper(prefix)}_BASE_URL")
            self.params.say(ACTION, "api_base", f"cannot stand in the file; set {variable} to the server's address")
            return None, variable, vendor.is_private
        return address.rstrip("/"), None, wrong_url(address, allow_private=False) is not None

    def _keys(self, vendor: Vendor, prefix: str, *, is_custom: bool, is_private: bool) -> tuple[str, ...]:
        value = self.params.read("api_key")
        wanted = vendor.keys[0] if vendor.keys and not is_custom else f"{_upper(prefix)}_API_KEY"
        if value is None:
            return () if is_private or vendor.is_private else vendor.keys
        if (variable := variable_of(value)) is not None:
            return (variable,)
        text = str(value).strip()
        if is_custom and PLACEHOLDERS.fullmatch(text):
            return ()
        name = self.secrets.name_of(text, wanted)
        self.params.say(ACTION, "api_key", f"a key in plain text is not copied; set {name} to it")
        return (name,)

    def _azure(self, prefix: str, deployment: str) -> Link | None:
        """Azure has an address for each deployment, and its key in a header of its own."""
        address, version = self.params.text("api_base"), self.params.text("api_version")
        self.params.read("base_url")
        base: str | None = None
        variable = variable_of(address) if address else _AZURE_BASE
        kind, key_header = "openai", "api-key"
        if prefix == "azure_ai" and deployment.startswith("claude") and address and variable is None:
            kind, key_header, base = "anthropic", "x-api-key", address.rstrip("/").removesuffix("/anthropic")
            base += "/anthropic"
        elif address and variable is None:
            base = _azure_url(address.rstrip("/"), prefix, deployment, version)
        else:
            name = f"{variable}_V1"
            self.secrets.taken.add(name)
            self.params.say(ACTION, "api_base", f"set {name} to the value of {variable}, followed by /openai/v1")
            variable = name
        if base is not None and (wrong_url(base, allow_private=True) is not None or looks_like_key(base)):
            self.params.say(LOST, "api_base", "is no usable address, so the deployment is left out")
            return None
        value = self.params.read("api_key")
        key = variable_of(value) if value else _AZURE_KEY
        if key is None:
            key = self.secrets.name_of(str(value).strip(), _AZURE_KEY)
            self.params.say(ACTION, "api_key", f"a key in plain text is not copied; set {key} to it")
        link = Link("azure", kind, base, None if base else variable, headers_env=((key_header, key),))
        return self._rest(link, ((key_header, key),))

    def _rest(self, link: Link, headers_env: tuple[tuple[str, str], ...] = ()) -> Link:
        """Adds headers, limits and parameters."""
        headers: dict[str, str] = {}
        secret = dict(headers_env)
        for key in ("headers", "extra_headers"):
            given = self.params.read(key)
            if given is not None and not isinstance(given, dict):
                self.params.say(LOST, key, "is not made of keys and values, so it is left out")
            for name, value in given.items() if isinstance(given, dict) else ():
                self._header(str(name), value, headers, secret)
        organization = self.params.text("organization")
        if organization is not None and link.type == "openai" and link.base_url is None:
            variable = variable_of(organization) or "OPENAI_ORG_ID"
            if variable_of(organization) is None:
                self.params.say(ACTION, "organization", f"is read from the environment here; set {variable} to it")
            organization = variable
        timeout = self.params.number("timeout") or self.params.number("request_timeout") or self.defaults.timeout
        stream = self.params.number("stream_timeout") or self.defaults.stream_timeout or timeout
        times = {"first_token": stream, "idle": stream, "total": timeout}
        retries = next(
            (n for name in ("max_retries", "num_retries") if (n := self.params.number(name)) is not None), None
        )
        retries = self.defaults.retries if retries is None else retries
        at_once = self.params.number("max_parallel_requests") or self.defaults.max_concurrent
        parameters = parameters_of(self.params, self.defaults.parameters)
        return Link(
            **{name: getattr(link, name) for name in ("prefix", "type", "base_url", "base_url_env", "keys")},
            allow_private=link.allow_private,
            headers=tuple(sorted(headers.items())),
            headers_env=tuple(sorted(secret.items())),
            organization_env=organization if link.type == "openai" else None,
            timeouts=tuple((name, seconds) for name, seconds in times.items() if seconds),
            retries=None if retries is None else min(int(retries), _MOST_RETRIES),
            max_concurrent=int(at_once) if at_once and at_once >= 1 else None,
            parameters=json.dumps(parameters, sort_keys=True, ensure_ascii=False),
        )

    def _header(self, name: str, value: Any, headers: dict[str, str], secret: dict[str, str]) -> None:
        if wrong_header_name(name) is not None or not isinstance(value, str | int | float):
            self.params.say(LOST, "extra_headers", f"the header {shown(name)} cannot be set")
        elif (variable := variable_of(value)) is not None:
            secret[name] = variable
        elif (
            names_a_key(name) or looks_like_key(str(value)) or "auth" in name.lower() or "bearer" in str(value).lower()
        ):
            secret[name] = self.secrets.name_of(f"{name}: {value}", f"{_upper(name)}_HEADER")
            self.params.say(ACTION, "extra_headers", f"a value in plain text is not copied; set {secret[name]} to it")
        elif wrong_header(name, str(value)) is None:
            headers[name] = str(value)
        else:
            self.params.say(LOST, "extra_headers", f"the value of {shown(name)} cannot be sent")


def _azure_url(address: str, prefix: str, deployment: str, version: str | None) -> str:
    """The address of one deployment; without a dated version that of Azure's API without versions."""
    if "/openai/" in f"{address}/" or prefix == "azure_ai":
        dated = version is not None and _DATED.fullmatch(version) and "/v1" not in address
        return f"{address.split('?')[0]}?api-version={version}" if dated else address.split("?")[0]
    if version is None or not _DATED.fullmatch(version):
        return f"{address}/openai/v1"
    return f"{address}/openai/deployments/{deployment}?api-version={version}"


def _upper(text: str) -> str:
    name = re.sub(r"\W+", "_", text).strip("_").upper()
    return name if name and not name[0].isdigit() else f"KEY_{name}"
