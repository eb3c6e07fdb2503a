// client: OpenCode; environment: coding-agents; wires: openai anthropic
// set: `options.baseURL` of a provider with `@ai-sdk/openai-compatible` in `opencode.json`, or `proxy setup opencode`

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const PACKAGE = "opencode-linux-x64";

// One turn without a terminal: the model calls the shell, OpenCode runs it, and the model answers with what came out.
check("turn_with_a_tool", async (proxy) => {
  const folder = mkdtempSync(join(process.cwd(), "opencode-"));
  const model = `proxy/${proxy.model}`;
  const provider = { npm: "@ai-sdk/openai-compatible", name: "proxy", options: { baseURL: proxy.url, apiKey: "any" }, models: { [proxy.model]: { name: "actor" } } };
  const config = join(folder, "opencode.json");
  writeFileSync(config, JSON.stringify({ autoupdate: false, share: "disabled", provider: { proxy: provider }, model, small_model: model }));
  const told = {
    PATH: process.env.PATH,
    HOME: folder,
    OPENCODE_CONFIG: config,
    OPENCODE_DISABLE_MODELS_FETCH: "1",
    OPENCODE_DISABLE_AUTOUPDATE: "1",
    OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
    OPENCODE_DISABLE_DEFAULT_PLUGINS: "1",
  };
  const program = `${process.env.ENVIRONMENT}/node_modules/opencode-linux-x64/bin/opencode`;
  const said = await new Promise((resolve) => {
    const child = execFile(program, ["run", "--format", "json", "What do the tools say?"], { cwd: folder, env: told, timeout: 400_000 }, (error, out, trouble) =>
      resolve({ error, out, trouble }),
    );
    child.stdin.end();
  });
  assert.equal(said.error, null, said.out.slice(-2000) + said.trouble);
  const events = said.out.trim().split("\n").map((line) => JSON.parse(line));
  const tools = events.filter((event) => event.type === "tool_use").map((event) => event.part);
  assert.ok(tools.some((part) => part.tool === "bash" && part.state.status === "completed"), said.out.slice(-2000));
  const texts = events.filter((event) => event.type === "text").map((event) => event.part.text);
  assert.match(texts.at(-1), /The tools say: .*Rex/s);
});
