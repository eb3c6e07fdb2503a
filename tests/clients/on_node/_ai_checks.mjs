// The checks of the AI SDK, whose providers differ. `model(proxy, name)`: the provider's model.

import assert from "node:assert/strict";
import { generateText, isStepCount, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const until = stepCountIs ?? isStepCount;
const prompt = "Repeat exactly: one two three";

export const checks = {
  text: async (model, proxy, options) => {
    const answer = await generateText({ model: model(proxy, proxy.model), prompt, maxRetries: 0, ...options });
    assert.equal(answer.text.trim(), "one two three");
    assert.ok(answer.usage.outputTokens >= 3);
    assert.equal(answer.finishReason, "stop");
  },
  stream: async (model, proxy, options) => {
    const answer = streamText({ model: model(proxy, proxy.model), prompt, maxRetries: 0, ...options });
    const pieces = [];
    for await (const piece of answer.textStream) pieces.push(piece);
    assert.equal(pieces.join("").trim(), "one two three");
    assert.ok(pieces.length > 1);
    assert.ok((await answer.usage).outputTokens >= 3);
  },
  tool_loop: async (model, proxy, options) => {
    const asked = [];
    const inputSchema = z.object({ city: z.string() });
    const weather = tool({ description: "Weather", inputSchema, execute: (input) => (asked.push(input), "sunny") });
    const given = { prompt: "What is the weather?", tools: { weather }, stopWhen: until(4), maxRetries: 0, ...options };
    const whole = await generateText({ model: model(proxy, proxy.model), ...given });
    const streamed = streamText({ model: model(proxy, proxy.model), ...given });
    assert.match(whole.text, /The tools say: .*sunny/);
    assert.equal(await streamed.text, whole.text);
    assert.deepEqual(asked, [{ city: "Rex" }, { city: "Rex" }]);
  },
  turns: async (model, proxy, options) => {
    const inputSchema = z.object({ city: z.string() });
    const weather = tool({ description: "Weather", inputSchema, execute: () => "sunny" });
    const messages = [];
    for (const question of ["What is the weather?", "And now?", "And then?"]) {
      messages.push({ role: "user", content: question });
      const given = { messages, tools: { weather }, stopWhen: until(4), maxRetries: 0, ...options };
      const answer = streamText({ model: model(proxy, proxy.model), ...given });
      assert.match(await answer.text, /The tools say: .*sunny/);
      messages.push(...(await answer.responseMessages));
    }
    assert.equal(messages.filter((message) => message.role === "user").length, 3);
    assert.ok(messages.length >= 8);
  },
  structured: async (model, proxy, options) => {
    const output = Output.object({ schema: z.object({ name: z.string(), age: z.number() }) });
    const answer = await generateText({ model: model(proxy, proxy.model), prompt: "A dog", output, maxRetries: 0, ...options });
    assert.equal(answer.output.name, "Rex");
  },
  errors: async (model, proxy, options) => {
    for (const [mode, status] of [["e429", 429], ["e503", 503]]) {
      const call = generateText({ model: model(proxy, `${proxy.wire}/${mode}`), prompt, maxRetries: 0, ...options });
      await assert.rejects(call, (error) => error.statusCode === status);
    }
  },
};
