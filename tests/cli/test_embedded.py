"""The product without any key or file: the bundled model, called through the unmodified SDK."""

from __future__ import annotations

import json
import time

import httpx
import openai
import psutil
import pytest

from tests.cli.commands import PATIENCE_S, ask, is_gone, processes_of, proxy, server, wait_until

pytestmark = pytest.mark.embedded

SAY = [{"role": "user", "content": "Say hello."}]
CHILD = "local_model/child.py"
WORKER = "multiprocessing.spawn"
FRUIT = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "red": {"type": "boolean"}},
    "required": ["name", "red"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """`proxy serve` in an empty folder."""
    with server(tmp_path_factory.mktemp("embedded"), "--port", "0") as spawned:
        yield spawned


@pytest.fixture(scope="module")
def client(running):
    """The SDK, with the key a user who has none writes. Ensembles may take half a minute on a slow machine."""
    with openai.OpenAI(base_url=running.base_url, api_key="any", max_retries=0, timeout=4 * PATIENCE_S) as sdk:
        yield sdk


def test_a_whole_answer(client):
    """It has exact usage, and a cost of zero rather than null."""
    answer = client.chat.completions.create(model="auto", messages=SAY, max_tokens=12)
    assert answer.model == "local/smollm2-135m"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 12 < answer.usage.prompt_tokens
    assert answer.usage.cost == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cascade", "voting", "ranking", "fusion", "verification", "careful"])
def test_every_shipped_ensemble_answers_without_a_key(client, name):
    """The one model takes all seats, with seeds and temperatures of its own, and judges itself."""
    answer = client.chat.completions.create(model=f"ensemble:{name}", messages=SAY, max_tokens=8)
    assert answer.model == f"ensemble:{name}"
    assert answer.choices[0].message.content
    report = answer.routing["ensemble"]
    assert {each["deployment"] for each in report["members"]} == {"local/smollm2-135m"}
    assert answer.usage.cost == 0


def test_a_streamed_answer(client):
    """Usage comes last, on request, and equals that of the whole answer."""
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model="local/smollm2-135m", messages=SAY, max_tokens=12, stream=True, stream_options=options
    )
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert text
    assert len(reasons) == 1
    assert 0 < chunks[-1].usage.completion_tokens <= 12
    assert (chunks[-1].choices, chunks[-1].usage.cost) == ([], 0)


def test_an_answer_that_fits_a_json_schema(client):
    """The grammar enforces it, whatever a small model would prefer to say."""
    answer = client.chat.completions.create(
        model="auto",
        messages=[{"role": "user", "content": "Name one fruit."}],
        max_tokens=80,
        response_format={"type": "json_schema", "json_schema": {"name": "fruit", "strict": True, "schema": FRUIT}},
    )
    fruit = json.loads(answer.choices[0].message.content)
    assert {name: type(value) for name, value in fruit.items()} == {"name": str, "red": bool}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_forced_call_is_made(client, choice, stream):
    """By the grammar, with arguments that fit their schema: frameworks force calls to get structured answers."""
    place = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    clock = {"type": "object", "properties": {"at": {"$ref": "#/$defs/p"}}, "required": ["at"], "$defs": {"p": place}}
    tools = [
        {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": place}},
        {"type": "function", "function": {"name": "get_time", "parameters": clock}},
    ]
    question = [{"role": "user", "content": "What is the weather in Oslo?"}]
    asked = {"model": "auto", "messages": question, "tools": tools, "tool_choice": choice}
    if stream:
        with client.chat.completions.stream(**asked) as events:
            answer = events.until_done().get_final_completion()
    else:
        answer = client.chat.completions.create(**asked)
    (choice_made,) = answer.choices
    (call,) = choice_made.message.tool_calls
    assert choice_made.finish_reason == "tool_calls"
    assert not choice_made.message.content
    arguments = json.loads(call.function.arguments)
    if choice != "required":
        assert call.function.name == "get_weather"
    assert arguments.keys() == ({"city"} if call.function.name == "get_weather" else {"at"})
    result = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 20 degrees."}
    history = [*question, choice_made.message.model_dump(exclude_none=True), result]
    again = client.chat.completions.create(model="auto", messages=history, tools=tools, max_tokens=8)
    assert again.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_it_stops_when_the_client_leaves(running, stream):
    """The child does nothing more soon after, though thousands of tokens were asked for."""
    body = {"model": "auto", "messages": SAY, "max_tokens": 1900, "logit_bias": {"2": -100}, "stream": stream}
    assert ask(running, max_tokens=2).status_code == 200
    (child,) = processes_of(running, CHILD)
    before = child.cpu_times().user
    with (
        pytest.raises(httpx.ReadTimeout),
        httpx.stream(
            "POST", f"{running.base_url}/chat/completions", json=body, timeout=httpx.Timeout(PATIENCE_S, read=1)
        ) as answer,
    ):
        wait_until(lambda: child.cpu_times().user > before, "the first token")
        for _ in answer.iter_raw():
            if child.cpu_times().user > before + 0.1:
                raise httpx.ReadTimeout("enough")

    def is_idle() -> bool:
        used = child.cpu_times().user
        time.sleep(0.5)
        return bool(child.cpu_times().user - used < 0.05)

    wait_until(is_idle, "an idle model")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_is_a_400_with_its_code(client, stream):
    """Agents look for this code before they shorten their history. Whole and streamed."""
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "word " * 20_000}], stream=stream
        )
    assert raised.value.code == "context_length_exceeded"


