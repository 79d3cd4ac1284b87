// Writes src/schema.ts: what this client sends and gets, as types of the service's OpenAPI document.
//
//   npm run generate -- https://localhost/api/schema
//
// The document names every kind of one deployment. This client names none, so only the operations that it calls go in:
// of each its method, path, query and answer.

import { readFile, writeFile } from "node:fs/promises";

import openapiTS, { astToString } from "openapi-typescript";

const CALLED = [
  "login", "refresh", "submit", "submit_batch", "request", "requests", "cancel", "retry", "skip", "queue", "pause",
  "resume", "purge",
];
const HEAD = "// Written by `npm run generate` from the OpenAPI document. A test compares it with the service's.\n\n";

async function typesOf(document) {
  const schemas = {};
  /** Keeps the schemas that something refers to, without their examples. */
  function keep(node) {
    if (typeof node !== "object" || node === null) return;
    const name = typeof node.$ref === "string" ? node.$ref.split("/").at(-1) : undefined;
    if (name !== undefined && !(name in schemas)) {
      schemas[name] = { ...document.components.schemas[name], example: undefined };
      keep(schemas[name]);
    }
    Object.values(node).forEach(keep);
  }
  const operations = Object.fromEntries(CALLED.map((id) => [id, operation(document, id)]));
  keep(operations);
  keep({ $ref: "#/components/schemas/Problem" });
  const Operations = object(operations);
  const { openapi, info } = document;
  const reduced = { openapi, info, components: { schemas: { ...schemas, Operations } } };
  const source = astToString(await openapiTS(reduced, { alphabetize: true, defaultNonNullable: false }));
  return HEAD + source.slice(source.indexOf("export interface components")).split("\nexport type $defs")[0] + "\n";
}

/** One operation, as a schema. */
function operation(document, id) {
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, found] of Object.entries(methods)) {
      if (found.operationId !== id) continue;
      const inQuery = (found.parameters ?? []).filter((parameter) => parameter.in === "query");
      const query = inQuery.map(({ name, schema, description }) => [name, { ...schema, description }]);
      const [, answer] = Object.entries(found.responses).find(([status]) => status.startsWith("2"));
      return object({
        method: { const: method.toUpperCase() },
        path: { const: path },
        query: object(Object.fromEntries(query), []),
        answer: answer.content["application/json"].schema,
      });
    }
  }
  throw new Error(`The document has no operation ${id}.`);
}

function object(properties, required = Object.keys(properties)) {
  return { type: "object", properties, required, additionalProperties: false };
}

const [source, target = new URL("../src/schema.ts", import.meta.url)] = process.argv.slice(2);
if (source === undefined) throw new Error("Say where the OpenAPI document is: a URL (/api/schema) or a file of JSON.");
const text = /^https?:/.test(source)
  ? await (await fetch(source)).text()
  : await readFile(source, "utf8");
await writeFile(target, await typesOf(JSON.parse(text)));
