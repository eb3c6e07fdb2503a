"""`proxy check` exits with 0 for files that load and 2 for files that do not; with --strict, 1 for warnings."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.commands import proxy

GOOD = """
version: 1
providers:
  fake: {type: openai, base_url: "http://127.0.0.1:1/v1", allow_private: true}
router: {default_model: fake/one}
"""
WRONG = """
version: 1
servr: {port: 1}
providers:
  fake: {type: openai, base_ur: "http://127.0.0.1:1/v1"}
  other: {type: opnai}
models: {mine: nope/one}
router: {default_model: zzz}
"""
PRICING = """
version: 1
models:
  fake/one: {input: 1, output: 2}
  fake/old: {input: 1, output: 2, retired: "2020-01-01", successor: fake/one}
"""


def check(folder, routing, *arguments, pricing=PRICING, **variables):
    (folder / "routing_rules.yaml").write_text(routing)
    (folder / "pricing.yaml").write_text(pricing)
    return proxy("check", *arguments, cwd=folder, **variables)


def test_good_files_exit_with_0_and_list_what_is_on(tmp_path):
    """The last line is the summary."""
    done = check(tmp_path, GOOD)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "0 errors, 0 warnings; on: fake"


def test_the_shipped_files_are_valid_everywhere(tmp_path):
    """Users without files of their own get these. Without any key the embedded model is on."""
    done = proxy("check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "0 errors, 0 warnings; on: local"
    assert "note: openai is off: set OPENAI_API_KEY to enable it" in done.stdout


def test_a_retired_model_is_a_warning_with_its_position_and_exits_with_0(tmp_path):
    """The server starts; the vendor may refuse later."""
    done = check(tmp_path, GOOD + "models: {mine: fake/old}\n")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "0 errors, 1 warning; on: fake")
    assert re.search(
        r"routing_rules\.yaml:6:16: warning: models\.mine: fake/old was retired on 2020-01-01; .* fake/one", line
    ), line


@pytest.mark.parametrize(
    ("routing", "code"), [(GOOD, 0), (GOOD + "models: {mine: fake/old}\n", 1), (WRONG, 2)], ids=["good", "doubts", "no"]
)
def test_strict_treats_warnings_as_a_problem(tmp_path, routing, code):
    """Exit code 1 for warnings alone, for use in CI. Files that do not load still exit with 2."""
    assert check(tmp_path, routing, "--strict").returncode == code
    assert check(tmp_path, routing, "--strict", "--json").returncode == code


@pytest.mark.parametrize(
    ("flags", "variables", "line"),
    [
        ([], {}, "routing_rules.yaml, pricing.yaml; database proxy.db"),
        (["--config", "sub/../routing_rules.yaml", "--db", "sub/u.db"], {}, "sub/../routing_rules.yaml, "),
        (["--db", "sub/u.db"], {}, "; database sub/u.db"),
        ([], {"PROXY_DB": "/else/where.db"}, "; database /else/where.db"),
        ([], {"PROXY_PRICING": "other.yaml"}, "routing_rules.yaml, other.yaml; "),
    ],
)
@pytest.mark.sampled(3)
def test_it_names_the_files_and_the_database(tmp_path, flags, variables, line):
    """Paths are relative to the working directory, in the first line and in `files` of the report."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "other.yaml").write_text(PRICING)
    done = check(tmp_path, GOOD, *flags, **variables)
    assert line in done.stdout.splitlines()[0]
    files = json.loads(check(tmp_path, GOOD, "--json", *flags, **variables).stdout)["files"]
    assert done.stdout.splitlines()[0] == "{routing}, {pricing}; database {database}".format(**files)


def test_all_mistakes_are_reported_at_once_with_their_positions(tmp_path):
    """One run is enough to fix them all."""
    done = check(tmp_path, WRONG)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split("/routing_")[1].split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["rules.yaml:3:1", "servr"],
        ["rules.yaml:5:24", "providers.fake.base_ur"],
        ["rules.yaml:6:17", "providers.other.type"],
        ["rules.yaml:7:16", "models.mine"],
        ["rules.yaml:8:25", "router.default_model"],
    ]


def test_a_missing_file_is_one_line(tmp_path):
    """Even if a flag named it."""
    done = proxy("check", "--config", "missing.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "missing.yaml: no such file\n")


def test_limits_of_keys_that_do_not_exist_are_warnings(tmp_path):
    """Once there are keys: a misspelt name would otherwise limit nobody, without a word."""
    limits = GOOD + "budget: {per_key: {mobil: {daily_usd: 1}, mobile: {daily_usd: 1}, default: {daily_usd: 1}}}\n"
    limits += "rate_limits: {per_key: {nobody: {concurrent: 1}}}\nkeys: {somebody: {models: [fake/one]}}\n"
    assert check(tmp_path, limits).stderr == ""
    assert proxy("keys", "create", "mobile", cwd=tmp_path).returncode == 0
    done = check(tmp_path, limits)
    assert done.returncode == 0
    said = re.findall(r"routing_rules.yaml:(\d+):\d+: .*?([\w.]+: no key .*)", done.stderr)
    assert said == [
        ("8", 'keys.somebody: no key is named "somebody"'),
        ("6", 'budget.per_key.mobil: no key is named "mobil"; did you mean "mobile"?'),
        ("7", 'rate_limits.per_key.nobody: no key is named "nobody"'),
    ]
