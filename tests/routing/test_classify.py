"""The classifier on prompts that it was not trained on (tests/routing/data; docs/classifier.md has the label guide)."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.classify import EVIDENCE, TASKS, Classifier, Conversation, conversation_of, load
from proxy.routing.features import (
    DENSE_QUESTION,
    QUESTION,
    WIDE_QUESTION,
    difficulty_features,
    features_of,
    language_of_script,
    question_window,
    system_window,
    window,
)
from proxy.routing.settings import LANGUAGES
from proxy.routing.words import words_of
from proxy.schema.chat import Message
from tests.slowness import slowness_of_serving, usual_s

DATA = Path(__file__).parent / "data"
TRAINING = Path(__file__).parents[2] / "scripts" / "classifier"
NAMES = ("prompts", "fresh", "unseen", "last", "styles", "final", "long", "late", "blind")
HELD_OUT = tuple(f"{name}.jsonl" for name in NAMES)
MIN_CONFIDENCE = 0.4
TASK = "Write a SQL query that lists the customers without orders."
MIXED = "Summarize what the Python code {does} = 3; and why it fails. Then classify 12 errors? "
LONG = {
    "English": MIXED * 12_000,
    "Russian": "Сделай краткое содержание этого текста, пожалуйста. " * 20_000,
    "Chinese": "请总结下面的文章然后回答问题。" * 60_000,
    "Thai": "ช่วยสรุปบทความนี้ให้หน่อย" * 40_000,
    "Arabic": "لخص النص التالي في جملتين من فضلك. " * 30_000,
    "one word": "a" * 1_000_000,
    "symbols": "{}[]();=+<>/*" * 80_000,
    "digits": "0123456789" * 100_000,
    "spaces": " \n\t" * 300_000,
    "emoji": "\U0001f600\U0001f44d\u200d" * 300_000,
    "nulls": "\x00" * 1_000_000,
    "lone surrogates": "\ud800\udfff" * 500_000,
    "combining marks": "e\u0301\u0300\u0302" * 250_000,
    "case that grows": "\u0130\u1e9e" * 500_000,
}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load()


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def task_of(classifier: Classifier, text: str, floor: float = 0.0, system: str = "") -> str:
    found = classifier.classify(Conversation(text, system))
    return found.task if found.confidence >= floor else "chat"


def macro_f1(pairs: list[tuple[str, str]]) -> float:
    counts = Counter(pairs)
    scores = []
    for task in TASKS:
        total = sum(task == wanted for wanted, _ in pairs) + sum(task == got for _, got in pairs)
        scores.append(2 * counts[task, task] / total)
    return sum(scores) / len(scores)


@pytest.mark.parametrize(
    ("name", "floor"), list(zip(HELD_OUT, (0.97, 0.92, 0.93, 0.94, 0.95, 0.92, 0.88, 0.80, 0.92), strict=True))
)
def test_unseen_prompts_get_their_task(classifier: Classifier, name: str, floor: float) -> None:
    """Macro-F1 over the six tasks, in 18 languages; either of two accepted labels counts."""
    pairs = []
    for row in lines(name):
        got = task_of(classifier, row["text"], 0.0, row.get("system", ""))
        pairs.append((got if got in row["labels"] else row["labels"][0], got))
    print(f"{name}: {len(pairs)} prompts, macro-F1 {macro_f1(pairs):.3f}")
    counts = Counter(pairs)
    for wanted in TASKS:
        print(f"  {wanted:<15}{''.join(f'{counts[wanted, got]:>4}' for got in TASKS)}")
    assert macro_f1(pairs) >= floor


def test_held_out_prompts_are_not_in_the_training() -> None:
    """Of one in a hundred, at most, are most word triples in one training prompt: other people ask such things too."""

    def triples(text: str) -> set[tuple[bytes, ...]]:
        words = words_of(text)
        return set(zip(words, words[1:], words[2:], strict=False))

    read = [path.read_text(encoding="utf-8") for path in sorted(TRAINING.glob("*.jsonl"))]
    rows = [row["text"] for text in read for row in map(json.loads, text.splitlines()) if "text" in row]
    trained: dict[tuple[bytes, ...], list[int]] = {}
    for number, text in enumerate(rows):
        for triple in triples(text):
            trained.setdefault(triple, []).append(number)
    held_out = [row["text"] for name in HELD_OUT for row in lines(name)]
    close = []
    for text in held_out:
        own = triples(text)
        shared = Counter(number for triple in own for number in trained.get(triple, ()))
        if max(shared.values(), default=0) > len(own) / 2:
            close.append(text)
    print(f"{len(close)} of {len(held_out)}: {close}")
    assert len(rows) > 40_000
    assert len(close) <= 0.01 * len(held_out)


def test_confidence_means_what_it_says(classifier: Classifier) -> None:
    """Confident answers are right, and doubtful ones are wrong more often."""
    held_out = [row for name in HELD_OUT for row in lines(name)]
    rows = [(classifier.classify(Conversation(row["text"], row.get("system", ""))), row["labels"]) for row in held_out]
    sure = [found.task in labels for found, labels in rows if found.confidence >= 0.8]
    doubtful = [found.task in labels for found, labels in rows if found.confidence < MIN_CONFIDENCE]
    assert len(sure) >= 40
    assert sum(sure) / len(sure) >= 0.9
    assert sum(doubtful) / len(doubtful) < 0.8
    mean = sum(found.confidence for found, _ in rows) / len(rows)
    assert abs(mean - sum(found.task in labels for found, labels in rows) / len(rows)) < 0.15


def test_paraphrases_keep_their_task(classifier: Classifier) -> None:
    """At the confidence threshold at least 95 % of all paraphrases get the pick of their group's majority."""
    agreeing = total = 0
    for group in lines("paraphrases.jsonl"):
        picks = Counter(task_of(classifier, text, MIN_CONFIDENCE) for text in group["texts"])
        agreeing += picks.most_common(1)[0][1]
        total += picks.total()
    print(f"{agreeing} of {total} paraphrases get the pick of their group's majority")
    assert agreeing / total >= 0.95


