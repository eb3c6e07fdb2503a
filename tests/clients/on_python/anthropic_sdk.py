# client: anthropic (Python); environment: project; wires: anthropic openai native google mistral
# set: `Anthropic(base_url="URL", api_key=KEY)`
"""Anthropic's Python SDK."""

import anthropic
from anthropic import Anthropic, AsyncAnthropic, beta_tool

PACKAGE = "anthropic"
ASK = [{"role": "user", "content": "Repeat exactly: one two three"}]
TOOL = {
    "name": "weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def client(proxy):
    return Anthropic(base_url=proxy.root, api_key="any", max_retries=0)


def check_message(proxy):
    with client(proxy) as api:
        answer = api.messages.create(model=proxy.model, max_tokens=100, messages=ASK, system="Be brief.")
    (block,) = answer.content
    assert block.text.strip() == "one two three"
    assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "end_turn")
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens >= 3


def check_max_tokens(proxy):
    with client(proxy) as api:
        answer = api.messages.create(
            model=proxy.model, max_tokens=16, messages=[{"role": "user", "content": "Count from 1 to 20"}]
        )
    assert answer.stop_reason == "max_tokens" and answer.content[0].text.startswith("1, 2")


async def check_stream_helper(proxy):
    """Its accumulated message is the whole answer."""
    async with AsyncAnthropic(base_url=proxy.root, api_key="any", max_retries=0) as api:
        whole = await api.messages.create(model=proxy.model, max_tokens=100, messages=ASK)
        async with api.messages.stream(model=proxy.model, max_tokens=100, messages=ASK) as stream:
            pieces = [text async for text in stream.text_stream]
            final = await stream.get_final_message()
    assert "".join(pieces) == final.content[0].text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens > 0


def check_stream_events(proxy):
    with client(proxy) as api:
        kinds = [
            event.type for event in api.messages.create(model=proxy.model, max_tokens=99, messages=ASK, stream=True)
        ]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


def check_stream_tool(proxy):
    with (
        client(proxy) as api,
        api.messages.stream(model=proxy.model, max_tokens=100, messages=ASK, tools=[TOOL]) as stream,
    ):
        final = stream.get_final_message()
    (call,) = [block for block in final.content if block.type == "tool_use"]
    assert (call.name, call.input, final.stop_reason) == ("weather", {"city": "Rex"}, "tool_use")


def check_tool_loop(proxy):
    messages = [{"role": "user", "content": "What is the weather?"}]
    with client(proxy) as api:
        first = api.messages.create(model=proxy.model, max_tokens=100, messages=messages, tools=[TOOL])
        (call,) = [block for block in first.content if block.type == "tool_use"]
        assert (call.name, call.input, first.stop_reason) == ("weather", {"city": "Rex"}, "tool_use")
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        last = api.messages.create(model=proxy.model, max_tokens=100, messages=messages, tools=[TOOL])
    assert last.content[-1].text == "The tools say: sunny"


def check_forced_tool(proxy):
    with client(proxy) as api:
        answer = api.messages.create(
            model=proxy.model,
            max_tokens=100,
            messages=ASK,
            tools=[{**TOOL, "name": "other"}, TOOL],
            tool_choice={"type": "tool", "name": "weather"},
        )
    assert [block.name for block in answer.content if block.type == "tool_use"] == ["weather"]


def check_tool_runner(proxy):
    asked = []

    @beta_tool
    def weather(city: str) -> str:
        """Weather of a city.

        Args:
            city: Its name.
        """
        asked.append(city)
        return "sunny"

    with client(proxy) as api:
        runner = api.beta.messages.tool_runner(model=proxy.model, max_tokens=100, messages=ASK, tools=[weather])
        last = runner.until_done()
    assert asked == ["Rex"] and last.content[-1].text == "The tools say: sunny"


def check_thinking(proxy):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    with client(proxy) as api:
        answer = api.messages.create(model=proxy.model, max_tokens=2000, messages=ASK, thinking=thinking)
    assert [block.text.strip() for block in answer.content if block.type == "text"] == ["one two three"]


def check_count_tokens(proxy):
    with client(proxy) as api:
        short = api.messages.count_tokens(model=proxy.model, messages=ASK)
        long = api.messages.count_tokens(model=proxy.model, messages=ASK * 1 + ASK, tools=[TOOL], system="Be brief.")
    assert 0 < short.input_tokens < long.input_tokens


def check_error_classes(proxy):
    expected = {
        "e400": anthropic.BadRequestError,
        "e429": anthropic.RateLimitError,
        "e503": anthropic.InternalServerError,
    }
    if proxy.wire == "mistral":  # its 400 is "Invalid model"
        expected["e400"] = anthropic.NotFoundError
    with client(proxy) as api:
        for mode, kind in expected.items():
            body = {"model": f"{proxy.wire}/{mode}", "max_tokens": 100, "messages": ASK}
            raised(kind, lambda body=body: api.messages.create(**body))
            raised(kind, lambda body=body: list(api.messages.create(**body, stream=True)))
        raised(
            anthropic.NotFoundError,
            lambda: api.messages.create(model="nobody/nothing", max_tokens=100, messages=ASK),
        )
        raised(anthropic.BadRequestError, lambda: api.messages.create(model=proxy.model, max_tokens=100, messages=[]))


def once_raw_response(proxy):
    with client(proxy) as api:
        raw = api.messages.with_raw_response.create(model=proxy.model, max_tokens=100, messages=ASK)
    assert raw.headers["request-id"] and raw.parse().content[0].text.strip() == "one two three"


def raised(kind, call):
    try:
        answer = call()
    except kind as error:
        assert error.body["type"] == "error" and error.body["error"]["message"]
        return
    raise AssertionError(f"{kind.__name__} was not raised: {answer}")
