// client: @openai/agents (Node); environment: node; wires: openai native anthropic google
// set: `new OpenAIProvider({ baseURL: "URL/v1", apiKey: KEY })`; `useResponses: false` as you like

import assert from "node:assert/strict";
import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from "@openai/agents";
import { z } from "zod";

export const PACKAGE = "@openai/agents";
setTracingDisabled(true);
const runners = (proxy) =>
  [true, false].map((useResponses) => new Runner({ modelProvider: new OpenAIProvider({ baseURL: proxy.url, apiKey: "any", useResponses }), tracingDisabled: true }));
const weather = (asked) =>
  tool({ name: "weather", description: "Weather of a city", parameters: z.object({ city: z.string() }), execute: (input) => (asked.push(input), "sunny") });

check("text", async (proxy) => {
  for (const runner of runners(proxy)) {
    const result = await runner.run(new Agent({ name: "x", model: proxy.model }), "Repeat exactly: one two three");
    assert.equal(result.finalOutput.trim(), "one two three");
  }
});

check("tool_loop", async (proxy) => {
  for (const runner of runners(proxy)) {
    const asked = [];
    const agent = new Agent({ name: "x", instructions: "Be brief.", model: proxy.model, tools: [weather(asked)] });
    const result = await runner.run(agent, "What is the weather?");
    assert.deepEqual([asked, result.finalOutput], [[{ city: "Rex" }], "The tools say: sunny"]);
  }
});

check("streamed_tool_loop", async (proxy) => {
  for (const runner of runners(proxy)) {
    const asked = [];
    const agent = new Agent({ name: "x", model: proxy.model, tools: [weather(asked)] });
    const result = await runner.run(agent, "What is the weather?", { stream: true });
    const kinds = new Set();
    for await (const event of result) kinds.add(event.type);
    await result.completed;
    assert.ok(kinds.has("raw_model_stream_event"));
    assert.deepEqual([asked, result.finalOutput], [[{ city: "Rex" }], "The tools say: sunny"]);
  }
});

check("output_type", async (proxy) => {
  for (const runner of runners(proxy)) {
    const outputType = z.object({ name: z.string(), age: z.number() });
    const result = await runner.run(new Agent({ name: "x", model: proxy.model, outputType }), "A dog");
    assert.equal(result.finalOutput.name, "Rex");
  }
});
