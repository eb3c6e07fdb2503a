"""`/v1/responses` with references to items of earlier answers, which some SDKs send unless they say `store: false`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.server.api.test_responses import PRICING, ROUTING, TOOLS, USER, final, model_of
from tests.serving import Server, serving, write_files
from tests.upstream import FakeUpstream
from tests.upstream.responses_wire import ROOT

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEEPING = ROUTING.replace(', reasoning_state: "off"', "")
THINKS = "tools(n=2)-reasoning(n=3)"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(upstream_of_module: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    origin = upstream_of_module.url.removesuffix("/v1")
    routing = KEEPING.replace("URL", origin + ROOT).replace("ORIGINGROQ", origin).replace("ORIGINMISTRAL", origin)
    folder: Path = tmp_path_factory.mktemp("references")
    async with serving(write_files(folder, upstream_of_module.url, routing, PRICING)) as running:
        yield running


@pytest.fixture
def api(server: Server, upstream: FakeUpstream) -> Any:
    return server.client.responses


async def asked(api: Any, is_streamed: bool, **fields: Any) -> Any:
    fields |= {"tools": TOOLS, "reasoning": {"effort": "high"}}
    return await (final(api, **fields) if is_streamed else api.create(**fields))


def results(answer: Any) -> list[dict[str, Any]]:
    calls = [item for item in answer.output if item.type == "function_call"]
    return [{"type": "function_call_output", "call_id": call.call_id, "output": "done"} for call in calls]


def references(answer: Any) -> list[dict[str, Any]]:
    return [{"type": "item_reference", "id": item.id} for item in answer.output]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("vendor", ["deep", "ant", "gem"])
@pytest.mark.sampled(3)
async def test_references_reach_the_vendor_as_the_items_themselves(
    api: Any, upstream: FakeUpstream, vendor: str, is_streamed: bool
) -> None:
    """Over two turns with tools, thoughts included: the vendor gets the same bytes."""
    model = model_of(vendor, upstream, THINKS)
    short: list[Any] = [USER]
    full: list[Any] = [USER]
    for _ in range(2):
        answer = await asked(api, is_streamed, model=model, input=short)
        assert len(answer.output) > 2
        short += [*references(answer), *results(answer)]
        full += [*answer.output, *results(answer)]
    model_of(vendor, upstream, "echo")
    told = [await asked(api, is_streamed, model=model, input=items) for items in (short, full)]
    assert told[0].output_text == told[1].output_text
    assert "done" in told[0].output_text


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_references_to_what_openai_stored_reach_openai(
    api: Any, upstream: FakeUpstream, is_streamed: bool
) -> None:
    """As they are. Another vendor cannot have the items, and the error says what to set."""
    model = model_of("openai", upstream, THINKS)
    answer = await asked(api, is_streamed, model=model, input=[USER])
    items = [USER, *references(answer), *results(answer)]
    told = await asked(api, is_streamed, model=model_of("openai", upstream, "echo"), input=items)
    assert json.loads(told.output_text)["input"] == items
    with pytest.raises(openai.BadRequestError, match=r"has no item .*`store: false`") as caught:
        await asked(api, is_streamed, model="ant/ok", input=items)
    assert caught.value.param == "input.1.id"


async def test_an_answer_that_must_not_be_stored_is_not(api: Any, upstream: FakeUpstream) -> None:
    """Nor is there one of a call that never was."""
    answer = await asked(api, False, model=model_of("deep", upstream, "ok"), input=[USER], store=False)
    for identity in (answer.output[0].id, f"msg_{26 * '0'}_0"):
        with pytest.raises(openai.BadRequestError, match=r"no item .* is stored here") as caught:
            await asked(api, False, model="deep/ok", input=[USER, {"type": "item_reference", "id": identity}, USER])
        assert caught.value.param == "input.1.id"
