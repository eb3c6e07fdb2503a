"""Which providers are on, and why the others are off."""

from __future__ import annotations

from datetime import date

import pytest

from proxy.config import Config
from proxy.config.namespace import key_endpoints
from proxy.config.warnings import find_warnings
from proxy.providers.base.contract import ProviderLimits
from tests.config.files import Embedded, Hosted, config_of

KEYED = """\
version: 1
providers:
  openai: {api_key_env: OPENAI_API_KEY}
  groq: {api_key_env: [GROQ_KEY, GROQ_API_KEY]}
  anthropic: {api_key_env: ANTHROPIC_API_KEY}
  ollama: {allow_private: true}
  vllm: {type: openai, base_url: "http://localhost:8001/v1", allow_private: true, enabled: false}
  local: {type: embedded, context: 4096}
"""


def test_a_provider_without_its_key_is_off_with_one_line() -> None:
    """Nothing set: what needs a key is off, what needs none is on."""
    assert config_of(KEYED).disabled == {
        "openai": "set OPENAI_API_KEY to enable it",
        "groq": "set GROQ_KEY or GROQ_API_KEY to enable it",
        "anthropic": "set ANTHROPIC_API_KEY to enable it",
        "vllm": "switched off",
    }


def test_the_first_variable_that_is_set_is_the_key() -> None:
    """An empty one counts as not set; blanks around a key are a slip of the clipboard."""
    config = config_of(KEYED, environ={"OPENAI_API_KEY": " one\n", "GROQ_KEY": "", "GROQ_API_KEY": "two"})
    assert {name: secret.reveal() for name, secret in config.secrets.items()} == {"openai": "one", "groq": "two"}
    assert list(config.disabled) == ["anthropic", "vllm"]


def test_a_provider_that_is_off_has_no_key_in_memory() -> None:
    """Its key is not even read."""
    text = "version: 1\nproviders: {openai: {enabled: false, api_key_env: A}}\n"
    assert config_of(text, environ={"A": "a"}).secrets == {}


def test_a_key_that_no_header_can_carry_turns_its_provider_off() -> None:
    """The reason names the variable, not the value."""
    config = config_of(KEYED, environ={"OPENAI_API_KEY": "one\ntwo"})
    assert config.disabled["openai"] == "OPENAI_API_KEY contains characters that are not allowed in a key"
    assert "openai" not in config.secrets


def test_the_type_defaults_to_the_name_and_sets_the_struct() -> None:
    """`vllm: {type: openai}` speaks OpenAI's dialect; every key ends up in the Struct."""
    config = config_of(KEYED)
    assert isinstance(config.providers["vllm"], Hosted)
    assert config.providers["local"] == Embedded(context=4096)
    assert config.providers["vllm"].base_url == "http://localhost:8001/v1"


def test_a_provider_may_be_empty() -> None:
    """`openai:` with nothing behind it is a provider with its defaults."""
    assert config_of("version: 1\nproviders:\n  openai:\n  groq: {}\n").providers == {
        "openai": Hosted(),
        "groq": Hosted(),
    }


@pytest.mark.parametrize("section", ["providers:\n", "providers: {}\n"])
def test_no_provider_at_all_is_a_configuration(section: str) -> None:
    """It answers nothing, but it says so when asked."""
    assert config_of(f"version: 1\n{section}").providers == {}


ROTATING = """\
version: 1
providers:
  openai: {api_key_env: {rotate: [KEY_A, KEY_B, KEY_C]}, limits: {requests_per_minute: 40}}
"""


def rotated(**environ: str) -> Config:
    return config_of(ROTATING, environ=environ)


def test_all_keys_of_a_rotation_are_used() -> None:
    """In the order of the file; the first one serves where only one is needed."""
    config = rotated(KEY_C="three", KEY_A="one", KEY_B=" two\n")
    assert [(name, key.reveal()) for name, key in config.provider_keys["openai"].items()] == [
        ("KEY_A", "one"),
        ("KEY_B", "two"),
        ("KEY_C", "three"),
    ]
    assert config.secrets["openai"].reveal() == "one"
    assert config.providers["openai"].limits == ProviderLimits(requests_per_minute=40)
    assert (config.disabled, config.notices) == ({}, [])
    assert {name: end.key for name, end in key_endpoints(config, "openai").items()} == config.provider_keys["openai"]


def test_a_rotation_works_with_the_keys_that_are_set() -> None:
    """And says which are not."""
    config = rotated(KEY_A="", KEY_B="two", KEY_C="th\tree")
    assert list(config.provider_keys["openai"]) == ["KEY_B"]
    assert config.disabled == {}
    assert config.notices == [
        "providers.openai: KEY_A is not set",
        "providers.openai: KEY_C contains characters that are not allowed in a key",
    ]


def test_a_rotation_without_any_key_is_off() -> None:
    """With the reason for it."""
    assert rotated().disabled == {"openai": "set KEY_A or KEY_B or KEY_C to enable it"}
    assert rotated(KEY_B="a b").disabled == {"openai": "KEY_B contains characters that are not allowed in a key"}
    assert rotated().notices == []


def test_two_variables_with_the_same_key_are_one_key() -> None:
    """Its limits would be counted twice otherwise. `proxy check` warns of it, and does not show the key."""
    config = rotated(KEY_A="one-canary", KEY_B="two", KEY_C="one-canary")
    assert list(key_endpoints(config, "openai")) == ["KEY_A", "KEY_B"]
    (warning,) = find_warnings(config, date(2026, 11, 22), lambda name: None)
    assert str(warning) == (
        "routing_rules.yaml:3:49: warning: providers.openai.api_key_env.rotate.2: KEY_C holds the same key as KEY_A"
    )


def test_a_rotation_of_one_key_is_that_key() -> None:
    """Nothing rotates."""
    text = "version: 1\nproviders: {openai: {api_key_env: {rotate: [A]}}}\n"
    config = config_of(text, environ={"A": "one"})
    assert config.secrets["openai"].reveal() == "one"
    assert config_of(text).disabled == {"openai": "set A to enable it"}


def test_a_list_still_means_the_first_one_that_is_set() -> None:
    """Also where several are."""
    config = config_of(KEYED, environ={"GROQ_KEY": "one", "GROQ_API_KEY": "two"})
    assert list(key_endpoints(config, "groq")) == ["GROQ_KEY"]
