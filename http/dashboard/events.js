// The event log, live. The sidecar filters, so the list shows exactly the events that a wait with that filter would get.

import { get } from "./api.js";
import { Detail } from "./detail.js";
import { h, heading, setClass, setText } from "./dom.js";
import * as format from "./format.js";
import { sentenceOf } from "./sentences.js";
import { Stream } from "./stream.js";
import { VirtualList } from "./virtual.js";

const PAGE = 500;
const MOST = 10000;
const TOPICS = ["architecture", "implementation", "testing", "security", "deployment", "documentation", "error", "coordination", "system"];
const SYNTAX = [
  ["issue_id:issue-7", "a field of data, or of the event itself: event_type, topic, publisher, correlation_id …"],
  ["result.status:failed", "dots go deeper"],
  ["a:1,b:2", "both must hold"],
  ["a:1|2", "either value; also a:1|b:2"],
  ["!status:success", "not"],
  ["agent_id:python-*", "a pattern"],
  ["coverage:>=90", "numbers: > >= < <="],
  ['message:"x, y: z"', 'quotes for a value that holds , | : * "'],
];

function row() {
  return h("div", { class: "event-row" }, ["time", "type", "topic", "who", "issue", "data"].map((name) => h("span", { class: name })));
}

function fill(node, event) {
  const [time, type, topic, who, issue, data] = node.children;
  setText(time, format.clock(event.timestamp, true));
  setText(type, event.event_type);
  setText(topic, event.topic);
  const sentence = sentenceOf(event);
  setText(who, sentence.who);
  setText(issue, event.data.issue_id ?? "");
  setText(data, format.cut(sentence.what));
  setClass(node, sentence.isBad ? "event-row bad" : "event-row");
  node.dataset.key = event.event_id;
}

export function eventsView({ query }) {
  let events = [];
  let older = null;
  let isAsking = false;
  let mayBeLive = false;
  let stream = null;
  let asked = 0;
  const box = h("input", { type: "search", value: query.get("filter") ?? "", placeholder: "issue_id:issue-7,!topic:system", "aria-label": "Filter", "aria-describedby": "filter-problem", spellcheck: "false", autocomplete: "off" });
  const topics = h("select", { "aria-label": "Topic" }, h("option", { value: "", text: "Every topic" }), TOPICS.map((name) => h("option", { value: name, text: name })));
  topics.value = query.get("topic") ?? "";
  const problem = h("p", { class: "problem code", id: "filter-problem", role: "alert" });
  const state = h("span", { class: "state idle", text: "off" });
  const total = h("span", { class: "quiet" });
  const detail = new Detail("Event");
  const list = new VirtualList({ label: "Events, newest first", rowHeight: 28, make: row, fill, onOpen: (event) => detail.showEvent(event), onEnd: () => void loadOlder() });
  const nothing = h("p", { class: "empty", text: "No events." });
  const help = h("details", { class: "help" }, h("summary", { text: "Syntax" }),
    h("dl", { class: "facts" }, SYNTAX.map(([example, meaning]) => [h("dt", { class: "code", text: example }), h("dd", { text: meaning })]).flat()));
  const form = h("form", { class: "bar", role: "search", on: { submit: apply } }, box, topics, h("button", { type: "submit", text: "Show" }), help);
  topics.addEventListener("change", () => form.requestSubmit());

  function apply(event) {
    event.preventDefault();
    const wanted = new URLSearchParams();
    if (box.value.trim()) wanted.set("filter", box.value.trim());
    if (topics.value) wanted.set("topic", topics.value);
    // Only the address changes: the view stays, and so does the focus.
    history.replaceState(null, "", `#/events${wanted.size ? `?${wanted}` : ""}`);
    void load();
  }

  async function load() {
    const number = ++asked;
    stream?.close();
    stream = null;
    const filter = box.value.trim();
    let page;
    try {
      page = await get("/api/events", { filter, topic: topics.value, limit: PAGE });
    } catch (error) {
      if (error.code !== "EVT_003") throw error;
      const at = error.details.position ?? 0;
      setText(problem, `${filter}\n${" ".repeat(at)}^ expected ${error.details.expected}`);
      return;
    }
    if (number !== asked) return;
    setText(problem, "");
    events = page.events;
    older = page.next_cursor;
    list.element.scrollTop = 0;
    list.show(events);
    showTotal(page.total);
    stream = new Stream({ filter, topics: topics.value, onEvents: add, onState: showState });
    if (mayBeLive) stream.open(events[0]?.event_id);
  }

  function add(fresh) {
    events = [...fresh.reverse(), ...events].slice(0, MOST);
    list.show(events, fresh.length);
    showTotal(Number(total.dataset.value) + fresh.length);
  }

  async function loadOlder() {
    if (!older || isAsking || events.length >= MOST) return;
    isAsking = true;
    const number = asked;
    try {
      const page = await get("/api/events", { filter: box.value.trim(), topic: topics.value, limit: PAGE, cursor: older });
      if (number !== asked) return;
      events = [...events, ...page.events].slice(0, MOST);
      older = page.next_cursor;
      list.show(events);
    } finally {
      isAsking = false;
    }
  }

  function showTotal(n) {
    total.dataset.value = String(n);
    total.dataset.source = "events:total";
    setText(total, format.plural(n, "event"));
    nothing.hidden = events.length > 0;
  }

  function showState(now) {
    setText(state, now);
    setClass(state, `state ${{ live: "good", connecting: "warn", off: "idle" }[now]}`);
  }

  return {
    title: "Events",
    element: h("div", { class: "view fills" }, heading("Events", total, state), form, problem, h("div", { class: "split" }, h("div", { class: "main-pane" }, nothing, list.element), detail.element)),
    refresh: () => (asked ? undefined : load()),
    live(isLive) {
      mayBeLive = isLive;
      if (isLive) stream?.open(events[0]?.event_id);
      else stream?.close();
    },
    close() {
      asked = -1;
      stream?.close();
      list.size.disconnect();
    },
  };
}
