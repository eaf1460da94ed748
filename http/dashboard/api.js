// The public API, as the logged-in operator. Writes carry the session's CSRF token.

export class Refusal extends Error {
  constructor(status, body) {
    super(body?.message ?? `the sidecar answered ${status}`);
    this.status = status;
    this.code = body?.code ?? "";
    this.details = body?.details ?? {};
  }
}

let csrfToken = "";
let project = "";

export function setSession(session) {
  csrfToken = session?.csrf_token ?? "";
}

/** "" means every project. */
export function setProject(name) {
  project = name;
}

export function currentProject() {
  return project;
}

export function url(path, query = {}) {
  const fields = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...query, project_id: query.project_id ?? project })) {
    if (value !== undefined && value !== null && value !== "") fields.set(name, value);
  }
  const text = fields.toString();
  return text ? `${path}?${text}` : path;
}

/** Returns the JSON of the answer. Throws Refusal for an error answer, TypeError if there is no server. */
export async function call(method, path, { query, body, signal } = {}) {
  const headers = {};
  if (method !== "GET") headers["X-CSRF-Token"] = csrfToken;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(url(path, query), {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    credentials: "same-origin",
    cache: "no-store",
  });
  const parsed = await answer.json().catch(() => null);
  if (answer.status === 401 && path !== "/api/auth/login") dispatchEvent(new Event("session-over"));
  // An unhealthy sidecar answers with 503 and a complete body.
  if (!answer.ok && path !== "/health") throw new Refusal(answer.status, parsed);
  return parsed;
}

export const get = (path, query, signal) => call("GET", path, { query, signal });
export const segment = encodeURIComponent;
