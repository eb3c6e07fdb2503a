"""An error keeps its meaning, whatever server said it, in whatever envelope."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.base.contract import HTTPResponse
from proxy.providers.base.meanings import meaning_of
from proxy.providers.openai import OpenAI
from proxy.schema.errors import UpstreamError
from proxy.schema.sse import Event
from tests.providers.asking import answered, event, request

OPENAI = OpenAI()
SHAPED = ["openai", "groq", "mistral", "together", "perplexity", "ollama", "vllm", "lmstudio", "localai"]
KEY, MONEY = (401, "invalid_api_key"), (429, "insufficient_quota")
MODEL, CONTEXT, FILTER = (404, "model_not_found"), (400, "context_length_exceeded"), (400, "content_filter")
LIMIT, BUSY, WRONG = (429, "rate_limit_exceeded"), (503, "upstream_unavailable"), (400, "invalid_value")


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def router(
    raw: object, code: int = 400, name: str = "Acme", message: str = "Provider returned error"
) -> dict[str, Any]:
    """As OpenRouter passes on the error of the server behind it."""
    return {"error": {"message": message, "code": code, "metadata": {"raw": raw, "provider_name": name}}}


# Status, body, and what it means. Who says so stands in front.
SPOKEN: list[tuple[str, int, Any, tuple[int, str]]] = [
    ("openrouter", 401, said("User not found.", code=401), KEY),
    ("openrouter", 401, said("No auth credentials found", code=401), KEY),
    (
        "openrouter",
        402,
        said("This request requires more credits, or fewer max_tokens. You requested 9", code=402),
        MONEY,
    ),
    ("openrouter", 400, said("acme/llama-9 is not a valid model ID", code=400), MODEL),
    ("openrouter", 404, said("No endpoints found for acme/llama-9.", code=404), MODEL),
    ("openrouter", 404, said("No allowed providers are available for the selected model.", code=404), MODEL),
    (
        "openrouter",
        403,
        {
            "error": {
                "code": 403,
                "message": "Your chosen model requires moderation and your input was flagged",
                "metadata": {"reasons": ["violence"], "flagged_input": "how to", "provider_name": "Acme"},
            }
        },
        FILTER,
    ),
    ("openrouter", 400, router('{"error": {"message": "prompt is too long: 9001 tokens > 4096 maximum"}}'), CONTEXT),
    (
        "openrouter",
        429,
        said("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000", code=429),
        MONEY,
    ),
    ("openrouter", 429, router("acme/llama:free is temporarily rate-limited upstream.", 429), LIMIT),
    ("openrouter", 502, router("<html>bad gateway</html>", 502), (502, "upstream_error")),
    (
        "xai",
        400,
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***yz."},
        KEY,
    ),
    (
        "xai",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 9 but it has 12.",
        },
        CONTEXT,
    ),
    (
        "xai",
        403,
        {
            "code": "The caller does not have permission to execute the specified operation",
            "error": "Your newly created team doesn't have any credits yet. You can purchase credits at x.",
        },
        MONEY,
    ),
    (
        "xai",
        429,
        {"code": "Some resource has been exhausted", "error": "Your team has reached its monthly spending limit."},
        MONEY,
    ),
    ("xai", 404, {"code": "Some requested entity was not found", "error": "The model grok-1 was deprecated."}, MODEL),
    ("xai", 403, {"code": "Denied", "error": "Content violates usage guidelines. Failed check: A"}, FILTER),
    ("xai", 403, {"code": "The caller does not have permission", "error": "Not for this team."}, (403, "")),
    ("vllm", 403, {"detail": "Not authenticated"}, KEY),
    ("openai", 403, {"detail": "Could not validate credentials"}, KEY),
    ("deepseek", 401, said("Authentication Fails", type="authentication_error", code="invalid_request_error"), KEY),
    ("deepseek", 402, said("Insufficient Balance", type="unknown_error", code="invalid_request_error"), MONEY),
    ("deepseek", 400, said("Model Not Exist", type="invalid_request_error", code="invalid_request_error"), MODEL),
    (
        "deepseek",
        400,
        said("The supported API model names are a or b, but you passed c.", code="invalid_request_error"),
        MODEL,
    ),
    ("deepseek", 400, said("Content Exists Risk", code="invalid_request_error"), FILTER),
    ("deepseek", 400, said("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"), WRONG),
    ("ollama", 400, said("prompt too long; exceeded max context length by 7 tokens"), CONTEXT),
    ("ollama", 500, {"error": "the input length exceeds the context length"}, CONTEXT),
    ("ollama", 404, {"error": 'model "llama9" not found, try pulling it first'}, MODEL),
    ("ollama", 401, {"error": "unauthorized"}, KEY),
    ("ollama", 400, {"error": "registry.example/llama does not support tools"}, WRONG),
    ("llama.cpp", 400, said("the request exceeds the available context size, try increasing it", code=400), CONTEXT),
    ("llama.cpp", 401, said("Invalid API Key", type="authentication_error", code=401), KEY),
    ("llama.cpp", 500, said("Context size has been exceeded.", type="server_error", code=500), CONTEXT),
    ("llama.cpp", 503, said("Loading model", type="unavailable_error", code=503), BUSY),
    ("vllm", 404, said("The model `a/b` does not exist.", type="NotFoundError", code=404), MODEL),
    ("vllm", 400, said("The decoder prompt (length 90) is longer than the maximum model length of 64."), CONTEXT),
    ("vllm", 400, said("You passed 90 input tokens and requested 0; the model's context length is only 64."), CONTEXT),
    ("lmstudio", 400, {"error": "Trying to keep the first 90 tokens when context the overflows."}, CONTEXT),
    ("lmstudio", 400, {"error": "The tokens to keep from the prompt are greater than the context length."}, CONTEXT),
    ("lmstudio", 400, {"error": "No models loaded. Please load a model in the developer page."}, MODEL),
    ("lmstudio", 404, said('Model "x" not found. Please specify a valid model.', code="model_not_found"), MODEL),
    ("localai", 500, said("could not load model: no such file", code=500), (502, "upstream_error")),
    ("localai", 401, said("An authentication key is required", code=401, type=""), KEY),
    ("perplexity", 400, said("The total length of all messages is too long.", type="too_many_prompt_tokens"), CONTEXT),
    ("perplexity", 400, said("Invalid model 'sonar-9'. Permitted models are listed.", type="invalid_model"), MODEL),
    ("perplexity", 401, said("You exceeded your current quota, check your plan and billing.", code=401), MONEY),
    ("azure", 401, said("Access denied due to invalid subscription key or wrong API endpoint.", code="401"), KEY),
    ("azure", 401, {"statusCode": 401, "message": "Access denied due to missing subscription key."}, KEY),
    ("azure", 403, {"statusCode": 403, "message": "Out of call volume quota. It is replenished in 12 days."}, MONEY),
    ("azure", 404, said("The API deployment for this resource does not exist.", code="DeploymentNotFound"), MODEL),
    (
        "azure",
        400,
        {
            "error": {
                "message": "The prompt triggered the filter.",
                "type": None,
                "param": "prompt",
                "code": None,
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
            }
        },
        FILTER,
    ),
    (
        "azure",
        429,
        said("It has exceeded token rate limit of your tier. Please retry after 6 seconds.", code="429"),
        LIMIT,
    ),
    ("together", 422, said("Input validation error: `inputs` must have less than 64 tokens. Given: 90"), CONTEXT),
    (
        "together",
        404,
        said("Unable to access model x. Please visit the list of models.", code="model_not_available"),
        MODEL,
    ),
    ("fireworks", 404, said("Model not found, inaccessible, and/or not deployed", code="NOT_FOUND"), MODEL),
    ("fireworks", 400, said("The prompt is too long: 90, model maximum context length: 64"), CONTEXT),
    ("fireworks", 412, said("Account x is suspended, possibly due to reaching the monthly spending limit"), (412, "")),
    (
        "groq",
        413,
        said(
            "Request too large for model `x` on tokens per minute (TPM): Limit 6, Requested 7",
            type="tokens",
            code="rate_limit_exceeded",
        ),
        (413, "rate_limit_exceeded"),
    ),
    ("groq", 400, said("The model `x` has been decommissioned.", code="model_decommissioned"), MODEL),
    (
        "mistral",
        400,
        {
            "object": "error",
            "message": "Prompt contains 90 tokens and 0 draft tokens, too large for model "
            "with 64 maximum context length",
            "code": "3051",
        },
        CONTEXT,
    ),
    ("mistral", 401, {"message": "Unauthorized", "request_id": "x"}, KEY),
    ("cohere as openai", 401, {"message": "invalid api token"}, KEY),
    (
        "google as openai",
        400,
        [said("API key not valid. Please pass a valid API key.", status="INVALID_ARGUMENT")],
        KEY,
    ),
    ("google as openai", 404, [said("models/x is not found for API version v1main", status="NOT_FOUND")], MODEL),
    ("google as openai", 429, [said("You exceeded your current quota, please check your plan.", code=429)], MONEY),
    ("anthropic as openai", 400, said("Your credit balance is too low to access the API."), MONEY),
    ("anthropic as openai", 400, said("input length and `max_tokens` exceed context limit: 1 + 2 > 2"), CONTEXT),
    ("bedrock", 400, {"message": "Input is too long for requested model."}, CONTEXT),
    ("bedrock", 400, {"message": "The provided model identifier is invalid."}, MODEL),
    ("bedrock", 403, {"message": "The security token included in the request is invalid."}, KEY),
    ("bedrock", 403, {"__type": "UnrecognizedClientException", "message": "No."}, KEY),
    ("bedrock", 400, {"__type": "ThrottlingException", "message": "Too many tokens, wait."}, LIMIT),
    ("bedrock", 404, {"__type": "ResourceNotFoundException", "message": "Reached its end of life."}, MODEL),
    ("dashscope", 401, {"code": "InvalidApiKey", "message": "Invalid API-key provided.", "request_id": "x"}, KEY),
    ("dashscope", 400, {"code": "Arrearage", "message": "Access denied."}, MONEY),
    ("dashscope", 400, {"code": "DataInspectionFailed", "message": "Output data may contain bad things."}, FILTER),
    ("dashscope", 400, said("Range of input length should be [1, 64]", code="invalid_parameter_error"), CONTEXT),
    ("moonshot", 429, said("Your account is suspended.", type="exceeded_current_quota_error"), MONEY),
    ("moonshot", 400, said("Your request exceeded model token limit: 64", type="invalid_request_error"), CONTEXT),
    (
        "moonshot",
        400,
        said("The request was rejected because it was considered high risk", type="content_filter"),
        FILTER,
    ),
    ("moonshot", 401, said("Invalid Authentication", type="invalid_authentication_error"), KEY),
    ("zhipu", 429, said("余额不足或无可用资源包", code="1113"), MONEY),
    ("zhipu", 400, said("Prompt 超长", code="1261"), CONTEXT),
    ("cerebras", 401, {"message": "Wrong API Key", "type": "invalid_request_error", "code": "wrong_api_key"}, KEY),
    (
        "cerebras",
        404,
        {"message": "Model x does not exist or you do not have access to it.", "code": "model_not_found"},
        MODEL,
    ),
    (
        "nvidia",
        401,
        {"title": "Unauthorized", "status": 401, "detail": "Authentication failed", "type": "about:blank"},
        KEY,
    ),
    (
        "hugging face",
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 64.",
            "error_type": "validation",
        },
        CONTEXT,
    ),
    ("hugging face", 402, {"error": "You have exceeded your monthly included credits for Inference Providers."}, MONEY),
    ("hugging face", 401, {"error": "Invalid username or password."}, KEY),
    (
        "github models",
        413,
        said("Request body too large for x model. Max size: 64 tokens.", code="tokens_limit_reached"),
        CONTEXT,
    ),
    ("github models", 400, said("Unknown model: x", code="unknown_model"), MODEL),
    ("cloudflare", 401, {"success": False, "errors": [{"code": 10000, "message": "Authentication error"}]}, KEY),
    (
        "cloudflare",
        400,
        {"success": False, "errors": [{"code": 7000, "message": "No such model @cf/x or task"}]},
        MODEL,
    ),
    (
        "litellm",
        400,
        said("litellm.ContextWindowExceededError: This model's maximum context length is 64 tokens.", code="400"),
        CONTEXT,
    ),
    ("litellm", 401, said("litellm.AuthenticationError: AuthenticationError: OpenAIException - no", code="401"), KEY),
    (
        "litellm",
        400,
        said("Budget has been exceeded! Current cost: 2, Max budget: 1", type="budget_exceeded", code="400"),
        MONEY,
    ),
    ("one-api", 503, said("No available channel for model x under group default", code="model_not_found"), MODEL),
    ("one-api", 403, said("user quota is not enough", code="insufficient_user_quota", type="new_api_error"), MONEY),
    ("one-api", 500, said("Incorrect API key provided: k***1", code="invalid_api_key", type="upstream_error"), KEY),
    ("one-api", 500, said('status_code=400, {"error": {"message": "too many tokens in the prompt"}}'), CONTEXT),
    ("one-api", 403, said("user quota is not enough", type="new_api_error"), MONEY),
    ("a gateway", 400, said("The team's quota was used up."), MONEY),
    ("a gateway", 413, said("Request too large for model: prompt is 250000 tokens."), CONTEXT),
    ("volcengine", 404, said("The model or endpoint x does not exist.", code="InvalidEndpointOrModel.NotFound"), MODEL),
    ("volcengine", 403, said("Overdue.", code="AccountOverdueError", type="Forbidden"), MONEY),
    ("volcengine", 400, said("Blocked.", code="InputTextSensitiveContentDetected"), FILTER),
    ("a gateway", 400, said("Total tokens in prompt (10) exceed the limit (5)."), CONTEXT),
    ("a gateway", 403, said("Invalid token."), KEY),
    ("a gateway", 400, said("Invalid token in JSON at position 3"), WRONG),
    ("kong", 401, {"message": "No API key found in request"}, KEY),
    ("kong", 429, {"message": "API rate limit exceeded"}, LIMIT),
]


@pytest.mark.parametrize(("who", "status", "body", "expected"), SPOKEN)
def test_an_error_means_the_same_from_every_server(who: str, status: int, body: Any, expected: tuple[int, str]) -> None:
    """A bad key, an empty account, an unknown model, a prompt too long and a blocked text are told apart."""
    error = OPENAI.parse_error(answered(status, body))
    assert (error.status, error.code or "") == expected
    if expected in (KEY, MONEY, MODEL, CONTEXT, FILTER):
        assert not error.retryable
    assert error.code is None or " " not in error.code
    assert error.message and error.upstream_status == status


@pytest.mark.parametrize("kind", SHAPED)
@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, said("Invalid API key."), KEY),
        (403, said("Your account has insufficient funds."), MONEY),
        (400, said("Unknown model: x-9"), MODEL),
        (400, said("The conversation is too long for this model's context window."), CONTEXT),
        (400, said("The response was blocked by our content management policy."), FILTER),
    ],
)
def test_it_does_so_behind_every_type(kind: str, status: int, body: Any, expected: tuple[int, str]) -> None:
    """Users name a type for the dialect; what answers is another server."""
    error = PROVIDERS[kind]().parse_error(answered(status, body))
    assert (error.status, error.code) == expected


@pytest.mark.parametrize("kind", ["anthropic", "google", "cohere"])
@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, {"message": "The security token included in the request is expired"}, KEY),
        (400, {"detail": "This model's maximum context length is 64 tokens"}, CONTEXT),
        (402, {"error": "Payment required"}, MONEY),
        (404, [{"msg": "model x not found"}], MODEL),
        (429, {"success": False, "errors": [{"message": "Too many requests"}]}, LIMIT),
    ],
)
def test_clouds_and_gateways_before_other_dialects_are_understood(
    kind: str, status: int, body: Any, expected: tuple[int, str]
) -> None:
    """They answer in words of their own."""
    error = PROVIDERS[kind]().parse_error(answered(status, body))
    assert (error.status, error.code) == expected


def test_a_type_in_a_header_of_the_cloud_tells() -> None:
    """Amazon's body is a message alone."""
    for kind in ("openai", "anthropic"):
        response = answered(400, {"message": "Wait."}, x_amzn_errortype="ThrottlingException:http://internal.example/")
        error = PROVIDERS[kind]().parse_error(response)
        assert (error.status, error.code, error.retryable) == (*LIMIT, True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (router('{"error": {"message": "Expected a value >= 16."}}', name="Acme"), "Acme: Expected a value >= 16."),
        (router({"error": {"message": "Bad image."}}, name="Acme"), "Acme: Bad image."),
        (router("acme says no", name="Acme"), "acme says no"),
        (router("plain words", name="Acme"), "Acme: plain words"),
        (router("words", message="Upstream refused", name="Acme"), "Acme: Upstream refused: words"),
        (router("<html>", name="Acme"), "Provider returned error"),
        (said('Upstream: {"error": {"message": "Bad seed."}}'), "Upstream: Bad seed."),
        (said('[{"error": {"message": "Bad list."}}]'), '[{"error": {"message": "Bad list."}}]'),
        ({"error": '{"message": "Bad text."}'}, "Bad text."),
        ({"error": ["first", "second"]}, "first"),
        ({"error": {"error": {"message": "deep"}}}, "deep"),
        ({"errors": [{"message": "one"}, {"message": "two"}]}, "one"),
        ([{"error": {"message": "listed"}}], "listed"),
        ("just a text", "just a text"),
        ({"error": "Bad Request", "message": "temperature: too high"}, "temperature: too high"),
        ({"error": "Bad Request", "detail": "top_p: too high"}, "top_p: too high"),
        ({"error_code": 17, "error_msg": "daily limit"}, "daily limit"),
        ({"Response": {"Error": {"Code": "Bad", "Message": "tencent"}}}, "tencent"),
        ({"fault": {"faultstring": "apigee", "detail": {"errorcode": "x"}}}, "apigee"),
        ({"choices": [{"index": 0, "error": {"message": "in a choice"}}]}, "in a choice"),
    ],
)
def test_the_message_is_found_in_every_envelope(body: Any, message: str) -> None:
    """And with it the name of the server that a gateway asked."""
    assert OPENAI.parse_error(answered(400, body)).message == message


