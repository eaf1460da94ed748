// An issue over time: a lane for each agent with its incarnations, marks for events and results, and an arrow to the
// start of each agent from its cause: the event that triggered it, or the agent that spawned it.

import { h, svg } from "./dom.js";
import { livesOf, toneOf } from "./incarnations.js";
import { Timescale } from "./timescale.js";

const NARROWEST = 640;
const LANE = 36;
const TOP = 22;
const LEFT = 190;
const LIFECYCLE = /^agent_(spawned|started|exited|restarting|stopped|adopted|lost)$/;

export class IssueGraph {
  constructor({ onEvent, onResult, onAgent }) {
    this.onEvent = onEvent;
    this.onResult = onResult;
    this.onAgent = onAgent;
    this.picture = h("div", { class: "drawing" });
    this.width = NARROWEST;
    this.shown = null;
    new ResizeObserver(() => this.fit()).observe(this.picture);
    this.element = h("figure", { class: "graph" }, this.picture, legend());
  }

  /** Draws it as wide as the available space, so that its text keeps the size of the other text. */
  fit() {
    const width = Math.max(NARROWEST, this.picture.clientWidth - 16);
    if (width === this.width) return;
    this.width = width;
    if (this.shown) this.show(this.shown);
  }

  /** events: oldest first. now: the end of agents that still run; 0 if none runs. */
  show(shown) {
    this.shown = shown;
    const { agents, results, events, now } = shown;
    const lanes = lanesOf(agents, results, events);
    if (!lanes.length) {
      this.picture.replaceChildren(h("p", { class: "empty", text: "No agent has worked on this issue yet." }));
      return;
    }
    const times = [...events.map((e) => Date.parse(e.timestamp)), ...results.map((r) => Date.parse(r.stored_at)), ...agents.flatMap((a) => [a.started_at, a.ended_at]).filter(Boolean).map(Date.parse)];
    const height = TOP + lanes.length * LANE + 6;
    const scale = new Timescale(Math.min(...times), Math.max(...times, now), LEFT, this.width - 16);
    const place = new Map(lanes.map((lane, at) => [lane.id, TOP + at * LANE + LANE / 2]));
    this.picture.replaceChildren(svg("svg", { viewBox: `0 0 ${this.width} ${height}`, role: "group", "aria-label": "Agents over time" },
      svg("defs", {}, svg("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, svg("path", { class: "arrowhead", d: "M0 0L8 4L0 8Z" }))),
      scale.marks(height),
      lanes.map((lane) => this.lane(lane, scale, place.get(lane.id), now)),
      lanes.map((lane) => arrow(lane, events, scale, place)).filter(Boolean),
      events.filter(isOwn).map((event) => this.mark(event, scale, place)),
      results.map((result) => this.result(result, scale, place)),
    ));
  }

  lane(lane, scale, y, now) {
    const name = svg("text", lane.agent ? { x: 4, y: y + 4, class: "name", tabindex: "0", role: "link" } : { x: 4, y: y + 4, class: "tick start" });
    name.textContent = lane.type.length > 24 ? `${lane.type.slice(0, 23)}…` : lane.type;
    if (lane.agent) opens(name, `${lane.id}, ${lane.lives.at(-1)?.end ?? "not started"}`, () => this.onAgent(lane.id));
    const bars = lane.lives.map((life) => {
      const from = scale.x(life.from);
      const width = Math.max(3, scale.x(life.to ?? now) - from);
      const bar = svg("rect", { x: from.toFixed(1), y: y - 7, width: width.toFixed(1), height: 14, rx: 3, class: `life ${toneOf(life.end)}` });
      return titled(bar, `${lane.id} #${life.incarnation}: ${life.end}`);
    });
    return svg("g", {}, svg("line", { class: "lane", x1: LEFT, x2: this.width - 16, y1: y, y2: y }), name, bars);
  }

  mark(event, scale, place) {
    const y = place.get(laneOf(event));
    const mark = svg("circle", { cx: scale.x(Date.parse(event.timestamp)).toFixed(1), cy: y + 8, r: 4.5, class: `mark ${event.topic === "error" ? "bad" : "event"}`, tabindex: "0", role: "button" });
    return opens(mark, `event ${event.event_type}`, () => this.onEvent(event));
  }

  result(result, scale, place) {
    const x = scale.x(Date.parse(result.stored_at));
    const y = place.get(result.agent_id) - 6;
    const mark = svg("path", { d: `M${x.toFixed(1)} ${y - 7}l6 7l-6 7l-6 -7Z`, class: `mark ${result.status === "success" ? "good" : result.status === "partial" ? "warn" : "bad"}`, tabindex: "0", role: "button" });
    return opens(mark, `result of ${result.agent_type}: ${result.status}`, () => this.onResult(result));
  }
}

function lanesOf(agents, results, events) {
  const lanes = new Map();
  const lane = (id, type) => {
    if (!lanes.has(id)) lanes.set(id, { id, type, lives: [], agent: null, begins: "" });
    return lanes.get(id);
  };
  for (const agent of agents) lane(agent.agent_id, agent.agent_type).agent = agent;
  for (const result of results) lane(result.agent_id, result.agent_type);
  // Publishers of events about the issue that are not its agents: an operator, a program.
  for (const event of events) if (isOwn(event)) lane(laneOf(event), event.publisher_type);
  for (const each of lanes.values()) {
    each.lives = livesOf(events.filter((event) => event.data.agent_id === each.id));
    each.begins = each.lives[0]?.from ?? Date.parse(each.agent?.started_at ?? results.find((result) => result.agent_id === each.id)?.stored_at ?? events.find((event) => laneOf(event) === each.id)?.timestamp ?? 0);
  }
  return [...lanes.values()].sort((a, b) => a.begins - b.begins);
}

/** An event that an agent or operator published, not the sidecar; results have their own mark. */
const isOwn = (event) => !LIFECYCLE.test(event.event_type) && event.event_type !== "result_stored";

const laneOf = (event) => (event.publisher === "sidecar" ? event.data.agent_id : event.publisher);

function arrow({ id, agent, begins }, events, scale, place) {
  const cause = agent?.triggered_by ? events.find((event) => event.event_id === agent.triggered_by) : null;
  const from = cause ? laneOf(cause) : agent?.requested_by;
  if (!place.has(from) || from === id) return null;
  const x1 = scale.x(cause ? Date.parse(cause.timestamp) : begins);
  const x2 = scale.x(begins);
  const [y1, y2] = [place.get(from), place.get(id)];
  const side = y2 > y1 ? -8 : 8;
  const curve = svg("path", { class: "arrow", d: `M${x1.toFixed(1)} ${y1}C${x1.toFixed(1)} ${(y1 + y2) / 2} ${x2.toFixed(1)} ${(y1 + y2) / 2} ${x2.toFixed(1)} ${y2 + side}`, "marker-end": "url(#arrow)" });
  return titled(curve, cause ? `${cause.event_type} of ${from} started ${id}` : `${from} spawned ${id}`);
}

function titled(node, text) {
  const title = svg("title");
  title.textContent = text;
  node.append(title);
  return node;
}

function opens(node, label, act) {
  node.setAttribute("aria-label", label);
  node.addEventListener("click", act);
  node.addEventListener("keydown", (event) => event.key === "Enter" && act());
  return titled(node, label);
}

function legend() {
  const item = (shape, text) => h("span", {}, svg("svg", { viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": "true" }, shape), ` ${text}`);
  return h("figcaption", { class: "quiet" },
    item(svg("rect", { x: 0, y: 4, width: 16, height: 8, rx: 2, class: "life done" }), "incarnation"),
    item(svg("circle", { cx: 8, cy: 8, r: 4.5, class: "mark event" }), "event"),
    item(svg("path", { d: "M8 2l6 6l-6 6l-6 -6Z", class: "mark good" }), "result"),
    item(svg("path", { d: "M1 8H15", class: "arrow" }), "led to"));
}
