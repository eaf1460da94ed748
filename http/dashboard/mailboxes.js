// Mailboxes: the agent and its question, its position in the log, and its gaps.

import { get } from "./api.js";
import { h, heading, setClass, setText } from "./dom.js";
import * as format from "./format.js";
import { agentLink } from "./known_agents.js";
import { Table } from "./table.js";

const asked = (m) => [m.event_types.join(", "), m.topics.length ? `topics ${m.topics.join(", ")}` : ""].filter(Boolean).join(" · ") || "every event";

export const mailboxKey = (m) => [m.project_id, m.agent_id, m.event_types, m.topics, m.filter, m.consumer].join("|");

const COLUMNS = [
  { label: "Now", class: "w-state", make: () => h("span"), update: showWait, sort: (m) => (m.waited_on ? 0 : 1) },
  { label: "Agent", class: "id", make: (m) => agentLink(m.agent_id), update: () => {}, sort: (m) => m.agent_id },
  { label: "Asks for", text: asked, sort: asked },
  { label: "Filter", class: "code", text: (m) => m.filter },
  { label: "Consumer", text: (m) => m.consumer },
  { label: "Place", class: "code", text: (m) => m.position, sort: (m) => m.position },
  { label: "Lag", number: (m) => m.lag, format: format.count, field: "lag", sort: (m) => m.lag },
  { label: "Deliveries", number: (m) => m.deliveries, format: format.count, field: "deliveries", sort: (m) => m.deliveries },
  { label: "Gap", text: (m) => (m.gap ? `at most ${format.count(m.gap.dropped_at_most)} by ${m.gap.reason}, up to ${m.gap.to}` : ""), sort: (m) => m.gap?.dropped_at_most ?? 0, tone: (m) => (m.gap ? "problem" : "") },
  { label: "Last used", text: (m) => format.clock(m.last_used_at), sort: (m) => m.last_used_at },
];
function showWait(node, mailbox) {
  setText(node, mailbox.waited_on ? "is waited on" : "idle");
  setClass(node, mailbox.waited_on ? "state good" : "state idle");
}

export function mailboxesView() {
  const total = h("span", { class: "quiet", role: "status" });
  const table = new Table({ caption: "Mailboxes", columns: COLUMNS, key: mailboxKey, order: 0, nothing: "No mailboxes: no agent has waited for an event yet.", source: "mailboxes" });
  return {
    title: "Mailboxes",
    element: h("div", { class: "view" },
      heading("Mailboxes", total),
      h("p", { class: "quiet", text: "Each question that an agent asks has its own position in the log. Lag counts the matching events after that position." }),
      table.element),
    async refresh() {
      const { mailboxes } = await get("/api/mailboxes");
      table.show(mailboxes);
      setText(total, format.plural(mailboxes.length, "mailbox", "mailboxes"));
    },
  };
}
