// client: ai with @ai-sdk/openai-compatible; environment: node; wires: openai native anthropic google
// set: `createOpenAICompatible({ name: "proxy", baseURL: "URL/v1", apiKey: KEY })`

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { checks } from "./_ai_checks.mjs";

export const PACKAGE = "@ai-sdk/openai-compatible";
const model = (proxy, name) => createOpenAICompatible({ name: "proxy", baseURL: proxy.url, apiKey: "any", includeUsage: true })(name);
const options = {};

check("text", (proxy) => checks.text(model, proxy, options));
check("stream", (proxy) => checks.stream(model, proxy, options));
check("tool_loop", (proxy) => checks.tool_loop(model, proxy, options));
check("turns", (proxy) => checks.turns(model, proxy, options));
check("structured", (proxy) => checks.structured(model, proxy, options));
check("errors", (proxy) => checks.errors(model, proxy, options));