def test_difficulty_orders_questions_better_than_their_length(classifier: Classifier) -> None:
    """The share of pairs in the right order, over questions whose levels are at least 20 points apart."""
    rows = lines("difficulty.jsonl")
    pairs = [(one, two) for one in rows for two in rows if one["difficulty"] >= two["difficulty"] + 0.2]
    by_score = {row["text"]: classifier.classify(Conversation(row["text"])).difficulty for row in rows}
    right = sum(by_score[one["text"]] > by_score[two["text"]] for one, two in pairs) / len(pairs)
    longer = sum(len(one["text"]) > len(two["text"]) for one, two in pairs) / len(pairs)
    print(f"{len(pairs)} pairs: in the right order by the difficulty {right:.1%}, by the length {longer:.1%}")
    assert right >= 0.8
    assert right > longer + 0.05


ALPHABET = (
    "aB\u00e9\u0416\u0666 7_?.\n\u706b\u3053\uae30\u0e01\u0e48\u0915\u093f\u3002\uff1f\U0001f600\u0301\u3000\ud83d"
)


def test_the_languages_that_rules_may_name(classifier: Classifier) -> None:
    """Those with letter trigrams, those that a script tells, and `und`."""
    letters = {found for one in map(chr, range(0x10000)) if (found := language_of_script(3 * one))}
    assert tuple(sorted({*classifier._header.languages, *letters, "und"})) == LANGUAGES


@given(st.text(st.sampled_from(ALPHABET), max_size=90))
def test_words_of_any_script(text: str) -> None:
    """Letters and digits of a script with spaces make a word; each character of the others is one."""
    dense = "\u706b\u3053\uae30\u0e01\u0e48"
    plain = "".join(f" {one} " if one in dense else one if one.isalnum() else " " for one in text.lower())
    plain = plain.replace("7", "0")
    assert words_of(text) == [word.encode() for word in plain.split()]


def test_the_weights_were_trained_on_these_features() -> None:
    """A change of what is read off a text needs a new training, and then a new checksum here."""
    names = ("prompts.jsonl", "unseen.jsonl", "last.jsonl", "difficulty.jsonl", "long.jsonl")
    rows = [row for name in names for row in lines(name)]
    read: list[object] = []
    for row in rows:
        text = row["text"]
        found = features_of(Conversation(text, text), window(text), system_window(text))
        for part in (*found.sentences, *found.system):
            read += [part.words, part.place, part.singles, part.pairs, part.starts, part.edges]
        grams, shape, measures = difficulty_features(question_window(text)[0])
        read += [found.shape, grams, shape, [round(1e6 * each) for each in measures]]
    assert f"{crc32(msgspec.json.encode(read)):08x}" == "fc406433"


