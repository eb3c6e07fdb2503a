# client: litellm (as client); environment: litellm; wires: openai native anthropic google
# set: `completion("openai/MODEL", api_base="URL/v1", api_key=KEY)`; for `anthropic/MODEL` without `/v1`
"""LiteLLM with this proxy as its OpenAI, its Anthropic and its Responses server."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

PACKAGE = "litellm"
ASK = [{"role": "user", "content": "Repeat exactly: one two three"}]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Weather", "parameters": WEATHER}}


def settings(proxy):
    common = {"api_key": "any", "num_retries": 0, "max_retries": 0}
    yield {"model": f"openai/{proxy.model}", "api_base": proxy.url, **common}
    yield {"model": f"anthropic/{proxy.model}", "api_base": proxy.root, **common, "max_tokens": 100}


def check_chat(proxy):
    for call in settings(proxy):
        answer = litellm.completion(messages=ASK, **call)
        assert answer.choices[0].message.content.strip() == "one two three"
        assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens >= 3


def check_stream(proxy):
    for call in settings(proxy):
        chunks = list(litellm.completion(messages=ASK, stream=True, **call))
        whole = litellm.stream_chunk_builder(chunks)
        assert whole.choices[0].message.content.strip() == "one two three"


async def check_tool_loop(proxy):
    for call in settings(proxy):
        messages = [{"role": "user", "content": "What is the weather?"}]
        first = await litellm.acompletion(messages=messages, tools=[TOOL], **call)
        (wanted,) = first.choices[0].message.tool_calls
        assert wanted.function.name == "weather"
        messages += [first.choices[0].message, {"role": "tool", "tool_call_id": wanted.id, "content": "sunny"}]
        last = await litellm.acompletion(messages=messages, tools=[TOOL], **call)
        assert last.choices[0].message.content == "The tools say: sunny"


def check_responses(proxy):
    call = {"model": f"openai/{proxy.model}", "api_base": proxy.url, "api_key": "any"}
    answer = litellm.responses(input="Repeat exactly: one two three", **call)
    texts = [part.text for item in answer.output if item.type == "message" for part in item.content]
    assert "".join(texts).strip() == "one two three"


def check_text_completion(proxy):
    call = {"model": f"text-completion-openai/{proxy.model}", "api_base": proxy.url, "api_key": "any"}
    answer = litellm.text_completion(prompt="Repeat exactly: one two three", **call)
    assert answer.choices[0].text.strip() == "one two three"


def check_errors(proxy):
    for mode, kind in (("e429", litellm.RateLimitError), ("e503", litellm.ServiceUnavailableError)):
        call = next(settings(proxy)) | {"model": f"openai/{proxy.wire}/{mode}"}
        try:
            litellm.completion(messages=ASK, **call)
        except kind:
            continue
        raise AssertionError(f"{mode}: no {kind}")


def once_embeddings(proxy):
    answer = litellm.embedding(model="openai/openai/ok", input=["one"], api_base=proxy.url, api_key="any")
    assert len(answer.data[0]["embedding"]) > 1
