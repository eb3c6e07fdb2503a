"""What a change in a page may make the server send of its environment: nothing, to no new place."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Source
from proxy.config.secret_uses import ALLOWED
from proxy.config.source import ConfigFiles

SECRET = "s3cret-value-that-no-message-repeats"
ENVIRON = {"DATABASE_PASSWORD": SECRET, "OPENAI_API_KEY": SECRET, "CORP_KEY": SECRET, "CORP_URL": "http://10.0.0.9/v1"}
CORP = "type: openai, base_url: https://llm.corp.example/v1, api_key_env: CORP_KEY"
FILE = f"version: 1\nproviders:\n  openai: {{}}\n  corp: {{{CORP}}}\n"
OWN = "type: openai, base_url: https://mine.example/v1"


def refused(folder: Path, after: str, before: str = FILE, **environ: str) -> list[str]:
    """Paths of what is wrong with `after` as a change of `before`. No message may hold a value."""
    file = folder / "routing_rules.yaml"
    file.write_text(before)
    files = ConfigFiles(file, None, ENVIRON | environ)
    problems = files.refused(files.load(), files.tried(Source("routing_rules.yaml", after.encode())))
    assert not any(SECRET in str(each) or "10.0.0.9" in str(each) for each in problems)
    assert all(each.line > 0 for each in problems)
    return [each.path for each in problems]


@pytest.mark.parametrize(
    ("section", "path"),
    [
        (f"mine: {{{OWN}, api_key_env: DATABASE_PASSWORD}}", "providers.mine.api_key_env"),
        (f"mine: {{{OWN}, api_key_env: [NOBODYS, DATABASE_PASSWORD]}}", "providers.mine.api_key_env"),
        (f"mine: {{{OWN}, api_key_env: {{rotate: [DATABASE_PASSWORD]}}}}", "providers.mine.api_key_env"),
        (f"mine: {{{OWN}, headers_env: {{x-a: DATABASE_PASSWORD}}}}", "providers.mine.headers_env"),
        (f"mine: {{{OWN}, organization_env: DATABASE_PASSWORD}}", "providers.mine.organization_env"),
        (f"mine: {{{OWN}, api_key_env: OPENAI_API_KEY}}", "providers.mine.api_key_env"),
        (f"mine: {{{OWN}, api_key_env: CORP_KEY}}", "providers.mine.api_key_env"),
        (f"mine: {{{OWN}, enabled: false, api_key_env: CORP_KEY}}", "providers.mine.api_key_env"),
        ("mine: {type: openai, base_url_env: CORP_URL, allow_private: true}", "providers.mine.base_url_env"),
        (f"mine: {{{OWN}, api_key_env: NOT_SET_YET}}", "providers.mine.api_key_env"),
        ("groq: {headers_env: {x-a: DATABASE_PASSWORD}}", "providers.groq.headers_env"),
    ],
)
def test_a_page_sends_no_variable_to_a_new_place(tmp_path: Path, section: str, path: str) -> None:
    """Neither one that no file names, nor a known one elsewhere, nor one that a later change would turn on."""
    wrong = refused(tmp_path, f"{FILE}  {section}\n")
    assert set(wrong) == {path}


@pytest.mark.parametrize(
    "changes",
    [
        {"https://llm.corp.example/v1": "https://mine.example/v1"},
        {"https://llm.corp.example/v1": "https://llm.corp.example:8443/v1"},
        {"api_key_env: CORP_KEY": "api_key_env: CORP_KEY, proxy: 'http://mine.example:3128'"},
        {"api_key_env: CORP_KEY": "api_key_env: DATABASE_PASSWORD"},
    ],
)
def test_a_known_variable_stays_where_it_goes(tmp_path: Path, changes: dict[str, str]) -> None:
    """Another server, another port, and somebody else's proxy are another place."""
    after = FILE
    for old, new in changes.items():
        after = after.replace(old, new)
    assert refused(tmp_path, after) == ["providers.corp.api_key_env"]


def test_no_page_puts_its_proxy_between(tmp_path: Path) -> None:
    """The one of all providers counts for each."""
    wrong = refused(tmp_path, f"{FILE}proxy: http://mine.example:3128\n")
    assert wrong == ["providers.openai.api_key_env", "providers.corp.api_key_env"]


def test_an_alert_goes_to_no_new_variable(tmp_path: Path) -> None:
    """Its value is an address: looking it up would tell it to the network."""
    budget = "budget: {daily_usd: 1, alert_webhook_env: CORP_URL}\n"
    assert refused(tmp_path, FILE + budget) == ["budget.alert_webhook_env"]
    assert refused(tmp_path, FILE + budget, FILE + budget) == []


@pytest.mark.parametrize(
    "section",
    [
        "groq: {}",
        "backup: {type: openai, base_url: https://api.openai.com/v1, api_key_env: OPENAI_API_KEY}",
        "again: {" + CORP + "}",
        "again: {" + CORP.replace("/v1", "/other/v1") + ", proxy: environment}",
        "mine: {" + OWN + "}",
    ],
)
def test_what_the_files_do_already_is_free(tmp_path: Path, section: str) -> None:
    """A vendor's own variable at its own API, a variable where it goes already, and a server without a key."""
    assert refused(tmp_path, f"{FILE}  {section}\n") == []


def test_the_operator_may_allow_more(tmp_path: Path) -> None:
    """By name. And a variable without a value may be named where the page may set keys; once it has one, it stays."""
    after = f"{FILE}  mine: {{{OWN}, api_key_env: CORP_KEY}}\n"
    assert refused(tmp_path, after, **{ALLOWED: "OTHER, CORP_KEY"}) == []
    assert refused(tmp_path, after, **{ALLOWED: "OTHER"}) == ["providers.mine.api_key_env"]
    typed, keys = f"{FILE}  mine: {{{OWN}, api_key_env: MINE_KEY}}\n", tmp_path / "keys"
    named = {"PROXY_KEYS_FILE": str(keys)}
    assert refused(tmp_path, typed, **named) == []
    header = f"{FILE}  mine: {{{OWN}, headers_env: {{x-a: MINE_KEY}}}}\n"
    assert refused(tmp_path, header, **named) == ["providers.mine.headers_env"]
    keys.touch(0o600)
    keys.write_text(f"MINE_KEY={SECRET}\n")
    assert refused(tmp_path, typed, **named) == ["providers.mine.api_key_env"]
    assert refused(tmp_path, typed.replace("mine.example", "thief.example"), typed, **named) == [
        "providers.mine.api_key_env"
    ]
