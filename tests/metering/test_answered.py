"""Which id in an answer names the model that was asked for, and what answers of another one cost."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from proxy.metering.answered import is_same_model
from proxy.metering.price_book import PriceBook
from proxy.metering.pricing import ModelPrice, Pricing


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20"),
        ("gpt-3.5-turbo", "gpt-3.5-turbo-0125"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-sonnet-4-0", "claude-sonnet-4-20250514"),
        ("gemini-2.0-flash", "models/gemini-2.0-flash-001"),
        ("mistral-small-latest", "mistral-small-2603"),
        ("command-a", "command-a-03-2025"),
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
        ("meta-llama/Llama-3.3-70B-Instruct-Turbo", "meta-llama/llama-3.3-70b-instruct-turbo"),
        ("llama3", "llama3:latest"),
        ("qwen", "/models/Qwen3-8B-Q4_K_M.gguf"),
        ("qwen", "C:\\models\\qwen.bin"),
    ],
)
def test_a_snapshot_a_prefix_or_a_file_is_the_same_model(asked: str, answered: str) -> None:
    """As vendors and servers answer."""
    assert is_same_model(asked, answered)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("A", "A-next"),
        ("gpt-5", "gpt-5-mini"),
        ("gpt-4", "gpt-4o"),
        ("gpt-4o", "gpt-4.1"),
        ("gemini-2.5-pro", "gemini-3.8-flash"),
        ("claude-opus-4-5", "claude-opus-4-6"),
        ("deepseek/deepseek-v3", "together/deepseek-v3"),
        ("compound-beta", "groq/compound"),
    ],
)
def test_a_variant_or_another_version_is_another_model(asked: str, answered: str) -> None:
    """Its price may be another."""
    assert not is_same_model(asked, answered)


FIXTURES = Path(__file__).parents[1] / "fixtures"
OTHERS = {("compound-beta", "groq/compound")}  # Groq's system, which has had several names


def named_in(response: dict[str, Any]) -> set[str]:
    """The models that the parts of an answer name, where vendors name the one that answers."""
    lines = [line[5:] for line in (response.get("stream") or "").splitlines() if line.startswith("data:")]
    parts = [response.get("json"), *(response.get("events") or [])]
    parts += [json.loads(line) for line in lines if line.strip().startswith("{")]
    inner = [part.get("message") for part in parts if isinstance(part, dict)]
    every = [part for part in (*parts, *inner) if isinstance(part, dict)]
    return {name for part in every for name in (part.get("model"), part.get("modelVersion")) if isinstance(name, str)}


def recorded_pairs() -> set[tuple[str, str]]:
    """The model asked for and the one that answered, in recordings of vendors' traffic."""
    found = set()
    for path in FIXTURES.glob("*/*.json"):
        recording = json.loads(path.read_text())
        if not isinstance(recording, dict) or not isinstance(recording.get("request"), dict):
            continue
        body = recording["request"].get("body")
        asked = body.get("model") if isinstance(body, dict) else None
        in_path = re.search(r"/models/([^:/]+):", recording["request"].get("path") or "")
        asked = in_path[1] if in_path else asked
        found |= {(asked, named) for named in named_in(recording["response"]) if isinstance(asked, str)}
    return found


def test_recorded_answers_name_the_model_that_was_asked_for() -> None:
    """Whatever snapshot they name: a false alarm would leave a call without its cost."""
    pairs = recorded_pairs()
    assert len(pairs) >= 20
    assert {pair for pair in pairs if not is_same_model(*pair)} <= OTHERS


A, NEXT = ModelPrice(1, 2), ModelPrice(10, 20)
DATED = ModelPrice(3, 4)
ROWS = {"v/A": A, "v/A-next": NEXT, "v/A-2026-01-01": DATED, "free/*": ModelPrice(0, 0)}


class Warnings:
    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def __call__(self, event: str, **fields: Any) -> None:
        self.seen.append({"event": event, **fields})


def book_of(warnings: Warnings, rows: dict[str, ModelPrice] | None = None) -> PriceBook:
    return PriceBook(Pricing(ROWS if rows is None else rows, lookup=None), {}, warn=warnings)


def test_another_model_is_priced_as_itself_with_one_warning() -> None:
    """For each pair, not for each call."""
    warnings = Warnings()
    book = book_of(warnings)
    for _ in range(3):
        found = book.answered("v", "A", "A-next", A)
        assert found.rates is not None
        assert found.rates.price is NEXT
    expected = {"event": "answered_by_another_model", "provider": "v", "asked": "A", "answered": "A-next"}
    assert warnings.seen == [{**expected, "priced": True}]


def test_an_unknown_other_model_has_no_price() -> None:
    """Never the price of the model that was asked for."""
    warnings = Warnings()
    found = book_of(warnings).answered("v", "A", "B", A)
    assert (found.is_same, found.rates) == (False, None)
    assert [each["priced"] for each in warnings.seen] == [False]


def test_a_snapshot_with_a_row_of_its_own_costs_that_and_warns_nobody() -> None:
    """Another snapshot of the same model costs what the model does."""
    warnings = Warnings()
    book = book_of(warnings)
    own = book.answered("v", "A", "A-2026-01-01", A)
    assert own.rates is not None
    assert own.rates.price is DATED
    assert book.answered("v", "A", "A-2026-05-05", A).is_same
    assert warnings.seen == []


def test_a_row_may_name_the_ids_of_its_answers() -> None:
    """A deployment of one's own name, at Azure for example, answers with the vendor's id."""
    warnings = Warnings()
    named, any_id = ModelPrice(1, 2, answers_as=["gpt-4o-2024-08-06"]), ModelPrice(1, 2, answers_as=["*"])
    book = book_of(warnings, {"azure/mine": named, "azure/other": any_id})
    assert book.answered("azure", "mine", "gpt-4o-2024-08-06", named).is_same
    assert book.answered("azure", "other", "whatever", any_id).is_same
    assert not book.answered("azure", "mine", "gpt-5", named).is_same
    assert len(warnings.seen) == 1


def test_a_wildcard_row_prices_every_answer_of_its_provider() -> None:
    """Whatever the server calls its model."""
    warnings = Warnings()
    assert book_of(warnings).answered("free", "m", "/srv/model", ROWS["free/*"]).is_same
    assert warnings.seen == []


def test_names_of_answers_take_no_memory_without_bound() -> None:
    """They come from vendors."""
    warnings = Warnings()
    book = book_of(warnings)
    for number in range(10_000):
        book.answered("v", "A", f"B{number}x", A)
    assert len(book._answered) <= 4096
