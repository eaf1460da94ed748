// The live log of an agent: its end, then everything that is added, through waiting requests.

import { get, segment } from "./api.js";
import { h, setText } from "./dom.js";

const TAIL = 500;
const MOST_CHARS = 400000;
const WAIT_S = 20;

export class LogPane {
  constructor(agentId) {
    this.path = `/api/agents/${segment(agentId)}/logs`;
    this.stream = h("select", { "aria-label": "Stream", on: { change: () => this.again() } }, ["stdout", "stderr"].map((name) => h("option", { value: name, text: name })));
    this.state = h("span", { class: "quiet" });
    this.text = document.createTextNode("");
    this.place = h("pre", { class: "log", role: "log", "aria-live": "off", tabindex: "0", "aria-label": "Log" }, this.text);
    this.element = h("div", {}, h("div", { class: "bar" }, this.stream, this.state), this.place);
    this.offset = null;
    this.isWanted = false;
    this.asking = null;
  }

  follow(isWanted) {
    this.isWanted = isWanted;
    if (isWanted && !this.asking) void this.read();
    if (!isWanted) this.asking?.abort();
  }

  again() {
    this.asking?.abort();
    this.asking = null;
    this.offset = null;
    this.text.data = "";
    if (this.isWanted) void this.read();
  }

  async read() {
    const asking = new AbortController();
    this.asking = asking;
    try {
      while (this.isWanted && this.asking === asking) {
        const query = this.offset === null ? { tail: TAIL } : { offset: this.offset, timeout: WAIT_S };
        const part = await get(this.path, { stream: this.stream.value, ...query }, asking.signal);
        if (this.asking !== asking) return;
        this.add(part.data);
        this.offset = part.next_offset;
        setText(this.state, part.ended ? "the agent has ended" : "follows");
        if (part.ended && !part.data) break;
      }
    } catch (error) {
      if (error.name !== "AbortError") setText(this.state, error.message);
    } finally {
      if (this.asking === asking) this.asking = null;
    }
  }

  /** Keeps the view at the end if it is there; does not move it if the reader has scrolled up. */
  add(data) {
    if (!data) return;
    const { scrollTop, scrollHeight, clientHeight } = this.place;
    const isAtEnd = scrollTop + clientHeight >= scrollHeight - 8;
    this.text.appendData(data);
    if (this.text.length > MOST_CHARS) this.text.deleteData(0, this.text.length - MOST_CHARS);
    if (isAtEnd) this.place.scrollTop = this.place.scrollHeight;
  }
}
