"""The usual mistakes in a base URL are corrected or named; values from the environment count as if they stood there."""

from __future__ import annotations

import pytest

from proxy.config import Config, ConfigError, Source, configure
from proxy.config.namespace import endpoint_of
from proxy.providers import PROVIDERS


def read(section: str, **environ: str) -> Config:
    """A configuration with this section under `providers`, and the real types."""
    return configure(Source("r.yaml", f"version: 1\nproviders:\n  {section}\n".encode()), None, environ, PROVIDERS)


def fault(section: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(section, **environ)
    return str(refused.value)


def at(url: str, kind: str = "openai") -> str:
    return f'p: {{type: {kind}, base_url: "{url}", allow_private: true}}'


def meant(url: str, kind: str = "openai") -> tuple[str, list[str]]:
    """The address that is used, and what a start says of it."""
    config = read(at(url, kind))
    assert all(line.startswith("providers.p.base_url: ") for line in config.notices)
    assert "vendor is at" in "".join(config.notices) or url.strip("/ ") not in "".join(config.notices)
    end = endpoint_of(config, "p")
    return end.base_url + end.query, config.notices


TAILS = [
    *("/chat/completions", "/completions", "/responses", "/embeddings", "/messages", "/rerank", "/models"),
    *("/chat/completions/", "/models/m-1:generateContent", "/models/m-1:streamGenerateContent"),
]


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("front", ["http://10.0.0.9:8000/v1", "https://gateway.example/team/v1", "http://[fd00::9]"])
def test_the_path_of_an_endpoint_is_left_out(front: str, tail: str) -> None:
    """The proxy would add it a second time."""
    url, notices = meant(front + tail)
    assert url == front
    assert notices == [f"providers.p.base_url: {tail.rstrip('/')} at its end is left out, because the proxy adds it"]
    assert meant(f"{front}{tail}?api-version=1")[0] == f"{front}?api-version=1"


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("https://https://", "https://"),
        ("http://https://", "http://"),
        ("https://HTTPS://https://", "https://HTTPS://"),
    ],
)
def test_a_scheme_that_was_pasted_before_another_is_left_out(front: str, said: str) -> None:
    """The last one counts."""
    url, notices = meant(f"{front}gateway.example/v1")
    assert url == "https://gateway.example/v1"
    assert notices == [f"providers.p.base_url: {said} before https:// is left out"]


@pytest.mark.parametrize("tail", ["/api/chat", "/api/generate", "/api", "/api/tags/", "/api/"])
def test_the_own_api_of_ollama_is_left_out(tail: str) -> None:
    """The proxy uses its endpoint that is like OpenAI's."""
    url, notices = meant(f"http://localhost:11434{tail}", "ollama")
    assert (url, len(notices)) == ("http://localhost:11434", 1)


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("https://gateway.example/v1/v1", "https://gateway.example/v1"),
        ("https://gateway.example/v1/v1/", "https://gateway.example/v1"),
        ("https://gateway.example/v1/v1/chat/completions", "https://gateway.example/v1"),
        ("https://gateway.example/v1beta/v1beta", "https://gateway.example/v1beta"),
        ("https://gateway.example/api/v2/v2/v2", "https://gateway.example/api/v2"),
        ("http://gateway.example//v1", "http://gateway.example/v1"),
        ("http://gateway.example/v1//", "http://gateway.example/v1"),
        ("10.0.0.9:8000/v1", "http://10.0.0.9:8000/v1"),
        ("localhost:8000", "http://localhost:8000"),
        ("gateway.example/v1", "http://gateway.example/v1"),
    ],
)
def test_slips_are_corrected_with_a_line(url: str, right: str) -> None:
    """A version twice, a slash twice, no scheme (https where the address is public)."""
    found, notices = meant(url)
    assert (found, len(notices) >= 1) == (right, True)
    public = read("p: {type: openai, base_url: gateway.example/v1}")
    assert endpoint_of(public, "p").base_url == "https://gateway.example/v1"


def test_blanks_around_an_address_do_not_count() -> None:
    """As around every value from the environment."""
    assert meant(" http://10.0.0.9/v1 ") == ("http://10.0.0.9/v1", [])


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://api.deepseek.com",
            "https://openrouter.ai/api/v1",
            "http://10.0.0.9:8000/v1/",
            "http://h:1/models/v1",
        ),
        *("https://api.groq.com/openai/v1", "https://generativelanguage.googleapis.com/v1beta/openai"),
        *(
            "https://api.anthropic.com/v1",
            "https://r.openai.azure.com/openai/v1",
            "https://api.cohere.com/compatibility/v1",
        ),
        "https://r.openai.azure.com/openai/deployments/completions-1?api-version=2024-10-21",
    ],
)
def test_right_addresses_stay_right(url: str) -> None:
    """With a version or without one, of whatever vendor."""
    assert meant(url) == (url.rstrip("/"), [])


