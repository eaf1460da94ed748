// The API's description as a page: every operation, its input and its answers. It makes no other requests.

import { h, link } from "./dom.js";

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const search = document.getElementById("search");
const all = document.getElementById("all");
const operations = [];
let api;

/** Text with `code`, blank lines between paragraphs, and lists whose lines start with a dash. */
function prose(text) {
  return text.split("\n\n").map((part) => {
    const lines = part.split("\n");
    if (lines.every((line) => line.startsWith("- "))) return h("ul", {}, lines.map((line) => h("li", {}, words(line.slice(2)))));
    return h("p", {}, words(lines.join(" ")));
  });
}

const words = (text) => text.split("`").map((part, at) => (at % 2 ? h("code", { text: part }) : part));

function resolved(node) {
  if (!node?.$ref) return node ?? {};
  return node.$ref.slice(2).split("/").reduce((found, step) => found[step], api);
}

const nameOf = (schema) => schema.$ref?.split("/").pop();

/** A schema in a few words, such as `list of EventOut` or `"low" or "high"`. */
function kind(schema) {
  if (schema.$ref) return nameOf(schema);
  const either = schema.anyOf ?? schema.oneOf;
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (either && !schema.properties) return [...new Set(either.map((each) => kind({ type: schema.type, ...each })))].join(" or ");
  if (schema.title && schema.type !== "object") return schema.title;
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  if (schema.format) return schema.format;
  if (schema.type === "object" && typeof schema.additionalProperties === "object") return `object of ${kind(schema.additionalProperties)}`;
  return schema.type ?? "anything";
}

const LIMITS = { minimum: "at least", maximum: "at most", minLength: "characters, at least", maxLength: "characters, at most", pattern: "matches" };

function limits(schema) {
  const parts = [schema, ...(schema.anyOf ?? [])];
  const told = (each, name) => name in each && !(name === "pattern" && each.title);
  const said = parts.flatMap((each) => Object.entries(LIMITS).filter(([name]) => told(each, name)).map(([name, text]) => `${text} ${each[name]}`));
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") said.push(`left out: ${JSON.stringify(schema.default)}`);
  return said.join("; ");
}

/** The object that a schema is or contains, if it has fields. */
function withFields(schema) {
  const found = resolved(schema);
  if (found.properties) return found;
  if (found.items) return withFields(found.items);
  for (const each of found.anyOf ?? []) {
    const inner = withFields(each);
    if (inner) return inner;
  }
  return null;
}

/** isSent: the sidecar sends it, so the page marks fields that may be missing, not fields that are required. */
function fields(schema, isSent = false, seen = []) {
  const object = withFields(schema);
  if (!object) return h("p", {}, h("code", { text: kind(schema) }));
  const rows = Object.entries(object.properties).map(([name, field]) => {
    const inner = withFields(field);
    const more = inner && !seen.includes(inner) ? h("details", {}, h("summary", { text: kind(field) }), fields(field, isSent, [...seen, object])) : h("code", { text: kind(field) });
    const isNeeded = object.required?.includes(name) ?? false;
    return row(name, isSent ? !isNeeded && "not always" : isNeeded && "needed", more, field);
  });
  return h("div", {}, object.description ? prose(object.description) : null, table(["field", "is"], rows));
}

const table = (heads, rows) => h("table", {}, h("thead", {}, h("tr", {}, heads.map((text) => h("th", { scope: "col", text })))), h("tbody", {}, rows));

function row(name, mark, what, schema, about = "") {
  const needed = mark ? h("div", { class: "needed", text: mark }) : null;
  const within = limits(schema);
  return h("tr", {}, h("td", {}, h("code", { text: name }), needed), h("td", {}, what, within ? h("div", { class: "limits", text: within }) : null, about ? prose(about) : null));
}

/** A minimal body, as a start. */
function example(schema) {
  const found = resolved(schema);
  if (found.enum) return found.enum[0];
  const choice = found.oneOf?.[0] ?? found.anyOf?.[0];
  if (found.properties) {
    const needed = found.required ?? choice?.required ?? [];
    return Object.fromEntries(needed.map((name) => [name, example(found.properties[name])]));
  }
  if (choice) return example(choice);
  return { array: [], object: {}, integer: 1, number: 1, boolean: true }[found.type] ?? "…";
}

function curl(method, path, operation) {
  const parts = [`curl -X ${method} '${location.origin}${path}'`];
  if (operation.security) parts.push('-H "Authorization: Bearer $JWT_TOKEN"');
  const body = operation.requestBody?.content["application/json"];
  if (body) parts.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(example(body.schema))}'`);
  return parts.join(" \\\n  ");
}

