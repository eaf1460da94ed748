// One agent: its fields, its incarnations over time, its live log, its results, contexts and events.

import { get, segment } from "./api.js";
import { isEnded, restart, stop } from "./agents.js";
import { Detail, facts, json, quoted } from "./detail.js";
import { button, empty, h, heading, link, setNumber, setState } from "./dom.js";
import * as format from "./format.js";
import { Incarnations } from "./incarnations.js";
import { LogPane } from "./log_pane.js";
import { RESULT_COLUMNS, showResult } from "./results.js";
import { sentenceOf } from "./sentences.js";
import { Stream } from "./stream.js";
import { Table } from "./table.js";

const EVENTS_KEPT = 300;

const NUMBERS = [
  ["PID", "process_id", String],
  ["Exit code", "exit_code", String],
  ["Incarnation", "incarnation", format.count],
  ["Restarts", "restarts", format.count],
  ["Uptime", "uptime_seconds", format.duration],
  ["CPU", "cpu_percent", format.percent],
  ["Memory", "memory_mb", format.megabytes],
];

const EVENT_COLUMNS = [
  { label: "At", class: "code", text: (e) => format.clock(e.timestamp, true) },
  { label: "Event", text: (e) => e.event_type },
  { label: "Topic", text: (e) => e.topic },
  { label: "What", class: "wide", text: (e) => format.cut(sentenceOf(e).what), tone: (e) => (sentenceOf(e).isBad ? "problem" : "") },
];

/** The input of a context request, in one line; the agent's own task if it named nothing. */
const wantedBy = (c) => [c.q, c.requirements.join(", "), c.files.join(", ")].filter(Boolean).join(" · ") || "its task";

const CONTEXT_COLUMNS = [
  { label: "At", class: "code", text: (c) => format.clock(c.at, true) },
  { label: "Outcome", text: (c) => c.outcome },
  { label: "Files", number: (c) => c.file_count, format: format.count, field: "file_count" },
  { label: "Size", number: (c) => c.size_bytes, format: format.bytes, field: "size_bytes" },
  { label: "Took", number: (c) => c.took_ms, format: format.milliseconds, field: "took_ms" },
  { label: "Cached", text: (c) => (c.cache_hit ? "yes" : "no") },
  { label: "Cut by", text: (c) => c.truncation_strategy },
  { label: "Asked for", class: "wide", text: wantedBy },
];

function showContext(detail, context) {
  detail.show(
    "context",
    facts([
      ["At", format.clock(context.at, true)],
      ["Issue", context.issue_id, `#/issues/${segment(context.issue_id)}`],
      ["Agent type", context.agent_type],
      ["Query", context.q],
      ["Requirements", context.requirements.join(", ")],
      ["Files", context.files.join(", ")],
      ["Outcome", context.outcome],
    ]),
    json(context),
  );
}

