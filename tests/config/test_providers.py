"""Which providers are on, and why the others are off."""

from __future__ import annotations

import pytest

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
