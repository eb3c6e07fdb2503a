"""Translates: what a request needs, against what a deployment can take by `context` and `supports` in pricing.yaml.

What a row does not state is unknown, and unknown never excludes a deployment. The embedded server is known: it reads
text only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from proxy.routing.content import ContentNeed, content_needs
from proxy.routing.decision import Candidate
from proxy.routing.deployment import Deployment
from proxy.routing.facts import LONG_CONTEXT_TOKENS, Facts
from proxy.schema.endpoints import AnyRequest
from proxy.schema.errors import BadRequest, ProxyError

_LACKS = {
    "images": "does not take images",
    "audio": "does not take audio",
    "video": "does not take video",
    "files": "does not take files",
    "tools": "does not support tools",
    "json_schema": "does not support JSON schemas",
    "web_search": "does not search the web",
}

_EMBEDDED = frozenset({"json_schema", "tools"})
_TASK_NEEDS = {"vision": "images", "web_search": "web_search"}


def unsupported(parts: list[ContentNeed], deployment: Deployment) -> BadRequest | None:
    """The error for the first unsupported part, for a request that names its model; None if there is none."""
    lacking = _missing(deployment, (part.needs for part in parts))
    if lacking is None:
        return None
    part = next(part for part in parts if part.needs == lacking)
    message = f"{deployment.name} cannot take {part.kind} content."
    return BadRequest(message, param=part.where, code="unsupported_content")


def needed(facts: Facts) -> list[str]:
    """The capabilities that a request needs, by their names under `supports`."""
    found = {
        "images": facts.has_images,
        "audio": facts.has_audio,
        "video": facts.has_video,
        "files": facts.has_files,
        "tools": facts.has_tools,
        "json_schema": facts.has_json_schema,
        "web_search": facts.needs_web_search,
    }
    return [capability for capability, is_needed in found.items() if is_needed]


def refusal(facts: Facts, deployment: Deployment) -> str | None:
    """Why this deployment cannot answer, as the end of a sentence that begins with its name; None: it can."""
    return lacks(needed(facts), facts, deployment)


def lacking(request: AnyRequest, deployment: Deployment) -> str | None:
    """Why this deployment cannot answer a chat that names it, as `refusal` does; lengths do not count."""
    wanted = [need.needs for need in content_needs(request)]
    form = request.fields.get("response_format")
    wanted += ["tools"] if request.fields.get("tools") else []
    wanted += ["json_schema"] if isinstance(form, dict) and form.get("type") == "json_schema" else []
    missing = _missing(deployment, wanted)
    return None if missing is None else _LACKS[missing]


def lacks(capabilities: Sequence[str], facts: Facts, deployment: Deployment) -> str | None:
    """`refusal`, for a request that needs these `capabilities`."""
    lacking = _missing(deployment, capabilities) if capabilities else None
    if lacking is not None:
        return _LACKS[lacking]
    size = deployment.context
    if size is None:
        return None
    limit = _output(facts, deployment)
    if facts.input_tokens_estimate + limit <= size:
        return None
    answer = f" and an answer of up to {limit}" if limit else ""
    return f"has a context of {size} tokens, too small for about {facts.input_tokens_estimate}{answer}"


def serves(task: str, deployment: Deployment) -> bool:
    """False if this deployment can answer no request of the task `auto:<task>` names."""
    if task == "long_context":
        size = deployment.context
        return size is None or size > LONG_CONTEXT_TOKENS
    return task not in _TASK_NEEDS or _missing(deployment, (_TASK_NEEDS[task],)) is None


def no_capable(requested: str, rejected: Sequence[Candidate], facts: Facts) -> ProxyError:
    """503 `no_capable_model`: each candidate with its reason. Retries do not help.

    If a shorter request could be answered, it is 400 `context_length_exceeded`: agents shorten the conversation when
    they see this code.
    """
    reasons = "; ".join(f"{candidate.deployment.name} {candidate.rejected}" for candidate in rejected)
    capabilities = needed(facts)
    if any(_missing(candidate.deployment, capabilities) is None for candidate in rejected):
        message = f"No model behind {requested!r} can take a request of this length: {reasons}."
        return BadRequest(message, param="messages", code="context_length_exceeded")
    return ProxyError(
        f"No model behind {requested!r} can answer this request: {reasons}.",
        status=503,
        code="no_capable_model",
        headers={"x-should-retry": "false"},
    )


def _missing(deployment: Deployment, capabilities: Iterable[str]) -> str | None:
    """The first capability that the deployment is known to lack."""
    takes: Collection[str] | None = deployment.price.supports if deployment.price is not None else None
    if takes is None and deployment.provider.local_model is not None:
        takes = _EMBEDDED
    if takes is not None:
        for each in capabilities:
            if each not in takes:
                return each
    return None


def _output(facts: Facts, deployment: Deployment) -> int:
    """The tokens to keep free for the answer: the request's limit, at most what the model can write."""
    limit = facts.output_tokens_limit or 0
    most = deployment.max_output
    return limit if most is None else min(limit, most)
