"""`site` of a chat request: what is added to it, and that the bound of its cost knows."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from proxy.config.sites import shipped_sites
from proxy.pipeline.site import applied
from proxy.schema.chat import ChatRequest
from proxy.schema.errors import BadRequest
from proxy.server.formats.chat import decode_chat
from proxy.sites.catalog import Catalog
from proxy.sites.match import Matcher

SITES = Matcher(Catalog(shipped_sites()))


def asked(**fields: object) -> ChatRequest:
    messages = [{"role": "user", "content": "the page"}]
    return decode_chat(json.dumps({"model": "m", "messages": messages, "site": {"id": "arxiv"}, **fields}).encode())


async def test_the_prompt_and_the_schema_count_for_the_bound() -> None:
    """A hold is taken for what is sent, not for what the client wrote."""
    request = asked()
    with_site = await applied(request, SITES)
    added = json.dumps([with_site.fields["messages"][0], with_site.fields["response_format"]], separators=(",", ":"))
    assert with_site.size >= request.size + len(added)
    assert with_site.site == "arxiv/paper"


async def test_both_views_of_the_messages_agree() -> None:
    """Facts and token counts read the one, providers the other; the client's own request is not changed."""
    request = asked()
    with_site = await applied(request, SITES)
    assert isinstance(with_site, ChatRequest)
    assert [message.content for message in with_site.messages] == [m["content"] for m in with_site.fields["messages"]]
    assert len(request.fields["messages"]) == 1 and "site" in request.fields


async def test_several_questions_in_one_request_take_no_site() -> None:
    """Each message of such a request is a question of its own, so none can be the prompt of the others."""
    with pytest.raises(BadRequest, match="only /v1/chat/completions"):
        await applied(replace(asked(), questions=2), SITES)


async def test_the_index_is_made_once() -> None:
    """By the first request that needs it: one that names its task does not."""
    matcher = Matcher(Catalog(shipped_sites()))
    await applied(asked(site={"id": "arxiv", "task": "search"}), matcher)
    assert not matcher.is_ready
    await applied(asked(), matcher)
    assert matcher.is_ready
