"""Rules of reading a client's JSON: one meaning for every reader, and bounded work whatever it holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.schema.errors import BadRequest, ProxyError
from proxy.schema.json import decode_object
from proxy.schema.json_structure import MAX_CONTAINERS, MAX_NESTING, MAX_PAIRS, MAX_VALUES, check_nesting
from tests.slowness import usual_s

# Everything that counting characters could take for structure.
ODD = ["a", "b", "a:b", "a\\", '"', '\\"', '"a":1,', "[[", "}{", "\\u003a", "\u00e9:", ":", "", "u003a", "\n,"]


def texts() -> st.SearchStrategy[str]:
    """JSON strings as a client may write them, escapes of our marks included."""
    spelled = st.sampled_from(ODD).map(json.dumps)
    escaped = spelled.map(lambda text: text.replace(":", "\\u003a"))
    return st.one_of(spelled, escaped, spelled.map(lambda text: text.replace(":", "\\u003A")))


def values() -> st.SearchStrategy[str]:
    """JSON texts in which keys repeat now and then, at any depth."""
    leaves = st.one_of(texts(), st.sampled_from(["1", "null", "true", "-1.5e3", "[]", "{ }"]))
    return st.recursive(leaves, lambda inner: st.one_of(arrays(inner), objects(inner)), max_leaves=12)


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(inner, max_size=3).map(lambda items: "[" + " , ".join(items) + "]")


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(texts(), inner).map(lambda pair: f"{pair[0]} : {pair[1]}")
    return st.lists(pairs, max_size=4).map(lambda found: "{" + ",".join(found) + "}")


def slowly(text: str) -> tuple[Any, bool]:
    """The value, and whether a key appears twice in one of its objects, by the standard library."""
    twice = False

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice |= len(dict(pairs)) < len(pairs)
        return dict(pairs)

    return json.loads(text, object_pairs_hook=look), twice


@given(objects(values()), st.booleans())
def test_a_key_twice_in_one_object_is_found_anywhere(text: str, is_large: bool) -> None:
    """Colons, quotes, brackets and escapes within strings hide nothing and are taken for nothing."""
    if is_large:  # too many brackets to be read as a small body
        text = text[:-1] + ("," if text != "{}" else "") + '"wide":[' + "[]," * MAX_NESTING + "1]}"
    value, twice = slowly(text)
    if twice:
        with pytest.raises(BadRequest, match="appears twice in one JSON object"):
            decode_object(text.encode())
    else:
        assert decode_object(text.encode()) == value


def test_a_small_body_is_told_which_key_stands_twice() -> None:
    """Naming it takes a slow parser, which large bodies are not given to."""
    small, large = ('{"a": {"b": 1, "\\u0062": 2}, "x": "%s"}' % ("x" * size) for size in (10, 100_000))
    with pytest.raises(BadRequest, match="The key 'b' appears twice"):
        decode_object(small.encode())
    with pytest.raises(BadRequest, match="A key appears twice"):
        decode_object(large.encode())


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("padding", [0, 600, 3_000_000])
def test_nesting_has_a_limit_of_our_own(opening: str, closing: str, padding: int) -> None:
    """It is the same in every version of Python, and the body itself is the first level."""
    middle = "" if opening == "[" else "1"
    pad = '"pad": "' + "x" * padding + '", "wide": [' + "[]," * min(padding, 600) + "1], "

    def nested(levels: int) -> bytes:
        return ("{" + pad + '"x":' + opening * levels + middle + closing * levels + "}").encode()

    assert decode_object(nested(MAX_NESTING - 1))["x"]
    with pytest.raises(BadRequest, match="nested too deeply"):
        decode_object(nested(MAX_NESTING))
    check_nesting(nested(MAX_NESTING - 1))
    with pytest.raises(RecursionError):
        check_nesting(nested(MAX_NESTING))


def test_brackets_in_a_text_are_no_nesting() -> None:
    """A model may write any number of them."""
    text = json.dumps({"x": '{"[' * 10_000, "y": "\\" * 7 + '"[[' * 1000}).encode()
    check_nesting(text)
    assert decode_object(text)["x"] == '{"[' * 10_000


@pytest.mark.parametrize(
    ("unit", "most"),
    [("1,", MAX_VALUES), ('"",', MAX_VALUES), ("[],", MAX_CONTAINERS), ("{},", MAX_CONTAINERS), ('"%d":1,', MAX_PAIRS)],
)
@pytest.mark.parametrize("padding", [0, 3_000_000])
def test_a_body_of_too_many_values_is_a_413(unit: str, most: int, padding: int) -> None:
    """Counted before anything is parsed: 8 MB of `[],` took 9 seconds and 430 MB."""
    opening, closing = ("{", "}") if "%" in unit else ("[", "]")

    def body(count: int) -> bytes:
        items = unit * count if "%" not in unit else "".join(unit % number for number in range(count))
        pad = '"p": "' + "x, [" * (padding // 4) + '", "x": '
        return ("{" + pad + opening + items[:-1] + closing + "}").encode()

    assert len(decode_object(body(most - 10))["x"]) == most - 10
    with pytest.raises(ProxyError, match="too many values") as caught:
        decode_object(body(most + 10))
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")


@pytest.mark.parametrize("number", ["1e300", "1.7976931348623157e308", "4.9e-324", "1e23"])
def test_no_number_is_dear(number: str) -> None:
    """The parser's own way with large exponents takes a second for 100,000 of them."""
    body = ('{"x":[' + f"{number}," * 20_000 + "1]}").encode()
    assert usual_s(lambda: decode_object(body)) < 0.06
    assert decode_object(body)["x"][:20_000] == [float(number)] * 20_000


@pytest.mark.parametrize("text", ["1,2,3\n", "a: b, ", '{"a": [1, 2]}', "\\", '"', "\\u003a:"])
def test_a_long_text_is_one_value(text: str) -> None:
    """A table or a program pasted into a prompt has commas and brackets without end."""
    fields = {"x": text * (3_000_000 // len(text)), "y": 1}
    assert decode_object(json.dumps(fields).encode()) == fields


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (r"a\ud83d", 8),
        (r"\ud83d b", 7),
        (r"\uD83D\n\uDE00", 7),
        (r"\ude00 \ud83d", 7),
        (r"\ud83d\ude00\ud83d", 19),
        (r"\\ud83d \udc00", 15),
    ],
)
def test_half_a_surrogate_pair_is_named_with_its_place(text: str, place: int) -> None:
    """Programs that cut a text by UTF-16 units write it; the parser's own words name neither."""
    body = f'{{"a": "{text}"}}'.encode()
    with pytest.raises(BadRequest, match=rf"\(byte {place}\) is half of a surrogate pair") as caught:
        decode_object(body)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("text", [r"\ud83d\ude00", r"\\ud83d", r"\\\\ude00"])
def test_whole_pairs_and_escaped_backslashes_are_text(text: str) -> None:
    """Nothing is half."""
    assert decode_object(f'{{"a": "{text}"}}'.encode()) == json.loads(f'{{"a": "{text}"}}')


def test_a_byte_order_mark_before_the_json_is_ignored() -> None:
    """Windows tools write one; a second one is no JSON."""
    assert decode_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    for wrong in (
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf" * 5000 + b"{}",
        b"\xef\xbb\xbf\xef\xbb",
        b'{"a": 1}\xef\xbb\xbf',
        '{"a": 1}'.encode("utf-16"),
    ):
        with pytest.raises(BadRequest):
            decode_object(wrong)
