"""`proxy prices`: compares the file with the bundled list, and updates it."""

from __future__ import annotations

import json

from tests.cli.commands import ROOT, proxy

ROUTING = "version: 1\nproviders: {openai: {}, groq: {}, mine: {type: openai, base_url: 'https://llm.example/v1'}}\n"
PRICING = """\
version: 1
updated: 2024-01-01   # long ago
models:
  openai/gpt-4o: {input: 99, output: 10, cached_input: 1.25,   # was dear
    context: 128000}
  groq/openai/gpt-oss-20b: {context: 131072}
  openai/gpt-4-turbo: {input: 1, output: 1, retired: 2026-10-23}
  openai/of-tomorrow: {input: 1, output: 1}
  mine/gpt-4o: {input: 1, output: 1}
  openai/*: {input: 5, output: 5}
"""


def write(folder, pricing=PRICING):
    (folder / "routing_rules.yaml").write_text(ROUTING)
    (folder / "pricing.yaml").write_text(pricing)


def test_each_row_is_listed_with_its_state(tmp_path):
    """Retired models and models at a custom base URL are not compared."""
    write(tmp_path)
    done = proxy("prices", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["MODEL", "INPUT", "OUTPUT", "CACHED", "STATE"],
        ["openai/gpt-4o", "99", "10", "1.25", "differs"],
        ["groq/openai/gpt-oss-20b", "-", "-", "-", "differs"],
        ["openai/gpt-4-turbo", "1", "1", "-", "retired"],
        ["openai/of-tomorrow", "1", "1", "-", "unlisted"],
        ["mine/gpt-4o", "1", "1", "-", "unlisted"],
    ]


def test_a_diff_prints_differences_and_exits_with_1(tmp_path):
    """Like diff."""
    write(tmp_path)
    done = proxy("prices", "--diff", "openai/*", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["MODEL", "KEY", "FILE", "LISTED"],
        ["openai/gpt-4o", "input", "99", "2.5"],
    ]
    assert (tmp_path / "pricing.yaml").read_text() == PRICING


def test_no_difference_prints_nothing_and_exits_with_0(tmp_path):
    """Like diff."""
    write(tmp_path)
    done = proxy("prices", "--diff", "openai/of-tomorrow", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_json_has_rows_and_differences(tmp_path):
    """It also names the list."""
    write(tmp_path)
    done = proxy("prices", "openai/gpt-4o", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert answer.pop("list").startswith("genai-prices-")
    assert (done.returncode, answer) == (
        0,
        {
            "updated": "2024-01-01",
            "models": [
                {"model": "openai/gpt-4o", "input": 99.0, "output": 10.0, "cached_input": 1.25, "state": "differs"}
            ],
            "differences": [{"model": "openai/gpt-4o", "key": "input", "file": 99.0, "listed": 2.5, "writable": True}],
            "written": False,
        },
    )


def test_an_update_writes_the_prices_and_nothing_else(tmp_path):
    """Comments and layout stay, old prices go into `history`, and the next diff is empty."""
    write(tmp_path)
    done = proxy("prices", "--update", "openai/*", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    before, after = PRICING.splitlines(), (tmp_path / "pricing.yaml").read_text().splitlines()
    assert after[3] == "  openai/gpt-4o: {input: 2.5, output: 10, cached_input: 1.25,   # was dear"
    assert (
        after[4].startswith("    history: [{until: 20") and ", input: 99, output: 10, cached_input: 1.25}]," in after[4]
    )
    assert after[1].endswith("   # long ago") and after[1] != before[1]
    assert [after[0], *after[2:3], *after[5:]] == [before[0], *before[2:3], *before[4:]]
    assert proxy("prices", "--diff", "openai/*", cwd=tmp_path).returncode == 0
    assert proxy("check", cwd=tmp_path).returncode == 0


def test_different_tiers_are_left_alone_and_reported(tmp_path):
    """Exit code 1: someone has to edit them by hand."""
    pricing = "version: 1\nmodels:\n  openai/gpt-5.4: {input: 9, tiers: [{above_input_tokens: 1, input: 9}]}\n"
    write(tmp_path, pricing)
    done = proxy("prices", "--update", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "note: openai/gpt-5.4 has different tiers in the list; edit them by hand\n"
    text = (tmp_path / "pricing.yaml").read_text()
    assert "input: 2.5" in text and "tiers: [{above_input_tokens: 1, input: 9}]" in text


def test_a_file_that_cannot_be_edited_safely_stays_unchanged(tmp_path):
    """Two rows share one text here."""
    pricing = "version: 1\nmodels: {openai/gpt-4o: &row {input: 9}, openai/of-tomorrow: *row}\n"
    write(tmp_path, pricing)
    done = proxy("prices", "--update", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "change the prices by hand" in done.stderr
    assert (tmp_path / "pricing.yaml").read_text() == pricing


def test_a_pattern_that_matches_no_row_is_refused(tmp_path):
    """Otherwise everything would look fine."""
    write(tmp_path)
    done = proxy("prices", "--diff", "opnai/*", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "proxy: no row of pricing.yaml matches opnai/*.\n"


def test_the_shipped_prices_can_be_updated(tmp_path):
    """Whatever the list says, the result loads and equals the old file line by line, apart from prices."""
    for name in ("routing_rules.yaml", "pricing.yaml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    assert proxy("prices", "--update", "--json", cwd=tmp_path).returncode in (0, 1)
    before, after = (folder.joinpath("pricing.yaml").read_text().splitlines() for folder in (ROOT, tmp_path))
    assert [line for line in before if "#" in line and "updated:" not in line] == [
        line for line in after if "#" in line and "updated:" not in line
    ]
    left = json.loads(proxy("prices", "--diff", "--json", cwd=tmp_path).stdout)["differences"]
    assert [each for each in left if each["writable"]] == []
    assert proxy("check", cwd=tmp_path).returncode == 0
