// client: @anthropic-ai/sdk (Node); environment: node; wires: anthropic openai native google
// set: `new Anthropic({ baseURL: "URL", apiKey: KEY })`

import Anthropic from "@anthropic-ai/sdk";
import assert from "node:assert/strict";

export const PACKAGE = "@anthropic-ai/sdk";
const messages = [{ role: "user", content: "Repeat exactly: one two three" }];
const input_schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ name: "weather", description: "Weather of a city", input_schema }];
const client = (proxy) => new Anthropic({ baseURL: proxy.root, apiKey: "any", maxRetries: 0 });

check("message", async (proxy) => {
  const answer = await client(proxy).messages.create({ model: proxy.model, max_tokens: 100, messages });
  assert.equal(answer.content[0].text.trim(), "one two three");
  assert.equal(answer.stop_reason, "end_turn");
  assert.ok(answer.usage.input_tokens > 0 && answer.usage.output_tokens >= 3);
});

check("stream_helper", async (proxy) => {
  const body = { model: proxy.model, max_tokens: 100, messages };
  const whole = await client(proxy).messages.create(body);
  const stream = client(proxy).messages.stream(body);
  let text = "";
  stream.on("text", (delta) => (text += delta));
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.deepEqual(final.content, whole.content);
  assert.deepEqual(final.usage.output_tokens, whole.usage.output_tokens);
});

check("tool_loop", async (proxy) => {
  const asked = { model: proxy.model, max_tokens: 100, tools };
  const conversation = [{ role: "user", content: "What is the weather?" }];
  const first = await client(proxy).messages.create({ ...asked, messages: conversation });
  const call = first.content.find((block) => block.type === "tool_use");
  assert.deepEqual([call.name, call.input, first.stop_reason], ["weather", { city: "Rex" }, "tool_use"]);
  conversation.push({ role: "assistant", content: first.content });
  conversation.push({ role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "sunny" }] });
  const last = await client(proxy).messages.stream({ ...asked, messages: conversation }).finalMessage();
  assert.equal(last.content.at(-1).text, "The tools say: sunny");
});

check("count_tokens", async (proxy) => {
  const one = await client(proxy).messages.countTokens({ model: proxy.model, messages });
  const two = await client(proxy).messages.countTokens({ model: proxy.model, messages, system: "Be brief. ".repeat(20) });
  assert.ok(one.input_tokens > 0 && two.input_tokens > one.input_tokens);
});

check("error_classes", async (proxy) => {
  for (const [mode, kind] of [["e400", Anthropic.BadRequestError], ["e429", Anthropic.RateLimitError], ["e503", Anthropic.InternalServerError]]) {
    const body = { model: `${proxy.wire}/${mode}`, max_tokens: 10, messages };
    await assert.rejects(client(proxy).messages.create(body), kind);
    await assert.rejects(client(proxy).messages.stream(body).finalMessage(), kind);
  }
});
