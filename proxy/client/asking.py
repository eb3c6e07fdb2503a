"""Translates: arguments of the client's methods into request bodies. Raises ValueError, which names the argument."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

from proxy.config.problems import near
from proxy.ensembles.given import MAX_MEMBERS
from proxy.ensembles.registry import STRATEGIES
from proxy.routing.settings import TASKS
from proxy.schema.hints import PRIORITIES
from proxy.schema.prompts import PREFIX

AUTO, ENSEMBLE = "auto", "ensemble:"
Messages = Sequence[Mapping[str, Any]]
Body = dict[str, Any]


class AskOptions(TypedDict, total=False):
    """Options of every question. None means: not given.

    - `system`: a text before the messages. `messages`: earlier ones, as OpenAI's API has them; `prompt` follows them.
    - `task_type`: reasoning, extraction, classification, summarization, code, chat, long_context, vision or web_search;
      `priority`: low, normal or high. Both matter if the router picks the model.
    - `max_tokens`: longest answer in tokens; `temperature`: 0 to 2; `top_p`: 0 to 1; `stop`, `seed`,
      `response_format`, `tools`, `tool_choice`: as in OpenAI's API.
    - `variables`: values for a stored prompt, which `model` names: `prompt:extraction_v1`. It needs no other message.
    - `max_cost_usd`: what all attempts together may cost; `tags`: usage can be grouped by them.
    - `routing`: further hints, `extra_body`: further fields of the body, as they are.
    """

    system: str | None
    messages: Messages | None
    task_type: str | None
    priority: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    stop: str | list[str] | None
    seed: int | None
    response_format: Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    variables: Mapping[str, Any] | None
    max_cost_usd: float | None
    tags: Sequence[str] | None
    routing: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None


class EnsembleOptions(AskOptions, total=False):
    """Options of a question to an ensemble, beside those of every question.

    - `min_agreement`: share of the votes that an answer needs (voting); `early_stop`: do not wait for the rest.
    - `judge`: the model that scores, writes or decides; `validator`: the model that checks (verification);
      `min_confidence`: 0 to 1 (verification); `quality_metric`: coherence, accuracy or completeness (ranking).
    - `ensemble`: further keys of the strategy, as routing_rules.yaml has them.
    """

    min_agreement: float | None
    early_stop: bool | None
    judge: str | None
    validator: str | None
    min_confidence: float | None
    quality_metric: str | None
    ensemble: Mapping[str, Any] | None


_SENT = ("max_tokens", "temperature", "top_p", "stop", "seed", "response_format", "tools", "tool_choice")
_HINTS = {"task_type": "task", "priority": "priority", "max_cost_usd": "max_cost_usd", "tags": "tags"}
_OF_ENSEMBLE = ("min_agreement", "early_stop", "judge", "validator", "min_confidence", "quality_metric")


def chat_body(prompt: str | None, model: str | None, options: Mapping[str, Any]) -> Body:
    """The body of a question to one model, or to the router."""
    _check_known(options, AskOptions)
    return _body(prompt, model, options, {})


def ensemble_body(
    prompt: str | None, strategy: str | None, models: Sequence[Any] | None, name: str | None, options: Mapping[str, Any]
) -> Body:
    """The body of a question to several models. `name`: a configured ensemble; without one the strategy decides."""
    _check_known(options, EnsembleOptions)
    if strategy is None and name is None:
        strategy = "voting"
    _one_of("strategy", strategy, STRATEGIES)
    _text("name", name)
    given: Body = {key: options[key] for key in _OF_ENSEMBLE if options.get(key) is not None}
    for key in ("min_agreement", "min_confidence"):
        _number(key, given.get(key), 0, 1)
    for key in ("judge", "validator"):
        _text(key, given.get(key))
    if models is not None:
        given["models"] = _members(models)
    if strategy is not None:
        given["strategy"] = strategy
    if strategy == "ranking":
        given["return_all"] = True
    given |= options.get("ensemble") or {}
    model = AUTO if name is None else name if name.startswith(ENSEMBLE) else f"{ENSEMBLE}{name}"
    return _body(prompt, model, options, {"ensemble": given} if given else {})


def _body(prompt: str | None, model: str | None, options: Mapping[str, Any], hints: Body) -> Body:
    _text("model", model)
    _text("system", options.get("system"))
    _one_of("task_type", options.get("task_type"), TASKS)
    _one_of("priority", options.get("priority"), PRIORITIES)
    _number("max_tokens", options.get("max_tokens"), 1, whole=True)
    _number("temperature", options.get("temperature"), 0, 2)
    _number("top_p", options.get("top_p"), 0, 1)
    _number("max_cost_usd", options.get("max_cost_usd"), 0)
    hints = {hint: options[name] for name, hint in _HINTS.items() if options.get(name) is not None} | hints
    hints |= options.get("routing") or {}
    body: Body = {"model": model or AUTO, "messages": _messages(prompt, options, _is_stored(model, options))}
    body |= {name: options[name] for name in _SENT if options.get(name) is not None}
    if options.get("variables") is not None:
        body["prompt"] = {"variables": dict(options["variables"])}
    if hints:
        body["routing"] = hints
    return body | dict(options.get("extra_body") or {})


def _is_stored(model: str | None, options: Mapping[str, Any]) -> bool:
    """True for a stored prompt, which has messages of its own."""
    variables, is_named = options.get("variables"), (model or "").startswith(PREFIX)
    if variables is not None and not isinstance(variables, Mapping):
        raise ValueError("variables: expected names and values")
    if variables is not None and not is_named:
        raise ValueError('variables: belong to a stored prompt; name it as the model, like "prompt:extraction_v1"')
    return is_named or bool((options.get("extra_body") or {}).get("prompt"))


def _messages(prompt: str | None, options: Mapping[str, Any], is_stored: bool) -> list[Mapping[str, Any]]:
    messages = options.get("messages")
    if messages is not None and (isinstance(messages, str | Mapping) or not isinstance(messages, Sequence)):
        raise ValueError('messages: expected a list of messages, like [{"role": "user", "content": "Hi"}]')
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError(f"prompt: expected text, got {type(prompt).__name__}; content of other kinds goes in messages")
    if not (prompt and prompt.strip()) and (prompt is not None or not (messages or is_stored)):
        raise ValueError("prompt: must not be empty")
    system = options.get("system")
    first = [] if system is None else [{"role": "system", "content": system}]
    last = [] if prompt is None else [{"role": "user", "content": prompt}]
    return [*first, *(messages or []), *last]


def _members(models: Sequence[Any]) -> list[Any]:
    if isinstance(models, str) or not isinstance(models, Sequence):
        raise ValueError("models: expected a list of model names")
    if not models:
        raise ValueError("models: must name at least one model; without the argument the router picks them")
    if len(models) > MAX_MEMBERS:
        raise ValueError(f"models: has {len(models)} names; at most {MAX_MEMBERS} are allowed")
    for each in models:
        name = each.get("use") if isinstance(each, Mapping) else each
        if not isinstance(name, str) or not name.strip():
            raise ValueError("models: each must be a model's name, or a dictionary with `use` and its parameters")
    return list(models)


def usage_parameters(
    since: str | None, until: str | None, group_by: str | Sequence[str] | None, tz: str | None
) -> Body:
    """The parameters of `GET /v1/usage`."""
    names = [group_by] if isinstance(group_by, str) else list(group_by or ())
    found = {"since": since, "until": until, "group_by": ",".join(names) or None, "tz": tz}
    return {name: value for name, value in found.items() if value is not None}


def feedback_body(answer_id: Any, success: bool | None, score: float | None, comment: str | None) -> Body:
    """The body of `POST /v1/feedback`. `answer_id`: an answer, or its id."""
    name = answer_id if isinstance(answer_id, str) else getattr(answer_id, "id", None)
    if not isinstance(name, str) or not name.strip():
        raise ValueError("answer: expected an answer, or the id of one")
    if success is None and score is None and not comment:
        raise ValueError("success: give at least one of success, score and comment")
    _number("score", score, 0, 1)
    fields = {"id": name, "success": success, "score": score, "comment": comment}
    return {key: value for key, value in fields.items() if value is not None}


# --- checks -----------------------------------------------------------------------------------------------------------


def _check_known(options: Mapping[str, Any], kind: type[Any]) -> None:
    known = kind.__annotations__ if kind is AskOptions else {**AskOptions.__annotations__, **kind.__annotations__}
    for name in options:
        if name not in known:
            hint = near(name, known) or f"; known: {', '.join(known)}"
            raise TypeError(f"unexpected argument {name!r}{hint}")


def _text(name: str, value: Any) -> None:
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{name}: expected text that is not empty, got {value!r}")


def _one_of(name: str, value: Any, allowed: Collection[str]) -> None:
    if value is not None and not (isinstance(value, str) and value in allowed):
        hint = near(value, allowed) if isinstance(value, str) else ""
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}; got {value!r}{hint}")


def _number(name: str, value: Any, least: float, most: float = math.inf, *, whole: bool = False) -> None:
    if value is None:
        return
    kinds: Any = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a {'whole ' if whole else ''}number, got {value!r}")
    if not least <= value <= most:
        span = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise ValueError(f"{name}: expected a number {span}, got {value!r}")
