# client: llm-comply; environment: protocols; wires: openai anthropic google
# set: `llm-comply --base-url URL/v1 --api-key KEY --model MODEL`
"""Tests of compliance with the published schemas of three APIs."""

import json
import subprocess
import sys
from pathlib import Path

PACKAGE = "llm-comply"
# Nothing is stored or compacted here. Anthropic's schema requires fields, mostly null, that its answers need not have.
NOT_HERE = {"open-responses": ("compact",)}
UNWANTED = {"anthropic": "is a required property,is not valid under any of the given schemas"}


def check_chat(proxy):
    assert passed(proxy, "openai-chat") >= 8


def check_responses(proxy):
    assert passed(proxy, "open-responses") >= 10


def check_messages(proxy):
    assert passed(proxy, "anthropic") >= 8


def passed(proxy, form):
    """The number of its tests that passed; raises if one failed."""
    command = [str(Path(sys.executable).with_name("llm-comply")), "-u", proxy.url, "-k", "any", "-m", proxy.model]
    command += ["--format", form, "--json", *(("--ignore", UNWANTED[form]) if form in UNWANTED else ())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, stdin=subprocess.DEVNULL)
    results = json.loads(done.stdout)["results"]
    here = [each for each in results if not each["id"].startswith(NOT_HERE.get(form, "?"))]
    failed = {each["id"]: each["errors"] for each in here if each["status"] not in ("passed", "skipped")}
    assert not failed, failed
    return sum(each["status"] == "passed" for each in here)
