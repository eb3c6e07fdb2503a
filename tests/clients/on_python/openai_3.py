# client: openai 3 (Python); environment: project; wires: openai native anthropic google mistral
# set: `OpenAI(base_url="URL/v1", api_key=KEY)`, or `OPENAI_BASE_URL` and `OPENAI_API_KEY`
"""OpenAI's Python SDK, the newest major version."""

import base64
import struct

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

PACKAGE = "openai"
ASK = [{"role": "user", "content": "Repeat exactly: one two three"}]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Weather of a city", "parameters": WEATHER}}


class Dog(BaseModel):
    name: str
    age: int


def client(proxy):
    return OpenAI(base_url=proxy.url, api_key="any", max_retries=0)


def check_chat(proxy):
    with client(proxy) as api:
        answer = api.chat.completions.create(model=proxy.model, messages=ASK)
    assert answer.choices[0].message.content.strip() == "one two three"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0 and answer.usage.completion_tokens >= 3
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


async def check_chat_async(proxy):
    async with AsyncOpenAI(base_url=proxy.url, api_key="any", max_retries=0) as api:
        answer = await api.chat.completions.create(model=proxy.model, messages=ASK)
        stream = await api.chat.completions.create(model=proxy.model, messages=ASK, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert answer.choices[0].message.content == "".join(pieces)
    assert len(pieces) > 2


def check_stream_with_usage(proxy):
    with client(proxy) as api:
        options = {"include_usage": True}
        chunks = list(api.chat.completions.create(model=proxy.model, messages=ASK, stream=True, stream_options=options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == "one two three"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.completion_tokens >= 3 and not chunks[-1].choices


def check_stream_helper(proxy):
    """Its accumulated message is the whole answer."""
    with client(proxy) as api:
        whole = api.chat.completions.create(model=proxy.model, messages=ASK, tools=[TOOL])
        with api.chat.completions.stream(model=proxy.model, messages=ASK, tools=[TOOL]) as events:
            kinds = {event.type for event in events}
            final = events.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    call, other = final.choices[0].message.tool_calls[0], whole.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == (other.function.name, other.function.arguments)
    assert final.choices[0].finish_reason == "tool_calls"


def check_tool_loop(proxy):
    messages = [{"role": "user", "content": "What is the weather?"}]
    with client(proxy) as api:
        first = api.chat.completions.create(model=proxy.model, messages=messages, tools=[TOOL])
        (call,) = first.choices[0].message.tool_calls
        assert call.function.name == "weather" and call.function.arguments.replace(" ", "") == '{"city":"Rex"}'
        messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        last = api.chat.completions.create(model=proxy.model, messages=messages, tools=[TOOL])
    assert last.choices[0].message.content == "The tools say: sunny"


def check_parse(proxy):
    with client(proxy) as api:
        answer = api.chat.completions.parse(model=proxy.model, messages=ASK, response_format=Dog)
    assert answer.choices[0].message.parsed == Dog(name="Rex", age=3)


def check_responses(proxy):
    with client(proxy) as api:
        answer = api.responses.create(model=proxy.model, input="Repeat exactly: one two three")
    assert answer.output_text.strip() == "one two three" and answer.status == "completed"
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens >= 3


async def check_responses_stream(proxy):
    """The helper's final response is that of the last event, and its deltas are the text."""
    async with (
        AsyncOpenAI(base_url=proxy.url, api_key="any", max_retries=0) as api,
        api.responses.stream(model=proxy.model, input="Repeat exactly: one two three") as events,
    ):
        seen = [event async for event in events]
        final = await events.get_final_response()
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert text == final.output_text and text.strip() == "one two three"
    assert [event.sequence_number for event in seen] == sorted(event.sequence_number for event in seen)
    assert seen[0].type == "response.created" and seen[-1].type == "response.completed"


def check_responses_tool_loop(proxy):
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
    items = [{"role": "user", "content": "What is the weather?"}]
    with client(proxy) as api:
        first = api.responses.create(model=proxy.model, input=items, tools=[tool])
        (call,) = [item for item in first.output if item.type == "function_call"]
        assert call.name == "weather"
        items += first.output
        items.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
        last = api.responses.create(model=proxy.model, input=items, tools=[tool])
    assert last.output_text == "The tools say: sunny"


def check_responses_parse(proxy):
    with client(proxy) as api:
        answer = api.responses.parse(model=proxy.model, input="A dog", text_format=Dog)
    assert answer.output_parsed == Dog(name="Rex", age=3)


def check_completions(proxy):
    with client(proxy) as api:
        answer = api.completions.create(model=proxy.model, prompt="Repeat exactly: one two three")
        chunks = list(api.completions.create(model=proxy.model, prompt="Repeat exactly: one two three", stream=True))
    assert answer.choices[0].text.strip() == "one two three"
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == answer.choices[0].text


def once_raw_response(proxy):
    with client(proxy) as api:
        raw = api.chat.completions.with_raw_response.create(model=proxy.model, messages=ASK)
        with api.chat.completions.with_streaming_response.create(model=proxy.model, messages=ASK) as streaming:
            again = streaming.parse()
    assert raw.status_code == 200 and raw.headers["x-request-id"]
    assert raw.parse().choices[0].message.content == again.choices[0].message.content


def once_embeddings(proxy):
    """The SDK asks for base64 by default and decodes it; floats are the same vector."""
    with client(proxy) as api:
        texts = ["one", "two words"]
        default = api.embeddings.create(model="openai/ok", input=texts)
        floats = api.embeddings.create(model="openai/ok", input=texts, encoding_format="float")
        coded = api.embeddings.create(model="openai/ok", input=texts, encoding_format="base64")
    for ours, plain, text in zip(default.data, floats.data, coded.data, strict=True):
        assert len(ours.embedding) > 1
        packed = base64.b64decode(text.embedding) if isinstance(text.embedding, str) else b""
        vector = struct.unpack(f"<{len(packed) // 4}f", packed) if packed else text.embedding
        assert all(abs(a - b) < 1e-6 for a, b in zip(ours.embedding, plain.embedding, strict=True))
        assert all(abs(a - b) < 1e-6 for a, b in zip(vector, plain.embedding, strict=True))
    assert default.usage.prompt_tokens > 0


def once_models(proxy):
    with client(proxy) as api:
        names = [model.id for model in api.models.list()]
    assert any(name.startswith("auto") for name in names)


def check_error_classes(proxy):
    """By status, on chat and responses, streamed and whole."""
    expected = {"e400": openai.BadRequestError, "e429": openai.RateLimitError, "e503": openai.InternalServerError}
    if proxy.wire == "mistral":  # its 400 is "Invalid model"
        expected["e400"] = openai.NotFoundError
    with client(proxy) as api:
        for mode, kind in expected.items():
            model = f"{proxy.wire}/{mode}"
            for call in (
                lambda model=model: api.chat.completions.create(model=model, messages=ASK),
                lambda model=model: list(api.chat.completions.create(model=model, messages=ASK, stream=True)),
                lambda model=model: api.responses.create(model=model, input="x"),
                lambda model=model: list(api.responses.create(model=model, input="x", stream=True)),
            ):
                raised(kind, call)
        raised(openai.NotFoundError, lambda: api.chat.completions.create(model="nobody/nothing", messages=ASK))
        raised(openai.BadRequestError, lambda: api.chat.completions.create(model=proxy.model, messages="text"))
        raised(
            openai.BadRequestError,
            lambda: api.responses.create(model=proxy.model, previous_response_id="resp_1", input="x"),
        )


def once_what_only_openai_has(proxy):
    with client(proxy) as api:
        raised(openai.NotFoundError, lambda: api.responses.compact(model=proxy.model, input="x"))
        raised(openai.NotFoundError, lambda: api.responses.input_tokens.count(model=proxy.model, input="x"))
        raised(openai.NotFoundError, lambda: api.responses.retrieve("resp_1"))


def once_time_out(proxy):
    """The SDK announces how long it waits; the proxy answers just before."""
    with OpenAI(base_url=proxy.url, api_key="any", max_retries=0, timeout=2) as api:
        error = raised(openai.APIError, lambda: api.chat.completions.create(model="openai/blackhole", messages=ASK))
    assert isinstance(error, openai.APITimeoutError) or error.status_code == 504, error


def once_retries(proxy):
    """A fault at the provider is tried again by the proxy alone, and the SDK is told so."""
    with OpenAI(base_url=proxy.url, api_key="any") as api:
        error = raised(
            openai.InternalServerError, lambda: api.chat.completions.create(model="openai/e503", messages=ASK)
        )
    assert error.response.headers["x-should-retry"] == "false"


def raised(kind, call):
    try:
        answer = call()
    except kind as error:
        assert error.message
        return error
    raise AssertionError(f"{kind.__name__} was not raised: {answer}")
