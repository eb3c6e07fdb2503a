"""Translates: the code or the prose of an error into its meaning: OpenAI's status and code.

Servers agree on little but the meanings: a bad key, an empty account, an unknown model, a prompt that is too long,
a blocked text, a rate limit, an overload. Codes are compared by their letters alone, so `InvalidApiKey` is
`invalid_api_key`. Collected from the servers' sources, their documentation and public reports (November 2026).
"""

from __future__ import annotations

import re

from msgspec import Struct

_NO_LETTER = re.compile(r"[^a-z0-9]")
# Shared by many unrelated errors: they add nothing to the status.
_VAGUE = frozenset(
    {
        *("", "error", "unknown", "unknownerror", "none", "null", "failed", "failure", "apierror", "servererror"),
        *("internalservererror", "internalerror", "invalidrequesterror", "invalidrequest", "invalidargument"),
        *("badrequest", "badrequesterror", "requesterror", "upstreamerror", "newapierror", "oneapierror"),
    }
)
# OpenAI's and Groq's codes for one specific mistake, whatever the message says about limits and models.
_CERTAIN = frozenset(
    {
        *("stringabovemaxlength", "arrayabovemaxlength", "integerabovemaxvalue", "integerbelowminvalue"),
        *("unsupportedparameter", "unsupportedvalue", "unknownparameter", "missingrequiredparameter"),
        *("invalidfunctionparameters", "toolusefailed", "jsonvalidatefailed", "outputparsefailed", "invalidvalue"),
        *("imagetoolarge", "invalidimage", "invalidtype", "unknownurl", "requesttoolarge"),
    }
)


class Meaning(Struct, frozen=True):
    """One meaning. `statuses`: the vendor's statuses with which prose can mean it; `says`: that prose, in lower case.

    `codes` are letters and digits. `coded`: the vendor's statuses with which its codes mean it; None: all. Status 0 is
    an error inside a 200.
    """

    status: int
    code: str
    codes: frozenset[str]
    says: re.Pattern[str] | None = None
    statuses: frozenset[int] = frozenset()
    coded: frozenset[int] | None = None


