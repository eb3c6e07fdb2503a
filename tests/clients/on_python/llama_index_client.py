# client: llama-index (OpenAILike); environment: pipelines; wires: openai native anthropic google
# set: `OpenAILike(api_base="URL/v1", api_key=KEY, is_chat_model=True)`
"""LlamaIndex's OpenAILike: text completions, its default, and chat."""

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

PACKAGE = "llama-index-llms-openai-like"


class Dog(BaseModel):
    """A dog."""

    name: str
    age: int


def model(proxy, **more):
    return OpenAILike(model=proxy.model, api_base=proxy.url, api_key="any", max_retries=0, **more)


def weather(city: str) -> str:
    """Weather of a city."""
    return "sunny"


def check_complete(proxy):
    assert model(proxy).complete("Repeat exactly: one two three").text.strip() == "one two three"
    *_, last = model(proxy).stream_complete("Repeat exactly: one two three")
    assert last.text.strip() == "one two three"


def check_chat(proxy):
    ask = [ChatMessage(role="user", content="Repeat exactly: one two three")]
    assert model(proxy, is_chat_model=True).chat(ask).message.content.strip() == "one two three"
    *_, last = model(proxy, is_chat_model=True).stream_chat(ask)
    assert last.message.content.strip() == "one two three"


async def check_tools(proxy):
    api = model(proxy, is_chat_model=True, is_function_calling_model=True)
    answer = await api.achat_with_tools([FunctionTool.from_defaults(weather)], user_msg="What is the weather?")
    (call,) = api.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Rex"})


def check_structured(proxy):
    api = model(proxy, is_chat_model=True, is_function_calling_model=True)
    assert api.as_structured_llm(Dog).complete("A dog").raw == Dog(name="Rex", age=3)
