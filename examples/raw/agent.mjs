// An agent without any client: Node's own fetch. Counts the files it was given.

const { SIDECAR_URL, JWT_TOKEN, AGENT_ID, AGENT_TYPE, ISSUE_ID, PROJECT_ID } = process.env;

/** One request, its answer as JSON. key: makes a repeat of the request count once. */
async function ask(method, path, body, key) {
  const answer = await fetch(SIDECAR_URL + path, {
    method,
    headers: {
      Authorization: `Bearer ${JWT_TOKEN}`,
      "Content-Type": "application/json",
      ...(key && { "Idempotency-Key": key }),
    },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(30_000),
  });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  return answer.json();
}

const { context } = await ask("GET", `/context/${ISSUE_ID}/${AGENT_TYPE}`);
const languages = {};
for (const { language } of context.relevant_files) languages[language] = (languages[language] ?? 0) + 1;
console.log(`${context.relevant_files.length} files on ${context.git_context.branch}:`, languages);

const stored = await ask(
  "POST",
  "/results",
  {
    agent_id: AGENT_ID,
    agent_type: AGENT_TYPE,
    issue_id: ISSUE_ID,
    project_id: PROJECT_ID,
    result: { status: "success", metrics: { files: context.relevant_files.length } },
  },
  `${AGENT_ID}:result`,
);
await ask(
  "POST",
  "/events/files_counted",
  { topic: "coordination", data: { issue_id: ISSUE_ID, result_id: stored.id } },
  `${AGENT_ID}:files_counted`,
);

const go = await ask("GET", `/events/wait/go_on?timeout=20000&filter=issue_id:${ISSUE_ID}`);
if (go.timeout) throw new Error("nobody said go on");
console.log(`${go.events[0].publisher} said go on`);