def test_the_measures_of_a_question() -> None:
    """Size, numbers, numbers before options, sentences, words a sentence, symbols, operators: binary logarithms."""
    text = "Let x = 3. Add 4 to it.\nA. 7\nB. 12"
    expected = [len(text), 4, 2, 5, 11 / 6, 1, 1]
    assert difficulty_features(text)[2] == pytest.approx([math.log2(1 + one) for one in expected])


def test_the_difficulty_alone_is_the_one_of_the_whole_answer(classifier: Classifier) -> None:
    for row in lines("difficulty.jsonl") + lines("prompts.jsonl"):
        assert classifier.difficulty(row["text"])[0] == classifier.classify(Conversation(row["text"])).difficulty


def test_the_window_of_a_question_is_shorter_where_characters_say_more() -> None:
    for word, (head, tail) in (("prime ", QUESTION), ("чётное ", WIDE_QUESTION), ("证明", DENSE_QUESTION)):
        text = word * 200
        assert question_window(text) == (f"{text[:head]} {text[-tail:]}", head, tail)
        assert question_window(word)[0] == word
    assert question_window("Prove it. " * 30 + "чётное " * 500 + "x" * 60)[1:] == QUESTION


def test_the_difficulty_of_a_window_still_beats_the_length(classifier: Classifier) -> None:
    rows = lines("difficulty.jsonl")
    pairs = [(one["text"], two["text"]) for one in rows for two in rows if one["difficulty"] > two["difficulty"]]
    right = [classifier.difficulty(one)[0] > classifier.difficulty(two)[0] for one, two in pairs]
    longer = [len(one) > len(two) for one, two in pairs]
    assert sum(right) / len(pairs) >= 0.78 > sum(longer) / len(pairs)


def processor_s(work: Callable[[], object]) -> float:
    begun = time.process_time_ns()
    work()
    return (time.process_time_ns() - begun) / 1e9


@pytest.fixture(scope="module")
def forgetful() -> Classifier:
    """A classifier that keeps no results."""
    return load(kept=0)


@pytest.mark.parametrize("name", LONG)
def test_a_text_of_any_length_takes_at_most_300_microseconds(forgetful: Classifier, name: str) -> None:
    """Processor time of one call, the best of many, also with a long system prompt and of hostile texts. Where others
    use the processor and its caches, everything is slower: other work of this kind tells by how much.
    """
    conversation = Conversation(LONG[name], LONG[name], 20, True, True)
    before = slowness_of_serving()
    best = min(processor_s(lambda: forgetful.classify(conversation)) for _ in range(60))
    slower = max(before, slowness_of_serving())
    print(f"{name}: {best * 1e6:.0f} µs, where all takes {slower:.2f} times as long as usual")
    assert best <= 300e-6 * slower


def test_what_was_judged_is_not_judged_again(classifier: Classifier, forgetful: Classifier) -> None:
    """Where all that is read is the same; a few latest results are kept."""
    middle = "word " * 400
    one, other = (f"Prove it. {middle}{each}{middle} Thanks!" for each in ("sheep", "goats"))
    assert classifier.classify(Conversation(one)) is classifier.classify(Conversation(other))
    assert classifier.classify(Conversation(one)) is not classifier.classify(Conversation(one + "!"))
    assert classifier.classify(Conversation(one)) is not classifier.classify(Conversation(one, "Be brief."))
    assert forgetful.classify(Conversation(one)) is not forgetful.classify(Conversation(one))
    few = load(kept=2)
    for row in [*lines("prompts.jsonl"), *lines("difficulty.jsonl")] * 2:
        for conversation in (Conversation(row["text"]), Conversation(row["text"], has_json_schema=True)):
            assert few.classify(conversation) == forgetful.classify(conversation)
        assert few.difficulty(row["text"]) == forgetful.difficulty(row["text"])
    assert (len(few._known), len(few._known_difficulties)) == (2, 2)


@pytest.mark.parametrize("text", ["", " ", "?", "\ud800", "\x00", "1", "\u202e\u200b", "\U0001f44d", "`" * 50])
def test_any_text_has_an_answer(classifier: Classifier, text: str) -> None:
    found = classifier.classify(Conversation(text))
    assert found.task in TASKS
    assert 0 <= found.confidence <= 1
    assert 0 <= found.difficulty <= 1
    assert len(classifier.evidence(Conversation(text))) <= EVIDENCE


