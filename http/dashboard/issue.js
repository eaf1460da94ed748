// One issue: its agents over time, the event or agent that caused each, and the outcome.

import { get, segment } from "./api.js";
import { Detail, quoted } from "./detail.js";
import { h, heading, link, setText } from "./dom.js";
import * as format from "./format.js";
import { IssueGraph } from "./issue_graph.js";
import { RESULT_COLUMNS, decisionsOf, showResult } from "./results.js";
import { Table } from "./table.js";

const EVENTS = 1000;

export function issueView({ id }) {
  let drawn = "";
  const detail = new Detail("Event or result");
  const graph = new IssueGraph({
    onEvent: (event) => detail.showEvent(event),
    onResult: (result) => showResult(detail, result),
    onAgent: (agentId) => { location.hash = `#/agents/${segment(agentId)}`; },
  });
  const total = h("span", { class: "quiet" });
  const decisions = h("ol", { class: "decisions" });
  const none = h("p", { class: "empty", text: "No decisions." });
  const table = new Table({ caption: "Results", columns: RESULT_COLUMNS.filter((c) => c.label !== "Issue"), key: (r) => r.id, nothing: "No results.", onOpen: (r) => showResult(detail, r) });

  return {
    title: id,
    element: h("div", { class: "view" },
      heading(id, total, h("span", { class: "spring" }), link("#/issues", "All issues"), link(`#/events?filter=${segment(`issue_id:${quoted(id)}`)}`, "Its events")),
      h("div", { class: "split" },
        h("div", { class: "main-pane" },
          h("section", { "aria-label": "Over time" }, graph.element),
          h("section", {}, h("h2", { text: "Decisions" }), none, decisions),
          h("section", {}, h("h2", { text: "Results" }), table.element)),
        detail.element)),
    async refresh() {
      const [{ agents, timestamp }, { results }, { events }] = await Promise.all([
        get("/api/agents"),
        get("/api/results", { issue_id: id, limit: 500 }),
        get("/api/events", { filter: `issue_id:${quoted(id)}`, limit: EVENTS }),
      ]);
      const mine = agents.filter((agent) => agent.issue_id === id);
      const now = mine.some((agent) => agent.ended_at === null) ? Date.parse(timestamp) : 0;
      const print = JSON.stringify([mine.map((agent) => [agent.agent_id, agent.state, agent.incarnation]), results.length, events[0]?.event_id, now]);
      if (print === drawn) return;
      drawn = print;
      setText(total, `${format.plural(mine.length, "agent")}, ${format.plural(results.length, "result")}, ${format.plural(events.length, "event")}`);
      graph.show({ agents: mine, results, events: events.reverse(), now });
      table.show(results);
      const decided = results.toReversed().flatMap((result) => decisionsOf(result).map((text) => ({ text, result })));
      none.hidden = decided.length > 0;
      decisions.replaceChildren(...decided.map(({ text, result }) => h("li", {}, h("span", { text }), h("span", { class: "quiet", text: `${result.agent_type}, ${format.clock(result.stored_at)}` }))));
    },
  };
}
