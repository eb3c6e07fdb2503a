// Runs the checks of one client program; see run_checks.py. A program calls `check("NAME", async (proxy) => ...)`.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const say = (fields) => process.stdout.write(`@result ${JSON.stringify(fields)}\n`);
const wires = process.env.WIRES.split(" ");
const checks = [];
globalThis.check = (name, run) => checks.push([name, run, wires]);
globalThis.once = (name, run) => checks.push([name, run, wires.slice(0, 1)]);

const { PACKAGE } = await import(pathToFileURL(process.argv[2]));
const folder = `${process.env.ENVIRONMENT}/node_modules/`;
say({ check: "", version: createRequire(folder)(`${folder}${PACKAGE}/package.json`).version });
for (const [name, run, on] of checks) {
  for (const wire of on) {
    const url = process.env.PROXY_URL;
    let error = null;
    try {
      await run({ url, root: url.replace(/\/v1$/, ""), wire, model: `${wire}/actor` });
    } catch (raised) {
      error = `${raised?.stack ?? raised} ${raised?.responseBody ?? ""}`;
    }
    say({ check: `${name}[${wire}]`, error });
  }
}
process.exit(0); // some clients keep sockets or timers open
