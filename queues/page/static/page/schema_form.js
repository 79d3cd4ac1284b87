// Fields made from a JSON Schema: texts, numbers, choices, switches, lists, objects; anything else is written as JSON.

import { h } from "./dom.js";
import { Field } from "./fields.js";

const DEEPEST = 3; // objects in objects; below, JSON

/** What was typed cannot be sent as it is meant; `path` is the field. */
export class Unsendable extends Error {
  constructor(path, detail) { super(detail); this.path = path; }
}

/** `{ element, fields, value() }` of a payload. `value` raises Unsendable for what JSON or a browser cannot hold. */
export function schemaForm(schema) {
  const top = resolve(schema, schema);
  if (top.type === "object" && top.properties) return objectForm(top, "payload", schema, 1);
  const field = anyField(top, "payload", "Payload", true, schema);
  return { element: field.element, fields: [field], value: () => field.read() };
}

function objectForm(schema, path, root, depth) {
  const parts = Object.entries(schema.properties).map(([name, given]) => {
    const required = (schema.required ?? []).includes(name);
    const inner = resolve(given, root);
    const at = `${path}.${name}`;
    const label = title(name, inner);
    if (inner.type === "object" && inner.properties && depth < DEEPEST && required) {
      const form = objectForm(inner, at, root, depth + 1);
      return { name, ...form, element: h("fieldset", {}, h("legend", {}, label), form.element) };
    }
    const field = anyField(inner, at, label, required, root);
    return { name, element: field.element, fields: [field], value: () => field.read() };
  });
  return {
    element: h("div", { class: "fields" }, parts.map((part) => part.element)),
    fields: parts.flatMap((part) => part.fields),
    value: () => Object.fromEntries(parts.map((part) => [part.name, part.value()]).filter(([, v]) => v !== undefined)),
  };
}

/** Follows references, and takes "this or null" for an optional this. */
function resolve(schema, root) {
  let found = schema ?? {};
  for (let step = 0; found.$ref && step < 10; step += 1) {
    const target = found.$ref.replace(/^#\//, "").split("/").reduce((at, key) => at?.[key], root) ?? {};
    found = { ...target, ...Object.fromEntries(Object.entries(found).filter(([key]) => key !== "$ref")) };
  }
  const either = found.anyOf ?? found.oneOf;
  const real = either?.filter((one) => one.type !== "null");
  if (real?.length === 1) return { ...resolve(real[0], root), ...without(found, "anyOf", "oneOf"), nullable: real.length < either.length };
  if (found.allOf?.length === 1) return { ...resolve(found.allOf[0], root), ...without(found, "allOf") };
  return found;
}

const without = (object, ...names) => Object.fromEntries(Object.entries(object).filter(([name]) => !names.includes(name)));

const title = (name, schema) => schema.title && schema.title.toLowerCase() !== name.toLowerCase().replaceAll("_", " ")
  ? schema.title : name.replaceAll("_", " ").replace(/^./, (first) => first.toUpperCase());

function anyField(schema, path, label, required, root) {
  const free = schema.nullable || (!required && schema.default === undefined); // it may be left empty
  const kind = sort(schema, root, free);
  const { control, read, inline } = MAKE[kind](schema, free);
  const hint = [schema.description, limits(schema, kind)].filter(Boolean).join(" ");
  const field = new Field(path, label, control, { hint, required: required && !free, inline });
  const empty = schema.nullable && (required || schema.default != null) ? null : undefined; // left out, it is the default
  field.read = () => {
    const value = read(path);
    return value === undefined ? empty : value;
  };
  return field;
}

function sort(schema, root, free) {
  if (schema.enum || schema.const !== undefined) return "choice";
  if (schema.type === "boolean") return free ? "choice" : "switch"; // a switch has no third state
  if (schema.type === "integer" || schema.type === "number") return "number";
  if (schema.type === "string") return (schema.maxLength ?? 0) > 200 && !schema.format ? "long" : "text";
  if (schema.type === "array" && resolve(schema.items, root).type === "string") return "lines";
  return "json";
}

const WORDS = new Map([[true, "Yes"], [false, "No"]]);

const TEXT = /"(?:[^"\\]|\\.)*"/g, NUMBER = /-?\d[\d.eE+-]*/g; // of JSON

/** The number that was written; where a browser's numbers would make another one of it, it is refused. */
function exact(written, path) {
  const number = Number(written);
  if (!Number.isFinite(number) || (/^-?\d+$/.test(written) && !Number.isSafeInteger(number)))
    throw new Unsendable(path, `A browser cannot send ${written} exactly. Send it by the API.`);
  return number;
}

const MAKE = {
  choice(schema, free) {
    const values = schema.enum ?? (schema.const === undefined ? [true, false] : [schema.const]);
    const chosen = schema.default ?? (values.length === 1 && !free ? values[0] : undefined);
    const control = h("select", {}, free || chosen === undefined ? h("option", { value: "" }, free ? "None" : "Choose …") : null,
      values.map((value, n) => h("option", { value: n, selected: value === chosen }, WORDS.get(value) ?? String(value))));
    return { control, read: () => control.value === "" ? undefined : values[Number(control.value)] };
  },
  switch(schema) {
    const control = h("input", { type: "checkbox", checked: schema.default === true });
    return { control, read: () => control.checked, inline: true };
  },
  number(schema) {
    const control = h("input", { type: "number", step: schema.type === "integer" ? 1 : "any", value: schema.default,
      min: schema.minimum, max: schema.maximum, inputmode: schema.type === "integer" ? "numeric" : "decimal" });
    return { control, read: (path) => control.value === "" ? undefined : exact(control.value, path) };
  },
  text(schema) {
    const type = { uri: "url", email: "email", date: "date" }[schema.format] ?? "text";
    const control = h("input", { type, value: schema.default, autocomplete: "off", spellcheck: "false" });
    return { control, read: () => control.value === "" ? undefined : control.value };
  },
  long(schema) {
    const control = h("textarea", { rows: 4 }, schema.default ?? "");
    return { control, read: () => control.value === "" ? undefined : control.value };
  },
  lines(schema) {
    const control = h("textarea", { rows: 4, spellcheck: "false" }, (schema.default ?? []).join("\n"));
    return { control, read: () => control.value === "" ? undefined : control.value.split("\n").filter((line) => line) };
  },
  json(schema) {
    const start = schema.default === undefined || schema.default === null ? "" : JSON.stringify(schema.default);
    const control = h("textarea", { rows: 4, class: "code", spellcheck: "false", autocapitalize: "off" }, start);
    return { control, read: (path) => {
      if (!control.value.trim()) return undefined;
      let value;
      try { value = JSON.parse(control.value); } catch (broken) { throw new Unsendable(path, `This is no JSON: ${broken.message}.`); }
      control.value.replaceAll(TEXT, "").match(NUMBER)?.forEach((number) => exact(number, path));
      return value;
    } };
  },
};

function limits({ minimum, maximum, minLength, maxLength, type, nullable }, kind) {
  if (kind === "lines") return "One a line.";
  if (kind === "json") return type === "object" ? "A JSON object." : type === "array" ? "A JSON array." : "Any JSON: {\"a\": 1}, [1, 2], \"text\", 5.";
  if (minimum !== undefined && maximum !== undefined) return `${minimum} to ${maximum}.`;
  if (minimum !== undefined) return `${minimum} or more.`;
  if (maximum !== undefined) return `${maximum} or less.`;
  if (minLength > 1 && maxLength) return `${minLength} to ${maxLength} characters.`;
  return maxLength ? `At most ${maxLength} characters.` : "";
}
