"""`from proxy import MultiModelAPI` loads what a client of a server needs; `proxy.schema` alone loads none of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import proxy
import proxy.client

ROOT = Path(__file__).parents[2]
NAMES = ["APISettings", "MultiModelAPI", "MultiModelError", "SyncMultiModelAPI"]


def modules_after(program: str) -> set[str]:
    """The modules that a new interpreter has loaded after these lines."""
    code = f"{program}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "program", ["import proxy.schema.records, proxy.schema.json, proxy.schema.fold", "import proxy"]
)
def test_the_schema_alone_loads_neither_client_nor_server(program: str) -> None:
    loaded = modules_after(program)
    assert loaded & {"httpx", "litestar", "proxy.client", "proxy.server", "structlog", "sqlite3"} == set()


def test_the_client_of_a_server_loads_no_server() -> None:
    """Nor a database, nor a second HTTP client."""
    loaded = modules_after("from proxy import MultiModelAPI; MultiModelAPI(base_url='http://localhost:8000')")
    assert "httpx" in loaded
    assert loaded & {"litestar", "uvicorn", "aiohttp", "sqlite3", "proxy.server", "sse_starlette"} == set()


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_from_the_top(name: str) -> None:
    assert getattr(proxy, name) is getattr(proxy.client, name)
    assert name in dir(proxy)


@pytest.mark.parametrize("module", [proxy, proxy.client])
def test_an_unknown_name_is_an_attribute_error(module) -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nobody'"):
        module.Nobody  # noqa: B018


def test_types_are_for_everybody() -> None:
    """Type checkers read the package's own annotations."""
    assert (ROOT / "proxy" / "py.typed").is_file()
