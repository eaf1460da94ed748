// The frame around the views: session, navigation, the clock that requests the numbers, theme, project, pause.

import { call, currentProject, get, setProject, setSession } from "./api.js";
import { button, h, link, say, setNumber, setState, setText } from "./dom.js";
import { count, duration } from "./format.js";
import { History } from "./history.js";
import { showLogin } from "./login.js";
import { actorsView } from "./actors.js";
import { agentView } from "./agent.js";
import { agentsView } from "./agents.js";
import { deadLettersView } from "./dead_letters.js";
import { eventsView } from "./events.js";
import { issuesView } from "./issues.js";
import { issueView } from "./issue.js";
import { mailboxesView } from "./mailboxes.js";
import { overviewView } from "./overview.js";
import { resultsView } from "./results.js";

const TICK_MS = 2000;

const VIEWS = [
  { path: "", label: "Overview", make: overviewView },
  { path: "agents", label: "Agents", make: agentsView, one: agentView, badge: (numbers) => numbers.status.agents.active },
  { path: "issues", label: "Issues", make: issuesView, one: issueView },
  { path: "events", label: "Events", make: eventsView },
  { path: "results", label: "Results", make: resultsView },
  { path: "mailboxes", label: "Mailboxes", make: mailboxesView },
  { path: "dead-letters", label: "Dead letters", make: deadLettersView, badge: (numbers) => numbers.status.events.dead_letter_queue_size },
  { path: "actors", label: "Actors", make: actorsView },
];

const byId = (id) => document.getElementById(id);
const history_ = new History();
let view = null;
let numbers = null;
let isPaused = false;
let isLoggedIn = false;
let ticking = null;

// --- Views ----------------------------------------------------------------------------------------------------------

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/").map(decodeURIComponent);
  const found = VIEWS.find((each) => each.path === name) ?? VIEWS[0];
  return { found, id: found.one && rest.length ? rest.join("/") : null, query: new URLSearchParams(query) };
}

function show() {
  if (!isLoggedIn) return;
  view?.close?.();
  const { found, id, query } = route();
  view = id === null ? found.make({ query, history: history_ }) : found.one({ id, query });
  byId("main").replaceChildren(view.element);
  document.title = `${view.title} · Sidecar`;
  for (const each of byId("nav").querySelectorAll("a")) {
    if (each.dataset.path === found.path) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  view.live?.(isLive());
  if (numbers) view.numbers?.(numbers);
  void refreshView();
}

/** Moves the focus for screen readers and the keyboard after the operator has navigated. */
function moved() {
  show();
  byId("main").querySelector("h1")?.focus({ preventScroll: true });
}

// --- The clock ------------------------------------------------------------------------------------------------------

const isLive = () => !isPaused && document.visibilityState === "visible";

async function tick() {
  clearTimeout(ticking);
  if (!isLoggedIn || !isLive()) return;
  try {
    const [health, status] = await Promise.all([get("/health", { project_id: "" }), get("/status")]);
    if (!isLoggedIn) return;
    numbers = { health, status };
    history_.add(numbers);
    showHealth(health);
    showBadges();
    view?.numbers?.(numbers);
    if (!isPaused) await refreshView();
  } catch (error) {
    showTrouble(error);
  }
  clearTimeout(ticking);
  ticking = setTimeout(tick, TICK_MS);
}

async function refreshView() {
  const asked = view;
  try {
    await asked?.refresh?.();
  } catch (error) {
    if (asked === view) showTrouble(error);
  }
}

function showHealth(health) {
  const place = byId("health");
  if (!place.firstChild) place.append(h("span"), h("span", { class: "quiet" }));
  setState(place.firstChild, isPaused ? "paused" : health.status);
  setNumber(place.lastChild, health.uptime_seconds, (s) => `up ${duration(s)}`, "health:uptime_seconds");
}

function showTrouble(error) {
  if (!isLoggedIn) return;
  const place = byId("health");
  if (!place.firstChild) place.append(h("span"), h("span", { class: "quiet" }));
  setState(place.firstChild, error.status ? "refused" : "not reachable");
  setText(place.lastChild, error.message);
}

function showBadges() {
  for (const each of VIEWS) {
    if (!each.badge) continue;
    const place = byId("nav").querySelector(`a[data-path="${each.path}"] .badge`);
    const value = each.badge(numbers);
    setText(place, value ? count(value) : "");
  }
}

function setPaused(paused) {
  isPaused = paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  setText(byId("pause"), paused ? "Resume" : "Pause");
  if (numbers) showHealth(numbers.health);
  resumeOrRest();
}

function resumeOrRest() {
  view?.live?.(isLive());
  if (isLive()) void tick();
}

// --- The frame ------------------------------------------------------------------------------------------------------

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
  setText(byId("theme"), `Theme: ${theme}`);
}

