"""The files of deploy/, read."""

from __future__ import annotations

import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT_FILE = DEPLOY / "systemd" / "multi-model-proxy.service"


def read_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


def compose() -> dict[str, Any]:
    """The one service."""
    services: dict[str, Any] = read_yaml(DEPLOY / "compose.yaml")["services"]
    (service,) = services.values()
    return dict(service)


def kubernetes() -> dict[str, dict[str, Any]]:
    """Each object by its kind."""
    found = [read_yaml(path) for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))]
    return {each["kind"]: each for each in found}


def pod() -> dict[str, Any]:
    return dict(kubernetes()["Deployment"]["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return dict(found)


def unit() -> dict[str, list[str]]:
    """The settings of the section Service, with each value they are given."""
    settings: dict[str, list[str]] = defaultdict(list)
    section = UNIT_FILE.read_text().partition("[Service]\n")[2].partition("\n[Install]")[0]
    for line in section.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            settings[name].append(value)
    return settings


def unit_environment() -> dict[str, str]:
    """`%S` is where systemd keeps the state of services."""
    pairs = [word for line in unit()["Environment"] for word in shlex.split(line.replace("%S", "/var/lib"))]
    return dict(pair.split("=", 1) for pair in pairs)
