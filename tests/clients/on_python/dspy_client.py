# client: dspy; environment: litellm; wires: openai native anthropic google
# set: `dspy.LM("openai/MODEL", api_base="URL/v1", api_key=KEY)`; `model_type="responses"` or `"text"` as you like
"""DSPy on chat completions, responses and text completions."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import dspy

PACKAGE = "dspy"


def model(proxy, kind):
    return dspy.LM(
        f"openai/{proxy.model}", api_base=proxy.url, api_key="any", model_type=kind, cache=False, num_retries=0
    )


def check_chat(proxy):
    assert said(model(proxy, "chat")("Repeat exactly: one two three")) == "one two three"


def check_responses(proxy):
    assert said(model(proxy, "responses")("Repeat exactly: one two three")) == "one two three"


def check_text(proxy):
    assert said(model(proxy, "text")("Repeat exactly: one two three")).startswith("one two three")


def said(answers):
    (answer,) = answers
    return (answer if isinstance(answer, str) else answer["text"]).strip()
