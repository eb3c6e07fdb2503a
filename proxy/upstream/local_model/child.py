"""Performs I/O: the child process that serves one GGUF file by llama.cpp's own server on a loopback port.

It runs as a script, apart from the package, so that it imports nothing but the standard library and the runtime.

- Standard input: one JSON line `{"path", "alias", "context", "slots", "key"}`; then nothing. When it ends, the
  parent has ended, and so does this process.
- Standard output: one JSON line, `{"port": 1}` once requests are served, or `{"error": "..."}`, the reason in words.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, NoReturn

if sys.platform != "win32":
    import fcntl

# A prompt is evaluated in pieces of this many tokens. Between two of them other callers get their turn, and a cancelled
# request is noticed. Measured on two cores beside a prompt of 2,000 tokens: another caller's stream pauses for 1.3 s,
# with llama.cpp's own 2,048 for 9 s; pieces of 64 cost a third of the speed (November 2026).
BATCH_TOKENS = 256

# Each open connection occupies one of llama.cpp's HTTP threads, also while it is idle in the parent's pool.
HTTP_THREADS = 32

# Threads wait for each other after each layer, so one that the system preempts stops all of them. Measured
# with the default model on two busy cores: one thread writes 40 to 140 tokens/s, two write 1 to 50, polling or not
# (November 2026). So a small model gets one, and a larger one gets another for each of so many bytes, up to a bound.
BYTES_A_THREAD = 400_000_000
MAX_COMPUTE_THREADS = 8


def main() -> None:
    """Serves until standard input ends."""
    report = private_stdout()
    # A signal of a terminal or of a container's stop reaches every process: the parent drains first and needs this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    settings = json.loads(read_line())
    die_with_stdin()
    try:
        import xllamacpp  # lazy: an optional extra
    except ImportError:
        fail(report, "its runtime xllamacpp cannot be imported on this machine")
    try:
        server = xllamacpp.Server(parameters(xllamacpp, settings))
    except (RuntimeError, OSError):
        # llama.cpp reports no more than that, whatever the cause.
        fail(report, "llama.cpp cannot load the file: it is broken, of an unknown kind, or too large for the memory")
    send(report, {"port": int(server.listening_address.rpartition(":")[2])})
    while os.read(0, 4096):
        pass
    os._exit(0)


def private_stdout() -> int:
    """A descriptor for the report alone: llama.cpp's own standard output and standard error are discarded."""
    report = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return report


def read_line() -> bytes:
    """The first line of standard input, read without a buffer that would hide its end. Exits if there is none."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            os._exit(0)
        line += piece
    return line


def die_with_stdin() -> None:
    """Lets the kernel end this process when the parent's end of the pipe closes, even while a model loads.

    The runtime holds the interpreter's lock for as long as it loads, so no thread of ours could do it then. With
    O_ASYNC a descriptor raises SIGIO when its other end closes, and SIGIO ends a process that does not handle it.
    """
    if sys.platform == "win32":
        return
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    # The other end may have closed before the line above.
    os.set_blocking(0, False)
    try:
        ended = os.read(0, 4096) == b""
    except BlockingIOError:
        ended = False
    os.set_blocking(0, True)
    if ended:
        os._exit(0)


def parameters(xllamacpp: Any, settings: dict[str, Any]) -> Any:
    """llama.cpp's parameters: one model for callers that know the key, and nothing that is not needed for that."""
    wanted = xllamacpp.CommonParams()
    wanted.model.path = settings["path"]
    wanted.model_alias = {settings["alias"]}
    wanted.hostnames = ["127.0.0.1"]
    wanted.port = 0
    wanted.api_keys = [settings["key"]]
    # Each slot has a context of its own. A unified cache needs a quarter of the memory, but once its callers together
    # exceed it, llama.cpp ends every one of them with a 500 (measured; its issue 23652 says the same).
    wanted.n_parallel = settings["slots"]
    wanted.n_ctx = settings["context"] * settings["slots"]
    wanted.kv_unified = False
    wanted.n_batch = BATCH_TOKENS
    wanted.n_threads_http = HTTP_THREADS
    wanted.cpuparams.n_threads = compute_threads(os.path.getsize(settings["path"]))
    # Prompts of idle slots would be kept in up to 8 GiB of memory.
    wanted.cache_ram_mib = 0
    wanted.cache_idle_slots = False
    wanted.ui = False
    wanted.endpoint_slots = False
    wanted.endpoint_props = False
    wanted.endpoint_metrics = False
    wanted.cors_origins = ""
    wanted.sse_ping_interval = -1
    # Its log would hold prompts.
    wanted.verbosity = -1
    return wanted


def compute_threads(size: int) -> int:
    """The threads for a file of `size` bytes. If there are several cores, one is left to others."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            cpu_max = file.read()
    except OSError:
        cpu_max = "max"
    return threads_for(size, usable_cores(cores, cpu_max))


def threads_for(size: int, cores: int) -> int:
    """At least one; never all of several cores."""
    return max(1, min(MAX_COMPUTE_THREADS, cores - 1, 1 + size // BYTES_A_THREAD))


def usable_cores(cores: int, cpu_max: str) -> int:
    """Cores within a container's quota. `cpu_max` is the kernel's `<microseconds> <period>`, or `max` for no quota."""
    quota, _, period = cpu_max.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit():
        return cores
    return max(1, min(cores, int(quota) // int(period)))


def fail(report: int, reason: str) -> NoReturn:
    """Ends this process with `reason`, which is shown to callers."""
    send(report, {"error": reason})
    os._exit(1)


def send(report: int, message: dict[str, object]) -> None:
    """One line for the parent; smaller than a pipe's buffer, so it is written whole."""
    os.write(report, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
