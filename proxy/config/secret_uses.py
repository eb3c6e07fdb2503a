"""Translates: two configurations -> the environment variables that only the second sends somewhere. Pure.

A user who may change settings in a page need not be allowed to read the server's environment. A provider of that user's
own, whose `headers_env` or `api_key_env` names a variable, would reveal its value. So a change in a page may not send
the value of a variable to another place than the files on disk do. Edits of the files on the server are not restricted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from urllib.parse import urlsplit

from msgspec import Struct

from proxy.config.outbound import ENVIRONMENT, NONE
from proxy.config.problems import Mark, Path, Problem, problem
from proxy.config.settings import Config
from proxy.providers.base.contract import Provider

ALLOWED = "PROXY_PAGE_VARIABLES"  # names with commas between them: the page may send these anywhere


class Use(Struct, frozen=True):
    """A variable's value that leaves the server: to an origin, through an HTTP proxy, to hosts that a CA vouches for.

    `origin` None: the value is itself an address.
    """

    variable: str
    origin: str | None
    proxy: str | None = None
    ca_file: str | None = None


def new_uses(
    before: Config,
    after: Config,
    types: Iterable[type[Provider]],
    allowed: Iterable[str],
    may_be_typed: Callable[[str], bool],
) -> list[Problem]:
    """The problems of `after` as a change in a page. `types`: the vendors; each one's own variables may go to its own
    API. `may_be_typed`: True for a variable without a value, whose key the page itself may set.
    """
    known = {Use(name, _origin(kind.base)) for kind in types if kind.base for name in kind.key_env}
    known |= uses_of(before).keys()
    free = set(allowed)
    problems = []
    for use, path in uses_of(after).items():
        if use in known or use.variable in free or (path[-1] == "api_key_env" and may_be_typed(use.variable)):
            continue
        message = (
            f"a page cannot make the server send {use.variable} there, because its files on disk do not. Change the "
            f"file on the server, or let its operator name the variable in {ALLOWED}"
        )
        problems.append(problem(_mark(after, path), path, message))
    return problems


def uses_of(config: Config) -> dict[Use, Path]:
    """Every use, with the key that names its variable, even for a provider that is off: another change may
    turn it on.
    """
    found: dict[Use, Path] = {}
    for name, provider in config.providers.items():
        path = ("providers", name)
        if provider.local_model is not None:
            continue
        if provider.base_url_env is not None:
            found[Use(provider.base_url_env, None)] = (*path, "base_url_env")
        url = provider.base_url or provider.default_base_url
        if url is None:  # nothing is sent before the variable of its address is set
            continue
        to = _origin(url), _proxy(provider.proxy or config.proxy), provider.ca_file
        for key, variables in _variables(provider).items():
            found |= {Use(variable, *to): (*path, key) for variable in variables}
    if config.budget is not None and config.budget.alert_webhook_env is not None:
        found[Use(config.budget.alert_webhook_env, None)] = ("budget", "alert_webhook_env")
    return found


def _variables(provider: Provider) -> Mapping[str, Iterable[str]]:
    """The variables whose values its requests carry, by the key that names them."""
    own = provider.header_variables.values()
    return {
        "api_key_env": provider.key_variables,
        "headers_env": provider.headers_env.values(),
        "organization_env": own,
    }


def _mark(config: Config, path: Path) -> Mark:
    """The position of the key, or of the section that it belongs to."""
    while path and path not in config.marks:
        path = path[:-1]
    return config.marks.get(path, Mark("routing_rules.yaml"))


def _origin(url: str) -> str:
    """Scheme, host and port."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{(parts.hostname or '').removesuffix('.')}:{port}"


def _proxy(setting: str | None) -> str | None:
    """A proxy named in the file; one from the environment is the operator's choice."""
    return None if setting in (None, NONE, ENVIRONMENT) else setting
