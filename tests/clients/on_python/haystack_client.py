# client: haystack-ai; environment: pipelines; wires: openai native anthropic google
# set: `OpenAIChatGenerator(api_base_url="URL/v1", api_key=Secret.from_token(KEY))`
"""Haystack's generators and embedders."""

import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from haystack.components.embedders import OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack.utils import Secret

PACKAGE = "haystack-ai"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = Tool(name="weather", description="Weather of a city", parameters=WEATHER, function=lambda city: "sunny")


def generators(proxy, **more):
    settings = {"model": proxy.model, "api_base_url": proxy.url, "api_key": Secret.from_token("any"), "max_retries": 0}
    return [kind(**settings, **more) for kind in (OpenAIChatGenerator, OpenAIResponsesChatGenerator)]


def check_chat(proxy):
    for generator in generators(proxy):
        (reply,) = generator.run([ChatMessage.from_user("Repeat exactly: one two three")])["replies"]
        assert reply.text.strip() == "one two three" and reply.meta["usage"]


def check_stream(proxy):
    for kind in range(2):
        pieces = []
        generator = generators(proxy, streaming_callback=lambda chunk, pieces=pieces: pieces.append(chunk.content))[
            kind
        ]
        (reply,) = generator.run([ChatMessage.from_user("Repeat exactly: one two three")])["replies"]
        assert reply.text.strip() == "one two three" and len(pieces) > 2


def check_tool_loop(proxy):
    for generator in generators(proxy, tools=[TOOL]):
        messages = [ChatMessage.from_user("What is the weather?")]
        (reply,) = generator.run(messages)["replies"]
        (call,) = reply.tool_calls
        assert (call.tool_name, call.arguments) == ("weather", {"city": "Rex"})
        messages += [reply, ChatMessage.from_tool("sunny", origin=call)]
        (reply,) = generator.run(messages)["replies"]
        assert reply.text == "The tools say: sunny"


def once_embeddings(proxy):
    embedder = OpenAITextEmbedder(model="openai/ok", api_base_url=proxy.url, api_key=Secret.from_token("any"))
    assert len(embedder.run("one")["embedding"]) > 1
