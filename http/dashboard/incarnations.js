// The incarnations of an agent as bars over time, from its lifecycle events.

import { h, svg } from "./dom.js";
import { duration } from "./format.js";
import { Timescale } from "./timescale.js";

const NARROWEST = 640;
const ROW = 22;
const TOP = 20;
const LEFT = 46;

/** [{incarnation, from, to, end}] of one agent, oldest first. events: in any order; to: null while it runs. */
export function livesOf(events) {
  const lives = new Map();
  const ordered = [...events].sort((a, b) => (a.event_id < b.event_id ? -1 : 1));
  for (const { event_type: type, data, timestamp } of ordered) {
    if (data.incarnation === undefined) continue;
    const at = Date.parse(timestamp);
    if (type === "agent_started") lives.set(data.incarnation, { incarnation: data.incarnation, from: at, to: null, end: "runs" });
    const life = lives.get(data.incarnation);
    if (life && ["agent_exited", "agent_stopped", "agent_lost", "agent_failed"].includes(type) && life.to === null) {
      life.to = at;
      life.end = endOf(type, data);
    }
  }
  return [...lives.values()];
}

function endOf(type, data) {
  if (type === "agent_stopped") return "stopped";
  if (type === "agent_lost") return "lost";
  if (data.signal !== null && data.signal !== undefined) return `signal ${data.signal}`;
  if (data.exit_code !== null && data.exit_code !== undefined) return data.exit_code === 0 ? "exit 0" : `exit ${data.exit_code}`;
  return data.cause ?? "ended";
}

export const toneOf = (end) => ({ runs: "good", "exit 0": "done", stopped: "idle" })[end] ?? "bad";

export class Incarnations {
  constructor() {
    this.element = h("div", { class: "drawing" });
    this.drawn = "";
    new ResizeObserver(() => this.given && this.show(...this.given)).observe(this.element);
  }

  show(events, agent) {
    this.given = [events, agent];
    const width = Math.max(NARROWEST, this.element.clientWidth - 16);
    const lives = livesOf(events).slice(-30);
    const now = agent ? Date.parse(agent.timestamp) : 0;
    const drawn = JSON.stringify([lives, lives.some((life) => life.to === null) ? now : 0, width]);
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.element.replaceChildren(lives.length ? picture(lives, now, width) : h("p", { class: "empty", text: "It has not started yet, or its events are no longer kept." }));
  }
}

function picture(lives, now, width) {
  const height = TOP + lives.length * ROW + 4;
  const scale = new Timescale(lives[0].from, Math.max(...lives.map((life) => life.to ?? now)), LEFT, width - 130);
  const rows = lives.map((life, at) => {
    const y = TOP + at * ROW;
    const from = scale.x(life.from);
    const length = Math.max(3, scale.x(life.to ?? now) - from);
    const took = duration(((life.to ?? now) - life.from) / 1000);
    const said = `${life.end === "runs" ? "runs for" : `${life.end} after`} ${took}`;
    const label = svg("text", { x: 4, y: y + 14, class: "tick start" });
    label.textContent = `#${life.incarnation}`;
    const end = svg("text", { x: Math.min(from + length + 6, width - 126), y: y + 14, class: "tick start" });
    end.textContent = said;
    return svg("g", {}, label, svg("rect", { x: from.toFixed(1), y: y + 3, width: length.toFixed(1), height: ROW - 8, rx: 3, class: `life ${toneOf(life.end)}` }), end);
  });
  const said = lives.map((life) => `incarnation ${life.incarnation}: ${life.end}`).join("; ");
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said }, scale.marks(height), rows);
}
