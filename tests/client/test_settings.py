"""APISettings is another view of routing_rules.yaml: what it says is what a server would do."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from proxy import APISettings
from proxy.client import settings_file
from proxy.client.errors import MultiModelError, SettingsError
from proxy.client.older_names import RULES
from proxy.config import Config
from proxy.config.edit import plain
from proxy.config.files import shipped
from proxy.config.namespace import enabled
from proxy.routing.settings import Rule

KEY = "sk-proj-0123456789abcdefghij"
FILE = """
# our own file
version: 1   # the first

providers:
  openai: {api_key_env: OUR_KEY, timeout_s: {total: 30}}   # the main one
  mine:
    type: openai
    base_url: "http://127.0.0.1:9/v1"
    allow_private: true
models: {cheap: openai/gpt-4o-mini, quick: {use: mine/x, cache_s: 60}}
router: {default_model: cheap, strategy: cost_optimized, max_retries: 1}   # how
rules:
  # the only rule
  - {name: pictures, when: {task: vision, has_images: true}, use: cheap}
budget:
  daily_usd: 3.5    # a day
  alert_at: [0.5, 0.9]
rate_limits: {default: {requests_per_minute: 7, concurrent: 2}}
"""


def configured(settings: APISettings, **environ: str) -> Config:
    return settings_file.configured(settings, environ)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "routing_rules.yaml"
    path.write_text(FILE)
    return path


# --- without a file ---------------------------------------------------------------------------------------------------


def test_the_defaults_are_these() -> None:
    settings = APISettings()
    assert (settings.default_model, settings.daily_budget_usd, settings.alert_threshold) == ("gpt-4o-mini", 20.0, 0.8)
    assert (settings.max_requests_per_minute, settings.max_retries, settings.retry_delay_seconds) == (60, 3, 2)
    config = configured(settings, OPENAI_API_KEY="k")
    assert config.budget is not None and config.rate_limits is not None
    assert (config.router.default_model, config.budget.daily_usd, config.budget.alert_at[0]) == (
        "openai/gpt-4o-mini",
        20,
        0.8,
    )
    assert config.rate_limits.default.requests_per_minute == 60
    assert [*enabled(config)] == ["openai", "local"]


def test_each_argument_has_its_place_in_the_file() -> None:
    config = configured(
        APISettings(
            default_model="smart",
            router={"strategy": "speed_optimized"},
            ensemble={"enabled": True, "mine": {"strategy": "voting", "members": ["cheap", "fast"]}},
            daily_budget_usd=1.5,
            alert_threshold=0.9,
            max_requests_per_minute=5,
            max_retries=0,
            retry_delay_seconds=0.5,
            sections={"storage": {"url": "sqlite:///other.db"}},
        )
    )
    router, budget, limits = config.router, config.budget, config.rate_limits
    assert (router.default_model, router.strategy, router.max_retries, router.retry_delay_s) == (
        "smart",
        "speed_optimized",
        0,
        0.5,
    )
    assert budget is not None and (budget.daily_usd, budget.alert_at, budget.when_spent) == (
        1.5,
        [0.9, 0.95],
        "downgrade",
    )
    assert limits is not None and limits.default.requests_per_minute == 5 and limits.keyless.requests_per_minute
    assert config.storage.url == "sqlite:///other.db"
    assert config.ensembles_enabled and {"mine", "voting"} <= config.ensembles.keys()


def test_none_takes_a_limit_away() -> None:
    config = configured(APISettings(daily_budget_usd=None, max_requests_per_minute=None, default_model=None))
    assert config.budget is not None and config.budget.daily_usd is None
    assert config.rate_limits is not None and config.rate_limits.default.requests_per_minute is None
    assert config.router.default_model is None


def test_given_providers_are_the_only_ones() -> None:
    """Each completed by the shipped file; names of the others stay known."""
    config = configured(APISettings(providers={"groq": {"api_key": KEY}}), OPENAI_API_KEY="k", GROQ_API_KEY="other")
    assert [*enabled(config)] == ["groq"]
    assert config.secrets["groq"].reveal() == KEY
    assert config.providers["groq"].models["fast"] == "openai/gpt-oss-20b"
    assert "anthropic" in config.disabled


def test_a_provider_that_the_shipped_file_switches_off_is_on_when_it_is_named() -> None:
    assert [*enabled(configured(APISettings(providers={"ollama": {}})))] == ["ollama"]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_in_memory_is_used_and_neither_shown_nor_saved(path: Path) -> None:
    """Not even where the file names a variable for it, which stays."""
    settings = APISettings.load(path)
    settings.providers["openai"]["api_key"] = KEY
    settings.providers["mine"]["headers"] = {"x-tenant": "hidden"}
    assert configured(settings, OUR_KEY="from the environment").secrets["openai"].reveal() == KEY
    assert KEY not in repr(settings) and "hidden" not in repr(settings) and "'api_key': '***'" in repr(settings)
    text = settings.save().read_text()
    assert KEY not in text and "api_key:" not in text and "api_key_env: OUR_KEY" in text


def test_a_key_in_memory_needs_nothing_else_in_the_file(tmp_path: Path) -> None:
    """A provider may be its name alone."""
    path = tmp_path / "routing_rules.yaml"
    path.write_text("version: 1\nproviders:\n  openai:\n")
    settings = APISettings.load(path)
    assert settings.to_yaml() == path.read_text()
    settings.providers["openai"]["api_key"] = KEY
    assert configured(settings).secrets["openai"].reveal() == KEY


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", 5])
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key: Any) -> None:
    with pytest.raises(ValueError, match=r"^providers\.openai\.api_key: expected printable ASCII") as raised:
        APISettings(providers={"openai": {"api_key": key}})
    assert not key or str(key) not in str(raised.value)


def test_a_key_in_another_place_is_refused_and_not_repeated() -> None:
    settings = APISettings(providers={"openai": {"headers": {"x-key": KEY}}})
    with pytest.raises(SettingsError) as raised:
        configured(settings)
    assert KEY not in str(raised.value)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_loaded_and_saved_is_the_same_to_the_byte(path: Path) -> None:
    settings = APISettings.load(path)
    assert (settings.default_model, settings.max_retries, settings.retry_delay_seconds) == ("cheap", 1, 2)
    assert (settings.daily_budget_usd, settings.alert_threshold, settings.max_requests_per_minute) == (3.5, 0.5, 7)
    assert settings.router == {"strategy": "cost_optimized"}
    assert settings.save() == path
    assert path.read_text() == FILE


def test_the_shipped_file_is_the_same_to_the_byte(tmp_path: Path) -> None:
    source = shipped("routing_rules.yaml")
    assert source is not None
    assert APISettings.load(source).save(tmp_path / "copy.yaml").read_bytes() == source.read_bytes()


def test_changes_keep_the_comments(path: Path) -> None:
    """Those of all lines that stay."""
    settings = APISettings.load(path)
    settings.daily_budget_usd = 9.0
    settings.alert_threshold = 0.7
    settings.max_retries = 2
    settings.max_requests_per_minute = None
    settings.providers["more"] = {"provider": "custom", "base_url": "https://llm.example.com/v1"}
    del settings.providers["mine"]
    text = settings.save().read_text()
    for comment in ("# our own file", "# the first", "# the main one", "# how", "# the only rule", "# a day"):
        assert comment in text
    again = APISettings.load(path)
    assert (again.daily_budget_usd, again.alert_threshold, again.max_retries) == (9.0, 0.7, 2)
    assert again.max_requests_per_minute is None
    assert again.providers["mine"]["enabled"] is False and again.providers["more"]["type"] == "openai"
    assert again.sections["budget"]["alert_at"] == [0.7, 0.9]
    assert again.sections["rate_limits"]["default"] == {"concurrent": 2}


def test_what_is_saved_is_what_a_server_reads(path: Path, tmp_path: Path) -> None:
    settings = APISettings(
        daily_budget_usd=2.0, ensemble={"three": {"strategy": "voting", "models": ["cheap", "fast"]}}
    )
    saved = settings.save(tmp_path / "saved.yaml")
    config = settings_file.configured(APISettings.load(saved), {})
    assert config.budget is not None and config.budget.daily_usd == 2.0
    assert [member.use for member in config.ensembles["three"].panelists()] == ["cheap", "fast"]
    assert "# Which providers there are" in saved.read_text()


def test_a_section_can_be_replaced_or_removed(path: Path) -> None:
    settings = APISettings.load(path)
    settings.sections["rules"] = None
    settings.sections["storage"] = {"url": "sqlite:///x.db"}
    assert configured(settings).rules == []
    assert plain(settings.to_yaml().encode(), "x")["storage"] == {"url": "sqlite:///x.db"}


def test_mistakes_in_a_file_are_reported_with_their_lines(path: Path) -> None:
    path.write_text(FILE + "budget: {}\n")
    with pytest.raises(SettingsError, match=r"routing_rules\.yaml:20:1: .*duplicate key"):
        APISettings.load(path)
    with pytest.raises(SettingsError, match="no such file"):
        APISettings.load(path.with_name("missing.yaml"))


def test_prompts_in_a_file_are_refused_as_a_server_refuses_them(path: Path) -> None:
    path.write_text(FILE + "prompts: {price: Extract the price}\n")
    with pytest.raises(SettingsError, match="prompts: no section of this file; give prompt_templates"):
        APISettings.load(path)


def test_saving_says_that_the_file_has_no_prompt_templates(path: Path) -> None:
    settings = APISettings.load(path)
    settings.prompt_templates["price"] = "Extract the price: {page}"
    with pytest.warns(UserWarning, match="prompt_templates are not in the file"):
        settings.save()
    assert path.read_text() == FILE
    assert configured(settings)


def test_what_no_server_would_load_is_not_saved(path: Path) -> None:
    settings = APISettings.load(path)
    settings.router["strategi"] = "x"
    with pytest.raises(SettingsError, match="strategi: unknown key"):
        settings.save()
    assert path.read_text() == FILE
    with pytest.raises(SettingsError, match=r"^The settings cannot be used:\nrouter\.strategi: unknown key"):
        configured(settings)


def test_saving_needs_a_place() -> None:
    with pytest.raises(ValueError, match=r"^path: name a file"):
        APISettings().save()


def test_variables_of_the_server_do_not_count() -> None:
    """They are about its port and its keys; the database is the same."""
    config = configured(APISettings(), PROXY_PORT="9", PROXY_API_KEY="a b", PROXY_DB="/tmp/there.db")
    assert (config.server.port, config.storage.url) == (8000, "sqlite:////tmp/there.db")


# --- values out of their range ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("daily_budget_usd", -1),
        ("daily_budget_usd", float("nan")),
        ("daily_budget_usd", "20"),
        ("alert_threshold", 0),
        ("alert_threshold", 1.01),
        ("alert_threshold", None),
        ("max_requests_per_minute", 0),
        ("max_requests_per_minute", 1.5),
        ("max_requests_per_minute", True),
        ("max_retries", -1),
        ("max_retries", 11),
        ("max_retries", None),
        ("retry_delay_seconds", 0),
        ("retry_delay_seconds", -2),
        ("default_model", ""),
        ("default_model", 5),
        ("providers", ["openai"]),
        ("providers", {"openai": "sk-1"}),
        ("prompt_templates", "text"),
        ("prompt_templates", {"price": None}),
        ("sections", {"router": {}}),
        ("sections", {"prompts": {}}),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_argument(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}[.:]"):
        APISettings(**{argument: value})


def test_a_value_that_is_set_later_is_checked_when_it_is_used() -> None:
    settings = APISettings()
    settings.daily_budget_usd = -5
    with pytest.raises(ValueError, match=r"^daily_budget_usd:"):
        configured(settings)
    with pytest.raises(ValueError, match=r"^daily_budget_usd:"):
        settings.to_yaml()


def test_a_settings_error_is_a_value_error_and_one_of_ours() -> None:
    assert issubclass(SettingsError, ValueError) and issubclass(SettingsError, MultiModelError)


# --- older names ------------------------------------------------------------------------------------------------------


def test_older_names_of_a_provider() -> None:
    settings = APISettings(
        providers={
            "mine": {
                "provider": "custom",
                "base_url": "https://llm.example.com/v1",
                "api_key": KEY,
                "organization": "org-1",
                "parameters": {"timeout": 45, "temperature": 0.1},
                "max_output_tokens": 500,
            },
            "second": {"provider": "groq", "api_key": KEY, "parameters": {"max_output_tokens": 9}},
        },
        default_model="mine/x",
    )
    config = configured(settings)
    mine = config.providers["mine"]
    assert (mine.base_url, mine.timeout_s.total) == ("https://llm.example.com/v1", 45)
    assert mine.parameters == {"temperature": 0.1, "max_tokens": 500}
    assert mine.headers == {"OpenAI-Organization": "org-1"}
    assert type(config.providers["second"]).type == "groq"
    assert config.providers["second"].parameters == {"max_tokens": 9}


def test_older_names_of_ensembles() -> None:
    settings = APISettings(
        ensemble={
            "voting": {"models": ["cheap", "fast"], "min_agreement": 0.5},
            "verification": {"generator_model": "fast", "validator_model": "smart"},
        }
    )
    ensembles = configured(settings).ensembles
    assert [member.use for member in ensembles["voting"].panelists()] == ["cheap", "fast"]
    verification: Any = ensembles["verification"]
    assert (verification.generator, verification.validator) == ("fast", "smart")


def test_one_ensemble_alone_has_the_name_of_its_strategy() -> None:
    config = configured(APISettings(ensemble={"enabled": True, "strategy": "voting", "models": ["cheap", "smart"]}))
    assert config.ensembles_enabled
    assert [member.use for member in config.ensembles["voting"].panelists()] == ["cheap", "smart"]


@cache
def shipped_rules() -> list[Rule]:
    return configured(APISettings()).rules


@pytest.mark.parametrize("shorthand", RULES)
@pytest.mark.sampled(3)
def test_each_shorthand_is_a_rule(shorthand: str) -> None:
    """It takes the place of the shipped rule of that name, with the same conditions."""
    config = configured(APISettings(router={"routing_rules": {shorthand: "long"}}))
    name, _ = RULES[shorthand]
    before = shipped_rules()
    changed = [(old, new) for old, new in zip(before, config.rules, strict=True) if old.name == name]
    assert [(new.name, new.use, new.when == old.when) for old, new in changed] == [(name, "long", True)]


def test_a_shorthand_without_a_rule_of_its_name_comes_first(path: Path) -> None:
    settings = APISettings.load(path)
    settings.router["routing_rules"] = {"reasoning_budget": "cheap", "vision": "quick"}
    assert [(rule.name, rule.use) for rule in configured(settings).rules] == [
        ("reasoning on a budget", "cheap"),
        ("pictures", "quick"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"providers": {"a": {"provider": "openai", "type": "groq"}}},
            r"providers\.a\.provider: is an older name of type",
        ),
        (
            {"providers": {"a": {"parameters": {"timeout": 1}, "timeout_s": {"total": 2}}}},
            r"providers\.a\.parameters\.timeout",
        ),
        ({"providers": {"a": {"provider": "custom"}}}, r"providers\.a\.base_url: is missing"),
        ({"providers": {"a": {"parameters": 1}}}, r"providers\.a\.parameters: expected keys and values"),
        ({"ensemble": {"v": {"models": ["x"], "members": ["y"]}}}, r"ensemble\.v\.models: is an older name of members"),
        ({"ensemble": {"v": ["x"]}}, r"ensemble\.v: expected keys and values"),
        ({"router": {"routing_rules": {"vison": "x"}}}, "router.routing_rules: 'vison' is no rule; did you mean"),
        ({"router": {"max_retries": 2}}, "router: max_retries is the argument max_retries"),
    ],
)
def test_a_mistake_in_older_names_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        APISettings(**given).to_yaml()
