"""What translations read of a request: nothing is taken twice, nothing is lost without a word."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.providers.base.content import arguments, data_url, parts, refuse
from proxy.providers.base.fields import Fields, stop_list
from proxy.schema.errors import BadRequest
from proxy.schema.json_structure import STEP_BYTES
from tests.providers.corpus import PDF, PNG, WAV, audio, call, file, image, text


def test_what_nobody_takes_is_dropped_and_named():
    """The caller reads it in x-proxy-dropped-params; a provider's own default is no loss."""
    fields = Fields({"seed": 1, "user": "a", "stop": None}, {"top_p": 0.5, "seed": 2})
    assert fields.take("seed") == 1
    assert fields.take("top_k", "k") is None
    assert fields.rest() == ["user"]


def test_of_several_names_the_first_that_is_set_counts_and_all_are_taken():
    """`max_completion_tokens` stands above `max_tokens`."""
    fields = Fields({"max_tokens": 5, "max_completion_tokens": 9})
    assert fields.take("max_completion_tokens", "max_tokens") == 9
    assert fields.rest() == []


def test_a_default_stands_in_where_the_client_said_nothing():
    """The provider's `parameters`; null in the file resources: leave it out."""
    fields = Fields({"temperature": None}, {"temperature": 0.5, "top_p": None})
    assert fields.take("temperature") == 0.5
    assert fields.take("top_p") is None


@pytest.mark.parametrize("name", ["functions", "function_call", "audio"])
def test_another_kind_of_answer_is_refused(name: str):
    """Dropping it would give an answer of no use."""
    with pytest.raises(BadRequest) as caught:
        Fields({name: {}}).rest()
    assert (caught.value.param, caught.value.code) == (name, "unsupported_parameter")


def test_text_is_the_one_modality_that_needs_no_word():
    """Sound is refused, not dropped."""
    assert Fields({"modalities": ["text"]}).rest() == []
    with pytest.raises(BadRequest):
        Fields({"modalities": ["text", "audio"]}).rest()


@pytest.mark.parametrize(
    ("raw", "kind", "media_type", "data", "url"),
    [
        (image(), "image", "image/png", PNG, None),
        (image("https://example.com/a.png"), "image", None, None, "https://example.com/a.png"),
        (
            {"type": "image_url", "image_url": "https://example.com/a.png"},
            "image",
            None,
            None,
            "https://example.com/a.png",
        ),
        (image(f"data:image/jpeg;charset=utf-8;base64,{PNG}"), "image", "image/jpeg", PNG, None),
        (file(), "file", "application/pdf", PDF, None),
        (audio(), "audio", "audio/wav", WAV, None),
        ({"type": "video_url", "video_url": {"url": "gs://bucket/a.mp4"}}, "video", None, None, "gs://bucket/a.mp4"),
    ],
)
def test_media_are_read_by_kind(raw: dict[str, Any], kind: str, media_type: str, data: str, url: str):
    """A link, or data with its media type."""
    [part] = parts([raw], "messages.0.content")
    assert (part.kind, part.media_type, part.data, part.url) == (kind, media_type, data, url)
    assert part.raw is raw


def test_a_file_by_its_id_or_name():
    """What only one vendor can resolve."""
    [part] = parts([{"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}}], "messages.0.content")
    assert (part.file_id, part.filename) == ("file-1", "a.pdf")


def test_texts_are_parts_too():
    """A string is one part, an empty one none."""
    assert [part.text for part in parts("Hi.", "messages.0.content")] == ["Hi."]
    assert parts("", "messages.0.content") == parts(None, "messages.0.content") == []
    assert [part.kind for part in parts([text("a"), {"type": "refusal", "refusal": "No."}], "m")] == ["text", "refusal"]


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        ({"type": "hologram"}, "messages.0.content.1.type"),
        ({}, "messages.0.content.1.type"),
        ({"type": "text"}, "messages.0.content.1.text"),
        ({"type": "text", "text": 7}, "messages.0.content.1.text"),
        ({"type": "image_url", "image_url": 7}, "messages.0.content.1.image_url"),
        ({"type": "image_url", "image_url": {}}, "messages.0.content.1.image_url.url"),
        ({"type": "image_url", "image_url": {"url": "ftp://x"}}, "messages.0.content.1.image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png,raw"}}, "messages.0.content.1.image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}, "messages.0.content.1.image_url.url"),
        ({"type": "input_audio", "input_audio": {"data": "%%"}}, "messages.0.content.1.input_audio.data"),
        ({"type": "file", "file": {"file_data": "JVBERi0="}}, "messages.0.content.1.file.file_data"),
    ],
)
def test_a_broken_part_is_refused_by_its_path(raw: dict[str, Any], param: str):
    """400 with the dotted path, whatever is inside."""
    with pytest.raises(BadRequest) as caught:
        parts([text(), raw], "messages.0.content")
    assert caught.value.param == param


