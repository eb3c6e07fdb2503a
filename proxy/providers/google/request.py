"""Translates: an OpenAI chat request into one for `generateContent`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from proxy.providers.base.contract import Built, post_json
from proxy.providers.base.fields import LEVELS, Fields, stop_list
from proxy.providers.base.json_schema import SCHEMA_PATH, down_level
from proxy.providers.base.tidy import tidied
from proxy.providers.google.contents import Conversation
from proxy.providers.google.models import Traits, traits_of
from proxy.providers.google.own_parts import names_taken
from proxy.providers.google.tools import ANSWER_SCHEMA, names_of, tool_fields
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.schema.json import encode

MAX_STOPS = 5
MAX_SEED = 2**31 - 1
_TIERS = {"auto": "", "flex": "flex", "priority": "priority", "default": "standard", "standard": "standard"}
# Fields of the vendor's own API that pass through, by both of the names it reads.
_OPTIONS = (
    *("topK", "mediaResolution", "speechConfig", "imageConfig", "responseModalities", "audioTimestamp"),
    *("responseFormat", "enableEnhancedCivicAnswers", "translationConfig", "audioTranscriptionConfig"),
    *("modelSelectionConfig", "enableAffectiveDialog", "thinkingConfig"),
)
_OWN = ("safetySettings", "cachedContent", "continuationToken")
_BLOCK = (*_OPTIONS, *_OWN, "generationConfig", "toolConfig", "serviceTier")
_GENERATION = {
    *(*_OPTIONS, "temperature", "topP", "candidateCount", "maxOutputTokens", "stopSequences", "seed", "logprobs"),
    *("presencePenalty", "frequencyPenalty", "responseMimeType", "responseSchema", "responseJsonSchema"),
    "responseLogprobs",
}


class _Format(Struct):
    """`config` if the vendor enforces JSON, else an `instruction` that asks for it."""

    config: dict[str, Any] = {}
    instruction: str | None = None


def build_chat(request: ChatRequest, model: str, defaults: Mapping[str, Any], path: str) -> Built:
    """The request. Raises BadRequest for content that the model does not support, and for invalid values."""
    traits = traits_of(model)
    request = tidied(request, names_of(request, defaults))
    fields = Fields(_flat(request.fields), defaults)
    for name in ("model", "messages", "stream", "stream_options", "n"):
        fields.take(name)
    tools = tool_fields(fields, traits)
    conversation = Conversation(request, traits, fields, names_taken(tools))
    config, stops = _generation(request, traits, fields)
    asked = _format(fields, traits, bool(tools.get("tools")))
    config |= asked.config | _native(request, fields)
    system = [*conversation.system, *([{"text": asked.instruction}] if asked.instruction else [])]
    body: dict[str, Any] = {"systemInstruction": {"parts": system}} if system else {}
    body |= {"contents": conversation.contents, **tools}
    if config:
        body["generationConfig"] = config
    for name in _OWN:
        value = fields.take(name, _snake(name))
        if value is not None:
            body[name] = value
    if tier := fields.tier(_TIERS, "serviceTier"):
        body["serviceTier"] = tier
    if request.fields.get("store") is False:
        fields.take("store")  # the vendor stores nothing
    http = post_json(path, body, request)
    return Built(http, fields.rest(), fields.adapted, stops, unchecked_json=asked.instruction is not None)


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """Moves the fields of `extra_body.google` to the top level, as the vendor's OpenAI-compatible endpoint does.

    OpenAI's own fields are not read from there: they would be neither checked nor included in the price bound.
    """
    inner = given.get("extra_body")
    body = inner if isinstance(inner, Mapping) else {}
    blocks = [each for each in (given.get("google"), body.get("google")) if isinstance(each, Mapping)]
    if not blocks:
        return dict(given)
    own = {name for each in _BLOCK for name in (each, _snake(each))}
    told = {name if name in own else f"google.{name}": value for block in blocks for name, value in block.items()}
    told |= {f"extra_body.{name}": value for name, value in body.items() if name != "google"}
    return {**{name: value for name, value in given.items() if name not in ("extra_body", "google")}, **told}


def _generation(request: ChatRequest, traits: Traits, fields: Fields) -> tuple[dict[str, Any], list[str]]:
    """`generationConfig` except JSON, and the stop sequences beyond the vendor's maximum."""
    config: dict[str, Any] = {}
    limit = fields.limit(request)
    if limit is not None:
        config["maxOutputTokens"] = limit
    if request.n > 1:
        config["candidateCount"] = request.n
    for name, ours in (("temperature", "temperature"), ("top_p", "topP")):
        value = fields.take(name)
        if value is not None and traits.takes_sampling:
            config[ours] = value
        elif value is not None:
            fields.drop(name)
    for name, ours in (("presence_penalty", "presencePenalty"), ("frequency_penalty", "frequencyPenalty")):
        value = fields.take(name)
        if value and traits.takes_penalties:
            config[ours] = value
        elif value:
            fields.drop(name)
    stops = stop_list(fields.take("stop"))
    if stops:
        config["stopSequences"] = stops[:MAX_STOPS]
    seed = fields.take("seed")
    if isinstance(seed, int):
        config["seed"] = seed if abs(seed) <= MAX_SEED else seed % MAX_SEED
        if config["seed"] != seed:
            fields.adapt("seed")
    _logprobs(fields, config)
    _modalities(fields, config)
    _thinking(fields, traits, config)
    return config, stops[MAX_STOPS:]


