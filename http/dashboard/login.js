// The login: a token is pasted once, exchanged for a session cookie that no script can read, and forgotten.

import { call } from "./api.js";
import { h } from "./dom.js";

export function showLogin(place, why, onSession) {
  const token = h("input", { id: "token", type: "password", required: true, autocomplete: "off", spellcheck: "false" });
  const problem = h("p", { class: "problem", role: "alert", text: why });
  const form = h(
    "form",
    { class: "login form" },
    h("h1", { text: "Sidecar", tabindex: "-1" }),
    h("p", { text: "Open the dashboard on the machine where the sidecar runs:" }),
    h("pre", { text: "sidecar dashboard" }),
    h("p", {}, "or paste an operator's token, as ", h("code", { text: "sidecar token --operator" }), " prints it:"),
    h("div", { class: "line" }, h("label", { for: "token", text: "Operator's token" }), token),
    problem,
    h("button", { type: "submit", class: "primary", text: "Log in" }),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const { session } = await call("POST", "/api/auth/login", { body: { token: token.value.trim() } });
      token.value = "";
      onSession(session);
    } catch (error) {
      problem.textContent = error.message;
    }
  });
  document.title = "Log in · Sidecar";
  place.replaceChildren(form);
  token.focus();
}
