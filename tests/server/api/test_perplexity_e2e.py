"""What only Perplexity has, through the product; what all vendors have is in `test_vendors_e2e`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.api.end_to_end import HELLO, streamed
from tests.upstream.perplexity_wire import COST_USD, RESULT

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEARCH: Any = {"web_search_options": {"search_context_size": "low"}}


async def test_what_a_search_found_is_in_the_answer(sdk: Any):
    """`citations` and `search_results` as the older API had them, `url_citation`s as OpenAI has."""
    whole = await sdk.chat.completions.create(model="perplexity/ok", messages=HELLO, extra_body=SEARCH)
    cited = {"start_index": 0, "end_index": 4, "title": RESULT["title"], "url": RESULT["url"]}
    assert whole.citations == [RESULT["url"]]
    assert whole.search_results == [RESULT]
    assert [each.model_dump() for each in whole.choices[0].message.annotations] == [
        {"type": "url_citation", "url_citation": cited}
    ]
    _, chunks = await streamed(sdk, "perplexity/ok", extra_body=SEARCH)
    assert chunks[-1].citations == [RESULT["url"]]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    noted = [each for delta in deltas for each in getattr(delta, "annotations", None) or []]
    assert [each["url_citation"] for each in noted] == [cited]


async def test_the_vendors_own_cost_stands_beside_ours(sdk: Any):
    """Whole and streamed."""
    whole = await sdk.chat.completions.create(model="perplexity/ok", messages=HELLO)
    _, chunks = await streamed(sdk, "perplexity/ok")
    assert [whole.usage.provider_cost, chunks[-1].usage.provider_cost] == [COST_USD, COST_USD]