def test_a_refused_part_names_itself_and_the_model():
    """What the caller has to change."""
    [part] = parts([image()], "messages.3.content")
    error = refuse(part, "acme/mini", "send text")
    assert error.message == "acme/mini cannot take image content: send text."
    assert (error.param, error.code) == ("messages.3.content.0.image_url", "unsupported_content")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        ("  ", {}),
        ("null", {}),
        ({"a": 1}, {"a": 1}),
        (None, {}),
        ('{"a": ', {"_raw": '{"a": '}),
        ("[1]", {"_raw": "[1]"}),
        ([1], {"_raw": "[1]"}),
        ("[" * 100_000, {"_raw": "[" * 100_000}),
    ],
)
def test_arguments_are_an_object_whatever_was_sent(given: Any, expected: dict[str, Any]):
    """What is no JSON object is not lost and does not crash."""
    assert arguments({**call("a"), "function": {"name": "f", "arguments": given}}) == expected


def test_a_data_url_without_a_type_is_bytes():
    """RFC 2397 would say text/plain; no vendor takes that for a picture."""
    assert data_url(f"data:;base64,{PNG}", "x") == ("application/octet-stream", PNG)


def test_stops_are_a_list_of_texts():
    """Null, a text, a list with holes."""
    assert stop_list(None) == []
    assert stop_list("a") == ["a"]
    assert stop_list(["a", "", None, "b"]) == ["a", "b"]


@pytest.mark.parametrize("size", [3 * STEP_BYTES, 3 * STEP_BYTES + 4])
@pytest.mark.slow
def test_long_base64_is_checked_to_its_end(size: int) -> None:
    """Slice by slice, with padding at the end alone."""
    good = "QUJD" * (size // 4)
    assert data_url("data:image/png;base64," + good, "x") == ("image/png", good)
    assert data_url("data:image/png;base64," + good + "QQ==", "x")[1].endswith("QQ==")
    for place in (10, STEP_BYTES - 1, STEP_BYTES, size - 1):
        for wrong in ("!", "=", "é"):
            bad = good[:place] + wrong + good[place + 1 :]
            if (wrong, place) != ("=", size - 1):
                with pytest.raises(BadRequest, match="not valid base64"):
                    data_url("data:image/png;base64," + bad, "x")
    with pytest.raises(BadRequest, match="not valid base64"):
        data_url("data:image/png;base64," + good[:STEP_BYTES] + "QQ==" + good, "x")


@pytest.mark.parametrize(
    "written",
    [
        f"{PNG[:8]}\n{PNG[8:]}\n",
        f"{PNG[:5]}\r\n {PNG[5:]}",
        PNG.rstrip("="),
        PNG.replace("+", "-").replace("/", "_"),
        PNG.replace("+", "%2B").replace("=", "%3D"),
    ],
    ids=["lines", "blanks", "no padding", "for URLs", "escaped"],
)
def test_base64_is_sent_as_vendors_take_it(written: str) -> None:
    """Tools break its lines, and write it for URLs."""
    assert data_url(f"data:image/png;base64,{written}", "x") == ("image/png", PNG)
    for bad in ("a", "****", "%%%", "é" * 4, " \n"):
        with pytest.raises(BadRequest, match="not valid base64"):
            data_url(f"data:image/png;base64,{bad}", "x")