def test_evidence_shows_only_what_the_training_data_has(classifier: Classifier) -> None:
    """Names, keys and rare words of a prompt never get into logs by way of the evidence."""
    text = "Summarize the letter of Zygmuntowitsch-Qarr, key sk-live-8fh2k1xq9vw7, in two sentences: zzqxv wkkpl"
    found = classifier.evidence(Conversation(text))
    assert found
    shown = " ".join(found)
    assert not [word for word in ("zygmunt", "qarr", "8fh2", "fh0k0xq", "zzqxv", "wkkpl") if word in shown]


def test_a_system_prompt_that_names_no_task_decides_little(classifier: Classifier) -> None:
    """What 39 applications say of themselves, none of it trained on, ahead of each held-out prompt."""
    rows = [row for name in HELD_OUT for row in lines(name) if not row.get("system")][::3]

    def right(system: str) -> float:
        return sum(task_of(classifier, row["text"], MIN_CONFIDENCE, system) in row["labels"] for row in rows) / len(
            rows
        )

    alone = right("")
    shares = {row["system"]: right(row["system"]) for row in lines("assistants.jsonl")}
    mean = sum(shares.values()) / len(shares)
    worst = min(shares, key=lambda system: shares[system])
    print(f"{alone:.3f} alone, {mean:.3f} with them, {shares[worst]:.3f} with {worst[:200]!r}")
    assert len(shares) == 39
    assert mean >= alone - 0.05
    assert shares[worst] >= alone - 0.2


GREETINGS = (
    *("hi", "hello", "hey there", "good morning", "thanks!", "how are you?", "ok cool", "who are you?", "lol"),
    *("what can you do?", "are you there?", "thank you so much", "hallo", "bonjour", "hola", "\u4f60\u597d"),
    *("\u043f\u0440\u0438\u0432\u0435\u0442", "\u3053\u3093\u306b\u3061\u306f"),
)


def test_a_greeting_is_chat_whatever_the_application(classifier: Classifier) -> None:
    """The first message of many conversations, under the system prompts of 39 applications."""
    systems = ["", *(row["system"] for row in lines("assistants.jsonl"))]
    found = [(text, task_of(classifier, text, MIN_CONFIDENCE, system)) for text in GREETINGS for system in systems]
    others = Counter(each for each in found if each[1] != "chat")
    print(f"{len(found) - others.total()} of {len(found)} are chat; {others.most_common(5)}")
    assert others.total() <= 0.08 * len(found)


def test_the_instruction_may_stand_in_the_system_prompt(classifier: Classifier) -> None:
    system = "Classify the sentiment of the user's message as positive, negative or neutral. Answer with one label."
    text = "The delivery took three weeks and nobody answered my calls."
    assert classifier.classify(Conversation(text, system, 2)).task == "classification"


def test_another_process_gets_the_same_answer(classifier: Classifier) -> None:
    """No hash seed, locale or order of a set shows in the answer."""
    program = (
        "from proxy.routing.classify import *; import sys; c = load()\n"
        "print([c.classify(Conversation(t)) for t in sys.argv[1:]])"
    )
    texts = [row["text"] for row in lines("prompts.jsonl")[::9]]
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONUTF8": "1"}
    run = subprocess.run([sys.executable, "-c", program, *texts], capture_output=True, env=environment, check=True)
    assert run.stdout.decode().strip() == str([classifier.classify(Conversation(text)) for text in texts])


@pytest.mark.parametrize("row", lines("languages.jsonl"), ids=lambda row: row["language"])
def test_the_language_is_named(classifier: Classifier, row: dict[str, str]) -> None:
    assert classifier.classify(Conversation(row["text"])).language == row["language"]


def test_of_a_few_letters_the_language_is_the_likeliest_or_unknown(classifier: Classifier) -> None:
    """Two words say little: no guess is better than an absurd one."""
    rows = lines("short.jsonl")
    found = [(row["text"], row["language"], classifier.classify(Conversation(row["text"])).language) for row in rows]
    wrong = [each for each in found if each[2] not in (each[1], "und")]
    right = [each for each in found if each[1] == each[2]]
    print(f"{len(right)} of {len(found)} right, {len(found) - len(right) - len(wrong)} unknown, wrong: {wrong}")
    assert len(wrong) <= 0.1 * len(found)
    assert len(right) >= 0.35 * len(found)
    assert not [each for each in wrong if each[2] in ("af", "cy", "so", "sq", "sw", "tl")]
    assert classifier.classify(Conversation("Say hello.")).language in ("en", "und")


