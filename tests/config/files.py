"""Small providers and the shortest way from text to a Config, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.config import Config, ConfigError, Source, configure
from proxy.providers.base.contract import Provider
from proxy.schema.records import LocalModelSpec


class Hosted(Provider, frozen=True, kw_only=True):
    organization_env: str | None = None

    @property
    def default_base_url(self) -> str | None:
        return "https://api.vendor.example/v1"


class SelfHosted(Provider, frozen=True, kw_only=True):
    @property
    def default_base_url(self) -> str | None:
        return "http://localhost:11434"


class Bare(Provider, frozen=True, kw_only=True):
    """A type without an address of its own."""


class Picky(Hosted, frozen=True, kw_only=True):
    """A dialect with a rule of its own."""

    flavour: str = "plain"

    def __post_init__(self) -> None:
        if self.flavour == "sour":
            raise ValueError("nobody likes it sour")


class Embedded(Provider, frozen=True, kw_only=True):
    context: int = 2048

    @property
    def local_model(self) -> LocalModelSpec | None:
        return LocalModelSpec(context=self.context)


TYPES: dict[str, type[Provider]] = {
    "openai": Hosted,
    "groq": Hosted,
    "ollama": SelfHosted,
    "bare": Bare,
    "picky": Picky,
    "embedded": Embedded,
    "anthropic": Hosted,
}
PRICES = """\
version: 1
models:
  openai/gpt-6-luna: {input: 0.1, output: 0.5}
  openai/gpt-6-sol: {input: 2, output: 10}
  openai/shared: {input: 1, output: 1}
  groq/shared: {input: 1, output: 1}
  openai/gpt-5: {input: 1.25, output: 10, retires: 2026-12-11}
  openai/gpt-4o: {input: 2.5, output: 10, retires: 2027-03-01}
  openai/gpt-4-turbo: {input: 10, output: 30, retired: 2026-10-23, successor: openai/gpt-6-sol}
"""


def config_of(
    routing: str | bytes, pricing: str | bytes | None = PRICES, environ: Mapping[str, str] | None = None
) -> Config:
    prices = None if pricing is None else Source("pricing.yaml", _bytes(pricing))
    return configure(Source("routing_rules.yaml", _bytes(routing)), prices, environ or {}, TYPES)


def lines_of(
    routing: str | bytes, pricing: str | bytes | None = PRICES, environ: Mapping[str, str] | None = None
) -> list[str]:
    """What `proxy check` would print; empty for a configuration that loads."""
    try:
        config_of(routing, pricing, environ)
    except ConfigError as error:
        return str(error).split("\n")
    return []


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
