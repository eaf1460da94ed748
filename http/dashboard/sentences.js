// Describes an event in a sentence. http/cli/sentences.py does the same; a test compares the two.

// Fields of an event's data that are in other columns, or mean nothing to people.
const TOLD_ELSEWHERE = new Set(["agent_id", "agent_type", "project_id"]);

const CAUSES = {
  oom: "killed by the kernel, which ran out of memory",
  memory: "it went over its memory limit",
  timeout: "it ran for longer than it may",
  heartbeat: "no heartbeat came in time",
  start_failed: "it could not be started",
};

const isThere = (value) => value !== null && value !== undefined;
const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const seconds = (data) => (typeof data.uptime_seconds === "number" ? ` after ${data.uptime_seconds.toFixed(2)} s` : "");

/** Whether an incarnation ended badly, and not on request. */
const isCrash = (data) => (isThere(data.cause) && !["killed", "exit"].includes(data.cause)) || Boolean(data.exit_code);

function how(data) {
  if (Object.hasOwn(CAUSES, data.cause)) return CAUSES[data.cause];
  if (isThere(data.signal)) return `killed by signal ${data.signal}`;
  if (isThere(data.exit_code)) return `exit code ${data.exit_code}`;
  return data.cause || "nobody saw how";
}

/** The data in one line, without fields that are in other columns. */
export function brief(data) {
  const pairs = Object.entries(data).filter(([key]) => !TOLD_ELSEWHERE.has(key));
  return pairs.map(([key, value]) => `${key}=${shown(value)}`).join("  ");
}

const BEFELL = {
  agent_spawned: () => "is spawned",
  agent_started: (data) => (data.incarnation > 1 ? `runs again as process ${data.process_id}, incarnation ${data.incarnation}` : `runs as process ${data.process_id}`),
  agent_exited(data) {
    if (isCrash(data)) return `crashed: ${how(data)}`;
    return `${data.cause === "killed" ? "was ended" : "completed"}${seconds(data)}`;
  },
  agent_restarting: (data) => `is restarted in ${Math.round(data.delay_ms || 0)} ms`,
  agent_stopped: () => "is stopped",
  agent_failed: (data) => `gave up: ${data.reason || how(data)}`,
  agent_adopted: (data) => `goes on as process ${data.process_id}, taken over`,
  agent_lost: () => "ended while no sidecar ran",
  agent_queued: (data) => `waits for ${isThere(data.waiting_for) ? shown(data.waiting_for.text ?? data.waiting_for) : "its turn"}`,
  agent_blocked: (data) => `is blocked: ${data.why || "what it depends on has failed"}`,
};

const SAID = {
  chain_cut: [["agent_type", "path"], (type, path) => (Array.isArray(path) ? `${type} is not spawned: ${path.join(" → ")} caused one another` : null)],
  architecture_defined: [["decision"], (d) => d],
  implementation_complete: [["files"], (files) => (Array.isArray(files) && files.length > 0 ? `wrote ${files.join(", ")}` : null)],
  testing_complete: [["tests", "status", "coverage"], (tests, status, coverage) => `${tests} tests: ${status}, ${coverage} % of the lines executed`],
  security_audit_complete: [["files_scanned", "findings"], (files, findings) => `${files} files scanned, ${findings} findings`],
  documentation_complete: [["commit"], (commit) => `documented and committed as ${commit}`],
  result_stored: [["result_id", "status"], (id, status) => `result ${id}, ${status}`],
  error_encountered: [["error"], (error) => error],
};

function said(type, data) {
  if (!Object.hasOwn(SAID, type)) return null;
  const [fields, tell] = SAID[type];
  if (!fields.every((field) => isThere(data[field]))) return null;
  return tell(...fields.map((field) => (Array.isArray(data[field]) && ["implementation_complete", "chain_cut"].includes(type) ? data[field] : shown(data[field]))));
}

/** who: the agent that the event is about, or else its publisher. isBad: something went wrong. */
export function sentenceOf(event) {
  const { event_type: type, publisher, data } = event;
  if (publisher === "sidecar" && Object.hasOwn(data, "incarnation")) {
    const tell = Object.hasOwn(BEFELL, type) ? BEFELL[type] : () => type.replace(/^agent_/, "").replaceAll("_", " ");
    const isBad = ["agent_failed", "agent_lost", "agent_blocked"].includes(type) || (type === "agent_exited" && isCrash(data));
    return { who: data.agent_id ?? publisher, what: tell(data), isBad };
  }
  return { who: publisher, what: said(type, data) || brief(data), isBad: event.topic === "error" };
}
