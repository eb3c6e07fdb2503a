"""The HTTP proxy for outgoing calls: none unless a key asks for it, then by the rules that curl follows."""

from __future__ import annotations

import pytest

from proxy.config.problems import ConfigError
from tests.config.test_base_urls import fault, read

CORPORATE = {"HTTPS_PROXY": "http://corp.example:3128", "HTTP_PROXY": "http://plain.example:8080"}


def used(section: str, top: str = "", **environ: str) -> str | None:
    """The proxy of the only provider."""
    config = read(section + (f"\nproxy: {top}" if top else ""), **environ)
    found = [secret.reveal() for secret in config.proxies.values()]
    assert "corp.example" not in repr(config.proxies)
    return found[0] if found else None


def test_nothing_is_used_unless_asked_for() -> None:
    """Whatever the environment says."""
    assert used("openai: {}", **CORPORATE, ALL_PROXY="http://all.example:1") is None
    assert used("openai: {proxy: none}", "environment", **CORPORATE) is None


def test_a_provider_names_its_own() -> None:
    """Also for a private server, and against the one at the top."""
    section = "ollama: {base_url: 'http://localhost:1', allow_private: true, proxy: 'http://127.0.0.1:3128'}"
    assert used(section) == used(section, "http://other.example:1") == "http://127.0.0.1:3128"
    assert used("openai: {}", "http://other.example:1") == "http://other.example:1"
    assert used("local: {type: embedded}", "http://other.example:1") is None


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://a.example", CORPORATE, "http://corp.example:3128"),
        ("http://a.example", CORPORATE, "http://plain.example:8080"),
        ("https://a.example", {"HTTP_PROXY": "http://p.example:1"}, None),
        ("https://a.example", {"ALL_PROXY": "p.example:1"}, "http://p.example:1"),
        ("https://a.example", {**CORPORATE, "https_proxy": "http://low.example:2"}, "http://low.example:2"),
        ("https://a.example", {**CORPORATE, "https_proxy": ""}, None),
        ("https://a.example", {"HTTPS_PROXY": ' "http://u:p@p.example:1"\n'}, "http://u:p@p.example:1"),
        ("https://a.example", {}, None),
    ],
)
def test_the_environment_is_read_by_scheme(url: str, environ: dict[str, str], expected: str | None) -> None:
    """Lower case first; a proxy may be written without its scheme."""
    assert used(f"p: {{type: openai, base_url: '{url}', proxy: environment}}", **environ) == expected
    assert used(f"p: {{type: openai, base_url: '{url}'}}", "environment", **environ) == expected


@pytest.mark.parametrize(
    ("host", "no_proxy", "is_direct"),
    [
        ("a.corp.example", "corp.example", True),
        ("a.corp.example", ".corp.example", True),
        ("a.corp.example", "*.corp.example", True),
        ("corp.example", ".corp.example", True),
        ("a.corp.example", "orp.example", False),
        ("a.corp.example", "other.example, A.CORP.EXAMPLE", True),
        ("a.corp.example", "other.example a.corp.example", True),
        ("a.corp.example", "*", True),
        ("a.corp.example:8443", "a.corp.example:8443", True),
        ("a.corp.example:8443", "a.corp.example:443", False),
        ("a.corp.example", "a.corp.example:443", True),
        ("10.20.30.40", "10.0.0.0/8", True),
        ("10.20.30.40", "10.20.30.40", True),
        ("11.20.30.40", "10.0.0.0/8", False),
        ("[fd00::5]", "fd00::/8", True),
        ("[fd00::5]:9", "[fd00::5]:9", True),
        ("a.corp.example", "", False),
        ("a.corp.example", ",, ,", False),
    ],
)
def test_no_proxy_names_what_is_called_directly(host: str, no_proxy: str, is_direct: bool) -> None:
    """Hosts, domains, addresses, networks, all."""
    section = f"p: {{type: openai, base_url: 'https://{host}/v1', allow_private: true, proxy: environment}}"
    found = used(section, **CORPORATE, NO_PROXY=no_proxy)
    assert (found is None) is is_direct


@pytest.mark.parametrize(
    "text", ["https://p.example:1", "socks5://p.example:1", "p.example:1", "http://", "http://p.example:x", "on",
             "http://p.example/path", "http://p example:1"],
)  # fmt: skip
def test_a_proxy_that_cannot_be_used_is_refused_at_its_line(text: str) -> None:
    """For a provider, for all of them, and in the environment, where its variable is named."""
    assert "r.yaml:3:19: providers.openai.proxy: " in fault(f"openai: {{proxy: '{text}'}}")
    with pytest.raises(ConfigError, match=r"^r\.yaml:4:8: proxy: "):
        read(f"openai: {{}}\nproxy: '{text}'")
    if "://" in text:
        assert "HTTPS_PROXY " in fault("openai: {proxy: environment}", HTTPS_PROXY=text)


def test_a_password_does_not_belong_in_the_file() -> None:
    """And is not repeated."""
    line = fault("openai: {proxy: 'http://u:secret-1@p.example:1'}")
    assert "user name or password" in line
    assert "secret-1" not in line + fault("openai: {proxy: environment}", HTTPS_PROXY="ftp://u:secret-1@p.example:1")
