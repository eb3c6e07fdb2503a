// Finds packages in the environment of the clients: the programs lie elsewhere.

import { register } from "node:module";

const hooks = `
  const parent = ${JSON.stringify(new URL(`file://${process.env.ENVIRONMENT}/program.mjs`).href)};
  export const resolve = (name, context, next) =>
    next(name, /^[./]|^[a-z]+:/.test(name) || !/\\/on_node\\//.test(context.parentURL ?? "") ? context : { ...context, parentURL: parent });
`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
