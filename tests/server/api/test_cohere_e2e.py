"""What only Cohere has, through the product; what all vendors have is in `test_vendors_e2e`."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.server.api.end_to_end import HELLO, streamed
from tests.server.api.raw import post
from tests.serving import Server
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_usage_has_openais_names(sdk: Any):
    """It counts what was read and written, whole and streamed; the cost is of what is billed, 3 and 10 tokens."""
    whole = await sdk.chat.completions.create(model="cohere/ok", messages=HELLO)
    _, chunks = await streamed(sdk, "cohere/ok")
    for usage in (whole.usage, chunks[-1].usage):
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (503, 12, 515)
        assert usage.cost == pytest.approx(3 * 2e-6 + 10 * 10e-6)
        assert not hasattr(usage, "billed_units")


async def test_embeddings_are_answered_in_batches(vendors: Server, upstream: FakeUpstream):
    """The SDK asks for base64 and gets its numbers; more inputs than the vendor takes at once are several calls."""
    texts = [f"text {'x' * place}" for place in range(100)]
    found = await vendors.client.embeddings.create(model="cohere/ok", input=texts, dimensions=8)
    assert [each.embedding[:2] for each in found.data] == [
        [float(len(text.split())), float(len(text))] for text in texts
    ]
    assert found.usage.prompt_tokens == sum(len(text.split()) for text in texts)
    assert len(upstream.ledger) == 2
    with pytest.raises(openai.BadRequestError) as caught:
        await vendors.client.embeddings.create(model="cohere/ok", input=[[1, 2]])
    assert caught.value.code == "unsupported_content"


async def test_rankings_are_answered_and_their_units_kept(vendors: Server, upstream: FakeUpstream):
    """The most relevant first, with its text where that was asked."""
    body = {"model": "cohere/ok", "query": "blue sky", "documents": ["red", "blue sky", "blue"], "top_n": 2}
    answer = await post(vendors.port, json.dumps({**body, "return_documents": True}).encode(), "/v1/rerank")
    assert answer.status == 200, answer.body
    assert [(each["index"], each["document"]["text"]) for each in answer.json["results"]] == [
        (1, "blue sky"),
        (2, "blue"),
    ]
    assert answer.json["meta"]["billed_units"]["search_units"] == 1
