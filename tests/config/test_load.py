"""From files and environment to one Config."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import Config, ConfigError, find_files, load
from proxy.config.server import ServerConfig
from proxy.metering.budgets import BudgetConfig, BudgetLimits
from proxy.metering.pricing import ModelPrice
from proxy.pipeline.key_settings import KeyConfig, RateLimitsConfig
from proxy.pipeline.limits import RateLimit
from proxy.routing.settings import ModelEntry, RouterConfig
from proxy.schema.records import Timeouts
from proxy.storage.settings import StorageConfig
from tests.config.files import PRICES, TYPES, Embedded, Hosted, config_of, lines_of

MINIMAL = "version: 1\nproviders: {openai: {}}\n"
FULL = """\
version: 1
server: {host: "::1", port: 9000, require_key: true, allowed_hosts: [a.example], max_body_mb: 8}
storage: {durability: power, keep_days: 7}
providers:
  openai:
    {organization_env: ORG, timeout_s: {total: 60}, headers: {x-team: a}, parameters: {temperature: null, top_p: 1}}
  local: {type: embedded}
models:
  best: openai/gpt-6-sol
  smart: {use: best, fallback: [gpt-6-luna], context_fallback: [], content_fallback: [local/any]}
  split: {weighted: {best: 90, smart: 10}}
aliases: {gpt-3.5-turbo: smart}
router: {default_model: smart, fallback: [best]}
budget:
  daily_usd: 20
  when_spent: reject
  alert_at: [0.5]
  alert_webhook_env: HOOK
  per_key: {mobile: {daily_usd: 5.5, when_spent: downgrade}}
