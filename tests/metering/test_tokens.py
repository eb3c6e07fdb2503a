"""Rules of counting without a tokenizer: a bound holds, an estimate is close."""

# ruff: noqa: RUF001 (letters of other alphabets are what is counted)

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.metering.tokens import EXACT, count_exactly, estimate, estimate_prompt, input_bound
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


# The same sentence, and the tokens that it has in OpenAI's vocabulary `o200k_base`, counted with toktok-rs 0.3.0.
LANGUAGES = [
    ("English", "The server could not read the file because another program was writing to it at that moment.", 18),
    ("German", "Der Server konnte die Datei nicht lesen, weil ein anderes Programm gerade in sie schrieb.", 17),
    ("French", "Le serveur n'a pas pu lire le fichier, car un autre programme y écrivait à ce moment-là.", 22),
    ("Polish", "Serwer nie mógł odczytać pliku, ponieważ w tej chwili zapisywał do niego inny program.", 27),
    ("Turkish", "Sunucu dosyayı okuyamadı, çünkü o sırada başka bir program dosyaya yazıyordu.", 23),
    ("Vietnamese", "Máy chủ không thể đọc tệp vì một chương trình khác đang ghi vào tệp đó vào lúc ấy.", 23),
    ("Russian", "Сервер не смог прочитать файл, потому что в этот момент в него писала другая программа.", 22),
    ("Greek", "Ο διακομιστής δεν μπόρεσε να διαβάσει το αρχείο, επειδή έγραφε σε αυτό άλλο πρόγραμμα.", 29),
    ("Arabic", "لم يتمكن الخادم من قراءة الملف لأن برنامجا آخر كان يكتب فيه في تلك اللحظة.", 21),
    ("Hindi", "सर्वर फ़ाइल नहीं पढ़ सका क्योंकि उस समय कोई दूसरा प्रोग्राम उसमें लिख रहा था।", 22),
    ("Chinese", "服务器无法读取该文件，因为当时另一个程序正在向其中写入数据。", 18),
    (
        "Japanese",
        "その時点で別のプログラムがファイルに書き込んでいたため、サーバーはファイルを読み取れませんでした。",
        34,
    ),
    ("Korean", "그 순간 다른 프로그램이 파일에 쓰고 있었기 때문에 서버가 파일을 읽을 수 없었습니다.", 22),
    ("code", "def total(rows: list[int]) -> int:\n    return sum(row for row in rows if row is not None)\n", 24),
    ("JSON", '{"id": 17, "name": "disk", "labels": ["red", "blue"], "size": {"width": 10, "height": 20}}', 36),
]


@pytest.mark.parametrize(("language", "text", "count"), LANGUAGES)
def test_an_estimate_is_within_two_fifths_in_every_script(language: str, text: str, count: int) -> None:
    """Of what OpenAI's models count."""
    assert abs(estimate(text) / count - 1) < 0.4, (estimate(text), count)


def test_estimates_are_close_over_all_scripts() -> None:
    """Half of them within a fifth, and all of them together within an eighth."""
    found = [(estimate(text), count) for _, text, count in LANGUAGES]
    assert statistics.median(abs(likely / count - 1) for likely, count in found) < 0.2
    assert abs(sum(likely for likely, _ in found) / sum(count for _, count in found) - 1) < 0.125


def words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)


def test_a_tokenizer_that_is_installed_counts_prompts() -> None:
    """All texts of a request; the template around them is added, as it is to an estimate."""
    request = decode_chat(
        encode(
            {"model": "m", "messages": [{"role": "user", "content": "one two"}, {"role": "user", "content": "three"}]}
        )
    )
    assert estimate_prompt(request, words) == 4 * 2 + 3
    query = decode_rerank(encode({"model": "m", "query": "one two three", "documents": ["a b", "c"]}))
    assert estimate_prompt(query, words) == 2 * (4 + 3) + 3


def test_what_a_tokenizer_cannot_count_is_estimated() -> None:
    """A prompt that is too long for it, and half of a surrogate pair."""
    long = decode_chat(encode({"model": "m", "messages": [{"role": "user", "content": "word " * 60_000}]}))
    assert estimate_prompt(long, words) == 4 + 75_000

    def refuse(texts: Sequence[str]) -> int:
        raise UnicodeEncodeError("utf-8", "", 0, 1, "surrogates not allowed")

    short = decode_chat(encode({"model": "m", "messages": [{"role": "user", "content": "x" * 400}]}))
    assert estimate_prompt(short, refuse) == 104


@pytest.mark.skipif(EXACT is None, reason="the extra `tokens` is not installed")
@pytest.mark.parametrize(("language", "text", "count"), LANGUAGES)
def test_the_installed_tokenizer_counts_as_openai_does(language: str, text: str, count: int) -> None:
    """The counts above are its own: this holds its interface and its vocabulary."""
    assert count_exactly([text]) == count


def test_a_long_text_is_counted_by_pieces_of_it() -> None:
    """Close to what all of it gives, in any script, and in no time: the texts of an answer are counted on the loop."""
    for unit in ("word ", "漢字 и русский ", "😀", "é"):
        text = unit * (5_000_000 // len(unit))
        assert abs(estimate(text) / (estimate(unit * 1000) * len(text) / len(unit * 1000)) - 1) < 0.01


def test_pieces_are_spread_over_all_texts() -> None:
    """Whichever comes first, and in however many messages."""
    english, chinese = "The train leaves at nine. " * 400, "火车早上九点离开车站，" * 1_000
    whole = 10_000 / 4 + 3 * 11_000 / 4
    for texts in ([english + chinese], [chinese + english], [chinese, english], [chinese[:2_000]] * 5 + [english]):
        messages = [{"role": "user", "content": text} for text in texts]
        found = estimate_prompt(decode_chat(encode({"model": "m", "messages": messages})), None)
        assert abs(found / (whole if len("".join(texts)) > 21_000 else 10_000 / 4 + 3 * 10_000 / 4) - 1) < 0.15


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
    assert estimate_prompt(decode_chat(body), None) == 104


def test_a_query_is_read_with_every_document() -> None:
    """By the bound and by the estimate; but it is not written so often: that would be 10 GB of it here."""
    fields = {"model": "m", "query": "q" * 1_000_000, "documents": ["d"] * MAX_DOCUMENTS}
    body = json.dumps(fields).encode()
    request = decode_rerank(body)
    assert estimate_prompt(request, None) == MAX_DOCUMENTS * (4 + 250_000 + 1)
    assert input_bound(request) > MAX_DOCUMENTS * 1_000_001
    body = json.dumps({**fields, "documents": ["d"]}).encode()
    assert input_bound(decode_rerank(body)) < len(body) + 1000


def test_token_ids_are_tokens() -> None:
    """A list of them is one input."""
    request = decode_embeddings(b'{"model": "m", "input": [[1, 2, 3], [4]]}')
    assert estimate_prompt(request) == 4 + 3 + 4 + 1
    assert input_bound(request) >= 4
