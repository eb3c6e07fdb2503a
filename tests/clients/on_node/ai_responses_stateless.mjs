// client: ai with @ai-sdk/openai, store: false; environment: node; wires: openai native anthropic google
// set: the same, and `providerOptions: { openai: { store: false } }` with each call

import { createOpenAI } from "@ai-sdk/openai";
import { checks } from "./_ai_checks.mjs";

export const PACKAGE = "@ai-sdk/openai";
const model = (proxy, name) => createOpenAI({ baseURL: proxy.url, apiKey: "any" })(name);
const options = { providerOptions: { openai: { store: false } } };

check("text", (proxy) => checks.text(model, proxy, options));
check("stream", (proxy) => checks.stream(model, proxy, options));
check("tool_loop", (proxy) => checks.tool_loop(model, proxy, options));
check("turns", (proxy) => checks.turns(model, proxy, options));
check("structured", (proxy) => checks.structured(model, proxy, options));
check("errors", (proxy) => checks.errors(model, proxy, options));