def _any_of(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


def _codes(text: str) -> frozenset[str]:
    return frozenset(_NO_LETTER.sub("", word.lower()) for word in text.split())


_REFUSALS = frozenset({0, 400, 401, 403, 404, 405, 410, 413, 422, 500, 502})
_MONEY = Meaning(
    429,
    "insufficient_quota",
    _codes(
        "insufficient_quota insufficient_balance insufficient_credits insufficient_funds insufficient_user_quota "
        "billing_error billing_hard_limit_reached billing_not_active payment_required exceeded_current_quota_error "
        "credit_limit_exceeded out_of_credits no_credits arrearage account_overdue_error account_overdue "
        "balance_not_enough budget_exceeded spending_limit_reached pre_consume_token_quota_failed "
        "AllocationQuota.FreeTierOnly free_tier_only"
    ),
    _any_of(
        r"insufficient (?:\w+ ){0,2}(?:balance|credits?|quota|funds)\b",
        r"\b(?:balance|credits?|funds|prepayment) (?:\w+ ){0,4}"
        r"(?:too low|insufficient|exhausted|depleted|used up|not enough|run out|ran out|negative)",
        r"\bquota (?:is |was )?(?:not enough|insufficient|used up)",
        r"(?:exceeded|used up|exhausted) your (?:current |monthly |free |available )?(?:quota|credits?)\b",
        r"check your plan and billing|billing (?:hard )?limit|billing (?:is )?(?:not active|disabled)",
        r"payment required|requires? more credits|out of (?:\w+ ){0,3}(?:credits?|quota|funds)\b",
        r"(?:have|has) (?:no|zero|exhausted)(?: \w+){0,2} credits?\b|(?:n't|not) have any credits",
        r"(?:used|exhausted) all (?:your |of your )?(?:available |free )?credits|credits? used up",
        r"(?:purchase|buy|add) (?:more |\d+ )?credits|top up your|recharge your",
        r"reached your (?:specified )?(?:api )?usage limit",
        r"spending (?:limit|cap)|monthly (?:spending|budget|usage) (?:limit|cap)|budget has been exceeded",
        r"(?:account|payment) (?:is )?(?:overdue|in arrears)|in good standing|no credit left",
        r"余额不足|欠费|额度不足|额度已用尽",
    ),
    frozenset({*_REFUSALS, 402, 429}),
)
_KEY = Meaning(
    401,
    "invalid_api_key",
    _codes(
        "invalid_api_key incorrect_api_key wrong_api_key invalid_key api_key_invalid api_key_expired expired_api_key "
        "missing_api_key no_api_key invalid_authentication invalid_authentication_error authentication_error "
        "authentication_failed authentication_fails unauthorized unauthorized_error unauthenticated invalid_token "
        "token_expired expired_token missing_token invalid_access_token UnrecognizedClientException "
        "InvalidSignatureException MissingAuthenticationTokenException ExpiredTokenException "
        "InvalidClientTokenId invalid_subscription_key"
    ),
    _any_of(
        r"(?:invalid|incorrect|wrong|expired|missing|malformed|revoked|unknown|unrecognized|bad|no)(?: \w+){0,2} "
        r"(?:api[ _-]?key|access token|auth(?:entication|orization)? token|bearer token|subscription key|"
        r"security token|auth(?:entication)? credentials|api token|api secret)",
        r"(?:api[ _-]?key|(?:security|access|api|bearer) token|credentials)(?: \w+){0,8}? (?:is |are |was |has |have )?"
        r"(?:been )?(?:not valid|invalid|incorrect|expired|missing|required|revoked|disabled|not found|not exist)\b",
        r"authentication (?:fails|failed|failure|required)|failed to authenticate|unauthenticated",
        r"\bnot authenticated\b|(?:could not|unable to) validate (?:\w+ )?credentials",
        r"\btoken (?:is |has |was )?(?:expired|invalid|incorrect)|no auth credentials found|unregistered callers",
        r"^unauthorized\b|^invalid token\W*$|login fail|provide a valid (?:api )?key",
        r"(?:did not|didn't) provide an api key|令牌无效|无效的令牌|令牌已过期",
    ),
    _REFUSALS - {404},
    None,
)
_CONTEXT = Meaning(
    400,
    "context_length_exceeded",
    _codes(
        "context_length_exceeded exceed_context_size_error context_window_exceeded context_window_exceeded_error "
        "too_many_prompt_tokens too_many_tokens prompt_too_long input_too_long context_overflow tokens_limit_reached "
        "context_limit_exceeded model_max_length_exceeded context_length_error max_context_length_exceeded"
    ),
    _any_of(
        r"maximum (?:\w+ )?context",
        r"context (?:length|window|size|limit)s? (?:of |is |(?:has been |was )?exceeded|overflow)",
        r"(?:exceed\w*|longer|larger|greater|more|bigger)(?: \S+){0,6} "
        r"(?:context|token limit|n_ctx|max_model_len|max\w* (?:model|prompt|input|sequence) length)\b",
        r"exceed\w*(?: \S+){0,5} max\w* (?:(?:\w+ )?(?:prompt|input|sequence|model)|number of (?:input )?tokens)",
        r"maximum number of tokens allowed|model token limit|context the overflows|context (?:over|is )?full",
        r"(?:prompt|conversation|input|messages|context|text)(?: is| are)? too long",
        r"too many (?:input |prompt )?tokens|total length of all messages|input tokens? (?:limit )?exceed",
        r"max(?:imum)? (?:prompt|input|sequence|context)(?: token)?s? length",
        r"(?:reduce|shorten) (?:the length of )?(?:the |your )?(?:messages|prompt|input|conversation)\b",
        r"(?:input|prompt|request)(?: \w+){0,3} tokens?(?: \w+){0,4} exceed|requested tokens \(\d+\) exceed",
        r"tokens in (?:the |your )?(?:prompt|input|messages)(?: \S+){0,3} exceed|\binputs tokens \+",
        r"`inputs` (?:tokens \+|must have less than)|range of input length|too large for model with|max size: \d+ tok",
        r"(?:prompt|request|input|messages?) (?:contains?|has|have|is|was|results? in|resulted in) [\d,]+ "
        r"(?:input )?tokens",
        r"input token count is \d+ but|too (?:large|long) for (?:the |this )?(?:model'?s )?context|超长|超出最大",
    ),
    frozenset({0, 400, 413, 422, 500}),
)
_NO_CONTEXT = _any_of(  # limits of another kind, in the same words
    r"per (?:second|minute|hour|day)|\bt\.?p\.?[md]\b|rate.?limit",
    r"^(?!.*(?:context|prompt|input)).*(?:max_tokens|max_completion_tokens|output tokens)",
    r"(?:image|file|audio|video|document|pdf)s? (?:\w+ ){0,3}too (?:large|long)",
)
_FILTER = Meaning(
    400,
    "content_filter",
    _codes(
        "content_filter content_filtered content_filter_error ResponsibleAIPolicyViolation data_inspection_failed "
        "content_blocked moderation_blocked moderation_error safety_block prohibited_content "
        "sensitive_words_detected sensitive_content_detected InputTextSensitiveContentDetected "
        "OutputTextSensitiveContentDetected risk_detected guardrail_intervened content_moderation"
    ),
    _any_of(
        r"content (?:management|policy|policies|filter|moderation)|content exists risk|content_filter",
        r"(?:was|were|been|is|are|got) flagged|flagged (?:as|for|by)",
        r"violat\w+(?: \S+){0,5} (?:polic|guideline|terms)|prohibited content|inappropriate content",
        r"(?:rejected|blocked|refused|filtered)(?: \w+){0,4} (?:safety|guardrail|moderation|content|high risk)",
        r"considered high risk|sensitive (?:content|words?|information)|responsible ai|safety system",
        r"(?:requires|failed|input) moderation|敏感|违规|不安全",
    ),
    frozenset({0, 400, 403, 422, 451, 500}),
)
_MODEL = Meaning(
    404,
    "model_not_found",
    _codes(
        "model_not_found model_decommissioned model_not_available DeploymentNotFound model_not_exist "
        "model_does_not_exist model_not_found_error invalid_model unknown_model no_such_model invalid_model_name "
        "unsupported_model model_not_supported InvalidEndpointOrModel.NotFound ModelNotOpen invalid_model_error "
        "model_deprecated model_retired deployment_not_found model_not_found_exception "
        "resource_not_found_exception"
    ),
    _any_of(
        r"(?<![-_])\bmodel\b(?:(?!\. )[^{}]){0,100}?(?:not found|does(?: not|n't) exist|not exist\b|no longer |"
        r"is(?: not|n't) (?:currently )?(?:available|supported|a valid|valid|loaded|deployed|accessible)(?! when)|"
        r"deprecated|decommissioned|retired|unavailable|been removed|identifier is invalid|could not be found)",
        r"(?:unknown|invalid|no such|unsupported|unrecogni[sz]ed|nonexistent) (?:\w+ )?model\b"
        r"(?! (?:parameter|option|setting|field|feature|input|output|config|response))",
        r"not a valid model|supported (?:api )?model names|no (?:endpoints?|models?|providers?|deployments?) "
        r"(?:found|available|match|loaded)|no allowed providers",
        r"(?:could not|failed to|cannot|can't|unable to) (?:load|find|locate) (?:the |a )?model\b",
        r"deployment (?:\S+ ){0,6}(?:does not exist|not found)|no available channel|模型不存在|模型未开通",
    ),
    frozenset({0, 400, 403, 404, 405, 410, 422}),
)
_RATE = Meaning(
    429,
    "rate_limit_exceeded",
    _codes(
        "rate_limit_exceeded rate_limit_error rate_limit_reached rate_limit rate_limited too_many_requests "
        "throttling throttled throttling_exception throttling_error Throttling.RateQuota Throttling.AllocationQuota "
        "request_limit_exceeded service_quota_exceeded_exception quota_exceeded limit_exceeded_exception "
        "resource_exhausted requests_limit_exceeded concurrency_limit_exceeded"
    ),
    _any_of(
        r"rate.?limit|too many requests|throttl|(?:requests|tokens) per (?:second|minute|hour|day)|请求过于频繁|限流",
        r"(?:request|requests|qps|rpm|tpm|concurrency) limit (?:has been |is |was )?(?:reached|exceeded)",
    ),
    frozenset({0}),
    frozenset({0, 400, 403, 500, 502}),
)
_BUSY = Meaning(
    503,
    "upstream_unavailable",
    _codes(
        "overloaded overloaded_error engine_overloaded engine_overloaded_error server_overloaded server_busy "
        "service_unavailable service_unavailable_error ServiceUnavailableException model_overloaded "
        "ModelNotReadyException capacity_exceeded unavailable"
    ),
    _any_of(r"overloaded|server is busy|at capacity|temporarily unavailable|service unavailable|no healthy upstream"),
    frozenset({0}),
    frozenset({0, 400, 500}),
)
_LATE = Meaning(
    504,
    "upstream_timeout",
    _codes("timeout timeout_error request_timeout deadline_exceeded ModelTimeoutException gateway_timeout"),
    coded=frozenset({0}),
)
_NOT_ALLOWED = Meaning(
    403,
    "permission_denied",
    _codes("permission_denied permission_error access_denied AccessDeniedException forbidden permissions_error"),
    coded=frozenset({0}),
)
_NOT_FOUND = Meaning(
    404,
    "model_not_found",
    _codes("not_found not_found_error not_found_exception resource_not_found"),
    coded=frozenset({0}),
)
_WRONG = Meaning(
    400,
    "invalid_value",
    _codes(
        "invalid_request_error invalid_request bad_request bad_request_error invalid_argument validation_error "
        "ValidationException invalid_parameter invalid_parameter_error unsupported_value"
    ),
    coded=frozenset({0}),
)
SURE = frozenset(meaning.code for meaning in (_MONEY, _KEY, _CONTEXT, _FILTER, _MODEL))
_ALL = (_MONEY, _KEY, _CONTEXT, _FILTER, _MODEL, _RATE, _BUSY, _LATE, _NOT_ALLOWED, _NOT_FOUND, _WRONG)
_BROAD = (_LATE, _NOT_ALLOWED, _NOT_FOUND, _WRONG)
_BY_CODE = {code: meaning for meaning in _ALL for code in meaning.codes}
_IN_PROSE = tuple((meaning, meaning.says) for meaning in _ALL if meaning.says is not None)


def meaning_of(status: int, code: str | None, kind: str | None, message: str) -> Meaning | None:
    """The meaning of an error with this status (0: inside a 200), code, type and message; None: unknown.

    A code is more reliable than a type, and a type than prose, with two exceptions. An empty account often has the type
    of a bad key, or of a rate limit. And some codes and types add little to the status.
    """
    told, typed = _coded(status, code), _coded(status, kind)
    if (told is not None and told not in _BROAD) or (code is not None and _letters(code) in _CERTAIN):
        return told
    said = _said(status, message.lower())
    if typed is not None and typed not in _BROAD and said is not _MONEY:
        return typed
    return said or told or typed


def is_vague(word: str) -> bool:
    """True for a code that only says that something went wrong, and for a sentence in place of a code."""
    return _letters(word) in _VAGUE or not word.isascii() or " " in word


def _coded(status: int, word: str | None) -> Meaning | None:
    meaning = _BY_CODE.get(_letters(word)) if word else None
    if meaning is None or (meaning.coded is not None and status not in meaning.coded):
        return None
    return meaning


def _said(status: int, lowered: str) -> Meaning | None:
    for meaning, says in _IN_PROSE:
        if status in meaning.statuses and says.search(lowered) is not None:
            if meaning is _CONTEXT and _NO_CONTEXT.search(lowered) is not None:
                continue
            return meaning
    return None


def _letters(word: str) -> str:
    return _NO_LETTER.sub("", word.lower())