def test_a_plain_text_is_a_message_and_a_page_is_none() -> None:
    """Short texts of gateways say what is wrong; pages say nothing."""
    for text, shown in ((b"invalid api key\n", True), (b"<html>invalid api key</html>", False)):
        error = OPENAI.parse_error(HTTPResponse(401, {"content-type": "text/plain; charset=utf-8"}, text))
        assert ("invalid api key" in error.message, error.code) == (shown, "invalid_api_key")


@pytest.mark.parametrize(
    "code", ["Some entity was not found", "参数错误", "error", "invalid_request_error", "400", "a b"]
)
def test_a_sentence_or_a_bare_type_is_no_code(code: str) -> None:
    """Programs compare codes; a sentence stays in nobody's table."""
    error = OPENAI.parse_error(answered(400, {"error": {"message": "No.", "code": code}}))
    assert error.code == "invalid_value"
    assert OPENAI.parse_error(answered(400, said("No.", code="own_code"))).code == "own_code"
    assert OPENAI.parse_error(answered(400, said("No.", type="A whole sentence."))).type == "invalid_request_error"


# --- errors inside a 200 ----------------------------------------------------------------------------------------------

HIDDEN: list[tuple[Any, tuple[int, str], bool]] = [
    (
        {"id": "x", "choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        MONEY,
        False,
    ),
    ({"base_resp": {"status_code": 2049, "status_msg": "invalid api key"}}, KEY, False),
    ({"choices": [], "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, LIMIT, True),
    ({"code": 401, "msg": "token expired or incorrect", "success": False}, KEY, False),
    ({"code": "429", "message": "slow down"}, LIMIT, True),
    ({"code": 20012, "message": "Model does not exist. Please check it carefully.", "data": None}, MODEL, False),
    ({"error_code": 110, "error_msg": "Access token invalid or no longer valid"}, KEY, False),
    ({"status": "error", "message": "the server is busy"}, BUSY, True),
    ({"success": False, "errors": [{"code": 1, "message": "prompt is too long"}]}, CONTEXT, False),
    ({"message": "Unauthorized"}, KEY, False),
    ({"message": "Something happened"}, (502, "upstream_error"), True),
    ({"detail": "Invalid API key"}, KEY, False),
    ({"error": "You have no credits left"}, MONEY, False),
    ({"error": {"code": 402, "message": "Add money."}}, MONEY, False),
    ({"error": {"message": "Authentication failed", "code": None}}, KEY, False),
    ({"error": {"message": "x", "type": "authentication_error"}}, KEY, False),
    ({"error": {"message": "x", "type": "permission_error"}}, (403, "permission_denied"), False),
    ({"error": {"message": "x", "type": "not_found_error"}}, MODEL, False),
    ({"error": {"message": "flaky", "code": 502}, "choices": []}, (502, "upstream_error"), True),
    ({"object": "error", "message": "boom", "code": 400}, WRONG, False),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, BUSY, True),
    ([{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}], KEY, False),
    (router('{"error": {"message": "Invalid token.", "code": "invalid_api_key"}}', 401), KEY, False),
]


@pytest.mark.parametrize(("body", "expected", "retryable"), HIDDEN)
def test_an_error_inside_a_200_has_its_meaning(body: Any, expected: tuple[int, str], retryable: bool) -> None:
    """A bad key and an empty account are not tried again; what a vendor refused used nothing."""
    with pytest.raises(UpstreamError) as caught:
        OPENAI.parse_response(answered(200, body))
    error = caught.value
    assert (error.status, error.code, error.retryable) == (*expected, retryable)
    assert error.is_refusal == (error.status < 500)
    assert retryable or not error.resendable


@pytest.mark.parametrize(("body", "expected", "retryable"), [each for each in HIDDEN if isinstance(each[0], dict)])
def test_a_stream_may_be_such_an_error(body: Any, expected: tuple[int, str], retryable: bool) -> None:
    """As one event."""
    with pytest.raises(UpstreamError) as caught:
        OPENAI.stream_decoder(request(stream=True)).feed(event(body))
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (*expected, retryable)


@pytest.mark.parametrize(
    "more",
    [
        {"error": None},
        {"error": {}},
        {"error": {"message": "", "type": "", "param": "", "code": None}},
        {"error": {"code": 0, "message": ""}},
        {"code": 0, "msg": "success"},
        {"code": 200, "message": "OK", "success": True},
        {"base_resp": {"status_code": 0, "status_msg": ""}},
        {"message": "a note of the gateway"},
        {"errors": []},
        {"status": "completed"},
    ],
)
def test_an_answer_beside_the_fields_of_an_error_is_an_answer(more: dict[str, Any]) -> None:
    """Gateways add them to every answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
    found = OPENAI.parse_response(answered(200, {"choices": [choice], **more}))
    assert found["choices"][0]["message"]["content"] == "Yes."


CUT = {"index": 0, "finish_reason": None, "error": {"code": 502, "message": "The stream broke", "metadata": {}}}
COUNTED = {"prompt_tokens": 11, "completion_tokens": 730, "total_tokens": 741}


def test_an_error_in_a_choice_has_its_own_words_and_what_was_counted() -> None:
    """Whole and streamed: the tokens were used all the same."""
    whole = {"choices": [{**CUT, "message": {"role": "assistant", "content": "Half"}}], "usage": COUNTED}
    with pytest.raises(UpstreamError, match="The stream broke") as caught:
        OPENAI.parse_response(answered(200, whole))
    errors = [caught.value]
    with pytest.raises(UpstreamError, match="The stream broke") as caught:
        OPENAI.stream_decoder(request(stream=True)).feed(
            event({"choices": [{**CUT, "delta": {"content": ""}, "finish_reason": "error"}], "usage": COUNTED})
        )
    for error in [*errors, caught.value]:
        assert (error.status, error.code, error.is_refusal) == (502, "upstream_error", False)
        assert error.usage is not None
        assert error.usage.billed.output == 730


def test_words_of_other_limits_are_no_context() -> None:
    """They share words with it."""
    for message in (
        "Request too large on tokens per minute (TPM): limit 6000, requested 7000 tokens exceed it",
        "max_tokens is too large: 90000 exceeds the maximum number of output tokens allowed",
        "The image is too large for the model, maximum context image size is 5 MB",
        "'temperature' is not supported with this model.",
    ):
        assert meaning_of(400, None, None, message) is None, message
    assert meaning_of(400, "string_above_max_length", None, "messages.0.content is too long: context length") is None


def test_a_long_message_is_read_in_time() -> None:
    """Words that nearly match, over and over."""
    for words in ("model ", "api key ", "exceeds ", "insufficient a b ", "prompt a b ", "rejected a ", "no such "):
        text = json.dumps(said(words * 100_000)).encode()
        assert OPENAI.parse_error(HTTPResponse(400, {}, text)).status in (400, 404)


def test_an_event_named_error_is_one() -> None:
    """Whatever its fields."""
    with pytest.raises(UpstreamError) as caught:
        OPENAI.stream_decoder(request(stream=True)).feed(Event("error", b'{"message": "Insufficient credits"}'))
    assert (caught.value.status, caught.value.code) == MONEY