def _logprobs(fields: Fields, config: dict[str, Any]) -> None:
    wanted, most = fields.take("logprobs"), fields.take("top_logprobs")
    if wanted is True:
        config["responseLogprobs"] = True
        if isinstance(most, int) and most > 0:
            config["logprobs"] = most
    elif most:
        fields.drop("top_logprobs")


def _modalities(fields: Fields, config: dict[str, Any]) -> None:
    """Only modalities beyond text are sent. A voice must be one of the vendor's; it always answers PCM."""
    modalities, audio = fields.take("modalities"), fields.take("audio")
    if isinstance(modalities, list) and modalities != ["text"]:
        config["responseModalities"] = [str(name).upper() for name in modalities]
    if not isinstance(audio, dict):
        return
    if audio.get("format") is not None:
        fields.drop("audio.format")
    if isinstance(audio.get("voice"), str):
        config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": audio["voice"]}}}


def _thinking(fields: Fields, traits: Traits, config: dict[str, Any]) -> None:
    """The vendor's own `thinkingConfig` takes precedence over the effort: both at once are a 400."""
    effort = fields.take("reasoning_effort")
    native = fields.take("thinkingConfig", "thinking_config")
    if isinstance(native, dict):
        config["thinkingConfig"] = native
        if effort is not None:
            fields.drop("reasoning_effort")
        return
    if effort is None:
        return
    if effort not in LEVELS:
        known = ", ".join(LEVELS)
        raise BadRequest(f"reasoning_effort: expected one of {known}.", param="reasoning_effort")
    thinking, exact = traits.thinking(effort)
    if thinking is not None:
        config["thinkingConfig"] = thinking
        if not exact:
            fields.adapt("reasoning_effort")
    elif not exact:
        fields.drop("reasoning_effort")


def _format(fields: Fields, traits: Traits, with_tools: bool) -> _Format:
    wanted = fields.take("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return _Format()
    if kind not in ("json_object", "json_schema"):
        raise BadRequest("response_format: expected text, json_object or json_schema.", param="response_format.type")
    given = wanted.get("json_schema") if kind == "json_schema" else None
    schema = given.get("schema") if isinstance(given, dict) else None
    if with_tools and not traits.joins_tools:
        fields.adapt("response_format")
        return _Format(instruction=_instruction(schema))
    config: dict[str, Any] = {"responseMimeType": "application/json"}
    if isinstance(schema, dict):
        levelled = down_level(schema, ANSWER_SCHEMA, SCHEMA_PATH)
        config["responseJsonSchema"] = levelled.schema
        if levelled.changes:
            fields.adapt("response_format")
    return _Format(config)


def _instruction(schema: object) -> str:
    plain = "without code fences or any other text around it"
    if not isinstance(schema, dict):
        return f"When you answer, answer with one JSON object, {plain}."
    return f"When you answer, answer with JSON that fits this JSON schema, {plain}:\n{encode(schema).decode()}"


def _native(request: ChatRequest, fields: Fields) -> dict[str, Any]:
    """Options by the vendor's own names, at the top level or in a `generationConfig`.

    Output limits are excluded if the request has its own, from which the price bound follows.
    """
    bound = {"candidateCount"} if request.max_tokens is None else {"candidateCount", "maxOutputTokens"}
    config: dict[str, Any] = {}
    for name in _OPTIONS:
        value = fields.take(name, _snake(name))
        if value is not None:
            config[name] = value
    given = fields.take("generationConfig", "generation_config")
    for name, value in given.items() if isinstance(given, dict) else ():
        ours = _camel(str(name))
        if ours in _GENERATION - bound:
            config[ours] = value
        else:
            fields.drop(f"generationConfig.{name}"[:96])
    return config


def _snake(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
