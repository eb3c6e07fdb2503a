"""`proxy experiments` and `proxy prompts` on the database: what the API answers, without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import proxy

DEFINITION = """
{"id": "e", "prompt": "p", "minimum_samples": 5, "variants": [
    {"name": "old", "prompt_version": 1}, {"name": "new", "prompt_version": 2, "parameters": {"temperature": 0}}
]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompt with two versions, and an experiment with a clear winner."""
    place = tmp_path_factory.mktemp("experiments")
    (place / "routing_rules.yaml").write_text("version: 1\nproviders: {groq: {}}\n")
    (place / "1.txt").write_text("Translate {text}")
    (place / "2.txt").write_text("Translate {text}\ninto {language}")
    (place / "e.json").write_text(DEFINITION)
    done(place, "prompts", "save", "p", "1.txt", "--label", "production")
    done(place, "prompts", "save", "p", "2.txt", "--notes", "with a\nlanguage")
    done(place, "experiments", "create", "e.json", "--start")
    for number in range(12):
        done(place, "experiments", "track", "e", "new", "--success", "--unit", f"n{number}")
        done(place, "experiments", "track", "e", "old", "--failure", "--unit", f"o{number}")
    return place


def done(folder: Path, *arguments: str) -> str:
    """What a command printed."""
    ran = proxy(*arguments, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def answer(folder: Path, *arguments: str) -> Any:
    return json.loads(done(folder, *arguments, "--json"))


@pytest.mark.slow
def test_versions_are_compared(folder: Path) -> None:
    """Line by line, as the API does it; `latest` is the newest."""
    text = done(folder, "prompts", "diff", "p", "1", "latest")
    assert text.splitlines()[:2] == ["--- version 1", "+++ version 2"]
    assert "+into {language}" in text.splitlines()
    found = answer(folder, "prompts", "diff", "p", "1", "2")
    assert (found["from"], found["to"], found["variables_added"], found["text"]) == (1, 2, ["language"], text)
    listed = answer(folder, "prompts", "versions", "p")["data"]
    assert [version["version"] for version in listed] == [2, 1]
    assert "with a language" in done(folder, "prompts", "versions", "p")


@pytest.mark.slow
def test_what_is_archived_is_not_rendered(folder: Path) -> None:
    """As at the API: it stays readable, and cannot be used."""
    done(folder, "prompts", "save", "kept", "1.txt")
    done(folder, "prompts", "save", "kept", "2.txt")
    assert done(folder, "prompts", "render", "kept", "text=x", "--version", "1") == "Translate x\n"
    done(folder, "prompts", "archive", "kept", "--version", "1")
    refused = proxy("prompts", "render", "kept", "text=x", "--version", "1", cwd=folder)
    assert (refused.returncode, "kept has no version 1" in refused.stderr) == (1, True)
    assert "archived" in done(folder, "prompts", "versions", "kept")


@pytest.mark.slow
def test_the_label_follows_the_winner_and_goes_back(folder: Path) -> None:
    """Without a server the command that sees the verdict records it; the history says why."""
    assert answer(folder, "experiments", "show", "e")["status"] == "running"
    assert done(folder, "experiments", "promote", "e") == "The label production of p is on version 2.\n"
    shown = answer(folder, "experiments", "show", "e")
    assert (shown["winner"], shown["promoted_version"], shown["promoted_from"]) == ("new", 2, 1)
    assert done(folder, "experiments", "results", "e").startswith("Winner: new, by success.\n")
    assert done(folder, "experiments", "revert", "e") == "The label production of p is on version 1.\n"
    history = answer(folder, "prompts", "labels", "p")
    assert history["labels"] == {"production": 1}
    notes = [move["note"] for move in history["history"]]
    assert notes == ["experiment e: reverted", "experiment e: new won", None]
    again = proxy("experiments", "revert", "e", cwd=folder)
    assert (again.returncode, "no label that could be moved back" in again.stderr) == (1, True)


@pytest.mark.slow
def test_a_unit_keeps_its_variant(folder: Path) -> None:
    """And a wrong name or outcome is named."""
    names = {done(folder, "experiments", "variant", "e", "ann") for _ in range(3)}
    assert len(names) == 1 and names <= {"old\n", "new\n"}
    for arguments, said in (
        (("track", "e", "nwe", "--success"), "no variant 'nwe'"),
        (("track", "e", "new"), "success (true or false) or score"),
        (("track", "e", "new", "--score", "7"), "score"),
        (("variant", "e", ""), "unit: expected"),
    ):
        refused = proxy("experiments", *arguments, cwd=folder)
        assert (refused.returncode, said in refused.stderr) == (1, True), refused


@pytest.mark.slow
def test_a_draft_can_be_replaced(folder: Path) -> None:
    """Until it has started."""
    (folder / "draft.json").write_text(DEFINITION.replace('"e"', '"draft"'))
    (folder / "other.json").write_text(DEFINITION.replace('"id": "e", ', "").replace("5", "7"))
    done(folder, "experiments", "create", "draft.json")
    assert answer(folder, "experiments", "replace", "draft", "other.json")["minimum_samples"] == 7
    refused = proxy("experiments", "replace", "e", "other.json", cwd=folder)
    assert (refused.returncode, "has started" in refused.stderr) == (1, True)
