"""Orchestrates: turns the two YAML files into one checked `Config`. Reports all problems at once, with their positions.

bytes -tree-> nodes with positions -reader, constraints-> Structs -providers, addresses, references-> Config
"""

from __future__ import annotations

from proxy.config.files import find_files, seed
from proxy.config.load import Source, configure, load
from proxy.config.problems import ConfigError, Problem, Severity
from proxy.config.references import check
from proxy.config.settings import Config

__all__ = ["Config", "ConfigError", "Problem", "Severity", "Source", "check", "configure", "find_files", "load", "seed"]
