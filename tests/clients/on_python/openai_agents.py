# client: openai-agents; environment: agents; wires: openai native anthropic google
# set: `OpenAIResponsesModel(model, AsyncOpenAI(base_url="URL/v1", api_key=KEY))`, or `OPENAI_BASE_URL`
"""OpenAI's Agents SDK, on both of its APIs."""

from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel

PACKAGE = "openai-agents"
set_tracing_disabled(True)
KINDS = (OpenAIChatCompletionsModel, OpenAIResponsesModel)


class Dog(BaseModel):
    name: str
    age: int


def models(proxy):
    api = AsyncOpenAI(base_url=proxy.url, api_key="any", max_retries=0)
    return [kind(model=proxy.model, openai_client=api) for kind in KINDS]


def tool(asked):
    @function_tool
    def weather(city: str) -> str:
        """Weather of a city."""
        asked.append(city)
        return "sunny"

    return weather


async def check_text(proxy):
    for model in models(proxy):
        result = await Runner.run(Agent(name="x", model=model), "Repeat exactly: one two three")
        assert result.final_output.strip() == "one two three"
        assert result.context_wrapper.usage.output_tokens >= 3


async def check_tool_loop(proxy):
    for model in models(proxy):
        asked = []
        agent = Agent(name="x", instructions="Be brief.", model=model, tools=[tool(asked)])
        result = await Runner.run(agent, "What is the weather?")
        assert (asked, result.final_output) == (["Rex"], "The tools say: sunny")


async def check_streamed_tool_loop(proxy):
    for model in models(proxy):
        asked = []
        result = Runner.run_streamed(Agent(name="x", model=model, tools=[tool(asked)]), "What is the weather?")
        kinds = {event.type async for event in result.stream_events()}
        assert "raw_response_event" in kinds
        assert (asked, result.final_output) == (["Rex"], "The tools say: sunny")


async def check_output_type(proxy):
    for model in models(proxy):
        result = await Runner.run(Agent(name="x", model=model, output_type=Dog), "A dog")
        assert result.final_output == Dog(name="Rex", age=3)


async def check_handoff(proxy):
    for model in models(proxy):
        other = Agent(name="other", model=model, instructions="Answer with one word: yes")
        result = await Runner.run(Agent(name="x", model=model, handoffs=[other]), "Hello")
        assert result.last_agent is other and result.final_output
