// Which names belong to an agent with a page: a token made by hand can name an agent that was never spawned.

import { get, segment } from "./api.js";
import { h } from "./dom.js";

const asked = new Map(); // id → promise of whether there is such an agent; ids are not used again
let asking = null;

/** The id, as a link if the agent has a page. */
export function agentLink(id) {
  const node = h("a", { text: id, title: id });
  // Without an answer it stays text: the view itself shows that the sidecar does not answer.
  isKnown(id).then((known) => known && node.setAttribute("href", `#/agents/${segment(id)}`), () => asked.delete(id));
  return node;
}

function isKnown(id) {
  if (!asked.has(id)) {
    // One request for all rows under construction, and not earlier: an older list may lack recently spawned agents.
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
