"""Values: every error a caller can get, with its HTTP status and code.

    ProxyError                  status, type, code, param, message (public), headers
    ├── BadRequest              400  invalid_value unless another code is given
    ├── CostLimit               402  the next attempt could cost more than the request allows
    │   └── BudgetSpent         429  ... or than a budget has room for
    ├── UpstreamError           a provider's failure; carries its Outcome and `retryable`
    │   ├── AllDown             503  no candidate can answer now; gives each one's reason
    │   ├── UpstreamTruncated   502  the answer broke off
    │   ├── UpstreamTimeout     504  a phase took longer than its time-out
    │   └── UpstreamUnavailable 503  no connection, or the embedded model is not ready
    │       └── KeysUnavailable 429  every key of the provider rests or has used its minute (503: all were refused)
    ├── QuorumMissed            502  too few members of an ensemble answered; gives the others' reasons
    ├── NoAgreement             502  the members of an ensemble answered, and too few gave the same answer
    ├── NoSiteFits              404  no template of the catalog fits instructions and assets; names the nearest
    └── StorageUnavailable      503  the ledger cannot write

Everything else is a bug and becomes `500 internal_error` without details. Callers see the messages, so these never
contain keys, file paths, stack traces or internal hosts.
"""

from __future__ import annotations

import math
import re
from typing import Any, cast

from msgspec import Struct

from proxy.schema.records import Outcome
from proxy.schema.usage import UsageReport

_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


class ProxyError(Exception):
    """An error with the shape OpenAI's SDKs expect: `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None,
        param: str | None = None,
        type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.type = type or _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.headers = headers or {}

    def rename(self, param: str) -> None:
        """Names the field in the client's own words, in the message too."""
        if self.param is not None and param != self.param:
            self.message = re.sub(rf"(?<![\w.]){re.escape(self.param)}(?![\w])", lambda _: param, self.message)
            self.param = param

    def body(self) -> dict[str, object]:
        """The JSON body, also sent as the last frame of a stream that fails after its first byte."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class BadRequest(ProxyError):
    """400: the request cannot be served as it is; `param` names the field in dotted form (`messages.0.role`)."""

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value") -> None:
        super().__init__(message, status=400, code=code, param=param)


class Conflict(ProxyError):
    """409: the stored state does not allow it. SDKs would retry a 409, though nothing would change."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        headers = {"x-should-retry": "false"}
        super().__init__(message, status=409, code="conflict", param=param, headers=headers)


class StorageUnavailable(ProxyError):
    """503: the ledger cannot write, so a call could not be metered."""

    def __init__(self) -> None:
        super().__init__(
            "The usage database cannot be written, so the call was refused (`storage.when_down: refuse`).",
            status=503,
            code="storage_unavailable",
            headers={"retry-after": "5"},
        )


class Silent(Struct, frozen=True):
    """Why one member of an ensemble did not answer."""

    model: str
    code: str
    message: str


class QuorumMissed(ProxyError):
    """502: fewer members of an ensemble answered than required. The body lists the others with their reasons."""

    def __init__(self, name: str, answered: int, needed: int, members: tuple[Silent, ...]) -> None:
        each = "; ".join(f"{one.model}: {one.code}" for one in members)
        super().__init__(
            f"{name[:200]}: {answered} of its members answered, and it needs {needed}. {each}.",
            status=502,
            code="ensemble_quorum_missed",
            headers={"x-should-retry": "false"},
        )
        self.members = members

    def body(self) -> dict[str, object]:
        error = cast("dict[str, object]", super().body()["error"])
        return {"error": {**error, "members": self.members}}


class NoAgreement(ProxyError):
    """502: the members of an ensemble disagree, and it is configured to fail then. The votes are in the body."""

    def __init__(self, name: str, confidence: float, min_agreement: float, votes: dict[str, int]) -> None:
        super().__init__(
            f"{name[:200]}: its members do not agree. Their agreement is {confidence:.0%}, and min_agreement is "
            f"{min_agreement:g}.",
            status=502,
            code="ensemble_no_agreement",
            headers={"x-should-retry": "false"},
        )
        self.confidence = confidence
        self.votes = votes

    def body(self) -> dict[str, object]:
        error = cast("dict[str, object]", super().body()["error"])
        return {"error": {**error, "confidence": self.confidence, "votes": self.votes}}


