"""Long texts and bytes in steps: what one call would return."""

from __future__ import annotations

import base64
import random

import pytest

from proxy.schema.long_text import base64_text, concatenated, from_base64, joined_bytes, slices

DATA = random.Random(1).randbytes(5_000_003)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 768 * 1024, 768 * 1024 + 1, len(DATA)])
def test_long_data_equals_what_one_call_returns(size: int) -> None:
    """Also at the borders of a step."""
    data = DATA[:size]
    assert b"".join(slices(data)) == data
    assert joined_bytes([data, b"x", data, b""]) == data + b"x" + data
    text = base64.b64encode(data).decode()
    assert base64_text(data) == text and from_base64(text) == data
    assert base64_text(data, base64.urlsafe_b64encode) == base64.urlsafe_b64encode(data).decode()
    assert concatenated("head,", text) == "head," + text
    assert concatenated("head,", text, 7) == "head," + text[7:]


@pytest.mark.parametrize("text", ["A", "A===", "AA=A", "é" * 4, "A" * 786_430 + "==" + "A" * 8])
def test_wrong_base64_is_refused(text: str) -> None:
    """Padding in the middle too, where a step ends."""
    with pytest.raises(ValueError, match=r"base64|padding|ASCII|Excess"):
        from_base64(text)
