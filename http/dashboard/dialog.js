// Questions to the operator, in the browser's own modal dialog: focus stays inside and Escape closes it.

import { button, h } from "./dom.js";

/** fields: [{name, label, hint?, type?, required?, value?, options?, rows?, list?}]. Calls act(values) and closes when it succeeded. */
export function ask({ title, text = "", fields = [], confirm, isDangerous = false, act }) {
  const problem = h("p", { class: "problem", role: "alert" });
  const yes = h("button", { type: "submit", class: isDangerous ? "danger" : "primary", text: confirm });
  const inputs = new Map(fields.map((field) => [field.name, inputOf(field)]));
  const lines = fields.map((field) => line(field, inputs.get(field.name)));
  const form = h(
    "form",
    { method: "dialog", class: "form" },
    h("h2", { text: title, id: "dialog-title" }),
    text ? h("p", { text }) : null,
    lines,
    problem,
    h("div", { class: "choices" }, button("Cancel", () => dialog.close()), yes),
  );
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    yes.disabled = true;
    problem.textContent = "";
    try {
      await act(Object.fromEntries([...inputs].map(([name, input]) => [name, input.type === "checkbox" ? input.checked : input.value.trim()])));
      dialog.close();
    } catch (error) {
      problem.textContent = error.message;
    } finally {
      yes.disabled = false;
    }
  });
  const leave = () => dialog.close();
  addEventListener("hashchange", leave);
  dialog.addEventListener("close", () => {
    removeEventListener("hashchange", leave);
    dialog.remove();
  });
  document.body.append(dialog);
  dialog.showModal();
}

function inputOf({ name, type = "text", required, value, options, rows, list }) {
  const id = `field-${name}`;
  if (options) return h("select", { id, name }, options.map((option) => h("option", { value: option, text: option, selected: option === value })));
  if (rows) return h("textarea", { id, name, rows, required });
  const properties = list ? { list: `${id}-list` } : {};
  return h("input", { id, name, type, required, value, autocomplete: "off", spellcheck: "false", ...properties });
}

function line({ name, label, hint, type, list }, input) {
  const listed = list ? h("datalist", { id: `field-${name}-list` }, list.map((value) => h("option", { value }))) : null;
  const said = hint ? h("small", { class: "quiet", text: hint }) : null;
  if (type === "checkbox") return h("label", { class: "check" }, input, h("span", { text: label }), said);
  return h("div", { class: "line" }, h("label", { for: input.id, text: label }), input, listed, said);
}
