"""Rules of embeddings and rankings at OpenAI-shaped vendors."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from proxy.providers import PROVIDERS
from proxy.providers.openai import OpenAI
from proxy.providers.perplexity import Perplexity
from proxy.schema.embeddings import EmbeddingsRequest
from proxy.schema.errors import BadRequest, UpstreamError
from proxy.schema.rerank import RerankRequest
from tests.providers.asking import answered
from tests.providers.recordings import answer, load

OPENAI = OpenAI()
VECTOR = [0.5, -1.0, 0.25]
BASE64 = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()


def asked(**fields: Any) -> EmbeddingsRequest:
    given = {"model": "x", "input": ["a", "b"], **fields}
    inputs = [given["input"]] if isinstance(given["input"], str) else given["input"]
    return EmbeddingsRequest(model="x", inputs=inputs, dimensions=given.get("dimensions"), fields=given)


def sent(kind: str, **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(PROVIDERS[kind]().build_embeddings(asked(**fields), "m").http.body)
    return body


@pytest.mark.parametrize("kind", ["openai", "vllm", "ollama", "lmstudio", "localai"])
def test_vectors_are_asked_as_base64_whatever_the_client_wants(kind: str) -> None:
    """A quarter of the bytes; the rest of the request is the client's."""
    body = sent(kind, encoding_format="float", dimensions=3, user="ada", truncate_prompt_tokens=5)
    expected = {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 3, "user": "ada"}
    assert body == {**expected, "truncate_prompt_tokens": 5}


def test_token_ids_go_to_openai_only() -> None:
    """No other vendor has its tokenizer."""
    assert sent("openai", input=[[1, 2], [3]])["input"] == [[1, 2], [3]]
    for kind in ("mistral", "together", "perplexity"):
        with pytest.raises(BadRequest) as caught:
            sent(kind, input=[[1, 2], [3]])
        assert (caught.value.code, caught.value.param) == ("unsupported_content", "input")


def test_mistral_has_its_own_names_and_no_others() -> None:
    """`user` is a 422 there; vectors of whole numbers are asked as numbers."""
    result = PROVIDERS["mistral"]().build_embeddings(asked(dimensions=256, user="ada", output_dtype="int8"), "m")
    assert json.loads(result.http.body) == {
        "model": "m",
        "input": ["a", "b"],
        "output_dimension": 256,
        "output_dtype": "int8",
        "encoding_format": "float",
    }
    assert result.dropped == ["user"]
    assert sent("mistral")["encoding_format"] == "base64"


def test_together_takes_texts_and_nothing_else() -> None:
    """It has no formats and no dimensions."""
    result = PROVIDERS["together"]().build_embeddings(asked(encoding_format="base64", user="ada"), "m")
    assert (json.loads(result.http.body), result.dropped) == ({"model": "m", "input": ["a", "b"]}, ["user"])
    with pytest.raises(BadRequest, match="one vector length"):
        sent("together", dimensions=3)


def test_perplexitys_whole_numbers_become_floats() -> None:
    """It sends int8 in base64, the only format of its that we can read."""
    assert sent("perplexity", dimensions=3)["encoding_format"] == "base64_int8"
    body = {"data": [{"index": 0, "embedding": base64.b64encode(struct.pack("3b", -128, 0, 127)).decode()}]}
    assert Perplexity().parse_embeddings(answered(200, body))["embeddings"] == [[-128.0, 0.0, 127.0]]
    assert PROVIDERS["perplexity"]().build_embeddings(asked(), "m").http.path == "/v1/embeddings"


@pytest.mark.parametrize("vector", [VECTOR, BASE64])
def test_both_forms_of_a_vector_are_read(vector: Any) -> None:
    """Servers that do not know base64 send numbers; order is by index, usage has no output."""
    data = [{"index": 1, "embedding": [9.0]}, {"index": 0, "embedding": vector}]
    found = OPENAI.parse_embeddings(answered(200, {"data": data, "model": "m", "usage": {"prompt_tokens": 5}}))
    assert found["embeddings"] == [VECTOR, [9.0]]
    usage = found["usage"]
    assert (usage.shown["prompt_tokens"], usage.shown["completion_tokens"], usage.shown["total_tokens"]) == (5, 0, 5)
    assert usage.billed.input == 5


