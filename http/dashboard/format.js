// Numbers and times for people. The exact value is in the element's title and data-value.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export const count = (n) => whole.format(n);

export function decimals(n, places = 1) {
  return n.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
}

export const percent = (n) => `${decimals(n, n < 10 ? 1 : 0)} %`;
export const share = (n) => `${decimals(n * 100, 0)} %`;
export const megabytes = (n) => (n >= 10000 ? `${decimals(n / 1000, 1)} GB` : `${decimals(n, n < 10 ? 1 : 0)} MB`);
export const bytes = (n) => (n < 1000 ? `${count(n)} B` : n < 1e6 ? `${decimals(n / 1000)} KB` : `${decimals(n / 1e6)} MB`);
export const milliseconds = (n) => (n >= 1000 ? `${decimals(n / 1000, 2)} s` : `${decimals(n, n < 10 ? 2 : 0)} ms`);
export const perSecond = (n) => `${decimals(n, n < 10 ? 1 : 0)}/s`;

export function duration(s) {
  if (s < 10) return `${decimals(s, 1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${String(Math.floor(s % 60)).padStart(2, "0")} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A time of day, with the date in front if it is not today. */
export function clock(iso, withMs = false) {
  const at = new Date(iso);
  const time = clockFormat.format(at) + (withMs ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : "");
  return at.toDateString() === new Date().toDateString() ? time : `${dayFormat.format(at)} ${time}`;
}

/** Shortens text for a narrow space. */
export const cut = (text, chars = 240) => (text.length > chars ? `${text.slice(0, chars)}…` : text);

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
