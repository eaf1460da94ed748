// Creates elements and updates them in place. Text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";

/** properties: `on` = {event: listener}, `class`, `text`, `data`; the rest are attributes (false and null: none). */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(node, { on = {}, text, data = {}, ...attributes }, children) {
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  for (const [name, value] of Object.entries(data)) node.dataset[name] = value;
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  if (text !== undefined) node.textContent = text;
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setClass(node, name) {
  if (node.getAttribute("class") !== name) node.setAttribute("class", name);
}

/** A number in a readable form, with the exact value as its title. source: the field and answer it comes from. */
export function setNumber(node, value, format, source) {
  const known = value !== undefined && value !== null;
  setText(node, known ? format(value) : "–");
  const exact = known ? String(value) : "";
  if (node.dataset.value !== exact) {
    node.dataset.value = exact;
    node.title = exact;
  }
  if (source && node.dataset.source !== source) node.dataset.source = source;
}

/** Keeps the children of `parent` in step with a list: creates each once by key, updates it in place, moves it only if necessary. */
export class Keyed {
  constructor(parent, { key, make, update }) {
    this.parent = parent;
    this.key = key;
    this.make = make;
    this.update = update;
    this.nodes = new Map();
  }

  show(items) {
    const gone = new Set(this.nodes.keys());
    let at = this.parent.firstChild;
    for (const item of items) {
      const key = this.key(item);
      let node = this.nodes.get(key);
      if (!node) {
        node = this.make(item);
        this.nodes.set(key, node);
      }
      gone.delete(key);
      this.update(node, item);
      if (node === at) at = at.nextSibling;
      else this.parent.insertBefore(node, at);
    }
    for (const key of gone) {
      this.nodes.get(key).remove();
      this.nodes.delete(key);
    }
  }
}

/** Announces something to eyes and screen readers; replaced by the next message, removed after a while. */
export function say(text, isBad = false) {
  const place = document.getElementById("said");
  place.textContent = text;
  place.className = isBad ? "said shown bad" : "said shown";
  clearTimeout(say.timer);
  say.timer = setTimeout(() => {
    place.className = "said";
    place.textContent = "";
  }, 8000);
}

export const link = (href, text, properties = {}) => h("a", { href, text, ...properties });

export function button(text, act, properties = {}) {
  return h("button", { type: "button", text, on: { click: act }, ...properties });
}

/** Runs an action that may be refused; the button is disabled until it is done. */
export async function doing(control, act, done) {
  control.disabled = true;
  try {
    say(done(await act()));
  } catch (error) {
    say(error.message, true);
  } finally {
    control.disabled = false;
  }
}

export const heading = (text, ...more) => h("div", { class: "heading" }, h("h1", { text, tabindex: "-1" }), ...more);
export const empty = (text) => h("p", { class: "empty", text });

const STATES = {
  running: "good", healthy: "good", success: "good", completed: "done", starting: "busy", restarting: "busy",
  stopping: "warn", backing_off: "warn", partial: "warn", draining: "warn", queued: "idle", blocked: "warn", stopped: "idle",
};

/** A state as a mark and a word, so that it does not depend on colour. */
export function stateMark(state) {
  return setState(h("span"), state);
}

export function setState(node, state) {
  setClass(node, `state ${STATES[state] ?? "bad"}`);
  setText(node, state.replaceAll("_", " "));
  return node;
}
