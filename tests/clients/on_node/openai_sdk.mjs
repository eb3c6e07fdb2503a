// client: openai 6 (Node); environment: node; wires: openai native anthropic google
// set: `new OpenAI({ baseURL: "URL/v1", apiKey: KEY })`

import assert from "node:assert/strict";
import OpenAI from "openai";

export const PACKAGE = "openai";
const messages = [{ role: "user", content: "Repeat exactly: one two three" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tool = { type: "function", function: { name: "weather", description: "Weather of a city", parameters } };
const client = (proxy) => new OpenAI({ baseURL: proxy.url, apiKey: "any", maxRetries: 0 });

check("chat", async (proxy) => {
  const answer = await client(proxy).chat.completions.create({ model: proxy.model, messages });
  assert.equal(answer.choices[0].message.content.trim(), "one two three");
  assert.ok(answer.usage.completion_tokens >= 3);
});

check("stream_helper", async (proxy) => {
  const whole = await client(proxy).chat.completions.create({ model: proxy.model, messages });
  const stream = client(proxy).chat.completions.stream({ model: proxy.model, messages });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(final.choices[0].message.content, text);
});

check("run_tools", async (proxy) => {
  const asked = [];
  const weather = (input) => (asked.push(input), "sunny");
  const runner = client(proxy).chat.completions.runTools({
    model: proxy.model,
    messages: [{ role: "user", content: "What is the weather?" }],
    tools: [{ type: "function", function: { ...tool.function, function: weather, parse: JSON.parse } }],
  });
  assert.equal(await runner.finalContent(), "The tools say: sunny");
  assert.deepEqual(asked, [{ city: "Rex" }]);
});

check("responses", async (proxy) => {
  const body = { model: proxy.model, input: "Repeat exactly: one two three" };
  const whole = await client(proxy).responses.create(body);
  const stream = client(proxy).responses.stream(body);
  let text = "";
  for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
  const final = await stream.finalResponse();
  assert.equal(whole.output_text.trim(), "one two three");
  assert.equal(text, whole.output_text);
  assert.equal(final.output_text, text);
});

check("error_classes", async (proxy) => {
  for (const [mode, kind] of [["e400", OpenAI.BadRequestError], ["e429", OpenAI.RateLimitError], ["e503", OpenAI.InternalServerError]]) {
    const body = { model: `${proxy.wire}/${mode}`, messages };
    await assert.rejects(client(proxy).chat.completions.create(body), kind);
    await assert.rejects(client(proxy).responses.create({ model: body.model, input: "x" }), kind);
  }
});

once("embeddings", async (proxy) => {
  const asked = { model: "openai/ok", input: ["one", "two words"] };
  const coded = await client(proxy).embeddings.create(asked);
  const floats = await client(proxy).embeddings.create({ ...asked, encoding_format: "float" });
  assert.ok(coded.data[0].embedding.length > 1);
  coded.data.forEach((each, place) =>
    each.embedding.forEach((value, at) => assert.ok(Math.abs(value - floats.data[place].embedding[at]) < 1e-6)),
  );
});
