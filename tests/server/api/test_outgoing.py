"""Calls as they leave a real server: through an HTTP proxy, with secrets from the environment; and why they fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import Struct

from tests.certificates import authority, server
from tests.serving import Spawned, spawned, write_files
from tests.upstream import refusing
from tests.upstream.transports.middle import Middle, http_proxy, origin

SECRETS = ("secret-of-azure-77", "secret-of-the-proxy-77")
WHOLE = json.dumps(
    {
        "id": "c-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
ECHO = b'{"error": {"message": "no deployment for secret-of-azure-77", "type": "x"}}'
ROUTING = """
version: 1
storage: {{{{url: "sqlite:///{{db}}"}}}}
providers:
  azure:
    type: openai
    base_url: "http://127.0.0.1:{azure}/openai/deployments/d?api-version=2024-10-21"
    headers_env: {{{{Api-Key: AZURE_KEY}}}}
    allow_private: true
    proxy: none
  echo: {{{{type: openai, base_url: "http://127.0.0.1:{echo}/v1", headers_env: {{{{api-key: AZURE_KEY}}}},
           allow_private: true, proxy: none, retries: 0}}}}
  inner: {{{{type: openai, base_url: "https://models.example:{inner}/v1", ca_file: "{ca}"}}}}
  other: {{{{type: openai, base_url: "https://models.example:{inner}/v1", ca_file: "{ca}", transport: httpx}}}}
  strange: {{{{type: openai, base_url: "https://127.0.0.1:{inner}/v1", allow_private: true, proxy: none, retries: 0}}}}
  bare: {{{{type: openai, base_url: "http://127.0.0.1:{bare}", allow_private: true, proxy: none}}}}
  down: {{{{type: openai, base_url: "{down}", allow_private: true, proxy: none, retries: 0}}}}
  nowhere: {{{{type: openai, base_url: "https://no-such-host.invalid/v1", proxy: none, retries: 0}}}}
proxy: environment
"""


class World(Struct):
    server: Spawned
    heads: dict[str, list[str]]
    middle: Middle
    log: Path

    def ask(self, model: str) -> tuple[int, dict[str, Any]]:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        answer = httpx.post(f"{self.server.base_url}/chat/completions", json=body, timeout=60, trust_env=False)
        return answer.status_code, answer.json()

    def error(self, model: str) -> str:
        status, answer = self.ask(model)
        assert status >= 500
        return str(answer["error"]["message"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One server before all of them."""
    folder = tmp_path_factory.mktemp("outgoing")
    (folder / "ca.pem").write_bytes(authority("Known").certificate)
    with ExitStack() as stack:
        azure, azure_heads = stack.enter_context(origin(body=WHOLE))
        echo, _ = stack.enter_context(origin(body=ECHO, status="400 Bad Request"))
        context = server("models.example", "Known").server_context(folder)
        inner, inner_heads = stack.enter_context(origin(context, body=WHOLE))
        bare, _ = stack.enter_context(origin(body=b"404 page not found\n", status="404 Not Found"))
        middle = stack.enter_context(http_proxy())
        down = stack.enter_context(refusing())
        ports = {"azure": azure, "echo": echo, "inner": inner, "bare": bare, "down": down}
        path = write_files(folder, "", ROUTING.format(**ports, ca=folder / "ca.pem"))
        environ = {"AZURE_KEY": f" {SECRETS[0]}\n", "HTTPS_PROXY": middle.host(f"me:{SECRETS[1]}@"), "NO_PROXY": "x"}
        running = stack.enter_context(spawned(path, environ=environ))
        yield World(running, {"azure": azure_heads, "inner": inner_heads}, middle, folder / "server.log")


def test_a_header_from_the_environment_and_a_query_go_with_every_request(world: World) -> None:
    """Azure's way."""
    assert world.ask("azure/m")[0] == 200
    head = next(each for each in world.heads["azure"] if each.startswith("POST"))
    assert head.startswith("POST /openai/deployments/d/chat/completions?api-version=2024-10-21 HTTP/1.1\r\n")
    assert f"api-key: {SECRETS[0]}\r\n" in head
    assert "authorization" not in head.lower()


@pytest.mark.parametrize("name", ["inner", "other"])
def test_calls_go_through_the_proxy_of_the_environment(world: World, name: str) -> None:
    """With TLS inside the tunnel, under the server's own event loop, whichever transport."""
    assert world.ask(f"{name}/m")[0] == 200
    assert any(head.startswith("CONNECT models.example:") for head in world.middle.heads)
    assert all(first[:1] == b"\x16" for first in world.middle.through)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("strange/m", "its certificate is "),
        ("down/m", "it refused the connection"),
        ("nowhere/m", "(DNS)"),
    ],
)
def test_the_answer_and_the_log_say_why_a_server_is_not_reached(world: World, model: str, said: str) -> None:
    """One line a minute, however many calls fail."""
    assert said in world.error(model)
    assert said in world.error(model)
    lines = [json.loads(line) for line in world.log.read_text().splitlines() if line.startswith("{")]
    name = model.partition("/")[0]
    told = [each for each in lines if each["event"] == "provider_unreached" and each["provider"] == name]
    assert len({each["reason"] for each in told}) == len(told) == 1
    assert said in told[0]["reason"]


def test_a_server_that_does_not_know_the_path_is_no_missing_model(world: World) -> None:
    """The address is wrong, and nothing that a client can mend."""
    status, answer = world.ask("bare/m")
    assert (status, answer["error"]["code"]) == (502, "upstream_error")
    assert "Its base_url has no /v1, which most servers need." in answer["error"]["message"]


def test_no_secret_is_in_an_answer_or_in_the_log(world: World) -> None:
    """Also where the provider repeats it."""
    status, answer = world.ask("echo/m")
    assert status == 400
    assert "[redacted]" in answer["error"]["message"]
    text = world.log.read_text() + json.dumps(answer) + world.server.banner
    assert not [secret for secret in SECRETS if secret in text]
