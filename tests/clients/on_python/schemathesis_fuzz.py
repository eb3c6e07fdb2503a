# client: schemathesis; environment: protocols; wires: openai
# set: `schemathesis run URL/schema/openapi.json`
"""Requests made from our own OpenAPI document, good and bad: answers are as it says, and none is a fault of ours."""

import subprocess
import sys
from pathlib import Path

PACKAGE = "schemathesis"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
PATHS = ("chat/completions", "responses", "messages", "completions", "embeddings", "models")


def once_calls(proxy):
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{proxy.root}/schema/openapi.json"]
    command += [f"--include-path=/v1/{path}" for path in PATHS]
    command += ["--checks", CHECKS, "--phases", "fuzzing", "--max-examples", "100"]
    command += ["--generation-deterministic", "--no-shrink", "--no-color", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"Tested: {len(PATHS)}\n" in done.stdout, done.stdout[-2000:]
