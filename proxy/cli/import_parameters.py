"""Translates: request defaults of LiteLLM's configuration into `parameters` of a provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.cli.import_source import LOST, Section, variable_of
from proxy.config.problems import looks_like_key, names_a_key, shown

# Fields of a request that a configuration may set for every call.
PARAMETERS = (
    *("temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "seed", "stop", "n"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs"),
    *("reasoning_effort", "thinking", "response_format", "tool_choice", "parallel_tool_calls", "service_tier"),
    *("verbosity", "web_search_options", "safety_settings", "modalities", "dimensions", "user", "metadata"),
)
_EXACT = 2**53
_WHY = "has a value that cannot stand in the file"


def parameters_of(params: Section, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults for the request's body. Values that a file cannot hold are lost."""
    found = dict(defaults)
    for name in PARAMETERS:
        if (value := params.read(name)) is None:
            continue
        if _may_stand(name, value):
            found[name] = value
        else:
            params.say(LOST, name, _WHY)
    body = params.read("extra_body")
    for name, value in body.items() if isinstance(body, dict) else ():
        if _may_stand(name, value):
            found[name] = value
        else:
            params.say(LOST, "extra_body", f"{shown(name)} {_WHY}")
    return found


def _may_stand(name: str, value: Any) -> bool:
    """False for keys, references to the environment, and numbers that JSON does not have."""
    if isinstance(value, dict):
        return all(_may_stand(str(key), each) for key, each in value.items())
    if isinstance(value, list):
        return all(_may_stand(name, each) for each in value)
    if isinstance(value, str):
        return not (names_a_key(name) or looks_like_key(value) or variable_of(value))
    return not isinstance(value, int | float) or abs(value) <= _EXACT
