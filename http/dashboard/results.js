// Results as agents stored them, newest first.

import { get, segment } from "./api.js";
import { Detail, facts, json } from "./detail.js";
import { button, h, heading, setText } from "./dom.js";
import * as format from "./format.js";
import { agentLink } from "./known_agents.js";
import { Table } from "./table.js";

const PAGE = 100;

export const decisionsOf = (result) => {
  const { decisions, decision } = result.result;
  const listed = Array.isArray(decisions) ? decisions : decision === undefined ? [] : [decision];
  return listed.map((each) => (typeof each === "string" ? each : (each?.decision ?? each?.title ?? JSON.stringify(each))));
};

export const RESULT_COLUMNS = [
  { label: "Status", class: "w-state", state: (r) => r.status, sort: (r) => r.status },
  { label: "Stored", text: (r) => format.clock(r.stored_at), sort: (r) => r.stored_at },
  { label: "Agent", class: "id", make: (r) => agentLink(r.agent_id), update: () => {}, sort: (r) => r.agent_id },
  { label: "Issue", class: "id", text: (r) => r.issue_id, link: (r) => `#/issues/${segment(r.issue_id)}`, sort: (r) => r.issue_id },
  { label: "Decisions", class: "wide", text: (r) => decisionsOf(r).join(" · ") },
];

export function showResult(detail, result) {
  detail.show(
    result.agent_type,
    facts([
      ["Id", result.id],
      ["Status", result.status],
      ["Stored", format.clock(result.stored_at, true)],
      ["Agent", agentLink(result.agent_id)],
      ["Issue", result.issue_id, `#/issues/${segment(result.issue_id)}`],
      ["Project", result.project_id],
    ]),
    decisionsOf(result).length ? h("ul", {}, decisionsOf(result).map((text) => h("li", { text }))) : "",
    json(result.result),
  );
}

export function resultsView({ query }) {
  let results = [];
  let cursor = null;
  let isWhole = false; // older pages were asked for: what is shown no longer follows the newest
  let asked = 0; // an answer that comes when something else was asked meanwhile is not shown
  const issue = h("input", { type: "search", value: query.get("issue_id") ?? "", placeholder: "Issue", "aria-label": "Issue" });
  const type = h("input", { type: "search", value: query.get("agent_type") ?? "", placeholder: "Agent type", "aria-label": "Agent type" });
  const status = h("select", { "aria-label": "Status" }, h("option", { value: "", text: "Every status" }), ["success", "partial", "failed"].map((name) => h("option", { value: name, text: name })));
  const problem = h("p", { class: "problem", role: "alert" });
  const total = h("span", { class: "quiet", data: { source: "results:total" } });
  const detail = new Detail("Result");
  const table = new Table({ caption: "Results", columns: RESULT_COLUMNS, key: (r) => r.id, nothing: "No results.", onOpen: (r) => showResult(detail, r), source: "results" });
  const more = button("Older", () => void loadOlder());
  const form = h("form", { class: "bar", role: "search", on: { submit: apply } }, issue, type, status, h("button", { type: "submit", text: "Show" }));
  status.addEventListener("change", () => form.requestSubmit());

  const wanted = () => ({ issue_id: issue.value.trim(), agent_type: type.value.trim(), status: status.value, limit: PAGE });

  function apply(event) {
    event.preventDefault();
    isWhole = false;
    void load();
  }

  async function load() {
    const mine = ++asked;
    try {
      const page = await get("/api/results", wanted());
      if (mine !== asked) return;
      setText(problem, "");
      results = page.results;
      show(page);
    } catch (error) {
      if (error.status !== 400) throw error;
      setText(problem, error.message);
    }
  }

  async function loadOlder() {
    const mine = ++asked;
    isWhole = true;
    try {
      const page = await get("/api/results", { ...wanted(), cursor });
      if (mine !== asked) return;
      results = [...results, ...page.results];
      show(page);
    } catch (error) {
      isWhole = false;
      throw error;
    }
  }

  function show(page) {
    cursor = page.next_cursor;
    more.hidden = !cursor;
    total.dataset.value = String(page.total);
    setText(total, format.plural(page.total, "result"));
    table.show(results);
  }

  return {
    title: "Results",
    element: h("div", { class: "view" }, heading("Results", total), form, problem, h("div", { class: "split" }, h("div", { class: "main-pane" }, table.element, more), detail.element)),
    refresh: () => (isWhole ? undefined : load()),
  };
}
