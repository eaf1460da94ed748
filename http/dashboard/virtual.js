// A long list with only the visible rows in the document. All rows have the same height.

import { h } from "./dom.js";

const MARGIN = 8; // rows above and below what is seen

export class VirtualList {
  /** fill(row, item): writes an item into a row from `make`; rows are reused for other items. */
  constructor({ label, rowHeight, make, fill, onOpen, onEnd }) {
    this.items = [];
    this.rowHeight = rowHeight;
    this.make = make;
    this.fill = fill;
    this.onOpen = onOpen;
    this.onEnd = onEnd;
    this.selected = -1;
    this.rows = [];
    this.space = h("div", { class: "virtual-space", role: "presentation" });
    this.element = h("div", { class: "virtual", role: "listbox", tabindex: "0", "aria-label": label }, this.space);
    this.element.addEventListener("scroll", () => this.schedule(), { passive: true });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.size = new ResizeObserver(() => this.schedule());
    this.size.observe(this.element);
  }

  /** added: the number of items added in front; visible rows stay in place. */
  show(items, added = 0) {
    this.items = items;
    if (this.selected >= 0) this.selected = Math.min(this.selected + added, items.length - 1);
    this.space.style.height = `${items.length * this.rowHeight}px`;
    if (added && this.element.scrollTop > this.rowHeight) this.element.scrollTop += added * this.rowHeight;
    this.schedule();
  }

  schedule() {
    if (this.isScheduled) return;
    this.isScheduled = true;
    requestAnimationFrame(() => {
      this.isScheduled = false;
      this.draw();
    });
  }

  draw() {
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / this.rowHeight) - MARGIN);
    const last = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / this.rowHeight) + MARGIN);
    while (this.rows.length < last - first) this.rows.push(this.row());
    this.rows.forEach((row, at) => this.place(row, first + at, first + at < last));
    if (this.onEnd && last === this.items.length && this.items.length) this.onEnd();
  }

  row() {
    const row = this.make();
    row.setAttribute("role", "option");
    row.addEventListener("click", () => this.select(row.at));
    this.space.append(row);
    return row;
  }

  place(row, at, isUsed) {
    row.hidden = !isUsed;
    if (!isUsed) return;
    row.at = at;
    row.id ||= `row-${Math.random().toString(36).slice(2)}`;
    row.style.transform = `translateY(${at * this.rowHeight}px)`;
    row.setAttribute("aria-setsize", this.items.length);
    row.setAttribute("aria-posinset", at + 1);
    row.setAttribute("aria-selected", at === this.selected);
    if (at === this.selected) this.element.setAttribute("aria-activedescendant", row.id);
    this.fill(row, this.items[at]);
  }

  select(at) {
    this.selected = Math.max(0, Math.min(at, this.items.length - 1));
    const top = this.selected * this.rowHeight;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + clientHeight) this.element.scrollTop = top + this.rowHeight - clientHeight;
    this.schedule();
    if (this.items[this.selected]) this.onOpen(this.items[this.selected]);
  }

  key(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    this.select(Math.max(0, Math.min(this.items.length - 1, this.selected + step)));
  }
}
