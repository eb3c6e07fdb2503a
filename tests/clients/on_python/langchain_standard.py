# client: langchain-tests, the standard suite; environment: langchain; wires: openai
# set: the same as for `ChatOpenAI` and `ChatAnthropic`
"""The integration tests that LangChain asks of each of its chat models, through this proxy."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

PACKAGE = "langchain-tests"
COUNTS = (38, 12)  # passed and skipped, of each model; docs/clients.md names them
SUITE = """
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class Test{name}(ChatModelIntegrationTests):
    chat_model_class = {model}
    chat_model_params = {parameters}
    has_tool_choice = True
    supports_image_inputs = False
    {more}
"""


def suite(proxy, name, model, parameters, more=""):
    """Runs it in a process of its own; raises with the names of what failed."""
    folder = Path.cwd() / "langchain-suite"
    folder.mkdir(exist_ok=True)
    (folder / f"test_{name.lower()}.py").write_text(
        SUITE.format(name=name, model=model, parameters=parameters, more=more)
    )
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\nasyncio_default_test_loop_scope = session\n")
    report = folder / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += ["-c", "pytest.ini", f"test_{name.lower()}.py"]
    done = subprocess.run(command, cwd=folder, env={**os.environ}, capture_output=True, text=True, check=False)
    root = ET.parse(report).getroot()
    (found,) = root.iter("testsuite")
    failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
    assert not failed, f"{failed}\n{done.stdout[-6000:]}"
    tests, skipped = int(found.get("tests")), int(found.get("skipped"))
    print(name, f"{tests - skipped} passed, {skipped} skipped")
    assert (tests - skipped, skipped) == COUNTS, done.stdout[-2000:]


def once_chat(proxy):
    given = {"model": "openai/actor", "base_url": proxy.url, "api_key": "any", "max_retries": 0, "stream_usage": True}
    suite(proxy, "Chat", "ChatOpenAI", given)


def once_responses(proxy):
    given = {"model": "anthropic/actor", "base_url": proxy.url, "api_key": "any", "max_retries": 0}
    suite(proxy, "Responses", "ChatOpenAI", {**given, "use_responses_api": True})


def once_messages(proxy):
    given = {"model": "anthropic/actor", "base_url": proxy.root, "api_key": "any", "max_retries": 0}
    suite(proxy, "Messages", "ChatAnthropic", given)
