"""What a request holds, against what its model takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.metering.pricing import ModelPrice
from proxy.providers.embedded import Embedded
from proxy.providers.openai import OpenAI
from proxy.routing.capabilities import no_capable, refusal, serves, unsupported
from proxy.routing.content import content_needs
from proxy.routing.decision import Candidate
from proxy.routing.deployment import Deployment
from proxy.routing.facts import Facts
from proxy.schema.chat import ChatRequest
from proxy.server.formats.chat import decode_chat
from tests.routing.fleet import DEPLOYMENTS
from tests.routing.fleet import deployment as row

PARTS = {
    "images": {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
    "audio": {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    "video": {"type": "video_url", "video_url": {"url": "https://a.example/b.mp4"}},
    "files": {"type": "file", "file": {"file_id": "f"}},
}


def request(*parts: dict[str, Any]) -> ChatRequest:
    content = [{"type": "text", "text": "hi"}, *parts]
    messages = [{"role": "system", "content": "x"}, {"role": "user", "content": content}]
    return decode_chat(json.dumps({"model": "m", "messages": messages}).encode())


def deployment(supports: list[str] | None) -> Deployment:
    return Deployment("a", OpenAI(), "m", ModelPrice(supports=supports))


@pytest.mark.parametrize("capability", PARTS)
def test_a_part_that_the_model_lacks_is_named(capability: str) -> None:
    """With the model, and where it stands."""
    others = [name for name in PARTS if name != capability]
    error = unsupported(content_needs(request(PARTS[capability])), deployment(others))
    assert error is not None
    assert (error.status, error.code, error.param) == (400, "unsupported_content", "messages.1.content.1")
    assert error.message.startswith("a/m cannot take ")
    assert unsupported(content_needs(request(PARTS[capability])), deployment([capability])) is None


@pytest.mark.parametrize("price", [None, ModelPrice(), ModelPrice(input=0, output=0)])
def test_the_embedded_server_reads_text_without_a_row_that_says_so(price: ModelPrice | None) -> None:
    """Under any name of the provider: `auto:vision` is not offered where nothing sees."""
    embedded, other = Deployment("mine", Embedded(), "m", price), Deployment("a", OpenAI(), "m", price)
    for task, is_served in (("vision", False), ("web_search", False), ("code", True)):
        assert (serves(task, embedded), serves(task, other)) == (is_served, True)
    for part in PARTS.values():
        assert unsupported(content_needs(request(part)), embedded) is not None
        assert unsupported(content_needs(request(part)), other) is None
    sees = Deployment("mine", Embedded(), "m", ModelPrice(supports=["images"]))
    assert serves("vision", sees)


def test_the_first_part_of_each_kind_counts() -> None:
    """In the order of the request."""
    image, audio = PARTS["images"], PARTS["audio"]
    found = content_needs(request(image, audio, image))
    assert [(part.where, part.kind) for part in found] == [
        ("messages.1.content.1", "image"),
        ("messages.1.content.2", "audio"),
    ]


def test_what_is_not_known_is_let_through() -> None:
    """No row, a row that does not say, a part nobody knows, a request of text."""
    assert unsupported(content_needs(request(PARTS["images"])), Deployment("a", OpenAI(), "m", None)) is None
    assert unsupported(content_needs(request(PARTS["images"])), deployment(None)) is None
    assert content_needs(request({"type": "hologram"})) == []
    assert unsupported(content_needs(request()), deployment([])) is None


GPT, GROQ, OWN = (DEPLOYMENTS[name] for name in ("openai/gpt-6-luna", "groq/openai/gpt-oss-20b", "vllm/own-model"))
NEEDS = {
    "images": Facts(has_images=True),
    "audio": Facts(has_audio=True),
    "video": Facts(has_video=True),
    "files": Facts(has_files=True),
    "tools": Facts(has_tools=True),
    "json_schema": Facts(has_json_schema=True),
    "web_search": Facts(needs_web_search=True),
}


@pytest.mark.parametrize("capability", NEEDS)
def test_a_request_needs_what_its_facts_say(capability: str) -> None:
    """A deployment that lists everything else cannot take it; one that lists it, or that nobody knows, can."""
    facts = NEEDS[capability]
    others = [name for name in NEEDS if name != capability]
    lacking = refusal(facts, deployment(others))
    assert lacking is not None
    assert lacking.startswith("does not ")
    assert refusal(facts, deployment([capability])) is None
    assert refusal(facts, deployment(None)) is None
    assert refusal(facts, OWN) is None
    assert refusal(Facts(), deployment([])) is None


@pytest.mark.parametrize(
    ("capability", "part"), [(capability, part) for capability, part in PARTS.items() if capability in NEEDS]
)
def test_facts_and_parts_refuse_the_same_deployments(capability: str, part: dict[str, Any]) -> None:
    """So a route never loses a candidate between the plan and the first attempt."""
    for supports in ([], [capability], None):
        by_part = unsupported(content_needs(request(part)), deployment(supports)) is None
        assert by_part == (refusal(NEEDS[capability], deployment(supports)) is None)


@pytest.mark.parametrize(
    ("tokens", "limit", "fits"),
    [
        (131_072, None, True),
        (131_073, None, False),
        (131_000, 72, True),
        (131_000, 73, False),
        (65_536, 1_000_000, True),  # it cannot write more than 65,536
        (65_537, 1_000_000, False),
    ],
)
def test_prompt_and_answer_must_fit_the_context(tokens: int, limit: int | None, fits: bool) -> None:
    """The answer counts up to the request's limit, and never more than the model can write."""
    facts = Facts(input_tokens_estimate=tokens, output_tokens_limit=limit)
    assert (refusal(facts, GROQ) is None) == fits
    assert refusal(facts, GPT) is None
    assert refusal(facts, OWN) is None


