"""`api.prompts` of the Python client, at a server and with the whole proxy in this process."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy import APISettings, MultiModelAPI, SyncMultiModelAPI
from proxy.client.errors import BadRequest, NotFound, SettingsError
from tests.client.scene import IN_PROCESS, SERVER, Scene, scene
from tests.serving import write_files
from tests.upstream import FakeUpstream

ECHO = {"preferred_model": "fake/echo"}
TEXT = "Extract {fields} from: {html}"


@pytest_asyncio.fixture(params=[SERVER, IN_PROCESS])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(request.param, tmp_path) as found:
        yield found


async def test_a_prompt_from_its_registration_to_its_second_version(here: Scene) -> None:
    """Rendering gives a text that `generate` takes."""
    prompts = here.api.prompts
    made = await prompts.register("own", TEXT, ["fields", "html"], name="Own", labels=["production"], model="fake/echo")
    assert (made.id, made.name, made.version, made.template, made.variables) == (
        "own",
        "Own",
        1,
        TEXT,
        ["fields", "html"],
    )
    assert made.performance_score is None
    rendered = await prompts.render("own", {"fields": ["a"], "html": "{fields}"})
    assert rendered == 'Extract ["a"] from: {fields}'
    assert (rendered.version, rendered.label, rendered.model) == (1, "production", "fake/echo")
    answer = await here.api.generate(rendered, model="fake/echo")
    assert json.loads(answer.text)["messages"] == [{"role": "user", "content": str(rendered)}]
    second = await prompts.create_version(
        "own", [{"role": "system", "content": "{a}"}, {"role": "user", "content": "b"}]
    )
    assert (second.version, second.template, second.variables, second.latest_version) == (2, None, ["a"], 2)
    assert (await prompts.get("own")).version == 1
    assert (await prompts.get("own", version=2)).messages == second.messages
    assert await prompts.set_label("own", "production", 2) == {"production": 2}
    assert await prompts.render("own", {"a": "x"}) == "x\n\nb"
    assert (await prompts.get("own", label="production")).version == 2
    assert [each["id"] for each in await prompts.list()] == ["extraction_v1", "own", "reasoning_v1"]
    await prompts.archive("own")
    with pytest.raises(NotFound, match="archived"):
        await prompts.render("own", {"a": "x"})


async def test_a_program_registers_its_prompts_at_each_start(here: Scene) -> None:
    """The same words are no conflict; other words are, since they would be a new version."""
    prompts = here.api.prompts
    first = await prompts.register("own", TEXT, parameters={"temperature": 0})
    assert await prompts.register("own", TEXT, ["fields", "html"], parameters={"temperature": 0}) == first
    with pytest.raises(BadRequest, match="is already there") as refused:
        await prompts.register("own", "other words")
    assert (refused.value.status, refused.value.is_retryable) == (409, False)


async def test_a_stored_prompt_answers(here: Scene) -> None:
    """As a model, with its variables, in all the client's ways."""
    await here.api.prompts.register("own", TEXT, model="fake/echo")
    variables = {"fields": "a", "html": "b"}
    answer = await here.api.generate(model="prompt:own", variables=variables)
    assert json.loads(answer.text)["messages"] == [{"role": "user", "content": "Extract a from: b"}]
    more = await here.api.generate("and c", model="prompt:own@1", variables=variables)
    assert [each["content"] for each in json.loads(more.text)["messages"]] == ["Extract a from: b", "and c"]
    stream = here.api.generate_stream(model="prompt:own", variables=variables)
    assert "Extract a from: b" in "".join([chunk.text async for chunk in stream])
    assert (await here.api.explain(model="prompt:own", variables=variables)).chosen == "fake/echo"
    report = await here.api.usage(group_by="prompt")
    assert {group["prompt"]: group["calls"] for group in report.groups} == {"own": 3}


async def test_wrong_names_and_variables_are_errors(here: Scene) -> None:
    """Each says what is right."""
    with pytest.raises(NotFound, match="Did you mean extraction_v1"):
        await here.api.prompts.get("extraction")
    with pytest.raises(BadRequest, match="missing: html_content") as refused:
        await here.api.prompts.render("extraction_v1", {"target_fields": "a"})
    assert refused.value.param == "variables.html_content"
    with pytest.raises(ValueError, match="variables: belong to a stored prompt"):
        await here.api.generate("Hi", variables={"a": 1})
    with pytest.raises(ValueError, match="variables: expected"):
        await here.api.generate(model="prompt:own", variables=["a"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="template: expected"):
        await here.api.prompts.register("own", [])
    with pytest.raises(ValueError, match="id: expected"):
        await here.api.prompts.get("")
    with pytest.raises(TypeError, match="modle"):
        await here.api.prompts.register("own", "x", modle="y")  # type: ignore[call-arg]


async def test_the_same_without_await(tmp_path: Path) -> None:
    """Arguments and results are those of the other client."""
    async with FakeUpstream() as upstream:
        path = write_files(tmp_path, upstream.url)
        with SyncMultiModelAPI(APISettings.load(path)) as api:
            assert api.prompts.register("own", "Hi {x}").version == 1
            assert api.prompts.create_version("own", "Hello {x}").version == 2
            assert api.prompts.get("own", 1).template == "Hi {x}"
            assert api.prompts.render("own", {"x": 1}) == "Hello 1"
            assert api.prompts.render("own", {"x": 1}, version=1) == "Hi 1"
            assert api.prompts.set_label("own", "production", 1) == {"production": 1}
            assert "own" in [each["id"] for each in api.prompts.list()]
            api.prompts.archive("own")
            assert "own" not in [each["id"] for each in api.prompts.list()]


async def test_templates_of_the_settings_are_prompts(tmp_path: Path) -> None:
    """What the settings say now is what is asked; the same words at a later start are no new version."""
    async with FakeUpstream() as upstream:
        path = write_files(tmp_path, upstream.url)

        async def asked(text: str) -> tuple[list[str], int]:
            settings = APISettings.load(path)
            settings.prompt_templates["own"] = text
            async with MultiModelAPI(settings) as api:
                answer = await api.generate(model="prompt:own", variables={"x": 5}, routing=ECHO)
                found = await api.prompts.get("own", "latest")
                return [each["content"] for each in json.loads(answer.text)["messages"]], found.version

        for text, filled, version in (
            ("Hi {x} \u0085 😀\n- {{}}", "Hi 5 \u0085 😀\n- {}", 1),
            ("Other {x}", "Other 5", 2),
            ("Other {x}", "Other 5", 2),
            ("Hi {x} \u0085 😀\n- {{}}", "Hi 5 \u0085 😀\n- {}", 2),
        ):
            assert await asked(text) == ([filled], version)


async def test_templates_that_are_no_prompts_are_named(tmp_path: Path) -> None:
    """Before the first call."""
    async with FakeUpstream() as upstream:
        path = write_files(tmp_path, upstream.url)
        for name, text in (("own", "Hi {x"), ("a b", "Hi")):
            settings = APISettings.load(path)
            settings.prompt_templates[name] = text
            with pytest.raises(SettingsError, match=f"prompt_templates: prompts.{name}[.:]"):
                await MultiModelAPI(settings).generate("Hi")
        assert upstream.ledger == []
