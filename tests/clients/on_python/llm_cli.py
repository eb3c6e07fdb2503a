# client: llm; environment: agents; wires: openai native anthropic google
# set: `api_base: URL/v1` in `extra-openai-models.yaml`
"""The command `llm`, with the proxy in its extra-openai-models.yaml."""

import os
import subprocess
import sys
from pathlib import Path

PACKAGE = "llm"


def check_prompt(proxy):
    """Streamed, which is its default, and whole."""
    folder = Path.cwd() / f"llm-{proxy.wire}"
    folder.mkdir(exist_ok=True)
    entry = f"- model_id: here\n  model_name: {proxy.model}\n  api_base: {proxy.url}\n"
    (folder / "extra-openai-models.yaml").write_text(entry)
    for more in ([], ["--no-stream"]):
        command = [sys.executable, "-m", "llm", "-m", "here", "--key", "any", *more, "Repeat exactly: one two three"]
        done = subprocess.run(
            command,
            env={**os.environ, "LLM_USER_PATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.stdout.strip() == "one two three", done.stdout + done.stderr
