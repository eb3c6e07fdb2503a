"""The server's own variables: what surrounds a value does not count, what cannot be one is refused or ignored."""

from __future__ import annotations

import pytest

from proxy.config import ConfigError
from proxy.config.environment import trimmed
from proxy.server.auth import own_key
from tests.config.files import config_of

MINIMAL = "version: 1\nproviders: {openai: {}}\n"
KEY = "mmp-7c1f0d2b9a"
AROUND = [
    "{}\n",
    "{}\r\n",
    "\t {}",
    "\ufeff{}",
    "{}\u200b",
    "\u00a0{}\u2028",
    '"{}"',
    "'{}'\n",
    '" {} "',
    "\"'{}'\"",
    "{}\0",
]


@pytest.mark.parametrize("form", AROUND[:-1])
def test_what_surrounds_a_key_is_no_part_of_it(form: str) -> None:
    """Of secret files, editors, env files and clipboards. The same for the keys of providers."""
    found = own_key({"PROXY_API_KEY": form.format(KEY)}, "PROXY_API_KEY")
    assert found is not None
    assert found.reveal() == KEY
    text = "version: 1\nproviders: {groq: {api_key_env: SOME}}\n"
    assert config_of(text, environ={"SOME": form.format(KEY)}).secrets["groq"].reveal() == KEY


def test_quotes_within_a_value_stay() -> None:
    """Only a pair around it goes."""
    assert [trimmed(text) for text in ("a'b", "'a", "'a\"", "''", "'")] == ["a'b", "'a", "'a\"", "", "'"]


@pytest.mark.parametrize("name", ["PROXY_API_KEY", "PROXY_ADMIN_KEY"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        (" ", "is blank"),
        ('""', "is blank"),
        ("\ufeff\n", "is blank"),
        ("' \t'", "is blank"),
        (f"Bearer {KEY}", "holds a header"),
        (f"authorization: Bearer {KEY}", "holds a header"),
        (f"{KEY} other", "contains blanks"),
        (f"{KEY}\nother", "contains blanks"),
        (f"{KEY}\0", "contains blanks"),
        ("schl\u00fcssel-0123456789", "contains blanks"),
    ],
)
def test_what_no_client_could_send_is_refused_with_its_variable(name: str, value: str, why: str) -> None:
    """By every command, and without repeating the key."""
    with pytest.raises(ConfigError) as refused:
        config_of(MINIMAL, environ={name: value})
    assert str(refused.value).startswith(f"environment variable {name}: {why}")
    assert KEY not in str(refused.value)
    with pytest.raises(ValueError, match=f"^{name} {why}"):
        own_key({name: value}, name)


def test_an_empty_variable_is_no_key() -> None:
    """As if it were not set."""
    assert own_key({"PROXY_API_KEY": ""}, "PROXY_API_KEY") is None
    config_of(MINIMAL, environ={"PROXY_API_KEY": ""})


@pytest.mark.parametrize("link", ["tcp://10.3.240.9:8000", "udp://10.3.240.9:53", "SCTP://[fd00::7]:9", " tcp://h:1\n"])
def test_what_kubernetes_puts_into_proxy_port_is_ignored_with_one_line(link: str) -> None:
    """The port is that of the file; the other variables of such a service are none of ours."""
    environ = {
        "PROXY_PORT": link,
        "PROXY_SERVICE_HOST": "10.3.240.9",
        "PROXY_SERVICE_PORT": "8000",
        "PROXY_SERVICE_PORT_HTTP": "8000",
        "PROXY_PORT_8000_TCP": "tcp://10.3.240.9:8000",
        "PROXY_PORT_8000_TCP_PROTO": "tcp",
        "PROXY_PORT_8000_TCP_PORT": "8000",
        "PROXY_PORT_8000_TCP_ADDR": "10.3.240.9",
        "PROXY_NAME": "/web/proxy",
    }
    config = config_of(MINIMAL + "server: {port: 8123}\n", environ=environ)
    assert config.server.port == 8123
    assert [line.split(":")[0] for line in config.notices] == ["PROXY_PORT is ignored"]


def test_an_address_in_another_setting_is_ignored_as_well() -> None:
    """A service may be called `proxy-host`, so that PROXY_HOST_PORT is set; or somebody links a container."""
    config = config_of(MINIMAL, environ={"PROXY_WORKERS": "tcp://172.17.0.2:5", "PROXY_HOST": "tcp://172.17.0.2:5"})
    assert (config.server.workers, config.server.host, len(config.notices)) == (1, "127.0.0.1", 2)


def test_a_wrong_port_is_still_refused() -> None:
    """Only what the platform writes is ignored."""
    for text in ("http://10.0.0.1:80", "8000/tcp", "tcp:8000"):
        with pytest.raises(
            ConfigError, match=r"environment variable PROXY_PORT: server\.port: expected a whole number"
        ):
            config_of(MINIMAL, environ={"PROXY_PORT": text})
