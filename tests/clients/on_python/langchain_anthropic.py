# client: langchain-anthropic; environment: langchain; wires: anthropic openai native google
# set: `ChatAnthropic(base_url="URL", api_key=KEY)`
"""LangChain's ChatAnthropic."""

import anthropic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

PACKAGE = "langchain-anthropic"


class Dog(BaseModel):
    """A dog."""

    name: str
    age: int


@tool
def weather(city: str) -> str:
    """Weather of a city."""
    return "sunny"


def chat(proxy, name=None):
    return ChatAnthropic(model=name or proxy.model, base_url=proxy.root, api_key="any", max_retries=0, max_tokens=200)


def check_invoke(proxy):
    answer = chat(proxy).invoke("Repeat exactly: one two three")
    assert answer.text.strip() == "one two three"
    assert answer.usage_metadata["input_tokens"] > 0 and answer.usage_metadata["output_tokens"] >= 3


async def check_stream(proxy):
    """The sum of its chunks is the whole answer."""
    whole = await chat(proxy).ainvoke("Repeat exactly: one two three")
    chunks = [chunk async for chunk in chat(proxy).astream("Repeat exactly: one two three")]
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert len(chunks) > 2 and total.text == whole.text
    assert total.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


def check_tool_loop(proxy):
    bound, messages = chat(proxy).bind_tools([weather]), [HumanMessage("What is the weather?")]
    total = None
    for chunk in bound.stream(messages):
        total = chunk if total is None else total + chunk
    (call,) = total.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Rex"})
    messages += [total, ToolMessage("sunny", tool_call_id=call["id"])]
    assert bound.invoke(messages).text == "The tools say: sunny"


def check_structured_output(proxy):
    assert chat(proxy).with_structured_output(Dog).invoke("A dog") == Dog(name="Rex", age=3)


def check_count_tokens(proxy):
    assert chat(proxy).get_num_tokens_from_messages([HumanMessage("one two three")]) > 0


def check_errors(proxy):
    for mode, kind in (("e429", anthropic.RateLimitError), ("e503", anthropic.InternalServerError)):
        try:
            chat(proxy, f"{proxy.wire}/{mode}").invoke("x")
        except kind:
            continue
        raise AssertionError(f"{mode}: no {kind}")