@pytest.mark.parametrize(
    ("kind", "url", "home"),
    [
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "https://api.openai.com/v2", "https://api.openai.com/v1"),
        ("openai", "https://api.groq.com/v1", "https://api.groq.com/openai/v1"),
        ("groq", "https://api.groq.com/openai", "https://api.groq.com/openai/v1"),
        ("mistral", "https://api.mistral.ai/", "https://api.mistral.ai/v1"),
        ("together", "https://api.together.ai", "https://api.together.ai/v1"),
        ("anthropic", "https://api.anthropic.com/api", "https://api.anthropic.com"),
        (
            "google",
            "https://generativelanguage.googleapis.com/v1beta/openai",
            "https://generativelanguage.googleapis.com",
        ),
    ],
)
def test_another_path_at_a_vendor_s_own_host_is_corrected(kind: str, url: str, home: str) -> None:
    """The proxy knows the right one."""
    assert meant(url, kind) == (home, [f"providers.p.base_url: the API of this vendor is at {home}"])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("${VLLM_URL}", "base_url_env"),
        ("http://$HOST:8000/v1", "base_url_env"),
        ("http:/gateway.example/v1", "has no host"),
        ("u:secret-1@gateway.example/v1", "must start with http://"),
        ("http://gateway.example/v 1", "plain ASCII"),
        ("htp://gateway.example", "must start with http://"),
        ("http://gateway.example/v1?key=secret-1", "api-version"),
        ("http://gateway.example/v1?api-version=1&code=secret-1", "api-version"),
        ("http://gateway.example/v1#a", "fragment"),
    ],
)
def test_what_is_no_address_says_what_to_write(url: str, said: str) -> None:
    """And repeats nothing that may be a secret."""
    line = fault(at(url))
    assert said in line
    assert "secret-1" not in line


@pytest.mark.parametrize("kind", ["vllm", "lmstudio", "localai", "ollama"])
@pytest.mark.parametrize(
    ("path", "root"), [("", "/v1"), ("/", "/v1"), ("/v1", ""), ("/v1/", ""), ("?api-version=1", "/v1")]
)
def test_a_missing_version_is_added_for_self_hosted_servers(kind: str, path: str, root: str) -> None:
    """They have it, all of them. Requests and the list of models agree."""
    provider = read(at(f"http://localhost:9999{path}", kind)).providers["p"]
    assert provider.models_path == f"{root}/models"


def test_an_address_from_the_environment_overrides_that_of_the_file() -> None:
    """Trimmed, as every value from there."""
    section = "vllm: {base_url: 'http://localhost:1/v1', base_url_env: U, allow_private: true}"
    assert endpoint_of(read(section, U=' "http://10.1.1.1:2/v1/"\n'), "vllm").base_url == "http://10.1.1.1:2/v1"
    assert endpoint_of(read(section), "vllm").base_url == "http://localhost:1/v1"


def test_a_wrong_address_from_the_environment_names_its_variable() -> None:
    """At the line of `base_url_env`, without the value."""
    section = "p: {type: openai, base_url_env: GATE_URL}"
    assert fault(section, GATE_URL="https://u:secret-1@gate.example").startswith(
        "r.yaml:3:35: providers.p.base_url_env: GATE_URL must not contain a user name or password"
    )
    assert "GATE_URL a name inside your own network" in fault(section, GATE_URL="http://gate/v1")


def test_without_its_address_a_provider_is_off() -> None:
    """It never falls back to the vendor: the key was meant for another server."""
    config = read("openai: {base_url_env: GATE_URL, api_key_env: K}", K="sk-of-the-gateway-1")
    assert config.disabled == {"openai": "set GATE_URL to enable it"}
    assert config.secrets == {}


def test_headers_from_the_environment_are_secrets_of_the_provider() -> None:
    """Without one of them it is off; a query follows every path."""
    section = (
        "azure: {type: openai, base_url: 'https://r.example/openai/deployments/d/?api-version=2024-10-21',"
        " headers_env: {Api-Key: A, x-tenant: T}}"
    )
    config = read(section, A=" key-of-azure-1\n", T="t-1")
    end = endpoint_of(config, "azure")
    assert (end.base_url, end.query) == ("https://r.example/openai/deployments/d", "?api-version=2024-10-21")
    assert {name: value.reveal() for name, value in end.secret_headers.items()} == {
        "api-key": "key-of-azure-1",
        "x-tenant": "t-1",
    }
    assert "key-of-azure-1" not in repr(config) + repr(end)
    assert read(section, A="a-1").disabled == {"azure": "set T to enable it"}
    assert "T contains characters" in read(section, A="a-1", T="a\r\nx-admin: 1").disabled["azure"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ("headers_env: {host: A}", "headers_env.host: this header belongs to the connection"),
        ("headers_env: {x y: A}", "headers_env.x y: is not a valid header name"),
        ("headers_env: {x-a: not-a-name}", "headers_env.x-a: must be the name of an environment variable"),
        ("headers: {X-A: b}, headers_env: {x-a: A}", "headers_env.x-a: is under headers as well"),
    ],
)
def test_a_wrong_header_is_named(headers: str, said: str) -> None:
    """By the rules of `headers`, but credentials belong here."""
    assert said in fault(f"openai: {{{headers}}}")
