"""`proxy check --json`, and warnings in both output formats: there is one report, whatever is wrong."""

from __future__ import annotations

import json

from tests.cli.commands import proxy

ROUTING = """\
version: 1
providers:
  fake: {type: openai, base_url: "http://127.0.0.1:1/v1", allow_private: true}
  vendor: {type: groq}
models: {mine: {use: fake/one, fallback: [fake/one, vendor/of-tomorrow]}}
"""
PRICING = """\
version: 1
models: {fake/one: {input: 1, output: 2, retired: 2020-01-01, successor: fake/two}, fake/two: {input: 1, output: 2}}
"""


def check(folder, *arguments, routing=ROUTING, **variables):
    (folder / "routing_rules.yaml").write_text(routing)
    (folder / "pricing.yaml").write_text(PRICING)
    return proxy("check", *arguments, cwd=folder, **variables)


def test_the_report_has_everything_the_lines_have(tmp_path):
    """Problems with positions, providers with states, and exit code 0 for warnings."""
    done = check(tmp_path, "--json", GROQ_API_KEY="k")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (report["errors"], report["warnings"], report["notices"]) == (0, 4, [])
    assert len(report["config_version"]) == 12
    assert report["providers"] == {
        "fake": {"type": "openai", "state": "on", "why": None},
        "vendor": {"type": "groq", "state": "on", "why": None},
    }
    assert [(each["path"], each["message"].split(";")[0]) for each in report["problems"]] == [
        ("models.mine.use", "fake/one was retired on 2020-01-01"),
        ("models.mine.fallback.0", "fake/one was retired on 2020-01-01"),
        ("models.mine.fallback.0", 'never called: "fake/one" has already been tried'),
        ("models.mine.fallback.1", "vendor/of-tomorrow has no price"),
    ]
    first = report["problems"][0]
    assert (first["line"], first["column"], first["severity"]) == (5, 22, "warning")
    assert first["file"].endswith("routing_rules.yaml")


def test_the_lines_have_everything_the_report_has(tmp_path):
    """They go to standard error; the last line of standard output is the summary."""
    done = check(tmp_path, GROQ_API_KEY="k")
    assert len(done.stderr.splitlines()) == 4
    used = "routing_rules.yaml, pricing.yaml; database proxy.db"
    assert done.stdout == f"{used}\n0 errors, 4 warnings; on: fake, vendor\n"


def test_a_missing_key_is_a_state_and_not_a_problem(tmp_path):
    """Models of such a provider need no price yet."""
    report = json.loads(check(tmp_path, "--json").stdout)
    assert report["providers"]["vendor"] == {"type": "groq", "state": "off", "why": "set GROQ_API_KEY to enable it"}
    assert report["warnings"] == 3


def test_a_file_that_does_not_load_gives_a_report_too(tmp_path):
    """Exit code 2, no version and no providers."""
    done = check(tmp_path, "--json", routing="version: 1\nproviders: {fake: {type: opnai}}\nx: 1\n")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert {key: value for key, value in report.items() if key != "problems"} == {
        "errors": 2,
        "warnings": 0,
        "providers": {},
        "notices": [],
        "config_version": None,
        "files": {"routing": "routing_rules.yaml", "pricing": "pricing.yaml", "database": None},
    }
    assert [problem["path"] for problem in report["problems"]] == ["providers.fake.type", "x"]


def test_a_price_from_the_list_counts(tmp_path):
    """Models in the bundled list need no row."""
    routing = ROUTING.replace("vendor/of-tomorrow", "vendor/openai/gpt-oss-20b")
    assert json.loads(check(tmp_path, "--json", routing=routing, GROQ_API_KEY="k").stdout)["warnings"] == 3
