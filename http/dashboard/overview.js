// Everything at a glance: health, numbers, charts of the last minutes, and anything that needs attention.

import { isActive } from "./agents.js";
import { get, segment } from "./api.js";
import { Chart, Shares } from "./charts.js";
import { Keyed, h, heading, link, setNumber, setState, setText } from "./dom.js";
import * as format from "./format.js";

const TILES = [
  ["Agents active", "agents.active", format.count],
  ["Queued", "agents.queued", format.count],
  ["Failed", "agents.failed", format.count],
  ["Restarts", "agents.restarts_total", format.count],
  ["Mean run", "agents.avg_execution_time_ms", format.milliseconds],
  ["Published", "events.total_published", format.count],
  ["Delivered", "events.total_delivered", format.count],
  ["Waiting now", "events.active_subscriptions", format.count],
  ["Not yet taken", "events.queue_depth", format.count],
  ["Mean delivery", "events.avg_delivery_time_ms", format.milliseconds],
  ["Dead letters", "events.dead_letter_queue_size", format.count],
  ["Results", "storage.results_stored", format.count],
  ["Result bytes", "storage.total_size_mb", (mb) => `${format.decimals(mb, 2)} MB`],
  ["Contexts cached", "storage.context_cache_entries", format.count],
  ["Cache hits", "storage.cache_hit_rate", format.share],
  ["Mean response", "performance.avg_response_time_ms", format.milliseconds],
  ["p95", "performance.p95_response_time_ms", format.milliseconds],
];

const CHARTS = [
  ["requests", "Requests", format.perSecond, "status:performance.requests_per_second"],
  ["p99", "Response time, p99", format.milliseconds, "status:performance.p99_response_time_ms"],
  ["events", "Events published", format.perSecond, ""],
  ["errors", "Errors a minute", (n) => format.decimals(n, n < 10 ? 1 : 0), "status:performance.errors_per_minute"],
  ["memory", "Memory of the sidecar", format.megabytes, "health:checks.memory_usage_mb"],
  ["cpu", "CPU of the sidecar", format.percent, "health:checks.cpu_usage_percent"],
];

const STATES = [
  ["active", "good"],
  ["queued", "idle"],
  ["completed", "done"],
  ["stopped", "warn"],
  ["failed", "bad"],
];

const valueAt = (answer, path) => path.split(".").reduce((found, name) => found?.[name], answer);

export function overviewView({ history }) {
  const tiles = TILES.map(([label, path, shown]) => ({ path, shown, value: h("dd") , label }));
  const charts = CHARTS.map(([name, title, shown, source]) => ({ name, chart: new Chart({ title, format: shown, source }) }));
  const shares = new Shares("Agents by state");
  const types = h("ul", { class: "legend types" });
  const byType = new Keyed(types, {
    key: ([name]) => name,
    make: ([name]) => h("li", {}, h("span", { text: name }), h("b")),
    update: (node, [name, value]) => setNumber(node.lastChild, value, format.count, `status:agents.by_type.${name}`),
  });
  const checks = { storage: h("span"), event_bus: h("span") };
  const disk = h("b");
  const version = h("span", { class: "quiet" });
  const attention = h("ul", { class: "attention" });
  const wants = new Keyed(attention, {
    key: (item) => item.key,
    make: (item) => h("li", {}, h("span"), link(item.href, "")),
    update: (node, item) => {
      setState(node.firstChild, item.state);
      setText(node.lastChild, item.text);
    },
  });
  const calm = h("p", { class: "quiet", text: "Nothing: every actor runs, no agent has failed, and there are no dead letters." });

  return {
    title: "Overview",
    element: h(
      "div",
      { class: "view" },
      heading("Overview", version),
      h("section", { "aria-label": "Health", class: "checks" },
        h("span", {}, "Storage ", checks.storage), h("span", {}, "Event bus ", checks.event_bus), h("span", {}, "Disk free ", disk)),
      h("section", { class: "wants" }, h("h2", { text: "Wants a look" }), calm, attention),
      h("section", { "aria-label": "Charts", class: "charts" }, charts.map(({ chart }) => chart.element)),
      h("div", { class: "columns" },
        h("section", {}, h("h2", { text: "Numbers" }), h("dl", { class: "tiles" }, tiles.map(({ label, value }) => h("div", {}, h("dt", { text: label }), value)))),
        h("section", {}, h("h2", { text: "Agents" }), shares.element, h("h3", { text: "By type" }), types)),
    ),
    numbers({ health, status }) {
      setText(version, `version ${health.version}`);
      for (const [name, node] of Object.entries(checks)) setState(node, health.checks[name]);
      setNumber(disk, health.checks.disk_space_available_mb, format.megabytes, "health:checks.disk_space_available_mb");
      for (const { path, shown, value } of tiles) setNumber(value, valueAt(status, path), shown, `status:${path}`);
      for (const { name, chart } of charts) chart.show(history.of(name));
      byType.show(Object.entries(status.agents.by_type));
    },
    async refresh() {
      const [{ agents }, { actors }, letters] = await Promise.all([
        get("/api/agents"), get("/api/actors", { project_id: "" }), get("/api/events/dead-letters"),
      ]);
      // The status has no count of stopped agents.
      const states = agents.map((agent) => (isActive(agent) ? "active" : agent.state));
      shares.show(STATES.map(([label, tone]) => ({ label, tone, value: states.filter((state) => state === label).length })));
      const items = wanting(agents, actors, letters.dead_letters);
      calm.hidden = items.length > 0;
      wants.show(items);
    },
  };
}

function wanting(agents, actors, letters) {
  const bad = agents.filter((agent) => ["failed", "backing_off"].includes(agent.state)).slice(0, 20);
  return [
    ...actors.filter((actor) => actor.state !== "running" || actor.last_error).map((actor) => ({
      key: `actor ${actor.name}`, href: "#/actors", state: actor.state, text: `actor ${actor.name}: ${actor.last_error ?? "is not running"}`,
    })),
    ...bad.map((agent) => ({
      key: agent.agent_id, href: `#/agents/${segment(agent.agent_id)}`, state: agent.state,
      text: `${agent.agent_id}: ${agent.last_error ?? `ended by ${agent.cause}`}`,
    })),
    ...letters.filter((letter) => !letter.replayed_at).slice(0, 5).map((letter) => ({
      key: `${letter.event.event_id} ${letter.agent_id}`, href: "#/dead-letters", state: "dead letter",
      text: `${letter.event.event_type} for ${letter.agent_id}`,
    })),
  ];
}
