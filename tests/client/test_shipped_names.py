"""The usual names work with the shipped files: `gpt-4o-mini`, the default, and `claude-3-5-sonnet`, an alias."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest
import pytest_asyncio

from proxy import APISettings, MultiModelAPI
from proxy.client import settings_file
from proxy.client.errors import NotFound
from proxy.config.namespace import enabled
from tests.client.scene import Scene
from tests.upstream import FakeUpstream
from tests.upstream.modes import says

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODES = {
    "gpt-4o-mini": says("$49.99"),
    "claude-sonnet-5-5": says("49.99 USD"),
    **dict.fromkeys(
        ("gpt-6-luna", "gpt-6-sol", "gpt-6.1-sol", "claude-opus-5-5", "claude-haiku-5-5"), says("It is so.")
    ),
}
VENDORS = ("openai", "anthropic")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """`APISettings()`, but for the addresses and keys of two vendors, and the database."""
    database = tmp_path_factory.mktemp("names") / "proxy.db"
    async with FakeUpstream(modes=MODES) as upstream:
        at = {"base_url": upstream.url, "allow_private": True, "price": None}
        settings = APISettings(
            providers={name: {**at, "type": name, "api_key": "sk-of-tests"} for name in VENDORS},
            sections={"storage": {"url": f"sqlite:///{database}"}},
        )
        async with MultiModelAPI(settings=settings) as api:
            yield Scene(api, upstream)


async def test_the_usual_calls_work_as_written(scene: Scene) -> None:
    """By name, by task, by a vote, and as a stream."""
    api = scene.api
    r = await api.generate(prompt="Extract product price from: ...", model="gpt-4o-mini")
    assert (r.model, r.text) == ("openai/gpt-4o-mini", "$49.99")
    r = await api.generate(prompt="...", task_type="reasoning", priority="high")
    assert r.text == "It is so." and r.model.partition("/")[0] in VENDORS
    models = ["gpt-4o-mini", "claude-3-5-sonnet"]
    r = await api.generate_ensemble(prompt="Extract all prices", strategy="voting", models=models)
    assert r.result in ("$49.99", "49.99 USD") and r.confidence == 1.0 and r.votes is not None
    pieces = [chunk.text async for chunk in api.generate_stream(prompt="...", model="claude-3-5-sonnet")]
    assert "".join(pieces) == "49.99 USD"


async def test_the_default_answers_where_no_rule_and_no_task_names_a_model() -> None:
    """Under its whole name, with the price of the shipped list."""
    config = settings_file.configured(APISettings(sections={"tasks": None, "rules": None}), {"OPENAI_API_KEY": "k"})
    assert config.router.default_model == "openai/gpt-4o-mini"
    row = config.pricing.models["openai/gpt-4o-mini"]
    assert (row.input, row.output, row.retired) == (0.15, 0.6, None)
    assert row.retires is not None and date.fromisoformat(row.retires) == date(2027, 1, 14)
    assert row.successor in config.pricing.models


async def test_a_name_whose_vendor_has_no_key_says_so(tmp_path: Path) -> None:
    """And which variable to set."""
    storage = {"storage": {"url": f"sqlite:///{tmp_path / 'proxy.db'}"}}
    settings = APISettings(providers={"groq": {"api_key": "gsk-of-tests"}}, sections=storage)
    assert [*enabled(settings_file.configured(settings, {}))] == ["groq"]
    async with MultiModelAPI(settings=settings) as api:
        for name in ("gpt-4o-mini", "claude-3-5-sonnet"):
            with pytest.raises(NotFound, match=r"openai|anthropic") as raised:
                await api.generate("Hi", model=name)
            assert raised.value.param == "model"
