// Small charts of the last minutes: plain SVG, drawn again for each new sample.

import { h, setText, svg } from "./dom.js";

const WIDTH = 320;
const HEIGHT = 72;
export const SAMPLES = 450; // 15 minutes at one every 2 s

/** A number over time. samples: [{at: ms, value}], oldest first. */
export class Chart {
  constructor({ title, format, source }) {
    this.format = format;
    this.title = title;
    this.samples = [];
    this.now = h("b", { class: "now", text: "–", data: { source } });
    this.range = h("span", { class: "quiet" });
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, this.area, this.line, this.cursor);
    this.picture.addEventListener("pointermove", (event) => this.point(event));
    this.picture.addEventListener("pointerleave", () => this.point(null));
    this.element = h("figure", { class: "chart" }, h("figcaption", {}, h("span", { text: title }), this.now), this.picture, this.range);
  }

  show(samples) {
    this.samples = samples;
    const last = samples.at(-1);
    if (!last) return;
    setText(this.now, this.format(last.value));
    this.now.dataset.value = String(last.value);
    const highest = Math.max(...samples.map((sample) => sample.value));
    const top = highest > 0 ? highest * 1.1 : 1;
    const points = samples.map((sample) => [this.x(sample), HEIGHT - 1 - (sample.value / top) * (HEIGHT - 4)]);
    const line = points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", `${line}L${points.at(-1)[0].toFixed(1)} ${HEIGHT}L${points[0][0].toFixed(1)} ${HEIGHT}Z`);
    const minutes = Math.max(1, Math.round((last.at - samples[0].at) / 60000));
    setText(this.range, `highest ${this.format(highest)} in ${minutes} min`);
    this.picture.setAttribute("aria-label", `${this.title}: now ${this.format(last.value)}, highest ${this.format(highest)} in ${minutes} min`);
  }

  /** The newest sample is at the right edge; the left edge is as old as the oldest, at least two minutes. */
  x(sample) {
    const last = this.samples.at(-1).at;
    const span = Math.max(120000, last - this.samples[0].at);
    return WIDTH - ((last - sample.at) / span) * WIDTH;
  }

  point(event) {
    const last = this.samples.at(-1);
    if (!last) return;
    if (!event) {
      this.cursor.setAttribute("visibility", "hidden");
      setText(this.now, this.format(last.value));
      return;
    }
    const box = this.picture.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    const nearest = this.samples.reduce((best, sample) => (Math.abs(this.x(sample) - at) < Math.abs(this.x(best) - at) ? sample : best));
    const x = this.x(nearest).toFixed(1);
    for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, x);
    this.cursor.setAttribute("visibility", "visible");
    setText(this.now, this.format(nearest.value));
    setText(this.range, new Date(nearest.at).toLocaleTimeString("en-GB"));
  }
}

/** The current number of each kind, as one bar with a legend. parts: [{label, value, tone}] */
export class Shares {
  constructor(title) {
    this.bar = h("div", { class: "shares", role: "presentation" });
    this.legend = h("ul", { class: "legend" });
    this.element = h("figure", { class: "chart" }, h("figcaption", {}, h("span", { text: title })), this.bar, this.legend);
    this.made = new Map();
  }

  show(parts) {
    const all = parts.reduce((sum, part) => sum + part.value, 0);
    for (const part of parts) {
      const made = this.made.get(part.label) ?? this.make(part);
      made.piece.style.flexGrow = String(all ? part.value / all : 0);
      setText(made.value, part.value.toLocaleString("en-US"));
      made.value.dataset.value = String(part.value);
    }
  }

  make(part) {
    const made = { piece: h("span", { class: `share ${part.tone}` }), value: h("b") };
    this.bar.append(made.piece);
    this.legend.append(h("li", { class: part.tone }, h("span", { text: part.label }), made.value));
    this.made.set(part.label, made);
    return made;
  }
}
