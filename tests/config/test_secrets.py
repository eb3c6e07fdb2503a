"""Keys come from the environment and are never shown: not by the configuration, not by a message."""

from __future__ import annotations

import pytest

from tests.config.files import config_of, lines_of

HEAD = "version: 1\nproviders: {openai: {}}\n"
CANARIES = [
    "sk-proj-c4n4ryC4N4RY",
    "gsk_c4n4ryC4N4RYc4n4ry",
    "AIzaC4n4ryC4n4ry",
    "xai-c4n4ryC4N4RY",
    "0123456789abcdef0123456789abcdef",  # a vendor whose keys have no prefix
]
PLACES = [
    "version: 1\nproviders: {openai: {api_key: CANARY}}\n",
    "version: 1\nproviders: {openai: {api_key_env: CANARY}}\n",
    "version: 1\nproviders: {openai: {api_key_env: [OPENAI_API_KEY, CANARY]}}\n",
    "version: 1\nproviders: {openai: {api_key_env: {rotate: [OPENAI_API_KEY, CANARY]}}}\n",
    "version: 1\nproviders: {openai: {api_key_env: {rotate: [CANARY, CANARY]}}}\n",
    "version: 1\nproviders: {openai: {api_key_env: {CANARY: [A]}}}\n",
    "version: 1\nproviders: {openai: {limits: {CANARY: 1}}}\n",
    "version: 1\nproviders: {openai: {headers: {authorization: Bearer CANARY}}}\n",
    "version: 1\nproviders: {openai: {headers: {x-team: CANARY}}}\n",
    "version: 1\nproviders: {openai: {parameters: {deep: [{er: CANARY}]}}}\n",
    "version: 1\nproviders: {openai: {base_url: 'https://user:CANARY@host.example/v1'}}\n",
    "version: 1\nproviders: {openai: {base_url: 'https://host.example/v1?key=CANARY'}}\n",
    "version: 1\nproviders: {openai: {type: CANARY}}\n",
    "version: 1\nproviders: {CANARY: {type: openai}}\n",
    "version: 1\nproviders: {openai: {CANARY: 1}}\n",
    HEAD + "server: {host: CANARY}\n",
    HEAD + "server: {port: CANARY}\n",
    HEAD + "server: {log_format: CANARY}\n",
    HEAD + "keys: {CANARY: {}}\n",
    HEAD + "keys: {app: {models: [CANARY]}}\n",
    HEAD + "aliases: {a: CANARY}\n",
    HEAD + "aliases: {CANARY: openai/x}\n",
    HEAD + "aliases: {CANARY: openai/x, CANARY: openai/y}\n",
    HEAD + "models: {CANARY: {weighted: {openai/x: 1}}}\n",
    HEAD + "models: {a: {weighted: {CANARY: 1}}}\n",
    HEAD + "models: {a: {use: CANARY}}\n",
    HEAD + "router: {default_model: CANARY}\n",
    HEAD + "budget: {timezone: CANARY}\n",
    HEAD + "CANARY: 1\n",
    "CANARY\n",
    "version: 1\n CANARY: 1\n",
]


def test_a_short_vault_key_is_refused_and_not_repeated() -> None:
    """What seals states for others to fail at is no word that can be guessed."""
    (line,) = lines_of(HEAD, environ={"PROXY_VAULT_KEY": "c4n4ry"})
    assert line.startswith("environment variable PROXY_VAULT_KEY: must have at least 32 characters")
    assert "c4n4ry" not in line
    config = config_of(HEAD, environ={"PROXY_VAULT_KEY": "c4n4ry" * 6})
    assert config.vault_key is not None
    assert config.vault_key.reveal() == "c4n4ry" * 6
    assert "c4n4ry" not in repr(config)
    assert config_of(HEAD).vault_key is None


@pytest.mark.sampled(5)
@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("place", PLACES)
def test_a_key_in_the_file_is_refused_and_not_repeated(place: str, canary: str) -> None:
    """Wherever it stands, whatever else is wrong there."""
    lines = lines_of(place.replace("CANARY", canary))
    assert lines
    assert canary not in "\n".join(lines)


def test_a_provider_named_like_a_key_is_told_why_it_is_refused() -> None:
    """Its owner may see no key in it."""
    for name in ("xai-production", "sk-europe-west", "hf_inference1"):
        assert lines_of(f"version: 1\nproviders:\n  {name}: {{type: openai}}\n") == [
            "routing_rules.yaml:3:3: providers.****: looks like an API key, so it is not shown;"
            " a name may not begin like one (sk-, xai-, hf_, ...)"
        ]


def test_a_key_in_clear_is_told_where_keys_belong() -> None:
    """The message is the remedy."""
    text = "version: 1\nproviders:\n  openai:\n    api_key: whatever\n    headers: {X-Api-Key: abc}\n"
    assert lines_of(text + "server: {password: x}\n") == [
        "routing_rules.yaml:4:5: providers.openai.api_key: keys do not belong in this file; use api_key_env",
        "routing_rules.yaml:5:26: providers.openai.headers.X-Api-Key:"
        " credentials do not belong in this file; use api_key_env or headers_env",
        "routing_rules.yaml:6:10: server.password: keys do not belong in this file",
    ]


def test_model_ids_and_paths_are_not_taken_for_keys() -> None:
    """A refusal without cause would be as bad."""
    names = ["pplx-70b-online", "task-sk", "deepseek-ai/DeepSeek-V4.1-Flash-1017", "Meta-Llama-3.1-405B-Instruct-Turbo"]
    names += ["ft:gpt-4o:acme:helper:9aBcDeFg", "/models/0123456789abcdef0123456789abcdef/model.gguf"]
    text = HEAD + "aliases: {" + ", ".join(f'"{name}": "openai/{name}"' for name in names) + "}\n"
    assert list(config_of(text).aliases) == names


def test_a_configuration_prints_without_its_keys() -> None:
    """`repr`, `str` and an f-string all hide them; only `reveal` answers."""
    config = config_of("version: 1\nproviders: {openai: {api_key_env: K}}\n", environ={"K": "canary-value"})
    assert config.secrets["openai"].reveal() == "canary-value"
    assert "canary-value" not in f"{config!r} {config} {config.secrets['openai']} {config.secrets}"
