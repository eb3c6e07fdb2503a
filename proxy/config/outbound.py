"""Translates: the keys `proxy` and, for `environment`, the usual variables into the HTTP proxy of each provider.

Without such a key no proxy is used: HTTPS_PROXY alone must not expose a server's calls and keys to a proxy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from proxy.config.environment import trimmed
from proxy.config.problems import Mark
from proxy.config.reader import Reader
from proxy.providers.base.contract import Provider
from proxy.schema.records import Secret

ENVIRONMENT, NONE = "environment", "none"
_FORM = "must be http://HOST:PORT, `environment` or `none`"


def proxies_of(
    providers: Mapping[str, Provider], default: str | None, environ: Mapping[str, str], reader: Reader
) -> dict[str, Secret]:
    """Provider -> the URL of its HTTP proxy, which may hold a password. `default`: for providers that name none."""
    found: dict[str, Secret] = {}
    wrong = None if default is None else _wrong_setting(default)
    if wrong is not None:
        reader.note(reader.marks.get(("proxy",), Mark("configuration")), ("proxy",), wrong)
        default = None
    for name, provider in providers.items():
        setting = provider.proxy or default or NONE
        url = provider.base_url or provider.default_base_url
        if setting == NONE or url is None or provider.local_model is not None:
            continue
        where = ("providers", name, "proxy") if provider.proxy else ("proxy",)
        variable = None
        if setting == ENVIRONMENT:
            variable, setting = _from_environment(url, environ)
            if variable is None:
                continue
            wrong = wrong_proxy(setting)
        else:
            wrong = _wrong_setting(setting)
        if wrong is None:
            found[name] = Secret(setting)
        elif where != ("proxy",) or variable:
            reader.note(reader.marks.get(where, Mark("configuration")), where, f"{variable or ''} {wrong}".strip())
    return found


def wrong_proxy(url: str) -> str | None:
    """The reason to refuse the URL of a proxy, or None. Never repeats it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if not re.fullmatch(r"[!-~]+", url) or parts.scheme != "http" or not host:
        return f"{_FORM}; proxies that speak TLS or SOCKS are not supported"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return f"{_FORM}, without a path"
    return None


def _wrong_setting(setting: str) -> str | None:
    """As `wrong_proxy`, for a value in a file."""
    if setting in (ENVIRONMENT, NONE):
        return None
    if "@" in setting:
        return "must not contain a user name or password; put the URL into HTTPS_PROXY and write `environment`"
    return wrong_proxy(setting)


def _from_environment(url: str, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """The variable that names a proxy for this URL, and the proxy's URL; (None, "") if there is none."""
    scheme, host, port = _origin(url)
    if _is_excepted(host, port, _value(environ, "no_proxy")[1]):
        return None, ""
    for name in (f"{scheme}_proxy", "all_proxy"):
        variable, value = _value(environ, name)
        if value:
            return variable, value if "://" in value else f"http://{value}"
    return None, ""


def _value(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable and its value. Lower case takes precedence, as in curl."""
    variable = name if name in environ else name.upper()
    return variable, trimmed(environ.get(variable, ""))


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:  # reported elsewhere
        return "", "", 0
    return parts.scheme, (parts.hostname or "").rstrip("."), port


def _is_excepted(host: str, port: int, no_proxy: str) -> bool:
    """True if NO_PROXY names the host: itself, a domain it is in, its address or network, or `*`."""
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        name, _, number = entry.rpartition(":") if re.search(r"[^:]:\d+$", entry) else (entry, "", "")
        if number and int(number) != port:
            continue
        name = name.strip("[]").removeprefix("*").strip(".") if name != "*" else name
        if name and (name in ("*", host) or host.endswith(f".{name}") or _is_within(host, name)):
            return True
    return False


def _is_within(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
