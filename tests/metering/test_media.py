"""Bounds of what is no text: pixels bound an image and seconds a recording; what a vendor fetches has no bound."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64encode
from typing import Any

import pytest

from proxy.metering.media import audio_bound, image_bound, media_of, size_of
from proxy.metering.pricing import ModelPrice
from proxy.providers import PROVIDERS
from proxy.providers.anthropic import Anthropic
from proxy.providers.base.contract import Provider
from proxy.providers.google import Google
from proxy.providers.mistral import Mistral
from proxy.providers.openai import OpenAI
from proxy.providers.perplexity import Perplexity
from proxy.providers.together import Together
from proxy.routing.deployment import Deployment
from proxy.routing.plan import attempt_bound
from proxy.schema.chat import ChatRequest
from proxy.server.formats.chat import decode_chat


def png(width: int, height: int) -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (1 + (width + 7) // 8) * height, 9)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return "data:image/png;base64," + b64encode(data).decode()


JPEG = b"\xff\xd8\xff\xe1\x00\x08Exif\0\0\xff\xc0\x00\x11\x08" + struct.pack(">HH", 480, 640) + b"\x03" * 20
GIF = b"GIF89a" + struct.pack("<HH", 640, 480) + b"\0" * 8
WEBP = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")
LOSSLESS = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + (639 | 479 << 14).to_bytes(4, "little") + b"\0" * 8


def wav(seconds: int, rate: int = 16_000, bits: int = 16) -> str:
    head = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0" + struct.pack("<HHIIHH", 1, 1, rate, rate * bits // 8, bits // 8, bits)
    return b64encode(head + b"data\0\0\0\0" + b"\0" * (seconds * rate * bits // 8)).decode()


@pytest.mark.parametrize("data", [JPEG, GIF, WEBP, LOSSLESS])
def test_the_size_of_an_image_is_read_from_its_head(data: bytes) -> None:
    """Of every kind that vendors take."""
    assert size_of("data:image/any;base64," + b64encode(data).decode()) == (640, 480)
    assert size_of(png(640, 480)) == (640, 480)


@pytest.mark.parametrize(
    "data", ["", "data:,", "data:image/png;base64,!!!!", "AAAA", b64encode(b"\xff\xd8\xff").decode()]
)
def test_what_is_no_image_has_no_size(data: str) -> None:
    """Nothing is guessed."""
    assert size_of(data) is None


# Images and what vendors billed for them: their own pages, and measurements of October 2026.
HEARD = {name: kind.audio_tokens_per_s for name, kind in PROVIDERS.items()}
BILLED = [
    ("openai", "gpt-4o", 1024, 1024, 765),
    ("openai", "gpt-4o", 2048, 4096, 1105),
    ("openai", "gpt-4o-mini", 1024, 1024, 25_501),
    ("openai", "gpt-6-astra", 4032, 3024, 14_364),
    ("openai", "gpt-5.5", 4032, 3024, 11_868),
    ("openai", "gpt-5-mini", 1024, 1024, 1_659),
    ("anthropic", "claude-opus-5-5", 4032, 3024, 4_005),
    ("anthropic", "claude-haiku-4-5", 4032, 3024, 1_661),
    ("google", "gemini-3.8-flash", 1920, 1080, 1_101),
    ("google", "gemini-2.0-flash", 960, 540, 6 * 258),
    ("mistral", "pixtral-12b", 1024, 1024, 4_160),
]


@pytest.mark.parametrize(("dialect", "model", "width", "height", "billed"), BILLED)
def test_no_image_costs_more_than_its_bound(dialect: str, model: str, width: int, height: int, billed: int) -> None:
    """By the vendor's formula; and the bound is not absurd either."""
    bound = image_bound(PROVIDERS[dialect].image_rules, model, png(width, height))
    assert bound is not None
    assert billed <= bound <= 12 * billed


def test_an_image_of_few_bytes_is_bounded_by_its_pixels() -> None:
    """A file of 1 kB, and 25,501 tokens."""
    data = png(1024, 1024)
    assert len(data) < 1_000
    assert (image_bound(OpenAI.image_rules, "gpt-4o-mini", data) or 0) >= 25_501


def test_recordings_are_bounded_by_their_length() -> None:
    """Of WAV by its head, of MP3 by the lowest bit rate. What is packed otherwise has no formula."""
    assert 32 * 60 <= (audio_bound(HEARD["google"], wav(60), "wav") or 0) <= 34 * 60
    assert 10 * 60 <= (audio_bound(HEARD["openai"], wav(60, rate=8000, bits=8), "wav") or 0) <= 11 * 60
    assert audio_bound(HEARD["openai"], "A" * 4_000_000, "mp3") == 30_010
    assert audio_bound(HEARD["openai"], "A" * 4_000, "flac") is None
    assert audio_bound(HEARD["groq"], wav(1), "wav") is None


def request(*parts: dict[str, Any], **fields: Any) -> ChatRequest:
    content = [{"type": "text", "text": "Look."}, *parts]
    return decode_chat(
        json.dumps({"model": "x", "messages": [{"role": "user", "content": content}], **fields}).encode()
    )


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def bound(asked: ChatRequest, provider: Provider, model: str, **price: Any) -> int | None:
    row = ModelPrice(**{"input": 1, "output": 0, "max_output": 100, **price})
    return attempt_bound(asked, Deployment("p", provider, model, row))


