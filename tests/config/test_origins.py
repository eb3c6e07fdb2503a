"""Origins and host names that no client ever sends in that form are refused, and the right form is shown."""

from __future__ import annotations

from datetime import date

import pytest

from proxy.config.origins import wrong_host, wrong_origin
from proxy.config.references import check
from tests.config.files import config_of

MINIMAL = "version: 1\nproviders: {openai: {}}\n"


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "http://localhost:3000",
        "http://127.0.0.1:5173",
        "http://[::1]:8080",
        "https://xn--bcher-kva.example",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "tauri://localhost",
        "vscode-webview://1a2b3c",
        "null",
    ],
)
def test_what_browsers_send_is_fine(origin: str) -> None:
    """Of pages, extensions and applications."""
    assert wrong_origin(origin) is None


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("https://App.example.com", "https://app.example.com"),
        ("HTTPS://app.example.com", "https://app.example.com"),
        ("https://app.example.com/", "https://app.example.com"),
        ("https://app.example.com/chat?x=1#y", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80/", "http://app.example.com"),
        ("https://user@app.example.com", "https://app.example.com"),
        (" https://app.example.com", "https://app.example.com"),
        ("http://localhost:03000", "http://localhost:3000"),
        ("app.example.com", "https://app.example.com"),
        ("localhost:3000", "http://localhost:3000"),
        ("http://127.1:3000", "http://127.0.0.1:3000"),
        ("http://[0:0:0:0:0:0:0:1]:3000", "http://[::1]:3000"),
        ("tauri://localhost/", "tauri://localhost"),
    ],
)
def test_another_form_of_an_origin_names_the_right_one(text: str, right: str) -> None:
    """What is written there is itself right."""
    assert wrong_origin(text) == f"never matches what browsers send; write {right}"
    assert wrong_origin(right) is None


@pytest.mark.parametrize(
    "text", ["*", " * ", "https://*", "http://localhost:*", "https://*.example.com", "*.example.com"]
)
def test_a_star_is_refused(text: str) -> None:
    """All pages, or a pattern."""
    assert wrong_origin(text) is not None
    assert wrong_host(text) is not None


@pytest.mark.parametrize(
    "text", ["", " ", "https://", "http://a b", "https://b\u00fccher.example", "http://h:x", "file:///a"]
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    """With an example."""
    assert "https://app.example.com" in str(wrong_origin(text))


@pytest.mark.parametrize("name", ["proxy.lan", "Proxy.Example", "10.0.0.5", "[fd00::5]", "proxy_1"])
def test_a_name_is_a_host(name: str) -> None:
    """In any case: the header is compared without it."""
    assert wrong_host(name) is None


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("proxy.lan:8000", "proxy.lan"),
        ("http://proxy.lan", "proxy.lan"),
        ("https://proxy.lan:8443/v1", "proxy.lan"),
        (" proxy.lan", "proxy.lan"),
        ("fd00::5", "[fd00::5]"),
        ("[fd00::5]:8000", "[fd00::5]"),
    ],
)
def test_more_than_a_name_never_matches(text: str, right: str) -> None:
    """The port of a Host header is not compared."""
    assert wrong_host(text) == f"never matches; write the name alone: {right}"
    assert wrong_host(right) is None


def test_each_entry_is_refused_at_its_line() -> None:
    """By `proxy check`, in the file and in the environment; a server that starts all the same says so."""
    text = MINIMAL + 'server:\n  cors_origins:\n    - https://a.example\n    - "*"\n  allowed_hosts: ["a:1"]\n'
    config = config_of(text)
    assert [str(each).rpartition(": ")[0].split(": ")[0] for each in check(config, date(2026, 11, 29))] == [
        "routing_rules.yaml:6:7",
        "routing_rules.yaml:7:19",
    ]
    assert [line.partition(" has no effect: ")[0] for line in config.notices] == [
        "server.cors_origins.1",
        "server.allowed_hosts.0",
    ]
    (wrong,) = check(config_of(MINIMAL, environ={"PROXY_CORS_ORIGINS": "https://a.example/"}), date(2026, 11, 29))
    line = "environment variable PROXY_CORS_ORIGINS: server.cors_origins.0: never matches what browsers send"
    assert str(wrong).startswith(line)
