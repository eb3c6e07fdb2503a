// client: ai with @ai-sdk/anthropic; environment: node; wires: anthropic openai native google
// set: `createAnthropic({ baseURL: "URL/v1", apiKey: KEY })`

import { createAnthropic } from "@ai-sdk/anthropic";
import { checks } from "./_ai_checks.mjs";

export const PACKAGE = "@ai-sdk/anthropic";
const model = (proxy, name) => createAnthropic({ baseURL: proxy.url, apiKey: "any" })(name);
const options = {};

check("text", (proxy) => checks.text(model, proxy, options));
check("stream", (proxy) => checks.stream(model, proxy, options));
check("tool_loop", (proxy) => checks.tool_loop(model, proxy, options));
check("turns", (proxy) => checks.turns(model, proxy, options));
check("structured", (proxy) => checks.structured(model, proxy, options));
check("errors", (proxy) => checks.errors(model, proxy, options));
