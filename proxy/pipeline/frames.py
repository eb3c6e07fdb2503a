"""Orchestrates: writes the frames of a stream into its output. Large ones are written in threads, and sent in turns."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import partial

from proxy.pipeline.format import StreamWriter
from proxy.pipeline.off_loop import LARGE_BYTES, OffLoop
from proxy.pipeline.running import CallOutput
from proxy.routing.ask import Sink
from proxy.schema.chat import ChatChunk
from proxy.schema.long_text import slices
from proxy.schema.usage import Usage


def sink_of(writer: StreamWriter, output: CallOutput, off_loop: OffLoop) -> Sink:
    """What takes chunks and writes their frames."""

    def sink(batch: list[ChatChunk]) -> Awaitable[None] | None:
        if writer.held > LARGE_BYTES:
            return apart(batch)
        frames = writer.write(batch)
        if len(frames) > LARGE_BYTES:
            return _send(output, slices(frames))
        return output.write(frames) if frames else None

    async def apart(batch: list[ChatChunk]) -> None:
        await _send(output, slices(await off_loop.run(writer.held, partial(writer.write, batch))))

    return sink


async def last_frames(writer: StreamWriter, usage: Usage, output: CallOutput, off_loop: OffLoop) -> bytes:
    """The end of the stream. All but the last part of a large one is sent."""
    frames = await off_loop.run(writer.held, partial(writer.tail, usage))
    if len(frames) <= LARGE_BYTES:
        return frames
    *before, last = slices(frames)
    await _send(output, before)
    return bytes(last)


async def _send(output: CallOutput, parts: Iterable[memoryview]) -> None:
    for part in parts:
        if (wait := output.write(bytes(part))) is not None:
            await wait
