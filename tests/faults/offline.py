"""Runs inside a network namespace of its own, without any route: starts `proxy serve`, measures it, prints JSON.

`python -m tests.faults.offline FOLDER`, as root of that namespace; see `test_offline`.
"""

from __future__ import annotations

import fcntl
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from http.client import HTTPConnection
from typing import Any

import psutil

from tests.cli.commands import COMMAND, PATIENCE_S, environment

KEYS = ("OPENAI", "ANTHROPIC", "GEMINI", "GROQ", "MISTRAL", "COHERE", "PERPLEXITY", "TOGETHER")
ELSEWHERE = ("192.0.2.1", 443)  # nobody's, by RFC 5737
IDLE_S = 1.0


def raise_loopback() -> None:
    """Does `ip link set lo up`: in a new namespace the loopback interface is down."""
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        asked = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, get_flags, asked))[1]
        fcntl.ioctl(sock, set_flags, struct.pack("16sh14x", b"lo", flags | up))


def unreachable() -> str:
    """The machine's error for an unreachable network; empty if it is reachable."""
    try:
        socket.create_connection(ELSEWHERE, timeout=2).close()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def asked(port: int, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    headers = {"content-type": "application/json"} if body else {}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def chat(port: int, model: str) -> tuple[int, dict[str, Any], float]:
    """One small question: status, answer, seconds."""
    begun = time.monotonic()
    body = {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]}
    return (*asked(port, "POST", "/v1/chat/completions", body), time.monotonic() - begun)


def main(folder: str) -> None:
    raise_loopback()
    keys = {f"{name}_API_KEY": "not-a-key-of-anybody" for name in KEYS}
    found: dict[str, Any] = {"unreachable": unreachable()}
    begun = time.monotonic()
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0"], cwd=folder, env=environment(**keys), stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            banner = "".join(iter(server.stdout.readline, "Try it:\n"))
            port = int(re.findall(r"http://\S+:(\d+)/v1", banner)[0])
            process = psutil.Process(server.pid)
            found["ready"] = asked(port, "GET", "/readyz")[0]
            found["ready_s"] = time.monotonic() - begun
            found["ready_cpu_s"] = sum(process.cpu_times()[:2])
            time.sleep(IDLE_S)
            found["idle_mb"] = process.memory_info().rss / 1e6
            found["vendor"] = chat(port, "openai/gpt-6-luna")
            found["local"] = chat(port, "local/smollm2-135m")
            server.send_signal(signal.SIGTERM)
            found["exit"] = server.wait(PATIENCE_S)
        finally:
            server.kill()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
