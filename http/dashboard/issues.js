// All issues that agents have worked on, derived from agents and results.

import { isActive } from "./agents.js";
import { get, segment } from "./api.js";
import { h, heading, setText } from "./dom.js";
import * as format from "./format.js";
import { Table } from "./table.js";

const RESULTS = 500;

const COLUMNS = [
  { label: "State", class: "w-state", state: (i) => i.state, sort: (i) => i.state },
  { label: "Issue", class: "id", text: (i) => i.issue_id, link: (i) => `#/issues/${segment(i.issue_id)}`, sort: (i) => i.issue_id },
  { label: "Project", text: (i) => i.project_id, sort: (i) => i.project_id },
  { label: "Agents", number: (i) => i.agents, format: format.count, sort: (i) => i.agents },
  { label: "Active", number: (i) => i.active, format: format.count, sort: (i) => i.active },
  { label: "Failed", number: (i) => i.failed, format: format.count, sort: (i) => i.failed },
  { label: "Results", number: (i) => i.results, format: format.count, sort: (i) => i.results },
  { label: "Last change", text: (i) => (i.changed_at ? format.clock(i.changed_at) : ""), sort: (i) => i.changed_at },
  { label: "Agent types", class: "wide", text: (i) => [...i.types].join(", ") },
];

export function gather(agents, results) {
  const issues = new Map();
  const of = ({ project_id, issue_id }) => {
    const key = `${project_id}|${issue_id}`;
    if (!issues.has(key)) issues.set(key, { key, project_id, issue_id, agents: 0, active: 0, queued: 0, failed: 0, stopped: 0, completed: 0, results: 0, changed_at: "", types: new Set() });
    return issues.get(key);
  };
  for (const agent of agents) {
    const issue = of(agent);
    issue.agents += 1;
    issue[isActive(agent) ? "active" : agent.state] += 1;
    issue.types.add(agent.agent_type);
    for (const at of [agent.started_at, agent.ended_at]) if (at && at > issue.changed_at) issue.changed_at = at;
  }
  for (const result of results) {
    const issue = of(result);
    issue.results += 1;
    issue.types.add(result.agent_type);
    if (result.stored_at > issue.changed_at) issue.changed_at = result.stored_at;
  }
  for (const issue of issues.values()) issue.state = stateOf(issue);
  return [...issues.values()].sort((a, b) => (a.changed_at < b.changed_at ? 1 : -1));
}

/** If some agents were stopped and others completed, the work was done; results without an agent count as work done, too. */
function stateOf(issue) {
  if (issue.active) return "running";
  return ["queued", "failed", "completed", "stopped"].find((state) => issue[state]) ?? "completed";
}

export function issuesView() {
  let issues = [];
  const box = h("input", { type: "search", placeholder: "Issue, type …", "aria-label": "Show issues with", on: { input: () => show() } });
  const total = h("span", { class: "quiet", role: "status" });
  const note = h("p", { class: "quiet" });
  const table = new Table({ caption: "Issues", columns: COLUMNS, key: (i) => i.key, nothing: "No issues: no agent was spawned and no result stored yet." });

  function show() {
    const wanted = box.value.trim().toLowerCase();
    table.show(issues.filter((issue) => [issue.issue_id, ...issue.types].some((text) => text.toLowerCase().includes(wanted))));
    setText(total, format.plural(issues.length, "issue"));
  }

  return {
    title: "Issues",
    element: h("div", { class: "view" }, heading("Issues", total, h("span", { class: "spring" }), box), note, table.element),
    async refresh() {
      const [{ agents }, { results, total: stored }] = await Promise.all([get("/api/agents"), get("/api/results", { limit: RESULTS })]);
      issues = gather(agents, results);
      setText(note, stored > results.length ? `Counted over the newest ${results.length} of ${format.count(stored)} results.` : "");
      show();
    },
  };
}
