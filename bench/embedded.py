"""Ten plain questions to the embedded model, with five seeds each: what it answers by default, and how fast.

Run: `python -m bench.embedded`. It serves this checkout in a folder of its own, asks through the API like any client,
and exits with 1 if fewer than 35 of the 50 answers are right or one runs to the limit.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.serving import spawned

SEEDS = range(5)
ENOUGH = 35
_FRUITS = re.compile(
    r"apple|banana|orange|grape|mango|pear|berry|berries|kiwi|peach|cherr|lemon|melon|avocado|plum|papaya|lime|fig",
)


def _says(pattern: str) -> Callable[[str], bool]:
    return lambda text: re.search(pattern, text, re.IGNORECASE) is not None


def _three_fruits(text: str) -> bool:
    return len(set(_FRUITS.findall(text.lower()))) >= 3


def _short_rain(text: str) -> bool:
    """About rain, and no longer than a poem of a few lines."""
    return len(text.split()) <= 40 and _says(r"rain|drop|storm|drizzle|wet|puddle")(text)


QUESTIONS: list[tuple[str, Callable[[str], bool]]] = [
    ("What is the capital of France?", _says(r"\bParis\b")),
    ("What is 2+3?", _says(r"\b(5|five)\b")),
    ("What is the opposite of hot?", _says(r"\bcold")),
    ('What is the price in "Blue mug, now 49.99 dollars"?', _says(r"49\.99")),
    ('What is the sentiment of "I love this phone"?', _says(r"positive")),
    ('Translate "good morning" to Spanish.', _says(r"buen(os|as)? d[ií]as?")),
    ("Name three fruits.", _three_fruits),
    ("Write a haiku about rain.", _short_rain),
    ("Say hello.", _says(r"\b(hello|hi)\b")),
    ("What colour is the sky?", _says(r"\bblue")),
]


def main() -> int:
    right = at_limit = tokens = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder, "routing_rules.yaml")
        rules.write_text("version: 1\nproviders: {local: {type: embedded}}\n")
        Path(folder, "pricing.yaml").write_text("version: 1\nmodels: {}\n")
        with spawned(rules, "--db", str(Path(folder, "usage.db"))) as server:
            for question, is_right in QUESTIONS:
                for seed in SEEDS:
                    asked = time.monotonic()
                    answer = _ask(f"http://127.0.0.1:{server.port}/v1/chat/completions", question, seed)
                    took_s = time.monotonic() - asked
                    choice = answer["choices"][0]
                    text, ended = choice["message"]["content"], choice["finish_reason"] == "stop"
                    good = ended and is_right(text)
                    right, at_limit = right + good, at_limit + (not ended)
                    tokens += answer["usage"]["completion_tokens"]
                    mark = "right" if good else "wrong" if ended else "LIMIT"
                    print(
                        f"{mark} {took_s:5.1f} s  {question} [{seed}] {json.dumps(text, ensure_ascii=False)}",
                        flush=True,
                    )
    took_s = time.monotonic() - started
    print(f"{right} of 50 right, {at_limit} at the limit, {tokens} tokens in {took_s:.0f} s")
    return 0 if right >= ENOUGH and not at_limit else 1


def _ask(url: str, question: str, seed: int) -> dict[str, Any]:
    body = {"model": "auto", "messages": [{"role": "user", "content": question}], "seed": seed}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


if __name__ == "__main__":
    sys.exit(main())