def test_recorded_vectors_are_as_recorded() -> None:
    """From real traffic."""
    name = "openai/pair_openai-embedding.json.json"
    found = OPENAI.parse_embeddings(answer(name))
    assert found["embeddings"] == [each["embedding"] for each in load(name)["json"]["data"]]
    assert found["usage"].shown["total_tokens"] == 12


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        {},
        {"data": []},
        {"data": [1]},
        {"data": [{"index": 0}]},
        {"data": [{"index": 0, "embedding": []}]},
        {"data": [{"index": 0, "embedding": ["a"]}]},
        {"data": [{"index": 0, "embedding": "not base64"}]},
        {"data": [{"index": 0, "embedding": "AAA="}]},
        {"data": [{"index": 1, "embedding": [1.0]}]},
        {"data": [{"index": "0", "embedding": [1.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]},
        {"error": {"message": "late failure"}},
    ],
)
def test_an_answer_without_all_vectors_is_an_upstream_error(body: Any) -> None:
    """Never a vector in the wrong place."""
    with pytest.raises(UpstreamError) as caught:
        OPENAI.parse_embeddings(answered(200, body))
    assert caught.value.status in (502, 503)


def ranking(**fields: Any) -> RerankRequest:
    given = {"model": "x", "query": "q", "documents": ["a", "b"], **fields}
    return RerankRequest(
        model="x", query="q", documents=["a", "b"], top_n=given.get("top_n"), return_documents=True, fields=given
    )


@pytest.mark.parametrize("kind", ["together", "vllm", "localai"])
def test_rankings_are_asked_in_coheres_shape(kind: str) -> None:
    """Documents come back from the request, not from the vendor; a vendor's own fields go along."""
    result = PROVIDERS[kind]().build_rerank(ranking(top_n=1, return_documents=True, truncate=5), "m")
    assert result.http.path == "/rerank"
    expected = {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1, "truncate": 5}
    assert json.loads(result.http.body) == expected


@pytest.mark.parametrize("kind", ["openai", "groq", "mistral", "ollama", "lmstudio", "perplexity"])
def test_vendors_without_rankings_say_so(kind: str) -> None:
    """Before anything is sent."""
    with pytest.raises(BadRequest, match="has no rerank"):
        PROVIDERS[kind]().build_rerank(ranking(), "m")


def test_a_server_at_an_address_of_ones_own_may_have_rankings() -> None:
    """llama.cpp is used as `type: openai`."""
    assert OpenAI(base_url="http://x/v1").build_rerank(ranking(), "m").http.path == "/rerank"


def test_recorded_rankings_are_read_the_best_first() -> None:
    """Together's, and one that was not sorted."""
    found = PROVIDERS["together"]().parse_rerank(answer("together/pair_togetherai-reranking.1.json.json"))
    assert found["results"] == [
        {"index": 0, "relevance_score": 0.6475887154399037},
        {"index": 5, "relevance_score": 0.6323295373206566},
    ]
    assert found["usage"].shown["prompt_tokens"] == 2966
    results = [{"index": 0, "relevance_score": 0.1}, {"index": 1, "relevance_score": 0.9}]
    assert [each["index"] for each in OPENAI.parse_rerank(answered(200, {"results": results}))["results"]] == [1, 0]


@pytest.mark.parametrize(
    "body",
    [b"", {}, {"results": [{}]}, {"results": [{"index": -1, "relevance_score": 1}]}, {"results": 3}, {"error": "no"}],
)
def test_an_answer_that_is_no_ranking_is_an_upstream_error(body: Any) -> None:
    """Whatever the vendor sent."""
    with pytest.raises(UpstreamError):
        OPENAI.parse_rerank(answered(200, body))
