"""Values: the settings of a proxy that runs inside a Python program. They are another view of routing_rules.yaml."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

_NAMED = {
    "version": "leave it out",
    "providers": "use the argument providers",
    "router": "use the argument router",
    "ensembles": "use the argument ensemble",
    "prompts": "use the argument prompt_templates",
}


class APISettings(Struct, kw_only=True):
    """Settings for `MultiModelAPI(settings=...)`. They load from a server's routing_rules.yaml and save to one.

    Without a file they are the shipped routing_rules.yaml, in which every provider is on whose API key is set in the
    environment. Arguments override the file:

    - `providers`: name -> the keys of its section in the file. Only these are on then. `api_key` may be given here: it
      is used, never shown and never saved. Without it the key comes from the environment, as for the server.
    - `default_model`: answers if no rule and no task names a model. None: the router's own.
    - `router`, `ensemble`: keys of the sections `router` and `ensembles`.
    - `daily_budget_usd`: USD a day, counted in the database; None: no limit. What happens near it: docs/budgets.md.
    - `alert_threshold`: share of a budget, above 0 and at most 1, at which an alert is logged.
    - `max_requests_per_minute`: beyond it calls wait for their turn, or fail with RateLimited; None: no limit.
    - `max_retries`: 0 to 10 repeats, both of the proxy at a provider and of the client at the proxy.
    - `retry_delay_seconds`: before the first repeat, doubled each time, unless an answer names the time to wait.
    - `prompt_templates`: id -> text with `{name}` for each variable. When a client opens they become prompts of
      its database with the label `production`, so that `generate(model="prompt:ID", variables=...)` asks with them. The
      file has no place for them.
    - `sections`: any other section of the file, such as `storage`, `models`, `rules` or `keys`; None removes it.

    Raises ValueError, which names the argument. `base` and `file` are its source: `load` sets them.
    """

    providers: dict[str, dict[str, Any]] = {}
    default_model: str | None = "gpt-4o-mini"
    router: dict[str, Any] = {}
    ensemble: dict[str, Any] = {}
    daily_budget_usd: float | None = 20.00
    alert_threshold: float = 0.8
    max_requests_per_minute: int | None = 60
    max_retries: int = 3
    retry_delay_seconds: float = 2
    prompt_templates: dict[str, str] = {}
    sections: dict[str, Any] = {}
    base: str = ""
    file: str | None = None

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raises ValueError for a value out of its range. Checks that need the whole file are made when the settings
        are used or saved.
        """
        for name in ("providers", "router", "ensemble", "prompt_templates", "sections"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name}: expected a dictionary, got {type(getattr(self, name)).__name__}")
        for name, entry in self.providers.items():
            _check_provider(name, entry)
        for name, text in self.prompt_templates.items():
            if not isinstance(name, str) or not isinstance(text, str):
                raise ValueError(f"prompt_templates.{name}: expected an id and a text")
        if self.default_model is not None and not (isinstance(self.default_model, str) and self.default_model.strip()):
            raise ValueError("default_model: expected the name of a model, or None")
        _check_number("daily_budget_usd", self.daily_budget_usd, 0, may_be_none=True)
        _check_number("alert_threshold", self.alert_threshold, 0, 1)
        if not self.alert_threshold:
            raise ValueError("alert_threshold: must be above 0")
        _check_number("max_requests_per_minute", self.max_requests_per_minute, 1, may_be_none=True, whole=True)
        _check_number("max_retries", self.max_retries, 0, 10, whole=True)
        _check_number("retry_delay_seconds", self.retry_delay_seconds, 0)
        if not self.retry_delay_seconds:
            raise ValueError("retry_delay_seconds: must be above 0")
        for name in self.sections:
            if name in _NAMED:
                raise ValueError(f"sections: {name} does not belong here; {_NAMED[name]}")

    @classmethod
    def load(cls, path: str | Path) -> APISettings:
        """The settings in a routing_rules.yaml. A pricing.yaml beside it is used as well.

        Raises SettingsError with every mistake and its line.
        """
        from proxy.client import (
            settings_file,  # lazy: reading files takes a tenth of a second, which values do not need
        )

        return cls(**settings_file.read(Path(path)))

    def save(self, path: str | Path | None = None) -> Path:
        """Writes a routing_rules.yaml that `proxy serve` reads too, and returns its path. Comments of the file that
        the settings come from are kept. No `api_key` is written. `path` None: the file that was loaded.

        Raises SettingsError, and writes nothing, if a server would refuse the file.
        """
        from proxy.client import settings_file  # lazy: as in `load`

        if path is None and self.file is None:
            raise ValueError("path: name a file; these settings were not loaded from one")
        if self.prompt_templates:
            message = "prompt_templates are not in the file: a client that has them stores them in its database."
            warnings.warn(message, stacklevel=2)
        return settings_file.write(self, Path(path or self.file or ""))

    def to_yaml(self) -> str:
        """The text that `save` writes."""
        from proxy.client import settings_file  # lazy: as in `load`

        return settings_file.text_of(self)

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name not in ("base", "providers")}
        shown = {"providers": {name: _masked(entry) for name, entry in self.providers.items()}, **shown}
        return f"APISettings({', '.join(f'{name}={value!r}' for name, value in shown.items() if value != {})})"


def _masked(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The entry without keys and without header values, which may be keys."""
    shown = {key: "***" if key == "api_key" else value for key, value in entry.items()}
    if isinstance(headers := shown.get("headers"), Mapping):
        shown["headers"] = dict.fromkeys(headers, "***")
    return shown


def _check_provider(name: str, entry: Any) -> None:
    if not isinstance(entry, Mapping):
        raise ValueError(f"providers.{name}: expected a dictionary, got {type(entry).__name__}")
    key = entry.get("api_key")
    if key is not None and not (isinstance(key, str) and key and all("!" <= char <= "~" for char in key)):
        raise ValueError(f"providers.{name}.api_key: expected printable ASCII without spaces")


def _check_number(
    name: str, value: Any, least: float, most: float = math.inf, *, may_be_none: bool = False, whole: bool = False
) -> None:
    if value is None and may_be_none:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name}: expected {kind}{' or None' if may_be_none else ''}, got {value!r}")
    if not least <= value <= most:
        span = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise ValueError(f"{name}: expected a number {span}, got {value!r}")
