// The numbers of the last minutes, for the charts. The page keeps them, so they start when the page is opened.

import { SAMPLES } from "./charts.js";

export class History {
  constructor() {
    this.clear();
  }

  clear() {
    this.samples = [];
    this.last = null;
  }

  add({ health, status }) {
    const at = Date.parse(status.timestamp);
    this.samples.push({
      at,
      requests: status.performance.requests_per_second,
      p99: status.performance.p99_response_time_ms,
      errors: status.performance.errors_per_minute,
      events: this.eventsPerSecond(status, at),
      memory: health.checks.memory_usage_mb,
      cpu: health.checks.cpu_usage_percent,
    });
    if (this.samples.length > SAMPLES) this.samples.shift();
    this.last = { at, published: status.events.total_published };
  }

  /** Seconds from the last answer to this one, by the server's own clock; 0 after its counters restarted. */
  eventsPerSecond(status, at) {
    if (!this.last || at <= this.last.at) return 0;
    return Math.max(0, ((status.events.total_published - this.last.published) * 1000) / (at - this.last.at));
  }

  of(name) {
    return this.samples.map((sample) => ({ at: sample.at, value: sample[name] }));
  }
}