def test_the_weights_are_small_and_checked() -> None:
    content = resources.files("proxy.routing").joinpath("data", "classifier.bin").read_bytes()
    assert len(content) <= 2_000_000
    with pytest.raises(ValueError, match="not a weights file"):
        Classifier(b"MMPC0000" + content[8:])


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str | None = None) -> Message:
    return Message("assistant", text, tool_calls=None if text else [{"id": "1"}])


RESULT = Message("tool", "Summarize nothing. 12 rows. Traceback (most recent call last): ...", tool_call_id="1")


@pytest.mark.parametrize(
    "later",
    [
        [assistant(), RESULT],
        [assistant(), RESULT, assistant("Shall I go on?"), user("continue")],
        [assistant("Done?"), user("Yes, please!"), assistant(), RESULT, assistant("And now?"), user("go on")],
        [assistant("?"), user("ok"), assistant("?"), user("👍"), assistant("?"), user("  Weiter. ")],
        [assistant("?"), user("继续"), assistant("?"), user("はい。")],
        [assistant(), Message("user", [{"type": "tool_result", "content": "Extract all names"}])],
        [assistant(), user("<system-reminder>Classify your todos as done or open</system-reminder>")],
        [assistant(), Message("user", [{"type": "image_url", "image_url": {"url": "data:"}}])],
        [assistant(), Message("function", "Prove that 2 = 3.")],
        [assistant("?"), user(""), assistant("?"), Message("user", None)],
        [message for _ in range(9) for message in (assistant(), RESULT)],
    ],
)
def test_a_turn_of_an_agent_keeps_the_task_of_the_conversation(later: list[Message]) -> None:
    messages = [Message("system", "You are an agent."), user(TASK), *later]
    found = conversation_of(messages, has_tools=True, has_json_schema=False)
    assert found == Conversation(TASK, "You are an agent.", len(messages), True, False)


def test_a_new_task_of_the_person_counts() -> None:
    new = "Now write a poem about it, with four verses, and make every second line rhyme."
    messages = [user(TASK), assistant("SELECT ..."), user(new), assistant(), RESULT]
    assert conversation_of(messages, True, False).text == new
    short = "Now write a poem about it"
    assert conversation_of([user(TASK), assistant("SELECT ..."), user(short)], True, False).text == short


@pytest.mark.parametrize("word", ["ok, next", "yes, go on please", "Now the next one!", "ja, weiter", "and then?"])
def test_words_of_assent_are_no_task(word: str) -> None:
    assert conversation_of([user(TASK), assistant("Done."), user(word)], True, False).text == TASK


@pytest.mark.parametrize(
    "short", ["run the tests again", "what is wrong with it?", "Summarize.", "same for the others"]
)
@pytest.mark.parametrize("goal", [TASK, "Fix the bug in parser.py"])
def test_a_short_word_beside_the_work_of_an_agent_belongs_to_its_task(goal: str, short: str) -> None:
    messages = [user(goal), assistant(), RESULT, assistant("Done."), user(short), assistant(), RESULT]
    assert conversation_of(messages, True, False).text == goal


@pytest.mark.parametrize(
    ("messages", "text", "system"),
    [
        ([], "", ""),
        ([user("yes")], "yes", ""),
        ([Message("developer", "Be brief."), user("hi there")], "hi there", "Be brief."),
        ([Message("user", [{"type": "text", "text": "Read"}, {"type": "text", "text": "this"}])], "Read\nthis", ""),
        ([Message("system", [{"type": "text", "text": "Rules"}]), user("no"), user("stop")], "stop", "Rules"),
        ([Message("user", [{"type": "text", "text": 7}, {}])], "", ""),
        ([user("<system-reminder>Be kind</system-reminder>\nMend the bug in f()")], "Mend the bug in f()", ""),
        ([user("<system-reminder>" * 9_000)], "", ""),
    ],
)
def test_odd_conversations_have_a_text(messages: list[Message], text: str, system: str) -> None:
    found = conversation_of(messages, False, True)
    assert (found.text, found.system, found.has_json_schema) == (text, system, True)


def test_a_conversation_of_a_million_messages_is_not_read_whole() -> None:
    messages = [user(TASK), *[RESULT] * 1_000_000]
    assert usual_s(lambda: conversation_of(messages, True, False)) < 0.05
