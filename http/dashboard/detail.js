// The panel next to a list: one record in full and, for an event, its chain.

import { get, segment } from "./api.js";
import { button, h, link } from "./dom.js";
import { clock, milliseconds } from "./format.js";
import { agentLink } from "./known_agents.js";

export const json = (value) => h("pre", { class: "json", tabindex: "0", text: JSON.stringify(value, null, 2) });

/** Quotes a value for a filter, so that none of its characters has a special meaning. */
export const quoted = (text) => `"${String(text).replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

export const filtered = (field, value) => `#/events?filter=${segment(`${field}:${quoted(value)}`)}`;

/** fields: [[name, value or element, href?]]; fields without a value are left out. */
export function facts(fields) {
  const rows = fields.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, rows.map(([name, value, href]) => [h("dt", { text: name }), h("dd", {}, href ? link(href, String(value)) : value instanceof Element ? value : String(value))]).flat());
}

export class Detail {
  constructor(label) {
    this.element = h("aside", { class: "detail", "aria-label": label, hidden: true });
  }

  show(title, ...content) {
    const close = button("Close", () => this.hide(), { class: "small" });
    this.element.replaceChildren(h("div", { class: "heading" }, h("h2", { text: title }), h("span", { class: "spring" }), close), ...content);
    this.element.hidden = false;
  }

  hide() {
    this.shown = null;
    this.element.hidden = true;
    this.element.replaceChildren();
  }

  showEvent(event) {
    const issue = event.data.issue_id;
    const agent = event.data.agent_id ?? (event.publisher === event.publisher_type ? null : event.publisher);
    const chain = h("div");
    this.shown = event.event_id;
    this.show(
      event.event_type,
      facts([
        ["Id", event.event_id],
        ["At", clock(event.timestamp, true)],
        ["Topic", event.topic],
        ["Publisher", event.publisher, filtered("publisher", event.publisher)],
        ["Agent", agent && agentLink(agent)],
        ["Issue", issue, issue && `#/issues/${segment(issue)}`],
        ["Project", event.project_id],
        ["Correlation", event.correlation_id, event.correlation_id && filtered("correlation_id", event.correlation_id)],
        ["Priority", event.priority === "normal" ? "" : event.priority],
      ]),
      json(event.data),
      chain,
    );
    if (event.correlation_id) this.showChain(event, chain);
  }

  /** All events with the same correlation id, in the order of the log, with the time from each to the next. */
  async showChain(event, place) {
    const filter = `correlation_id:${quoted(event.correlation_id)}`;
    const { events, total } = await get("/api/events", { filter, limit: 200, project_id: event.project_id });
    if (this.shown !== event.event_id) return;
    const steps = events.reverse().map((each, at) => {
      const waited = at ? `+${milliseconds(Date.parse(each.timestamp) - Date.parse(events[at - 1].timestamp))}` : clock(each.timestamp);
      const isThis = each.event_id === event.event_id;
      return h("li", { "aria-current": isThis ? "true" : null }, h("span", { class: "quiet", text: waited }),
        button(each.event_type, () => this.showEvent(each), { class: "plain" }), h("span", { class: "quiet", text: each.publisher }));
    });
    const more = total > events.length ? h("p", { class: "quiet", text: `the newest ${events.length} of ${total}` }) : null;
    place.append(h("h3", { text: `Chain of ${events.length}` }), more ?? "", h("ol", { class: "chain" }, steps));
  }
}
