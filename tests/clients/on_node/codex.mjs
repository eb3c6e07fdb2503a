// client: Codex CLI; environment: coding-agents; wires: openai native anthropic google
// set: `base_url = "URL/v1"` and `wire_api = "responses"` in `config.toml`, or `proxy setup codex`

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";

export const PACKAGE = "@openai/codex";

// One turn without a terminal: the model calls the shell, Codex runs it, and the model answers with what came out.
check("turn_with_a_tool", async (proxy) => {
  const folder = mkdtempSync(join(process.cwd(), "codex-"));
  mkdirSync(join(folder, ".codex"));
  const provider = `[model_providers.proxy]\nname = "proxy"\nbase_url = "${proxy.url}"\nwire_api = "responses"\n`;
  const own = `model = "${proxy.model}"\nmodel_provider = "proxy"\n${provider}request_max_retries = 0\n`;
  writeFileSync(join(folder, ".codex", "config.toml"), own);
  const program = `${process.env.ENVIRONMENT}/node_modules/@openai/codex/bin/codex.js`;
  const options = ["exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"];
  const told = { PATH: process.env.PATH, HOME: folder };
  const said = await new Promise((resolve) => {
    const child = execFile("node", [program, ...options, "What does the tool say?"], { cwd: folder, env: told, timeout: 100_000 }, (error, out, trouble) =>
      resolve({ error, out, trouble }),
    );
    child.stdin.end();
  });
  assert.equal(said.error, null, said.out.slice(-2000) + said.trouble);
  const events = said.out.trim().split("\n").map((line) => JSON.parse(line));
  const items = events.filter((event) => event.type === "item.completed").map((event) => event.item);
  assert.ok(items.some((item) => item.type === "command_execution"), said.out.slice(-3000));
  assert.match(items.filter((item) => item.type === "agent_message").at(-1).text, /The tools say: .*Rex/s);
  assert.ok(events.at(-1).usage.output_tokens > 0);
});
