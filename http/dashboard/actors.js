// The actors inside the sidecar: the four owners of state, and their supervisors.

import { call, get, segment } from "./api.js";
import { button, doing, h, heading } from "./dom.js";
import * as format from "./format.js";
import { Table } from "./table.js";

const meanMs = (actor) => (actor.processed ? actor.busy_ms / actor.processed : 0);

const COLUMNS = [
  { label: "State", class: "w-state", state: (a) => a.state },
  { label: "Actor", class: "id branch", text: (a) => a.name },
  { label: "Mailbox", number: (a) => a.mailbox_depth, format: format.count, field: "mailbox_depth" },
  { label: "Handled", number: (a) => a.processed, format: format.count, field: "processed" },
  { label: "Mean handling", number: meanMs, format: (ms) => `${format.decimals(ms, 3)} ms` },
  { label: "Busy in all", number: (a) => a.busy_ms, format: format.milliseconds, field: "busy_ms" },
  { label: "Busy now", number: (a) => a.busy_share, format: format.percent },
  { label: "Failures", number: (a) => a.failures, format: format.count, field: "failures" },
  { label: "Restarts", number: (a) => a.restarts, format: format.count, field: "restarts" },
  { label: "Last error", class: "wide", text: (a) => a.last_error ?? "" },
  { label: "", class: "acts", make: (actor) => button("Restart", (event) => restart(actor.name, event.currentTarget), { class: "small" }), update: () => {} },
];

const restart = (name, control) =>
  doing(control, () => call("POST", `/api/actors/${segment(name)}/restart`), () => `${name} is restarting and reads its state from disk again`);

export function actorsView() {
  let before = new Map();
  const table = new Table({ caption: "Actors", columns: COLUMNS, key: (a) => a.name, nothing: "No actors.", source: "actors" });
  return {
    title: "Actors",
    element: h("div", { class: "view" },
      heading("Actors"),
      h("p", { class: "quiet", text: "Actors start in this order, and are restarted when they end; each rebuilds its state from disk. Restart ends an actor's loop: requests in flight get a 503; notices in its mailbox go to the next incarnation." }),
      h("p", { class: "root", text: "supervisor" }),
      table.element),
    async refresh() {
      const { actors, timestamp } = await get("/api/actors", { project_id: "" });
      const at = Date.parse(timestamp);
      table.show(actors.map((actor) => ({ ...actor, busy_share: busyShare(actor, before.get(actor.name), at) })));
      before = new Map(actors.map((actor) => [actor.name, { at, busy_ms: actor.busy_ms }]));
    },
  };
}

/** Percent of the time since the last answer, by the server's clock. */
function busyShare(actor, last, at) {
  return last && at > last.at ? Math.max(0, ((actor.busy_ms - last.busy_ms) / (at - last.at)) * 100) : undefined;
}