class NoSiteFits(ProxyError):
    """404: no site template fits. The ids of the nearest ones are in the body."""

    def __init__(self, nearest: tuple[str, ...], *, has_assets: bool) -> None:
        what = "No site of the catalog has these assets" if has_assets else "No site of the catalog fits these words"
        hint = f"Nearest: {', '.join(nearest)}." if nearest else "GET /api/sites lists all of them."
        param = "assets" if has_assets else "instructions"
        super().__init__(f"{what}. {hint}", status=404, code="not_found", param=param)
        self.nearest = nearest

    def body(self) -> dict[str, object]:
        error = cast("dict[str, object]", super().body()["error"])
        return {"error": {**error, "nearest": self.nearest}}


class CostLimit(ProxyError):
    """402: `max_cost_usd` or a budget does not allow another attempt: it could cost too much, or its price is unknown.

    Another candidate may be cheaper.
    """

    def __init__(self, message: str, code: str, *, param: str = "routing.max_cost_usd", status: int = 402) -> None:
        super().__init__(message, status=status, code=code, param=param)


class BudgetSpent(CostLimit):
    """429: a budget has no room for the attempt. `figures` (USD, and when the budget resets) are in the body.

    The raiser sets the rest. `is_soft`: a downgraded call may go on; `downgrade_to` names its model, None: the cheapest
    capable one. `is_of_attempt`: a budget of the provider or the model, so that another candidate may have room.
    """

    def __init__(self, message: str, figures: dict[str, Any]) -> None:
        super().__init__(message, "insufficient_quota", param="model", status=429)
        self.type = "insufficient_quota"
        self.headers["x-should-retry"] = "false"
        self.figures = figures
        self.is_soft = False
        self.is_of_attempt = False
        self.downgrade_to: str | None = None
        self.room: object = None  # the figures as the ledger gave them

    def body(self) -> dict[str, object]:
        error = cast("dict[str, object]", super().body()["error"])
        return {"error": {**error, "metadata": self.figures}}


class Availability(Struct, frozen=True):
    """Why one candidate did not answer. `retry_after_s`: when it may be tried again; None: waiting does not help."""

    model: str
    code: str
    retryable: bool
    retry_after_s: float | None = None


class Received(Struct, frozen=True):
    """An error answer as the vendor sent it; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class UpstreamError(ProxyError):
    """A provider's failure. `retryable`: the same request may succeed elsewhere or later.

    `upstream_status` is the vendor's own HTTP status (None: no answer), `retry_after_s` its Retry-After in seconds. The
    raiser may set it, as well as `param`, `type` and `headers`. `other_key`: the vendor refused one API key, and
    another key of the same provider may be used at once. `other_api`: the vendor refused the request at one of its two
    APIs, and names the other. `is_refusal`: it came inside a 200, and the vendor did no work. `usage`: what it counted
    all the same. `availability` names the candidates once all failed. `failed_generation`: what the model wrote, where
    the vendor could not read it as a call or as JSON. `received`: the vendor's own answer, for a client that speaks its
    dialect.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        code: str | None = "upstream_error",
        outcome: Outcome = Outcome.UPSTREAM_ERROR,
        retryable: bool = False,
        upstream_status: int | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.outcome = outcome
        self.retryable = retryable
        self.upstream_status = upstream_status
        self.failed_generation: str | None = None
        self.received: Received | None = None
        self.retry_after_s: float | None = None
        self.other_key = False
        self.other_api = False
        self.is_refusal = False
        self.usage: UsageReport | None = None
        self.availability: tuple[Availability, ...] = ()

    def note_all_failed(self, availability: tuple[Availability, ...], tries: int = 1) -> None:
        """No candidate is left after `tries` attempts. A client's retries would multiply them: SDKs retry 408, 409, 429
        and 5xx twice. An empty account stays empty.
        """
        self.availability = availability
        is_repeated = tries > 1 and self.status in (408, 409, 429)
        if self.status >= 500 or self.code == "insufficient_quota" or is_repeated:
            self.headers["x-should-retry"] = "false"
        if self.status >= 500:
            soonest_s = min((each.retry_after_s for each in availability if each.retry_after_s is not None), default=0)
            if soonest_s > 0:
                self.headers.setdefault("retry-after", str(math.ceil(soonest_s)))

    @property
    def nothing_sent(self) -> bool:
        """True if the request never reached the provider, so nothing can have been billed."""
        return self.outcome is Outcome.TIMEOUT_CONNECT

    @property
    def resendable(self) -> bool:
        """True if the same deployment may be asked again: it refused, or the request never reached it.

        After a time-out, a broken connection or an unreadable 200 the vendor may still be processing the request, or
        have billed it. Sending it again could be billed twice. An error that came with a count of output is billed.
        """
        if self.other_key:
            return True
        is_billed = self.usage is not None and self.usage.billed.output > 0
        return self.retryable and not is_billed and (self.nothing_sent or (self.upstream_status or 0) >= 400)

    def body(self) -> dict[str, object]:
        error: dict[str, object] = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        if self.upstream_status is not None:
            error["metadata"] = {"upstream_status": self.upstream_status}
        if self.failed_generation is not None:
            error["failed_generation"] = self.failed_generation
        if self.availability:
            error["availability"] = self.availability
        return {"error": error}