function nextTheme() {
  const themes = ["auto", "light", "dark"];
  setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]);
}

async function listProjects({ isFirst = false } = {}) {
  const { agents } = await get("/api/agents", { project_id: "" });
  const { results } = await get("/api/results", { project_id: "", limit: 200 });
  const names = [...new Set([...agents, ...results].map((each) => each.project_id))].sort();
  // One project is the usual case, and its events arrive live.
  if (isFirst && names.length === 1) setProject(names[0]);
  const chosen = currentProject();
  const options = names.map((name) => h("option", { value: name, text: name, selected: name === chosen }));
  byId("project").replaceChildren(h("option", { value: "", text: "All projects" }), ...options);
}

function frame() {
  const items = VIEWS.map(({ path, label }) =>
    h("li", {}, h("a", { href: `#/${path}`, data: { path } }, h("span", { text: label }), h("span", { class: "badge" }))),
  );
  byId("nav").append(h("ul", {}, items));
  byId("pause").addEventListener("click", () => setPaused(!isPaused));
  byId("theme").addEventListener("click", nextTheme);
  byId("logout").addEventListener("click", logOut);
  byId("skip").addEventListener("click", () => byId("main").focus());
  byId("project").addEventListener("focus", () => listProjects().catch(showTrouble));
  byId("project").addEventListener("change", (event) => {
    setProject(event.target.value);
    history_.clear();
    numbers = null;
    show();
    void tick();
  });
  addEventListener("hashchange", moved);
  addEventListener("session-over", () => isLoggedIn && logIn("The session is over: log in again."));
  document.addEventListener("visibilitychange", resumeOrRest);
  document.addEventListener("keydown", shortcut);
  setTheme(document.documentElement.dataset.theme);
}

function shortcut(event) {
  const isTyping = event.target.closest("input, textarea, select, dialog");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const box = byId("main").querySelector("input[type=search]");
  if (!box) return;
  event.preventDefault();
  box.focus();
}

// --- The session ----------------------------------------------------------------------------------------------------

function logIn(why = "") {
  isLoggedIn = false;
  setSession(null);
  view?.close?.();
  view = null;
  for (const id of ["top", "nav"]) byId(id).hidden = true;
  showLogin(byId("main"), why, loggedIn);
}

async function loggedIn(session) {
  setSession(session);
  isLoggedIn = true;
  for (const id of ["top", "nav"]) byId(id).hidden = false;
  setText(byId("operator"), session.agent_id);
  await listProjects({ isFirst: true }).catch(showTrouble);
  show();
  void tick();
}

async function logOut() {
  try {
    await call("DELETE", "/api/auth/session");
  } catch (error) {
    say(error.message, true);
    return;
  }
  logIn("You are logged out.");
}

async function start() {
  frame();
  const code = new URLSearchParams(location.search).get("code");
  if (location.pathname !== "/") history.replaceState(null, "", `/${location.hash}`);
  try {
    if (code) {
      const { session } = await call("POST", "/api/auth/login", { body: { code } });
      return await loggedIn(session);
    }
    const { session } = await get("/api/auth/session");
    return session ? await loggedIn(session) : logIn();
  } catch (error) {
    return logIn(error.message);
  }
}

void start();
