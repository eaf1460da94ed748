// Who among those that are named is an agent with a page: a token made by hand names somebody who was never spawned.

import { get, segment } from "./api.js";
import { h } from "./dom.js";

const asked = new Map(); // id → promise of whether there is such an agent; ids are not used again
let asking = null;

/** The id; a link where it leads somewhere. */
export function agentLink(id) {
  const node = h("a", { text: id, title: id });
  // Without an answer it stays text: the view says itself that the sidecar does not answer.
  isKnown(id).then((known) => known && node.setAttribute("href", `#/agents/${segment(id)}`), () => asked.delete(id));
  return node;
}

function isKnown(id) {
  if (!asked.has(id)) {
    // Once for all rows that are being made, and not before: an older list may lack whoever was spawned since.
    asking ??= Promise.resolve().then(listed);
    asked.set(id, asking.then((ids) => ids.has(id)));
  }
  return asked.get(id);
}

async function listed() {
  asking = null;
  const { agents } = await get("/api/agents", { project_id: "" });
  return new Set(agents.map((agent) => agent.agent_id));
}
