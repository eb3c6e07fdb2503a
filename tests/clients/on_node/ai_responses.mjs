// client: ai with @ai-sdk/openai; environment: node; wires: openai native anthropic google
// set: `createOpenAI({ baseURL: "URL/v1", apiKey: KEY })`

import { createOpenAI } from "@ai-sdk/openai";
import { checks } from "./_ai_checks.mjs";

export const PACKAGE = "@ai-sdk/openai";
const model = (proxy, name) => createOpenAI({ baseURL: proxy.url, apiKey: "any" })(name);
const options = {}; // its default refers to earlier items by their ids

check("text", (proxy) => checks.text(model, proxy, options));
check("stream", (proxy) => checks.stream(model, proxy, options));
check("tool_loop", (proxy) => checks.tool_loop(model, proxy, options));
check("turns", (proxy) => checks.turns(model, proxy, options));
check("structured", (proxy) => checks.structured(model, proxy, options));
check("errors", (proxy) => checks.errors(model, proxy, options));
