"""Rules of counting without a tokenizer: a bound holds, an estimate is close."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.metering.tokens import estimate, estimate_prompt, input_bound, utf8_size
from proxy.schema.json import encode
from proxy.server.formats.chat import decode_chat
from proxy.server.formats.embeddings import decode_embeddings
from proxy.server.formats.rerank import MAX_DOCUMENTS, decode_rerank


def test_no_text_is_no_token_and_any_text_is_one() -> None:
    """The smallest answers count."""
    assert (estimate(""), estimate("a"), estimate("漢")) == (0, 1, 1)


def test_english_is_about_four_characters_to_a_token() -> None:
    """Within a third of what common tokenizers make of plain prose (9 to 10 tokens here)."""
    assert 7 <= estimate("The quick brown fox jumps over the lazy dog.") <= 13


def test_a_long_text_is_counted_by_its_beginning() -> None:
    """Close to what all of it gives, in any script, and in no time: the texts of an answer are counted on the loop."""
    for unit in ("word ", "漢字 и русский ", "😀"):
        text = unit * (5_000_000 // len(unit))
        assert abs(utf8_size(text) / len(text.encode()) - 1) < 0.001
        assert abs(estimate(text) / (estimate(unit * 1000) * len(text) / len(unit * 1000)) - 1) < 0.01


@given(st.lists(st.text(max_size=200), min_size=1, max_size=5))
def test_the_bound_is_never_below_the_bytes_of_the_texts(texts: list[str]) -> None:
    """A token of a byte-level vocabulary covers a byte at least."""
    fields: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
    request = decode_chat(encode(fields))
    bound = input_bound(request)
    assert bound >= sum(len(text.encode()) for text in texts) + len(texts)
    assert estimate_prompt(request) <= bound


def test_parts_of_text_are_counted_and_others_are_not() -> None:
    """A list of parts is its texts; an image is no text."""
    parts = [{"type": "text", "text": "x" * 400}, {"type": "image_url", "image_url": {"url": "data:" + "y" * 4000}}]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode()
    assert estimate_prompt(decode_chat(body)) == 104


def test_a_query_is_read_with_every_document() -> None:
    """By the bound and by the estimate; but it is not written so often: that would be 10 GB of it here."""
    fields = {"model": "m", "query": "q" * 1_000_000, "documents": ["d"] * MAX_DOCUMENTS}
    body = json.dumps(fields).encode()
    request = decode_rerank(body)
    assert estimate_prompt(request) == MAX_DOCUMENTS * (4 + 250_000 + 1)
    assert input_bound(request) > MAX_DOCUMENTS * 1_000_001
    body = json.dumps({**fields, "documents": ["d"]}).encode()
    assert input_bound(decode_rerank(body)) < len(body) + 1000


def test_token_ids_are_tokens() -> None:
    """A list of them is one input."""
    request = decode_embeddings(b'{"model": "m", "input": [[1, 2, 3], [4]]}')
    assert estimate_prompt(request) == 4 + 3 + 4 + 1
    assert input_bound(request) >= 4
