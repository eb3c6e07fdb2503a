"""Prints an answer as it is written, from a plain program without asyncio.

Needs a server (`proxy serve`); PROXY_BASE_URL names another address.
"""

from __future__ import annotations

import os

from proxy import SyncMultiModelAPI

with SyncMultiModelAPI(base_url=os.environ.get("PROXY_BASE_URL", "http://127.0.0.1:8000")) as api:
    stream = api.generate_stream("Why is the sky blue?", system="Answer in two sentences.")
    for chunk in stream:
        print(chunk.text, end="", flush=True)
    print(f"\n({stream.answer.model}, {stream.answer.usage.output_tokens} tokens)")