def test_a_photograph_is_not_held_for_by_its_bytes() -> None:
    """A megabyte of base64 is at most 5,000 tokens at Anthropic."""
    photograph = image("data:image/jpeg;base64," + b64encode(JPEG + b"\0" * 1_000_000).decode())
    found = bound(request(photograph), Anthropic(), "claude-opus-5-5")
    assert found is not None
    assert 5_000_000 < found < 6_500_000  # nano-USD, at 1,000 a token


FETCHED: list[tuple[tuple[dict[str, Any], ...], dict[str, Any]]] = [
    ((image("https://example.com/a.png"),), {}),
    (({"type": "file", "file": {"file_id": "file-1"}},), {}),
    (({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},), {}),
    (({"type": "input_audio", "input_audio": {"url": "https://example.com/a.mp3"}},), {}),
    ((), {"web_search_options": {}}),
    ((), {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ((), {"tools": [{"googleSearch": {}}]}),
]


@pytest.mark.parametrize(("parts", "fields"), FETCHED)
def test_what_the_vendor_fetches_has_no_bound_but_the_rows_own(
    parts: tuple[dict[str, Any], ...], fields: dict[str, Any]
) -> None:
    """`max_extra_usd`: at most so much a request."""
    asked = request(*parts, **fields)
    assert media_of(asked).is_fetched
    assert bound(asked, OpenAI(), "gpt-4o") is None
    capped, text = bound(asked, OpenAI(), "gpt-4o", max_extra_usd=0.05), bound(request(), OpenAI(), "gpt-4o")
    assert capped is not None
    assert text is not None
    assert 50_000_000 < capped < 50_000_000 + 2 * text


@pytest.mark.parametrize(
    ("provider", "model"),
    [(Perplexity(), "perplexity/sonar"), (OpenAI(), "gpt-4o-search-preview"), (OpenAI(), "o3-deep-research")],
)
def test_a_model_that_searches_unasked_has_no_bound_either(provider: Provider, model: str) -> None:
    """Unless its row says how much that may add."""
    assert bound(request(), provider, model) is None
    assert bound(request(), provider, model, max_extra_usd=0.05) is not None


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "flac"}},
        image("data:image/tiff;base64,AAAA"),
    ],
)
def test_what_no_formula_bounds_is_bounded_by_the_context(part: dict[str, Any]) -> None:
    """The vendor refuses a longer prompt. Without a known context there is no bound."""
    price = {"audio_input": 1, "context": 1000}
    found = bound(request(part), OpenAI(), "gpt-6-luna", **price)
    assert found in (1_000_000, 2_000_000)
    assert bound(request(part), OpenAI(), "gpt-6-luna", audio_input=1) is None


def test_tools_of_the_client_are_text() -> None:
    """Functions, and those that Anthropic defines and the client runs."""
    tools: list[dict[str, Any]] = [
        {"type": "function", "function": {"name": "f"}},
        {"type": "custom", "custom": {"name": "g"}},
        {"name": "h", "input_schema": {}},
        {"type": "bash_20250124", "name": "bash"},
    ]
    assert not media_of(request(tools=tools)).is_fetched


def test_what_the_vendor_says_of_its_own_tools_counts() -> None:
    """The memory tool's instructions were 1,600 tokens in recorded traffic, and 60 bytes in the request."""
    plain, armed = request(), request(tools=[{"type": "memory_20250818", "name": "memory"}])
    less, more = bound(plain, Anthropic(), "claude-sonnet-4-5"), bound(armed, Anthropic(), "claude-sonnet-4-5")
    assert less is not None
    assert more is not None
    assert more - less > 1_600_000


@pytest.mark.parametrize("field", ["mcp_servers", "cachedContent", "container"])
def test_what_the_vendor_keeps_or_asks_has_no_bound(field: str) -> None:
    """The request names it, and does not hold it."""
    assert bound(request(**{field: "x"}), OpenAI(), "gpt-4o") is None


def test_terms_of_service_count_in_the_bound() -> None:
    """A request for priority is held for at its price, and one without a price has no bound."""
    price = {"service_tiers": {"priority": 2, "eu": 1.1}}
    plain = bound(request(), OpenAI(), "gpt-4o", **price)
    assert plain is not None
    fast = bound(request(service_tier="priority"), OpenAI(), "gpt-4o", **price)
    assert fast is not None
    assert 2 * plain <= fast <= 2.1 * plain
    assert bound(request(service_tier="flex"), OpenAI(), "gpt-4o", **price) is None
    assert (bound(request(), OpenAI(base_url="https://eu.api.openai.com/v1"), "gpt-4o", **price) or 0) > plain


def test_a_free_model_is_bounded_by_nothing_to_pay() -> None:
    """Whatever it is asked."""
    assert bound(request(image("https://example.com/a.png")), Together(), "m", input=0) == 0


def test_images_of_unknown_vendors_count_as_their_context() -> None:
    """Together serves models of many makers."""
    assert bound(request(image(png(9, 9))), Together(), "qwen", context=500) == 500_000
    assert bound(request(image(png(9, 9))), Mistral(), "pixtral-12b", context=500) is not None
    assert bound(request(image(png(9, 9))), Google(), "gemini-3.8-flash") is not None