export function agentView({ id }) {
  let agent = null;
  let events = [];
  let mayBeLive = false;
  let isNobody = false;
  const state = h("span");
  const numbers = NUMBERS.map(([label, field, shown]) => ({ label, field, shown, value: h("dd") }));
  const about = h("div");
  const stopButton = button("Stop", () => stop(agent), { hidden: true });
  const restartButton = button("Restart", (event) => restart(agent, event.currentTarget), { hidden: true });
  const incarnations = new Incarnations();
  const detail = new Detail("Event, result or context");
  const eventTable = new Table({ caption: "Events", columns: EVENT_COLUMNS, key: (e) => e.event_id, nothing: "No events.", onOpen: (e) => detail.showEvent(e) });
  const resultTable = new Table({ caption: "Results", columns: RESULT_COLUMNS.filter((c) => c.label !== "Agent"), key: (r) => r.id, nothing: "No results.", onOpen: (r) => showResult(detail, r) });
  const contextTable = new Table({ caption: "Contexts", columns: CONTEXT_COLUMNS, key: (c) => c.at, nothing: "It has asked for no context, or the sidecar was restarted since.", onOpen: (c) => showContext(detail, c), source: "contexts" });
  const logs = new LogPane(id);
  const filter = `agent_id:${quoted(id)}|publisher:${quoted(id)}`;
  const stream = new Stream({ filter, onEvents: add });

  function add(fresh) {
    events = [...fresh.reverse(), ...events].slice(0, EVENTS_KEPT);
    showEvents();
  }

  function showEvents() {
    eventTable.show(events);
    incarnations.show(events, agent);
  }

  function show() {
    setState(state, agent.state);
    for (const { field, shown, value } of numbers) setNumber(value, agent[field], shown, `agent:${field}`);
    stopButton.hidden = restartButton.hidden = false;
    stopButton.disabled = isEnded(agent);
    const by = agent.requested_by;
    const rows = [
      ["Type", agent.agent_type],
      ["Issue", agent.issue_id, `#/issues/${segment(agent.issue_id)}`],
      ["Project", agent.project_id],
      ["Asked for by", agent.triggered_by ? `a trigger on ${agent.triggered_by}` : by, agent.triggered_by ? `#/events?filter=${segment(`event_id:${agent.triggered_by}`)}` : null],
      ["Started", agent.started_at && format.clock(agent.started_at, true)],
      ["Ended", agent.ended_at && `${format.clock(agent.ended_at, true)} by ${agent.cause}`],
      ["Task", agent.task],
      ["Waits for", agent.waiting_for?.text],
      ["Last error", agent.last_error],
    ];
    const text = JSON.stringify(rows);
    if (about.dataset.shown !== text) {
      about.dataset.shown = text;
      about.replaceChildren(facts(rows));
    }
  }

  const element = h("div", { class: "view" },
    heading(id, state, h("span", { class: "spring" }), link("#/agents", "All agents"), stopButton, restartButton),
    h("dl", { class: "tiles" }, numbers.map(({ label, value }) => h("div", {}, h("dt", { text: label }), value))),
    about,
    h("section", {}, h("h2", { text: "Incarnations" }), incarnations.element),
    h("div", { class: "split" },
      h("div", { class: "main-pane" },
        h("section", {}, h("h2", { text: "Log" }), logs.element),
        h("section", {}, h("h2", { text: "Results" }), resultTable.element),
        h("section", {}, h("h2", { text: "Contexts" }), contextTable.element),
        h("section", {}, h("h2", { text: "Events" }), eventTable.element)),
      detail.element));

  /** Keeps the heading, and with it the focus. */
  function showNobody() {
    isNobody = true;
    close();
    for (const each of [state, stopButton, restartButton]) each.remove();
    element.replaceChildren(element.firstChild, empty("There is no agent of this name: none was spawned here, or it ended long ago and left the list."));
  }

  function close() {
    stream.close();
    logs.follow(false);
  }

  return {
    title: id,
    element,
    async refresh() {
      if (isNobody) return;
      const isFirst = agent === null;
      try {
        agent = await get(`/api/agents/${segment(id)}`);
      } catch (error) {
        if (error.status !== 404) throw error;
        return showNobody();
      }
      show();
      if (isFirst) {
        events = (await get("/api/events", { filter, limit: EVENTS_KEPT, project_id: agent.project_id })).events;
        if (mayBeLive) stream.open(events[0]?.event_id);
        logs.follow(mayBeLive);
      }
      showEvents();
      const [{ results }, { contexts }] = await Promise.all([
        get("/api/results", { agent_id: id, limit: 50, project_id: agent.project_id }),
        get(`/api/agents/${segment(id)}/contexts`),
      ]);
      resultTable.show(results);
      contextTable.show(contexts);
    },
    live(isLive) {
      mayBeLive = isLive;
      if (!agent || isNobody) return;
      if (isLive) stream.open(events[0]?.event_id);
      else stream.close();
      logs.follow(isLive);
    },
    close,
  };
}
