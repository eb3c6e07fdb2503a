"""Values and I/O: vendors with a wire of their own behind one proxy: what differs between them, how they are asked.

`VENDORS` says of each what is not the same for all: `test_vendors_e2e` asks the same of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.providers.corpus import tool
from tests.upstream.cohere_wire import END_TOKENS, TEMPLATE_TOKENS
from tests.upstream.dialects import GROQ, MISTRAL
from tests.upstream.responses_wire import ROOT as RESPONSES

HELLO: Any = [{"role": "user", "content": "one two three"}]  # three prompt tokens
TEN = " ".join(f"tok{place}" for place in range(10))  # what the mode `ok` says
INPUT_USD, OUTPUT_USD, CACHED_USD = 2e-6, 10e-6, 0.5e-6  # per token
KEY = "sk-the-key-of-the-tests-0123456789"


@dataclass(frozen=True)
class Vendor:
    """`path`: where a chat request arrives. `dropped` and `adapted`: what becomes of a request with everything.

    `errors`: status and code by mode, where they are not `ERRORS` or beside them; `waits`: Retry-After in seconds by
    mode. `unbilled`: tokens in and out that are counted beside those that are billed. `options`: further keys of its
    section. `shows_thoughts`: what a request needs for them to be shown.
    """

    path: str
    dropped: set[str]
    adapted: set[str]
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    waits: dict[str, str] = field(default_factory=lambda: {"e429(retry_after=3)": "3"})
    root: str = "/v1"
    key_header: str = "authorization"
    cached_usd: float = CACHED_USD
    unbilled: tuple[int, int] = (0, 0)
    counts_thoughts: bool = True
    choices_at_once: bool = False
    options: str = ""
    shows_thoughts: dict[str, Any] = field(default_factory=dict)

    def check_usage(self, usage: Any, prompt: int, output: int, cached: int = 0) -> None:
        """The counts, and what the billed ones of them cost."""
        counts = (prompt + self.unbilled[0], output + self.unbilled[1])
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (*counts, sum(counts))
        assert (usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0) == cached
        cost = (prompt - cached) * INPUT_USD + cached * self.cached_usd + output * OUTPUT_USD
        assert usage.cost == pytest.approx(cost)


# What the modes of the fake upstream become, whoever the vendor is.
ERRORS: dict[str, tuple[int, str]] = {
    "e401": (401, "invalid_api_key"),
    "e404": (404, "model_not_found"),
    "e429(retry_after=3)": (429, "rate_limit_exceeded"),
    "context_length": (400, "context_length_exceeded"),
    "e500": (502, "upstream_error"),
    "e503": (503, "upstream_unavailable"),
    "e504": (504, "upstream_timeout"),
    "html_502": (502, "upstream_error"),
    "empty_200": (502, "upstream_truncated"),
    "json_in_200_error": (502, "upstream_error"),
    "cut_fin": (502, "upstream_truncated"),
}
ONLY_WHOLE = ("empty_200", "json_in_200_error", "no_finish", "cut_fin")  # a stream's status is out by then
EVERYTHING: dict[str, Any] = {
    "temperature": 1.5,
    "top_p": 1,
    "top_k": 3,
    "seed": 1,
    "presence_penalty": 0.5,
    "stop": ["a", "b", "c", "d", "zz"],
    "user": "ada",
    "store": True,
    "metadata": {"a": "b"},
    "logit_bias": {"1": 1},
    "service_tier": "default",
    "prediction": {"type": "content", "content": "x"},
    "verbosity": "low",
    "safety_identifier": "ada",
    "parallel_tool_calls": False,
    "tools": [tool(cache_control={"type": "ephemeral"})],
    "min_q": 0.1,
}
_NOWHERE = {"logit_bias", "verbosity", "min_q"}
_RARE = {*_NOWHERE, "metadata", "prediction"}

VENDORS = {
    "anthropic": Vendor(
        path="/v1/messages",
        dropped=_RARE | {"seed", "presence_penalty", "store"},
        adapted={"temperature"},
        errors={
            "e400": (400, "invalid_value"),
            "e402": (429, "insufficient_quota"),
            "e400(code=insufficient_quota)": (429, "insufficient_quota"),
            "e403": (403, "permission_denied"),
            "e413": (413, "request_too_large"),
            "e503": (503, "upstream_error"),
            "e529": (503, "overloaded"),
        },
        key_header="x-api-key",
    ),
    "google": Vendor(
        path="/v1/models/ok:generateContent",
        dropped=_RARE | {"parallel_tool_calls", "presence_penalty", "user", "store", "safety_identifier"},
        adapted=set(),
        errors={
            "e400": (400, "invalid_value"),
            "e400(code=API_KEY_INVALID)": (401, "invalid_api_key"),
            "e403": (403, "permission_denied"),
            "e429": (429, "rate_limit_exceeded"),
            "e429(code=insufficient_quota)": (429, "insufficient_quota"),
        },
        waits={"e429": "8", "e429(retry_after=3)": "8"},  # the body says 7.5 s
        key_header="x-goog-api-key",
    ),
    "cohere": Vendor(
        path="/v1/v2/chat",
        dropped=_RARE | {"tools.cache_control", "parallel_tool_calls", "user", "store", "safety_identifier"},
        adapted={"top_p"},
        errors={
            "e402": (429, "insufficient_quota"),
            "e422": (400, "invalid_value"),
            "e429(code=insufficient_quota)": (429, "insufficient_quota"),
        },
        cached_usd=INPUT_USD,  # no price of its own
        unbilled=(TEMPLATE_TOKENS, END_TOKENS),
        counts_thoughts=False,
    ),
    "perplexity": Vendor(
        path="/v1/responses",
        dropped=_RARE
        | {"tools.cache_control", "top_k", "seed", "presence_penalty", "user", "safety_identifier"}
        | {"parallel_tool_calls"},
        adapted={"stop"},
        errors={"e402": (429, "insufficient_quota"), "no_finish": (502, "upstream_error")},
        counts_thoughts=False,
    ),
    "openai": Vendor(
        path=f"{RESPONSES}/responses",
        dropped={"tools.cache_control", "top_k", "seed", "presence_penalty", "logit_bias", "prediction", "min_q"},
        adapted={"stop"},
        errors={"no_finish": (502, "upstream_error")},
        root=RESPONSES,
        counts_thoughts=True,
        options="api: responses, ",
        shows_thoughts={"extra_body": {"reasoning": {"summary": "auto"}}},
    ),
    "mistral": Vendor(
        path=f"{MISTRAL}/chat/completions",
        dropped=_NOWHERE | {"tools.cache_control", "user", "store", "safety_identifier"},
        adapted=set(),
        root=MISTRAL,
        choices_at_once=True,
    ),
    "groq": Vendor(
        path=f"{GROQ}/chat/completions",
        dropped=_RARE | {"tools.cache_control", "top_k", "presence_penalty", "store", "safety_identifier"},
        adapted={"stop"},
        errors={"e429": (429, "rate_limit_exceeded")},
        waits={"e429": "5", "e429(retry_after=3)": "3"},  # of itself the body says 4.77 s, and no header
        root=GROQ,
    ),
}


def routing(origin: str) -> str:
    """Of all vendors, each with its key in `NAME_API_KEY`."""
    lines = ["version: 1", 'storage: {{url: "sqlite:///{db}"}}', "providers:"]
    for name, vendor in VENDORS.items():
        options = f"{vendor.options}allow_private: true, price: null, retries: 0, api_key_env: {name.upper()}_API_KEY"
        lines.append(f"  {name}: {{{{base_url: '{origin}{vendor.root}', {options}, timeout_s: {{timeouts}}}}}}")
    return "\n".join([*lines, "router: {{default_model: anthropic/ok}}", ""])


PRICING = "version: 1\nmodels:\n" + "".join(
    f"  {name}/*: {{input: 2.00, output: 10.00, cached_input: {vendor.cached_usd * 1e6:.2f}, max_output: 4096}}\n"
    for name, vendor in VENDORS.items()
)
KEYS = {f"{name.upper()}_API_KEY": f"{KEY}-{name}" for name in VENDORS}


async def streamed(client: Any, model: str, **fields: Any) -> tuple[Any, list[Any]]:
    """The completion that the SDK's own accumulation makes of a stream, and the chunks."""
    chunks = []
    asked = {"messages": HELLO, "stream_options": {"include_usage": True}, **fields}
    async with client.beta.chat.completions.stream(model=model, **asked) as events:
        async for event in events:
            if event.type == "chunk":
                chunks.append(event.chunk)
        return await events.get_final_completion(), chunks


def thoughts(chunks: list[Any]) -> str:
    """The reasoning in a stream, which the SDK does not put together."""
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    return "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