def test_it_is_listed_and_an_unknown_name_is_a_404(client):
    """What `models.list()` shows can be called, the rest is `model_not_found`."""
    names = [model.id for model in client.models.list()]
    assert {"auto", "local/smollm2-135m"} <= set(names)
    assert client.models.retrieve("local/smollm2-135m").id == "local/smollm2-135m"
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-99", messages=SAY)
    assert raised.value.code == "model_not_found"


def test_its_calls_are_in_the_usage(client, running):
    """Free, but counted."""
    client.chat.completions.create(model="auto", messages=SAY, max_tokens=2)
    answer = httpx.get(f"{running.base_url}/usage?group_by=provider", timeout=PATIENCE_S).json()
    (group,) = [group for group in answer["groups"] if group["provider"] == "local"]
    assert group["successes"] >= 1
    assert (group["cost_usd"], group["unpriced_calls"]) == (0, 0)


def test_a_killed_model_is_replaced_before_the_next_answer(running):
    """By the out-of-memory killer or an operator: the next caller waits a second and gets an answer."""
    assert ask(running, max_tokens=2).status_code == 200
    (child,) = processes_of(running, CHILD)
    child.kill()
    answer = ask(running, max_tokens=2)
    assert answer.status_code == 200, answer.text
    (other,) = processes_of(running, CHILD)
    assert other.pid != child.pid


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_server_leaves_no_process_behind(tmp_path, workers):
    """`kill -9` leaves no time to clean up: workers and model notice by themselves."""
    with server(tmp_path, "--port", "0", "--workers", str(workers)) as killed:
        assert ask(killed, max_tokens=2).status_code == 200
        family = psutil.Process(killed.process.pid).children(recursive=True)
        assert len(processes_of(killed, CHILD)) == 1
        killed.kill()
        wait_until(lambda: all(map(is_gone, family)), f"the end of {family}")


@pytest.mark.slow
def test_two_workers_share_one_model_and_replace_each_other(tmp_path):
    """Each is killed in turn: the other one answers, the killed one is replaced, the model stays the same."""
    with server(tmp_path, "--port", "0", "--workers", "2") as running:
        wait_until(lambda: len(list(tmp_path.glob("proxy.db-owners/*.lock"))) == 2, "two workers with their ledgers")
        assert ask(running, max_tokens=2).status_code == 200
        (child,) = processes_of(running, CHILD)
        for worker in processes_of(running, WORKER):
            worker.kill()
            answer = ask(running, max_tokens=2)
            assert answer.status_code == 200, answer.text
            wait_until(lambda: len([w for w in processes_of(running, WORKER) if not is_gone(w)]) == 2, "two workers")
        assert [model.pid for model in processes_of(running, CHILD)] == [child.pid]
        everyone = psutil.Process(running.process.pid).children(recursive=True)
        assert running.stop() == 0
        wait_until(lambda: all(map(is_gone, everyone)), f"the end of {everyone}")


def test_one_line_says_how_small_it_is(running, tmp_path):
    """Where a server starts and where models are listed, before anybody judges its answers."""
    (line,) = [line for line in running.banner.splitlines() if line.startswith("  local ")]
    assert "135M parameters: it shows that the wire works" in line
    done = proxy("models", cwd=tmp_path)
    assert "135M parameters" in done.stderr
    assert "135M" not in done.stdout
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("local/smollm2-135m")]
    assert row[1] == "2048"
