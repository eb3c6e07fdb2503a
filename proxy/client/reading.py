"""Translates: answers of the proxy into results. Raises UnexpectedAnswer for anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from proxy.client.errors import UnexpectedAnswer
from proxy.client.results import (
    Answer,
    Chunk,
    EnsembleAnswer,
    Explanation,
    Feedback,
    RankedOutput,
    Routing,
    Usage,
    UsageReport,
)
from proxy.schema.chat import text_of
from proxy.sites.answers import SiteCard, SiteList, SiteMatch, SiteTemplate

Headers = Mapping[str, str]
T = TypeVar("T")


def answer_of(data: dict[str, Any], headers: Headers) -> Answer:
    """The result of a whole chat answer, or of an accumulated stream."""
    return Answer(**_fields(data, headers))


def ensemble_answer_of(data: dict[str, Any], headers: Headers) -> EnsembleAnswer:
    """A whole chat answer of an ensemble."""
    fields = _fields(data, headers)
    report = fields["routing"].trace.get("ensemble")
    if not isinstance(report, dict):
        raise UnexpectedAnswer("The answer does not say that an ensemble gave it: `routing.ensemble` is missing.")
    strategy = str(report.get("strategy"))
    scores, text = report.get("scores"), fields["text"]
    return EnsembleAnswer(
        **fields,
        strategy=strategy,
        confidence=report.get("confidence"),
        agreed=report.get("agreed"),
        votes=report.get("votes"),
        ranking=[_ranked(line) for line in scores] if isinstance(scores, list) else None,
        merged=_object_or_text(text) if strategy == "fusion" else None,
        verification=report.get("verdict"),
        members=report.get("members") or [],
    )


def chunk_of(data: dict[str, Any]) -> Chunk:
    """One chunk of a stream: of its first choice."""
    choices = data.get("choices") or [{}]
    delta = choices[0].get("delta") or {}
    return Chunk(
        text=delta.get("content") or "",
        reasoning=delta.get("reasoning_content") or "",
        finish_reason=choices[0].get("finish_reason"),
        data=data,
    )


def explanation_of(data: dict[str, Any]) -> Explanation:
    try:
        return Explanation(
            requested=data["requested"],
            chosen=data["chosen"],
            fallbacks=data["fallbacks"],
            task=data["facts"].get("task"),
            rule=data.get("rule"),
            strategy=data.get("strategy"),
            candidates=data["candidates"],
            estimated_cost_usd=data["estimated_cost_usd"],
            data=data,
        )
    except (KeyError, AttributeError) as error:
        raise _missing(error) from None


def usage_report_of(data: dict[str, Any]) -> UsageReport:
    return _converted(data, UsageReport)


def feedback_of(data: dict[str, Any]) -> Feedback:
    return _converted(data, Feedback)


def site_list_of(data: dict[str, Any]) -> list[SiteCard]:
    return _converted(data, SiteList).data


def site_template_of(data: dict[str, Any]) -> SiteTemplate:
    return _converted(data, SiteTemplate)


def site_match_of(data: dict[str, Any]) -> SiteMatch:
    return _converted(data, SiteMatch)


def _converted(data: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise _missing(error) from None


def _missing(error: Exception) -> UnexpectedAnswer:
    return UnexpectedAnswer(f"The answer has another shape than this client expects: {error}.")


def _fields(data: dict[str, Any], headers: Headers) -> dict[str, Any]:
    try:
        choice = data["choices"][0]
        message = choice["message"]
        return {
            "text": text_of(message.get("content")),
            "model": data.get("model") or "",
            "usage": _usage(data.get("usage") or {}),
            "cost": (data.get("usage") or {}).get("cost"),
            "routing": _routing(data, headers),
            "id": data.get("id") or "",
            "request_id": headers.get("x-request-id"),
            "finish_reason": choice.get("finish_reason"),
            "tool_calls": message.get("tool_calls") or [],
            "reasoning": message.get("reasoning_content"),
            "refusal": message.get("refusal"),
            "data": data,
        }
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _missing(error) from None


def _usage(usage: dict[str, Any]) -> Usage:
    return Usage(
        input_tokens=usage.get("prompt_tokens") or 0,
        output_tokens=usage.get("completion_tokens") or 0,
        total_tokens=usage.get("total_tokens") or 0,
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        reasoning_tokens=(usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


def _routing(data: dict[str, Any], headers: Headers) -> Routing:
    def listed(name: str) -> tuple[str, ...]:
        return tuple(filter(None, headers.get(name, "").split(",")))

    return Routing(
        model=headers.get("x-proxy-model"),
        provider=headers.get("x-proxy-provider"),
        rule=headers.get("x-proxy-rule"),
        strategy=headers.get("x-proxy-strategy"),
        attempts=int(number) if (number := headers.get("x-proxy-attempts", "")).isdecimal() else None,
        downgraded_from=headers.get("x-proxy-downgraded"),
        dropped_params=listed("x-proxy-dropped-params"),
        adapted_params=listed("x-proxy-adapted-params"),
        budget_remaining_usd=_number(headers.get("x-proxy-budget-remaining-usd")),
        overhead_ms=_number(headers.get("x-proxy-overhead-ms")),
        config_version=headers.get("x-proxy-config"),
        trace=data.get("routing") or {},
    )


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _ranked(line: dict[str, Any]) -> RankedOutput:
    message = line.get("message") or {}
    return {
        "model": ", ".join(line.get("models") or []),
        "output": text_of(message.get("content")),
        "quality_score": line.get("score") or 0.0,
    }


def _object_or_text(text: str) -> Any:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    return found if isinstance(found, dict) else text
