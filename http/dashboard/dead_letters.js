// Events that a mailbox gave up on because agents kept dying with them. Replay delivers them again.

import { call, get, segment } from "./api.js";
import { button, doing, h, heading, setText } from "./dom.js";
import * as format from "./format.js";
import { agentLink } from "./known_agents.js";
import { sentenceOf } from "./sentences.js";
import { Table } from "./table.js";

const COLUMNS = [
  { label: "Given up", text: (l) => format.clock(l.given_up_at), sort: (l) => l.given_up_at },
  { label: "Event", class: "code", text: (l) => l.event.event_id, link: (l) => `#/events?filter=${segment(`event_id:${l.event.event_id}`)}` },
  { label: "Type", text: (l) => l.event.event_type, sort: (l) => l.event.event_type },
  { label: "Agent", class: "id", make: (l) => agentLink(l.agent_id), update: () => {}, sort: (l) => l.agent_id },
  { label: "Filter", class: "code", text: (l) => l.filter },
  { label: "What", class: "wide", text: (l) => format.cut(sentenceOf(l.event).what) },
  { label: "Replayed", text: (l) => (l.replayed_at ? format.clock(l.replayed_at) : "") },
  { label: "", class: "acts", make: replayButton, update: () => {} },
];

function replayButton(letter) {
  const path = `/api/events/dead-letters/${segment(letter.event.event_id)}/replay`;
  const replay = (event) =>
    doing(event.currentTarget, () => call("POST", path), (done) => `${done.event_id} is given again to ${format.plural(done.mailboxes, "mailbox", "mailboxes")}`);
  return button("Replay", replay, { class: "small" });
}

export function deadLettersView() {
  const total = h("span", { class: "quiet", role: "status" });
  const table = new Table({
    caption: "Dead letters", columns: COLUMNS, nothing: "No dead letters.", source: "dead_letters",
    key: (l) => [l.event.event_id, l.agent_id, l.event_types, l.topics, l.filter, l.consumer].join("|"),
  });
  return {
    title: "Dead letters",
    element: h("div", { class: "view" },
      heading("Dead letters", total),
      h("p", { class: "quiet", text: "After five deliveries to incarnations that died before they acknowledged it, an event becomes a dead letter and its mailbox continues." }),
      table.element),
    async refresh() {
      const answer = await get("/api/events/dead-letters");
      table.show(answer.dead_letters);
      setText(total, format.plural(answer.total, "dead letter"));
    },
  };
}
