# client: pydantic-ai; environment: agents; wires: openai native anthropic google
# set: `OpenAIProvider(base_url="URL/v1", api_key=KEY)`; `AnthropicProvider(base_url="URL", api_key=KEY)`
"""Pydantic AI, on chat completions, responses and messages."""

from anthropic import AsyncAnthropic
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

PACKAGE = "pydantic-ai-slim"


class Dog(BaseModel):
    name: str
    age: int


def models(proxy, name=None):
    provider = OpenAIProvider(base_url=proxy.url, api_key="any")
    own = AnthropicProvider(anthropic_client=AsyncAnthropic(base_url=proxy.root, api_key="any", max_retries=0))
    name = name or proxy.model
    return [
        OpenAIChatModel(name, provider=provider),
        OpenAIResponsesModel(name, provider=provider),
        AnthropicModel(name, provider=own),
    ]


async def check_text(proxy):
    for model in models(proxy):
        result = await Agent(model).run("Repeat exactly: one two three")
        assert result.output.strip() == "one two three"
        usage = result.usage() if callable(result.usage) else result.usage
        assert usage.input_tokens > 0 and usage.output_tokens >= 3


async def check_tool_loop(proxy):
    asked = []

    def weather(city: str) -> str:
        asked.append(city)
        return "sunny"

    for model in models(proxy):
        agent = Agent(model, instructions="Be brief.", tools=[weather])
        result = await agent.run("What is the weather?")
        assert result.output == "The tools say: sunny"
    assert asked == ["Rex"] * 3


async def check_stream(proxy):
    for model in models(proxy):
        async with Agent(model).run_stream("Repeat exactly: one two three") as stream:
            pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
            whole = await stream.get_output()
        assert "".join(pieces) == whole and whole.strip() == "one two three"


async def check_output_type(proxy):
    for model in models(proxy):
        assert (await Agent(model, output_type=Dog).run("A dog")).output == Dog(name="Rex", age=3)


async def check_errors(proxy):
    for mode, status in (("e429", 429), ("e503", 503)):
        for model in models(proxy, f"{proxy.wire}/{mode}"):
            try:
                await Agent(model).run("x")
            except ModelHTTPError as error:
                assert error.status_code == status
            else:
                raise AssertionError(f"{model} {mode}: no error")
