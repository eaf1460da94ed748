// All agents: their states, resources, and buttons to stop, restart and spawn.

import { call, currentProject, get, segment } from "./api.js";
import { ask } from "./dialog.js";
import { button, doing, h, heading, say, setText } from "./dom.js";
import * as format from "./format.js";
import { Table } from "./table.js";

export const STATE_ORDER = ["running", "starting", "stopping", "backing_off", "queued", "blocked", "failed", "stopped", "completed"];
const ENDED = ["failed", "stopped", "completed"];

export function stop(agent) {
  ask({
    title: `Stop ${agent.agent_id}?`,
    text: "Its whole process tree gets SIGTERM, then SIGKILL after the profile's stop_timeout_seconds. It is not restarted.",
    fields: [{ name: "force", label: "Kill it now", type: "checkbox" }],
    confirm: "Stop the agent",
    isDangerous: true,
    act: async ({ force }) => {
      const ended = await call("DELETE", `/api/agents/${segment(agent.agent_id)}`, { query: { force: force || undefined } });
      say(`${ended.agent_id} is ${ended.state}`);
    },
  });
}

export function restart(agent, control) {
  return doing(control, () => call("POST", `/api/agents/${segment(agent.agent_id)}/restart`), (now) => `${now.agent_id} is ${now.state}, incarnation ${now.incarnation}`);
}

export const isEnded = (agent) => ENDED.includes(agent.state);
export const isActive = (agent) => !isEnded(agent) && agent.state !== "queued" && agent.state !== "blocked";

function spawn(types, project) {
  ask({
    title: "Spawn an agent",
    fields: [
      { name: "agent_type", label: "Agent type", required: true, list: types, hint: "Its profile sets the command." },
      { name: "issue_id", label: "Issue", required: true },
      { name: "task", label: "Task", rows: 4 },
      { name: "priority", label: "Priority", options: ["low", "normal", "high"], value: "normal" },
      { name: "project_id", label: "Project", required: true, value: project },
    ],
    confirm: "Spawn",
    act: async (fields) => {
      const spawned = await call("POST", "/api/agents/spawn", { body: { ...fields, task: fields.task || undefined } });
      say(`${spawned.agent_id} is ${spawned.state}`);
      location.hash = `#/agents/${segment(spawned.agent_id)}`;
    },
  });
}

const COLUMNS = [
  { label: "State", class: "w-state", state: (a) => a.state, sort: (a) => STATE_ORDER.indexOf(a.state) },
  { label: "Agent", class: "id", text: (a) => a.agent_id, link: (a) => `#/agents/${segment(a.agent_id)}`, sort: (a) => a.agent_id },
  { label: "Issue", class: "id", text: (a) => a.issue_id, link: (a) => `#/issues/${segment(a.issue_id)}`, sort: (a) => a.issue_id },
  { label: "PID", number: (a) => a.process_id, format: String, field: "process_id", sort: (a) => a.process_id ?? 0 },
  { label: "CPU", number: (a) => a.cpu_percent, format: format.percent, field: "cpu_percent", sort: (a) => a.cpu_percent },
  { label: "Memory", number: (a) => a.memory_mb, format: format.megabytes, field: "memory_mb", sort: (a) => a.memory_mb },
  { label: "Restarts", number: (a) => a.restarts, format: format.count, field: "restarts", sort: (a) => a.restarts },
  { label: "Uptime", number: (a) => a.uptime_seconds, format: format.duration, field: "uptime_seconds", sort: (a) => a.uptime_seconds },
  { label: "Last error", class: "wide", text: (a) => a.waiting_for?.text ?? a.last_error ?? "" },
  { label: "", class: "acts", make: acts, update: (node, agent) => {
    node.agent = agent;
    node.firstChild.disabled = isEnded(agent);
  } },
];

function acts() {
  const node = h("span", {});
  node.append(
    button("Stop", () => stop(node.agent), { class: "small" }),
    button("Restart", (event) => restart(node.agent, event.currentTarget), { class: "small" }),
  );
  return node;
}

export function agentsView() {
  let agents = [];
  let state = "";
  const box = h("input", { type: "search", placeholder: "Type, issue, id …", "aria-label": "Show agents with", on: { input: () => show() } });
  const states = h("select", { "aria-label": "State", on: { change: () => { state = states.value; show(); } } },
    h("option", { value: "", text: "Every state" }), STATE_ORDER.map((name) => h("option", { value: name, text: name.replace("_", " ") })));
  const total = h("span", { class: "quiet", role: "status" });
  const table = new Table({ caption: "Agents", columns: COLUMNS, key: (a) => a.agent_id, order: 0, nothing: "No agents.", source: "agents" });
  const openForm = () => {
    const types = [...new Set(agents.map((agent) => agent.agent_type))].sort();
    spawn(types, currentProject() || agents[0]?.project_id || "default");
  };

  function show() {
    const wanted = box.value.trim().toLowerCase();
    const shown = agents.filter((a) => (!state || a.state === state) && (!wanted || [a.agent_id, a.agent_type, a.issue_id, a.project_id, a.task].some((text) => text.toLowerCase().includes(wanted))));
    table.show(shown);
    setText(total, shown.length === agents.length ? format.plural(agents.length, "agent") : `${shown.length} of ${format.plural(agents.length, "agent")}`);
  }

  return {
    title: "Agents",
    element: h("div", { class: "view" },
      heading("Agents", total, h("span", { class: "spring" }), box, states, button("Spawn an agent", openForm, { class: "primary" })),
      table.element),
    async refresh() {
      agents = (await get("/api/agents")).agents;
      show();
    },
  };
}
