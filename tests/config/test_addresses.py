"""Base URLs: every literal way to write an address inside the own network (attack S11), and what a header may hold."""

from __future__ import annotations

import pytest

from proxy.config.addresses import wrong_header, wrong_url

PUBLIC = [
    "https://api.openai.com/v1",
    "http://8.8.8.8.",
    "http://1.1.1.1:8080",
    "http://[2606:4700::1111]/v1",
    "https://xn--bcher-kva.example",
]
PRIVATE = [
    "http://127.0.0.1",
    "http://127.1",
    "http://0x7f000001",
    "http://0x7f.1",
    "http://0177.0.0.1",
    "http://2130706433",
    "http://127.0.0.1.",
    "http://0.0.0.0",
    "http://0",
    "http://10.1.2.3",
    "http://172.16.0.1",
    "http://192.168.1.5",
    "http://100.64.0.1",
    "http://239.1.1.1",
    "http://[::]",
    "http://[::1]:80",
    "http://[::ffff:127.0.0.1]",
    "http://[::127.0.0.1]",
    "http://[64:ff9b::7f00:1]",
    "http://[2002:7f00:1::]",
    "http://[fec0::1]",
    "http://[fd12::1]",
    "http://localhost",
    "http://localhost.",
    "http://LOCALHOST:11434",
    "http://ollama:11434",
    "http://a.localhost",
    "http://printer.local",
    "http://db.internal",
]
NEVER = [
    "http://169.254.169.254",
    "http://169.254.169.254.",
    "http://2852039166",
    "http://0xa9fea9fe",
    "http://[fd00:ec2::254]",
    "http://[::ffff:169.254.169.254]",
    "http://[64:ff9b::a9fe:a9fe]",
    "http://[2002:a9fe:a9fe::]",
    "http://[fe80::1]",
    "http://[fe80::1%25eth0]",
    "http://100.100.100.200",
    "http://metadata.google.internal",
    "http://Metadata.Google.Internal.",
]
BROKEN = [
    "ftp://host.example",
    "//host.example",
    "host.example",
    "http://",
    "http:///v1",
    "http://host.example:99999",
    "http://host.example:x",
    "http://user@host.example",
    "http://user:pw@host.example",
    "http://a#@b",
    "http://host.example?x=1",
    "http://host.example?",
    "http://host.example#",
    "http://[::1",
    "http://1.2.3.4.5",
    "http://256.1.1.1",
    "http://08.1.1.1",
    "http://foo.0x1",
    "http://a..b",
    "http://-a.example",
    "http://%31%32%37.0.0.1",
    "http://b\u00fccher.example",
    "http://\uff11\uff12\uff17.0.0.1",
    "http://exam\\ple.example",
    "http://a\x00b",
    "javascript:alert(1)",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("url", PUBLIC)
def test_a_public_address_is_fine(url: str) -> None:
    """With and without leave for private ones."""
    assert (wrong_url(url, False), wrong_url(url, True)) == (None, None)


@pytest.mark.parametrize("url", PRIVATE)
def test_an_address_inside_the_network_must_be_meant(url: str) -> None:
    """However it is written."""
    assert "add allow_private: true" in str(wrong_url(url, False))
    assert wrong_url(url, True) is None


@pytest.mark.parametrize("url", NEVER)
def test_a_metadata_address_is_never_meant(url: str) -> None:
    """Not even with `allow_private`."""
    assert wrong_url(url, True) == wrong_url(url, False) == "a link-local or metadata address is never allowed"


@pytest.mark.parametrize("url", BROKEN)
def test_what_parsers_disagree_about_is_refused(url: str) -> None:
    """Also where private addresses are allowed, and without repeating what may hold a password."""
    wrong = wrong_url(url, True)
    assert wrong is not None
    assert url not in wrong


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("x-team", "search", None),
        ("Authorization", "Bearer x", "credentials do not belong in this file; use api_key_env or headers_env"),
        ("x team", "a", "is not a valid header name"),
        ("x-team:", "a", "is not a valid header name"),
        ("Content-Length", "5", "this header belongs to the connection and cannot be set"),
        ("x-team", "a\r\nx-admin: 1", "a header value must be printable ASCII"),
        ("x-team", "b\u00fccher", "a header value must be printable ASCII"),
    ],
)
def test_a_header_carries_no_credentials_and_no_second_header(name: str, value: str, wrong: str | None) -> None:
    """Header injection ends here."""
    assert wrong_header(name, value) == wrong