class AllDown(UpstreamError):
    """503: several candidates, and none of them can answer now."""

    def __init__(self, requested: str, availability: tuple[Availability, ...], outcome: Outcome) -> None:
        each = "; ".join(f"{one.model}: {_describe(one)}" for one in availability)
        super().__init__(
            f"No model can answer {requested[:200]!r} now. {each}.",
            status=503,
            code="upstream_unavailable",
            outcome=outcome,
            retryable=any(one.retryable for one in availability),
        )
        self.note_all_failed(availability)
        self.headers.setdefault("retry-after", "1")


def _describe(one: Availability) -> str:
    wait_s = one.retry_after_s
    return f"{one.code}, again in {math.ceil(wait_s)} s" if wait_s else one.code


class UpstreamTruncated(UpstreamError):
    """502: the provider's answer broke off. The proxy never invents a finish_reason."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="upstream_truncated", outcome=Outcome.UPSTREAM_TRUNCATED, retryable=True)


class UpstreamTimeout(UpstreamError):
    """504: one phase of the upstream call took longer than the provider's `timeout_s` allows.

    `metadata.phase` names it: connect, first_token, idle or total.
    """

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message, status=504, code="upstream_timeout", outcome=outcome, retryable=True)

    def body(self) -> dict[str, object]:
        error = cast("dict[str, object]", super().body()["error"])
        metadata = cast("dict[str, object]", error.get("metadata") or {})
        return {"error": {**error, "metadata": {**metadata, "phase": self.outcome.value.removeprefix("timeout_")}}}


class UpstreamUnavailable(UpstreamError):
    """503: the provider could not be reached at all; nothing was sent."""

    def __init__(self, message: str, *, code: str = "upstream_unavailable", retryable: bool = True) -> None:
        super().__init__(message, status=503, code=code, retryable=retryable)

    @property
    def nothing_sent(self) -> bool:
        return True


class KeysUnavailable(UpstreamUnavailable):
    """429: no API key of the provider may be used before `retry_after_s`; nothing was sent. 503 if the vendor refused
    the keys themselves.
    """

    def __init__(self, message: str, retry_after_s: float, is_limited: bool) -> None:
        super().__init__(message, code="rate_limit_exceeded" if is_limited else "no_usable_key")
        if is_limited:
            self.status, self.type = 429, _TYPES[429]
        self.retry_after_s = retry_after_s
        self.headers["retry-after"] = str(math.ceil(retry_after_s))

    @property
    def resendable(self) -> bool:
        """False: a retry before then would fail the same way, so the call moves on."""
        return False
