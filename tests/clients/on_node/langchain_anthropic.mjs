// client: @langchain/anthropic; environment: node; wires: anthropic openai native google
// set: `new ChatAnthropic({ apiKey: KEY, anthropicApiUrl: "URL" })`

import assert from "node:assert/strict";
import { ChatAnthropic } from "@langchain/anthropic";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { z } from "zod";

export const PACKAGE = "@langchain/anthropic";
const weather = {
  name: "weather",
  description: "Weather of a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const chat = (proxy) => new ChatAnthropic({ model: proxy.model, apiKey: "any", anthropicApiUrl: proxy.root, maxRetries: 0, maxTokens: 200 });

check("invoke", async (proxy) => {
  const answer = await chat(proxy).invoke("Repeat exactly: one two three");
  assert.equal(answer.text.trim(), "one two three");
  assert.ok(answer.usage_metadata.output_tokens >= 3);
});

check("stream", async (proxy) => {
  let text = "";
  for await (const chunk of await chat(proxy).stream("Repeat exactly: one two three")) text += chunk.text;
  assert.equal(text.trim(), "one two three");
});

check("tool_loop", async (proxy) => {
  const bound = chat(proxy).bindTools([weather]);
  const messages = [new HumanMessage("What is the weather?")];
  const first = await bound.invoke(messages);
  assert.equal(first.tool_calls[0].name, "weather");
  assert.deepEqual(first.tool_calls[0].args, { city: "Rex" });
  messages.push(first, new ToolMessage({ content: "sunny", tool_call_id: first.tool_calls[0].id }));
  assert.equal((await bound.invoke(messages)).text, "The tools say: sunny");
});

check("structured", async (proxy) => {
  const shaped = chat(proxy).withStructuredOutput(z.object({ name: z.string(), age: z.number() }), { name: "dog" });
  assert.equal((await shaped.invoke("A dog")).name, "Rex");
});
