# client: langchain-openai; environment: langchain; wires: openai native anthropic google
# set: `ChatOpenAI(base_url="URL/v1", api_key=KEY)`, `use_responses_api=True` as you like
"""LangChain's ChatOpenAI, on chat completions and responses."""

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

PACKAGE = "langchain-openai"


class Dog(BaseModel):
    """A dog."""

    name: str
    age: int


@tool
def weather(city: str) -> str:
    """Weather of a city."""
    return "sunny"


def models(proxy, name=None):
    settings = {"model": name or proxy.model, "base_url": proxy.url, "api_key": "any", "max_retries": 0}
    return [ChatOpenAI(**settings, stream_usage=True), ChatOpenAI(**settings, use_responses_api=True)]


def check_invoke(proxy):
    for model in models(proxy):
        answer = model.invoke("Repeat exactly: one two three")
        assert answer.text.strip() == "one two three"
        assert answer.usage_metadata["input_tokens"] > 0 and answer.usage_metadata["output_tokens"] >= 3


async def check_stream(proxy):
    """The sum of its chunks is the whole answer."""
    for model in models(proxy):
        whole = await model.ainvoke("Repeat exactly: one two three")
        chunks = [chunk async for chunk in model.astream("Repeat exactly: one two three")]
        total = chunks[0]
        for chunk in chunks[1:]:
            total += chunk
        assert len(chunks) > 2 and total.text == whole.text
        assert total.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


def check_tool_loop(proxy):
    for model in models(proxy):
        bound, messages = model.bind_tools([weather]), [HumanMessage("What is the weather?")]
        total = None
        for chunk in bound.stream(messages):
            total = chunk if total is None else total + chunk
        (call,) = total.tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Rex"})
        messages += [total, ToolMessage("sunny", tool_call_id=call["id"])]
        assert bound.invoke(messages).text == "The tools say: sunny"


def check_structured_output(proxy):
    for model in models(proxy):
        for method in ("json_schema", "function_calling"):
            assert model.with_structured_output(Dog, method=method).invoke("A dog") == Dog(name="Rex", age=3)


def check_errors(proxy):
    for mode, kind in (("e429", openai.RateLimitError), ("e503", openai.InternalServerError)):
        for model in models(proxy, f"{proxy.wire}/{mode}"):
            try:
                model.invoke("x")
            except kind:
                continue
            raise AssertionError(f"{mode}: no {kind}")


def once_embeddings(proxy):
    """It sends token numbers unless told not to."""
    api = OpenAIEmbeddings(model="openai/ok", base_url=proxy.url, api_key="any", check_embedding_ctx_length=False)
    vectors = api.embed_documents(["one", "two words"])
    assert len(vectors) == 2 and len(vectors[0]) > 1
