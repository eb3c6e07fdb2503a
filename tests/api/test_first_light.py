"""The main path, through the unmodified SDK and a real upstream socket."""

from __future__ import annotations

from pathlib import Path

from tests.serving import serving, write_files
from tests.upstream import FakeUpstream


async def test_whole_and_streamed_answers_are_metered(tmp_path: Path) -> None:
    """Two calls, two rows, exact usage and cost."""
    async with FakeUpstream() as upstream, serving(write_files(tmp_path, upstream.url)) as server:
        messages = [{"role": "user", "content": "one two three"}]
        whole = await server.client.chat.completions.create(model="fake/ok(n_tokens=5)", messages=messages)  # type: ignore[call-overload]
        stream = await server.client.chat.completions.create(  # type: ignore[call-overload]
            model="fake/ok(n_tokens=7)", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert whole.usage.completion_tokens == 5
        assert chunks[-1].usage.completion_tokens == 7
        usage = await server.parts.ledger.usage(__import__("proxy.records").records.UsageQuery())
        assert (usage["total"]["calls"], usage["total"]["output_tokens"]) == (2, 12)
        assert [seen.usage["completion_tokens"] for seen in upstream.ledger if seen.usage] == [5, 7]