function answers(operation) {
  return Object.entries(operation.responses).map(([status, given]) => {
    const answer = resolved(given);
    const isGood = Number(status) < 400;
    const content = Object.entries(answer.content ?? {}).map(([type, { schema }]) =>
      h("details", {}, h("summary", {}, h("code", { text: type }), ` ${nameOf(schema) ?? ""}`), fields(schema, true)));
    return h("tr", {}, h("td", { class: isGood ? "status" : "status bad", text: status }), h("td", {}, prose(answer.description), isGood ? content : null));
  });
}

function parameters(operation) {
  return operation.parameters.map((each) => row(each.name, each.required && "needed", h("code", { text: `${each.in}: ${kind(each.schema)}` }), each.schema, each.description));
}

function about(method, path, operation) {
  const body = operation.requestBody?.content["application/json"].schema;
  return h("div", { class: "about" },
    operation.description ? prose(operation.description) : null,
    operation.parameters.length ? [h("h3", { text: "Reads" }), table(["name", "is"], parameters(operation))] : null,
    body ? [h("h3", { text: `Body: ${kind(body)}` }), ...prose(operation.requestBody.description), fields(body)] : null,
    [h("h3", { text: "Answers" }), table(["status", "when"], answers(operation))],
    [h("h3", { text: "With curl" }), h("pre", { tabindex: "0" }, h("code", { text: curl(method, path, operation) }))]);
}

function shown(method, path, operation) {
  const details = h("details", { class: "operation", id: operation.operationId },
    h("summary", {}, h("span", { class: `method ${method.toLowerCase()}`, text: method }), h("span", { class: "path", text: path }), h("span", { class: "quiet" }, words(operation.summary))));
  // Filled when it is first opened: all of them at once would be ten thousand elements.
  details.addEventListener("toggle", () => details.open && fill());
  const fill = () => details.childElementCount === 1 && details.append(about(method, path, operation));
  const codes = Object.values(operation.responses).map((each) => each.$ref ?? "").join(" ");
  const text = `${method} ${path} ${operation.operationId} ${operation.summary} ${operation.description ?? ""} ${codes}`.toLowerCase();
  operations.push({ details, text, tag: operation.tags[0] });
  return details;
}

function filter() {
  const wanted = search.value.trim().toLowerCase().split(/\s+/);
  for (const { details, text } of operations) details.hidden = !wanted.every((word) => text.includes(word));
  for (const section of main.querySelectorAll("section")) section.hidden = !section.querySelector(".operation:not([hidden])");
  document.getElementById("none").hidden = operations.some(({ details }) => !details.hidden);
}

/** Opens the operation in the address. */
function follow() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!named || named === main) return;
  if (named.tagName === "DETAILS") named.open = true;
  named.scrollIntoView();
  (named.querySelector("summary") ?? named).focus({ preventScroll: true });
}

function build() {
  const byTag = Map.groupBy(
    Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => [method.toUpperCase(), path, operation])),
    ([, , operation]) => operation.tags[0],
  );
  const sections = api.tags.map((tag) => h("section", { "aria-labelledby": `tag-${tag.name}` },
    h("h2", { id: `tag-${tag.name}`, tabindex: "-1", text: tag.name }),
    h("p", { class: "quiet" }, words(tag.description)),
    byTag.get(tag.name).map((each) => shown(...each))));
  nav.append(h("ul", {}, api.tags.map((tag) => h("li", {}, link(`#tag-${tag.name}`, tag.name)))));
  document.getElementById("version").textContent = `API ${api.info.version}`;
  main.append(h("div", { class: "reference" },
    h("h1", { text: api.info.title }), prose(api.info.description), h("p", { id: "none", class: "empty", role: "status", hidden: true, text: "Nothing matches." }), sections));
}

search.addEventListener("input", filter);
all.addEventListener("click", () => {
  const open = all.getAttribute("aria-expanded") === "false";
  for (const { details } of operations) details.open = open;
  all.setAttribute("aria-expanded", String(open));
  all.textContent = open ? "Close all" : "Open all";
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && document.activeElement !== search) {
    event.preventDefault();
    search.focus();
  }
});
addEventListener("hashchange", follow);

try {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`the sidecar answered ${answer.status}`);
  api = await answer.json();
  build();
  follow();
} catch (error) {
  main.append(h("p", { class: "problem", role: "alert", text: `The description cannot be read: ${error.message}` }));
}
