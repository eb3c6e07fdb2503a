# client: instructor; environment: agents; wires: openai native anthropic google
# set: `instructor.from_openai(OpenAI(base_url="URL/v1", api_key=KEY))`
"""Instructor: structured output in its modes, whole and streamed."""

import instructor
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

PACKAGE = "instructor"
ASK = [{"role": "user", "content": "A dog"}]


class Dog(BaseModel):
    name: str
    age: int


def client(proxy, mode):
    return instructor.from_openai(OpenAI(base_url=proxy.url, api_key="any", max_retries=0), mode=mode)


def dog(proxy, mode):
    return client(proxy, mode).create(model=proxy.model, messages=ASK, response_model=Dog).model_dump()


def check_tools(proxy):
    assert (
        client(proxy, instructor.Mode.TOOLS).create(model=proxy.model, messages=ASK, response_model=Dog).model_dump()
        == DOG
    )


def check_json(proxy):
    assert (
        client(proxy, instructor.Mode.JSON).create(model=proxy.model, messages=ASK, response_model=Dog).model_dump()
        == DOG
    )


def check_json_schema(proxy):
    assert dog(proxy, instructor.Mode.JSON_SCHEMA) == DOG


def check_partial(proxy):
    """The last of the streamed objects is whole."""
    api = client(proxy, instructor.Mode.TOOLS)
    *_, last = api.create_partial(model=proxy.model, messages=ASK, response_model=Dog)
    assert (last.name, last.age) == ("Rex", 3)


async def check_async(proxy):
    api = instructor.from_openai(AsyncOpenAI(base_url=proxy.url, api_key="any", max_retries=0))
    answer, raw = await api.create_with_completion(model=proxy.model, messages=ASK, response_model=Dog)
    assert answer.model_dump() == DOG and raw.usage.completion_tokens > 0


DOG = {"name": "Rex", "age": 3}
