"""Whatever body comes, the answer is one that OpenAI's clients can read, and none is a fault of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.api.raw import HELLO, Answer, chat, post
from tests.serving import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

same_every_time = settings(max_examples=200, deadline=None, derandomize=True)  # a shared machine has slow moments

TEXTS = st.text(max_size=12)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from(
        ["user", "assistant", "tool", "developer", "text", "image_url", "function", "auto", "json_schema"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "function", "name", "arguments", "id", "index"])
            | TEXTS,
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = (
    *(
        "model",
        "messages",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "temperature",
        "stop",
    ),
    *("tools", "tool_choice", "response_format", "seed", "user", "metadata", "logit_bias", "functions", "modalities"),
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "developer", "tool"]) | VALUES, "content": VALUES}
    )
    | VALUES,
    max_size=3,
)
# Close to a good request, so that what is odd reaches as deep as it can.
ALMOST = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["fake/ok", "fake/echo", "fake/tools", "auto", "fake/e429", "nobody"]),
        "messages": st.just(HELLO) | MESSAGES,
        "stream": st.sampled_from([True, False, None]),
    },
    optional=dict.fromkeys(FIELDS[3:], VALUES),
).flatmap(lambda body: st.dictionaries(TEXTS, VALUES, max_size=2).map(lambda more: {**more, **body}))


def check(answer: Answer) -> None:
    """A whole answer, a stream with its end, or an error in OpenAI's shape; 5xx only where the upstream failed."""
    if answer.status == 200:
        if answer.headers("content-type") == ["application/json"]:
            assert answer.json["object"] == "chat.completion"
            return
        *_, last = answer.events
        assert last == "[DONE]" or "metadata" in last["error"]
        return
    error = answer.error()
    assert answer.status < 500 or "upstream_status" in error["metadata"]


@given(body=ALMOST)
@same_every_time
async def test_almost_good_requests_are_served_or_refused(server: Server, body: dict[str, Any]) -> None:
    """One or more fields are of any type."""
    check(await post(server.port, json.dumps(body).encode()))


@given(name=st.sampled_from(FIELDS), value=VALUES, stream=st.booleans())
@same_every_time
async def test_any_value_of_any_field_is_served_or_refused(
    server: Server, name: str, value: object, stream: bool
) -> None:
    """A good request but for one field."""
    fields: dict[str, Any] = {"model": "fake/ok", "stream": stream, name: value}
    check(await post(server.port, chat(**fields)))


@given(body=st.binary(max_size=300) | VALUES.map(lambda value: json.dumps(value).encode()))
@same_every_time
async def test_any_bytes_are_refused(server: Server, body: bytes) -> None:
    """Nothing of it is a request, so all of it is a 400."""
    answer = await post(server.port, body)
    check(answer)
    assert answer.status == 400
