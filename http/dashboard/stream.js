// Live events: by Server-Sent Events if a project is chosen, or else by regular requests for all projects. After each
// (re)connection, missed events are read from the log, so none is lost. Events are passed on in batches, one per frame,
// each event once.

import { currentProject, get, url } from "./api.js";

const CATCH_UP = 1000;
const ASK_MS = 1500;

export class Stream {
  /** onEvents: called with new events, oldest first, each event once. onState: "live", "connecting" or "off". */
  constructor({ filter = "", topics = "", onEvents, onState = () => {} }) {
    this.query = { filter, topics };
    this.onEvents = onEvents;
    this.onState = onState;
    this.waiting = [];
    this.last = "";
    this.source = null;
    this.isOpen = false;
  }

  /** since: the newest event already received. */
  open(since) {
    if (since) this.last = since;
    if (this.isOpen) return;
    this.isOpen = true;
    this.onState("connecting");
    if (!currentProject()) return void this.askAgain();
    this.source = new EventSource(url("/api/events/stream", this.query));
    this.source.addEventListener("open", () => this.catchUp());
    this.source.addEventListener("error", () => this.onState("connecting"));
    this.source.addEventListener("message", (message) => this.take([JSON.parse(message.data)]));
  }

  close() {
    this.isOpen = false;
    this.source?.close();
    this.source = null;
    clearTimeout(this.asking);
    this.onState("off");
  }

  async askAgain() {
    await this.catchUp();
    if (this.isOpen) this.asking = setTimeout(() => this.askAgain(), ASK_MS);
  }

  async catchUp() {
    const { filter, topics } = this.query;
    try {
      const missed = await get("/api/events", { filter, topic: topics, since: this.last || undefined, limit: CATCH_UP });
      if (!this.isOpen) return;
      this.onState("live");
      this.take(missed.events.reverse());
    } catch (error) {
      this.onState("connecting");
    }
  }

  take(events) {
    const isIdle = this.waiting.length === 0;
    this.waiting.push(...events);
    if (isIdle && this.waiting.length) requestAnimationFrame(() => this.hand());
  }

  hand() {
    const fresh = new Map();
    for (const event of this.waiting) if (event.event_id > this.last) fresh.set(event.event_id, event);
    this.waiting = [];
    const events = [...fresh.values()].sort((a, b) => (a.event_id < b.event_id ? -1 : 1));
    if (!events.length || !this.isOpen) return;
    this.last = events.at(-1).event_id;
    this.onEvents(events);
  }
}