rate_limits: {default: {requests_per_minute: 60}, per_key: {mobile: {concurrent: 2}}}
keys: {mobile: {models: [best, "auto*"], expires: 2027-01-01}}
"""


def test_a_minimal_file_is_enough() -> None:
    """Only `version` and `providers`: everything else has its default."""
    config = config_of(MINIMAL, None)
    assert config == Config(providers={"openai": Hosted()}, version=config.version, marks=config.marks)


def test_every_section_of_this_version_arrives() -> None:
    """What is written is what runs."""
    config = config_of(FULL)
    assert config.server == ServerConfig("::1", 9000, require_key=True, allowed_hosts=["a.example"], max_body_mb=8.0)
    assert config.storage == StorageConfig(durability="power", keep_days=7)
    assert config.providers == {
        "openai": Hosted(
            organization_env="ORG",
            timeout_s=Timeouts(total=60.0),
            headers={"x-team": "a"},
            parameters={"temperature": None, "top_p": 1},
        ),
        "local": Embedded(),
    }
    assert config.models == {
        "best": ModelEntry(use="openai/gpt-6-sol"),
        "smart": ModelEntry("best", ["gpt-6-luna"], [], ["local/any"]),
        "split": ModelEntry(weighted={"best": 90.0, "smart": 10.0}),
    }
    assert config.aliases == {"gpt-3.5-turbo": "smart"}
    assert config.router == RouterConfig(default_model="smart", fallback=["best"])
    assert config.budget == BudgetConfig(
        daily_usd=20.0,
        when_spent="reject",
        alert_at=[0.5],
        alert_webhook_env="HOOK",
        per_key={"mobile": BudgetLimits(daily_usd=5.5, when_spent="downgrade")},
    )
    assert config.rate_limits == RateLimitsConfig(RateLimit(60), {"mobile": RateLimit(concurrent=2)})
    assert config.keys == {"mobile": KeyConfig(["best", "auto*"], expires="2027-01-01")}
    assert config.pricing.models["openai/gpt-6-sol"] == ModelPrice(input=2.0, output=10.0)


def test_settings_without_effect_are_said() -> None:
    """One line each, and none for what is not set."""
    unset = "budget.alert_webhook_env: HOOK is not set, so alerts are only logged"
    assert config_of(FULL).notices == [unset]
    assert config_of(FULL, environ={"HOOK": "https://hooks.example/secret"}).notices == []
    assert config_of(MINIMAL + "keys:\nbudget:\n").notices == []
    assert config_of(MINIMAL + "keys: {a: {store_text: true}}\n").notices == []
    assert config_of("version: 1\nproviders: {openai: {trust_cost: true}}\n").notices == []


@pytest.mark.parametrize(
    "text", ["hooks.example/secret", "ftp://a/secret", "http://", "http://a:x/secret", "http://a secret"]
)
def test_the_url_for_alerts_is_checked_and_never_shown(text: str) -> None:
    """It may hold a token."""
    assert config_of(FULL, environ={"HOOK": "https://hooks.example/secret"}).alert_webhook is not None
    assert config_of(FULL).alert_webhook is None
    with pytest.raises(ConfigError) as refused:
        config_of(FULL, environ={"HOOK": text})
    message = str(refused.value)
    assert "budget.alert_webhook_env: the variable HOOK must hold a URL" in message
    assert "secret" not in message


def test_the_environment_stands_above_the_section_server() -> None:
    """PROXY_* by the same rules as the file."""
    environ = {
        "PROXY_PORT": "8123",
        "PROXY_HOST": "::1",
        "PROXY_REQUIRE_KEY": "true",
        "PROXY_CORS_ORIGINS": "https://a.example, http://b.example:81",
        "PROXY_GRACE_S": "",
    }
    expected = ServerConfig(
        "::1", 8123, require_key=True, cors_origins=["https://a.example", "http://b.example:81"], grace_s=5.0
    )
    assert config_of(MINIMAL + "server: {port: 1, grace_s: 5}\n", environ=environ).server == expected
    assert config_of(MINIMAL, environ={"PROXY_LOG_FORMAT": "json"}).server == ServerConfig(log_format="json")


def test_a_wrong_variable_is_named() -> None:
    """There is no line to point at, so its name stands there."""
    assert lines_of(MINIMAL, environ={"PROXY_PORT": "http", "PROXY_LOG_FORMAT": "jsn"}) == [
        'environment variable PROXY_LOG_FORMAT: server.log_format: must be auto, console or json; did you mean "json"?',
        "environment variable PROXY_PORT: server.port: expected a whole number, got text",
    ]


def test_versions_follow_the_contents() -> None:
    """The configuration's with every byte, the prices' with the prices only."""
    one, same = config_of(MINIMAL), config_of(MINIMAL)
    comment = config_of(MINIMAL, PRICES + "# a comment\n")
    dearer = config_of(MINIMAL, PRICES.replace("output: 0.5", "output: 0.6"))
    assert (one.version, one.pricing.version) == (same.version, same.pricing.version)
    assert len({one.version, comment.version, dearer.version, config_of(MINIMAL + "\n").version}) == 4
    assert one.pricing.version == comment.pricing.version != dearer.pricing.version
    assert config_of(MINIMAL, None).pricing.version == "none"


def test_prices_are_not_blamed_for_what_they_cannot_say() -> None:
    """With a price list that cannot be read, only that is reported."""
    assert lines_of(MINIMAL + "aliases: {a: gpt-6-sol}\nsever: {}\n", "version: 1\n- a\n") == [
        "pricing.yaml:2:1: not valid YAML: expected <block end>, but found '-'"
        " (while parsing a block mapping that starts in line 1)",
        'routing_rules.yaml:4:1: sever: unknown key; did you mean "server"?',
    ]


def test_files_are_read_from_disk(tmp_path: Path) -> None:
    """Messages name the file as it was given."""
    routing, pricing = tmp_path / "routing_rules.yaml", tmp_path / "pricing.yaml"
    routing.write_text("version: 1\nproviders: {openai: {}}\nserver: {port: x}\n")
    pricing.write_text(PRICES)
    with pytest.raises(ConfigError) as raised:
        load(routing, pricing, {}, TYPES)
    assert str(raised.value) == f"{routing}:3:16: server.port: expected a whole number, got text"
    routing.write_text(MINIMAL)
    assert load(routing, pricing, {}, TYPES).pricing.models["openai/gpt-6-sol"].output == 10.0
    assert load(routing, None, {}, TYPES).pricing.models == {}


def test_files_that_are_not_there_are_named_together(tmp_path: Path) -> None:
    """A missing file, and a folder in the place of one."""
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "none.yaml", tmp_path, {}, TYPES)
    assert str(raised.value).split("\n") == [
        f"{tmp_path}: cannot be read: is a directory",
        f"{tmp_path / 'none.yaml'}: no such file",
    ]


def test_a_missing_price_list_does_not_hide_the_other_file(tmp_path: Path) -> None:
    """Both files' problems come at once."""
    routing = tmp_path / "routing_rules.yaml"
    routing.write_text("version: 1\nproviders: {openai: {}}\nsever: {}\n")
    with pytest.raises(ConfigError) as raised:
        load(routing, tmp_path / "none.yaml", {}, TYPES)
    assert [problem.message for problem in raised.value.problems] == [
        "no such file",
        'unknown key; did you mean "server"?',
    ]


def test_the_search_goes_flag_environment_volume_folder_shipped(tmp_path: Path) -> None:
    """The first one that is there wins; what was named is taken at its word."""
    folder, volume = tmp_path / "work", tmp_path / "data"
    folder.mkdir()
    named, flag = tmp_path / "named.yaml", tmp_path / "flag.yaml"
    shipped, shipped_prices = find_files(None, None, {}, folder, volume)
    assert (shipped.name, shipped.is_file(), shipped.parent) == (
        "routing_rules.yaml",
        True,
        shipped_prices and shipped_prices.parent,
    )
    (folder / "pricing.yaml").write_text("")
    assert find_files(None, None, {}, folder, volume) == (shipped, folder / "pricing.yaml")
    volume.mkdir()
    (volume / "routing_rules.yaml").write_text("")
    (folder / "routing_rules.yaml").write_text("")
    assert find_files(None, None, {}, folder, volume) == (volume / "routing_rules.yaml", folder / "pricing.yaml")
    environ = {"PROXY_CONFIG": str(named), "PROXY_PRICING": ""}
    assert find_files(None, None, environ, folder, volume) == (named, folder / "pricing.yaml")
    assert find_files(flag, flag, environ, folder, volume) == (flag, flag)
