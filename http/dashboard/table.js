// A table that keeps its rows in step with a list, sortable by any column with an order.

import { Keyed, h, setClass, setNumber, setState, setText } from "./dom.js";

const MOST_ROWS = 1000;

/**
 * columns: {label, class?, sort?(row), and one of: text(row), number(row) + format + field, state(row), link(row) + text,
 * make(row) + update(node, row)}. key: names a row. onOpen: called for a click or Enter on a row.
 */
export class Table {
  constructor({ caption, columns, key, order, nothing, onOpen, source }) {
    this.columns = columns;
    this.by = order ?? null;
    this.isDescending = false;
    this.items = [];
    this.source = source;
    this.key = key;
    this.heads = columns.map((column, at) => this.head(column, at));
    const body = h("tbody");
    this.rows = new Keyed(body, { key, make: (row) => this.row(row, onOpen), update: (node, row) => this.fill(node, row) });
    this.nothing = h("p", { class: "empty", text: nothing });
    this.more = h("p", { class: "empty" });
    this.table = h("table", {}, h("caption", { class: "unseen", text: caption }), h("thead", {}, h("tr", {}, this.heads)), body);
    this.element = h("div", { class: "scroll" }, this.table, this.nothing, this.more);
  }

  head(column, at) {
    const className = column.number ? "number" : column.class;
    if (!column.sort) return h("th", { scope: "col", class: className, text: column.label });
    const sort = () => {
      this.isDescending = this.by === at ? !this.isDescending : Boolean(column.number);
      this.by = at;
      this.show(this.items);
    };
    return h("th", { scope: "col", class: className }, h("button", { type: "button", class: "sort", text: column.label, on: { click: sort } }));
  }

  show(items) {
    this.items = items;
    this.heads.forEach((head, at) => {
      if (at === this.by) head.setAttribute("aria-sort", this.isDescending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const shown = this.sorted(items).slice(0, MOST_ROWS);
    this.rows.show(shown);
    this.nothing.hidden = items.length > 0;
    this.table.hidden = items.length === 0;
    this.more.hidden = items.length <= MOST_ROWS;
    setText(this.more, `and ${items.length - MOST_ROWS} more: filter the list to see them`);
  }

  sorted(items) {
    const column = this.columns[this.by];
    if (!column) return items;
    const sign = this.isDescending ? -1 : 1;
    return items
      .map((item, place) => ({ item, place, by: column.sort(item) }))
      .sort((a, b) => (a.by < b.by ? -sign : a.by > b.by ? sign : a.place - b.place))
      .map(({ item }) => item);
  }

  row(item, onOpen) {
    const node = h("tr", { data: { key: this.key(item) } }, this.columns.map((column) => cell(column, item)));
    if (onOpen) {
      node.tabIndex = 0;
      node.className = "opens";
      node.addEventListener("click", () => onOpen(node.item));
      node.addEventListener("keydown", (event) => event.key === "Enter" && event.target === node && onOpen(node.item));
    }
    return node;
  }

  fill(node, item) {
    node.item = item;
    this.columns.forEach((column, at) => {
      const inside = node.children[at].firstChild;
      if (column.number) setNumber(inside, column.number(item), column.format, this.source && column.field ? `${this.source}:${column.field}` : undefined);
      else if (column.state) setState(inside, column.state(item));
      else if (column.update) column.update(inside, item);
      else if (column.text) {
        const text = column.text(item) ?? "";
        setText(inside, text);
        if (inside.title !== text) inside.title = text;
      }
      if (column.link) {
        const href = column.link(item);
        if (inside.getAttribute("href") !== href) inside.setAttribute("href", href);
      }
      if (column.tone) setClass(inside, column.tone(item) ?? "");
    });
  }
}

function cell(column, item) {
  const inside = column.make ? column.make(item) : h(column.link ? "a" : "span");
  return h("td", { class: `${column.class ?? ""}${column.number ? " number" : ""}` }, inside);
}
