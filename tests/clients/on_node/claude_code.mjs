// client: Claude Code; environment: coding-agents; wires: anthropic openai native google
// set: `ANTHROPIC_BASE_URL=URL` and `ANTHROPIC_AUTH_TOKEN=KEY`, or `proxy setup claude-code`

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { join } from "node:path";

export const PACKAGE = "@anthropic-ai/claude-code";

// One turn without a terminal: the model calls Bash (and a placeholder that the agent sends beside it), the agent runs it,
// and the model answers with what came out.
check("turn_with_a_tool", async (proxy) => {
  const folder = mkdtempSync(join(process.cwd(), "claude-"));
  const told = {
    PATH: process.env.PATH,
    HOME: folder,
    ANTHROPIC_BASE_URL: proxy.root,
    ANTHROPIC_AUTH_TOKEN: "any",
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    DISABLE_AUTOUPDATER: "1",
  };
  const program = `${process.env.ENVIRONMENT}/node_modules/@anthropic-ai/claude-code-linux-x64/claude`;
  const options = ["--model", proxy.wire === "anthropic" ? "anthropic/claude-opus-5-5" : proxy.model, "--tools", "Bash", "--allowedTools", "Bash", "--output-format", "stream-json", "--verbose"];
  const said = await new Promise((resolve) => {
    const child = execFile(program, ["-p", "What do both tools say?", ...options], { cwd: folder, env: told, timeout: 100_000 }, (error, out, trouble) =>
      resolve({ error, out, trouble }),
    );
    child.stdin.end();
  });
  assert.equal(said.error, null, said.out.slice(-2000) + said.trouble);
  const events = said.out.trim().split("\n").map((line) => JSON.parse(line));
  const blocks = events.filter((event) => event.message).flatMap((event) => event.message.content);
  assert.ok(blocks.some((block) => block.type === "tool_use" && block.name === "Bash"), said.out.slice(-2000));
  const result = events.at(-1);
  assert.equal(result.is_error, false);
  assert.match(result.result, /The tools say: .*Rex/s);
});