def test_the_refusal_names_the_sizes() -> None:
    """The context, the estimate, and the answer's limit if there is one."""
    said = refusal(Facts(input_tokens_estimate=200_000), GROQ)
    assert said == "has a context of 131072 tokens, too small for about 200000"
    said = refusal(Facts(input_tokens_estimate=131_000, output_tokens_limit=4000), GROQ)
    assert said == "has a context of 131072 tokens, too small for about 131000 and an answer of up to 4000"


def test_the_embedded_model_has_the_context_of_its_settings() -> None:
    """2,048 tokens as shipped, whatever pricing.yaml says of `local/*`."""
    assert refusal(Facts(input_tokens_estimate=2048), row("local/smollm2")) is None
    assert refusal(Facts(input_tokens_estimate=2049), row("local/smollm2")) is not None


def rejected(facts: Facts, *deployments: Deployment) -> list[Candidate]:
    return [Candidate(each, refusal(facts, each)) for each in deployments]


def test_no_capable_model_names_each_candidate_and_why() -> None:
    """503; no client should try again."""
    facts = Facts(has_audio=True)
    error = no_capable("auto", rejected(facts, GPT, row("local/smollm2")), facts)
    assert (error.status, error.code, error.headers) == (503, "no_capable_model", {"x-should-retry": "false"})
    assert error.message == (
        "No model behind 'auto' can answer this request: openai/gpt-6-luna does not take audio; "
        "local/smollm2 does not take audio."
    )


def test_a_request_that_is_only_too_long_is_the_callers_to_shorten() -> None:
    """400 context_length_exceeded, which agents know: they shorten the conversation and ask again."""
    long = Facts(input_tokens_estimate=200_000, has_tools=True)
    error = no_capable("fast", rejected(long, GROQ), long)
    assert (error.status, error.code, error.param) == (400, "context_length_exceeded", "messages")
    assert "groq/openai/gpt-oss-20b has a context of 131072 tokens" in error.message
    unseen = Facts(input_tokens_estimate=200_000, has_images=True)
    assert no_capable("fast", rejected(unseen, GROQ), unseen).status == 503  # shorter, it still has an image
