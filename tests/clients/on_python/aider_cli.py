# client: aider; environment: aider; wires: openai anthropic google
# set: `OPENAI_API_BASE=URL/v1` and `OPENAI_API_KEY=KEY`, `--model openai/MODEL`; or `proxy setup aider`
"""The coding agent aider, one question without a terminal."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "aider-chat"
QUIET = ("--no-git", "--yes-always", "--no-check-update", "--no-show-model-warnings", "--analytics-disable")


def check_question(proxy):
    """Streamed, which is its default, and whole."""
    for more in ("--stream", "--no-stream"):
        with tempfile.TemporaryDirectory() as folder:
            told = {"PATH": os.environ["PATH"], "HOME": folder, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            told |= {"OPENAI_API_BASE": proxy.url, "OPENAI_API_KEY": "any"}
            command = [str(Path(sys.executable).with_name("aider")), "--model", f"openai/{proxy.model}", *QUIET]
            command += ["--no-pretty", more, "--edit-format", "ask", "--message", "Repeat exactly: one two three"]
            done = subprocess.run(
                command,
                cwd=folder,
                env=told,
                capture_output=True,
                text=True,
                check=False,
                timeout=110,
                stdin=subprocess.DEVNULL,
            )
        assert "\none two three\n" in done.stdout and "received" in done.stdout, done.stdout + done.stderr
