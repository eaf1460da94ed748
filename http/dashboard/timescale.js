// A time axis for drawings: from the first moment to the last, with a few round marks.

import { svg } from "./dom.js";
import { duration } from "./format.js";

const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400];

export class Timescale {
  /** from, to: ms. left, right: their positions, in the drawing's units. */
  constructor(from, to, left, right) {
    this.from = from;
    this.to = Math.max(to, from + 500);
    this.left = left;
    this.right = right;
  }

  x(at) {
    return this.left + ((at - this.from) / (this.to - this.from)) * (this.right - this.left);
  }

  /** Lines and labels for the height of the drawing; times count from the start. */
  marks(height) {
    const span = (this.to - this.from) / 1000;
    const step = STEPS_S.find((each) => span / each <= 8) ?? 86400;
    const marks = [];
    for (let s = 0; s <= span; s += step) {
      const x = this.x(this.from + s * 1000).toFixed(1);
      marks.push(svg("line", { class: "grid", x1: x, x2: x, y1: 16, y2: height }), svg("text", { class: "tick", x, y: 11 }));
      marks.at(-1).textContent = s === 0 ? "0" : duration(s).replace(".0 s", " s");
    }
    return marks;
  }
}
