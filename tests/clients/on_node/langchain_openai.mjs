// client: @langchain/openai; environment: node; wires: openai native anthropic google
// set: `new ChatOpenAI({ apiKey: KEY, configuration: { baseURL: "URL/v1" } })`

import assert from "node:assert/strict";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";

export const PACKAGE = "@langchain/openai";
const weather = {
  type: "function",
  function: {
    name: "weather",
    description: "Weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};
const models = (proxy) =>
  [false, true].map(
    (useResponsesApi) =>
      new ChatOpenAI({ model: proxy.model, apiKey: "any", maxRetries: 0, useResponsesApi, configuration: { baseURL: proxy.url } }),
  );

check("invoke", async (proxy) => {
  for (const model of models(proxy)) {
    const answer = await model.invoke("Repeat exactly: one two three");
    assert.equal(answer.text.trim(), "one two three");
    assert.ok(answer.usage_metadata.output_tokens >= 3);
  }
});

check("stream", async (proxy) => {
  for (const model of models(proxy)) {
    let text = "";
    for await (const chunk of await model.stream("Repeat exactly: one two three")) text += chunk.text;
    assert.equal(text.trim(), "one two three");
  }
});

check("tool_loop", async (proxy) => {
  for (const model of models(proxy)) {
    const bound = model.bindTools([weather]);
    const messages = [new HumanMessage("What is the weather?")];
    const first = await bound.invoke(messages);
    assert.equal(first.tool_calls[0].name, "weather");
    assert.deepEqual(first.tool_calls[0].args, { city: "Rex" });
    messages.push(first, new ToolMessage({ content: "sunny", tool_call_id: first.tool_calls[0].id }));
    assert.equal((await bound.invoke(messages)).text, "The tools say: sunny");
  }
});

check("structured", async (proxy) => {
  for (const model of models(proxy)) {
    const shaped = model.withStructuredOutput(z.object({ name: z.string(), age: z.number() }), { name: "dog" });
    assert.equal((await shaped.invoke("A dog")).name, "Rex");
  }
});
