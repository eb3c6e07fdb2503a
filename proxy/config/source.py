"""Performs I/O: remembers where a configuration came from, so that a running server can read it again."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from pathlib import Path

from msgspec.structs import replace

from proxy.config.certificates import certificate_problems
from proxy.config.environment import trimmed
from proxy.config.files import finish_saving, read_file
from proxy.config.keys_file import keys_file_of, read_keys
from proxy.config.load import Source, configure, load, version_of
from proxy.config.problems import ConfigError, Problem
from proxy.config.secret_uses import ALLOWED, new_uses
from proxy.config.settings import Config
from proxy.config.tree import Mapping, Scalar, parse
from proxy.ensembles.base import Ensemble
from proxy.ensembles.registry import STRATEGIES
from proxy.providers import PROVIDERS
from proxy.providers.base.contract import Provider
from proxy.storage.settings import StorageConfig


class ConfigFiles:
    """Both files, with the environment and flags of the start, which take precedence.

    `environ` also holds flags, as PROXY_* variables. `storage_url` overrides the file's. `types`: provider types,
    and `strategies` of ensembles, by name.
    """

    def __init__(
        self,
        routing: Path,
        pricing: Path | None,
        environ: MappingOf[str, str],
        storage_url: str | None = None,
        types: MappingOf[str, type[Provider]] = PROVIDERS,
        strategies: MappingOf[str, type[Ensemble]] = STRATEGIES,
    ) -> None:
        self.paths = [routing.absolute(), *([pricing.absolute()] if pricing else [])]
        self.environ = dict(environ)
        self.keys_file = keys_file_of(environ)
        self._keys: dict[str, str] | None = None  # keys of the last configuration
        self._routing = routing
        self._pricing = pricing
        self._storage_url = storage_url
        self._types = types
        self._strategies = strategies

    def load(self) -> Config:
        """The configuration, after finishing a save that a crash interrupted. Raises ConfigError with every problem."""
        finished = finish_saving(self.paths)
        keys = self.keys()
        config = load(self._routing, self._pricing, self._with(keys), self._types, self._strategies)
        self._keys = keys
        lines = [f"{path}: an interrupted save has been completed" for path in finished]
        config = replace(config, notices=[*lines, *config.notices]) if lines else config
        if self._storage_url is None:
            return config
        return replace(config, storage=replace(config.storage, url=self._storage_url))

    def tried(self, routing: Source, pricing: Source | None = None) -> Config:
        """The configuration that other files would give, without writing them. `pricing` None: the file in use.

        Raises ConfigError with every problem.
        """
        if pricing is None and self._pricing is not None:
            pricing = Source(str(self._pricing), read_file(self._pricing))
        environ = self._with(self.keys())
        config = configure(routing, pricing, environ, self._types, strategies=self._strategies)
        if unusable := certificate_problems(config):
            raise ConfigError(unusable)
        return config

    def refused(self, before: Config, after: Config) -> list[Problem]:
        """Why a page may not change `before` to `after`: environment variables would be sent to other places."""
        values, is_typed_here = self._with(self.keys()), self.keys_file is not None
        allowed = [name.strip() for name in trimmed(self.environ.get(ALLOWED, "")).split(",")]
        return new_uses(
            before, after, self._types.values(), allowed, lambda name: is_typed_here and not values.get(name)
        )

    @property
    def watched(self) -> list[Path]:
        """The files that make up the configuration."""
        return [*self.paths, *([self.keys_file] if self.keys_file else [])]

    def keys(self) -> dict[str, str]:
        """The provider keys in the file for them, by variable. Raises ConfigError."""
        return read_keys(self.keys_file) if self.keys_file else {}

    def _with(self, keys: dict[str, str]) -> dict[str, str]:
        """The environment with keys for variables that are not set in it; an empty one counts as unset."""
        return self.environ | {name: key for name, key in keys.items() if not self.environ.get(name)}

    def texts(self) -> list[bytes]:
        """The current files: routing_rules.yaml and, if there is one, pricing.yaml. Raises ConfigError."""
        return [read_file(path) for path in self.paths]

    def storage_url(self) -> str:
        """Where the database is, even if the files have mistakes elsewhere."""
        if self._storage_url is not None:
            return self._storage_url
        try:
            root = parse(read_file(self._routing), str(self._routing), [])
        except ConfigError:
            root = None
        section = root.entries.get("storage") if root else None
        entry = section.node.entries.get("url") if section and isinstance(section.node, Mapping) else None
        url = entry.node.value if entry and isinstance(entry.node, Scalar) else None
        return url if isinstance(url, str) else StorageConfig().url

    def load_changed(self, version: str) -> Config | None:
        """The configuration, or None if the files are still those of `version`. Raises ConfigError."""
        keys = self.keys()
        self._keys = keys if self._keys is None else self._keys
        is_same = version_of(*self.texts()) == version and self._keys == keys
        return None if is_same else self.load()
