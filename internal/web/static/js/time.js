// Writes times as the person wants them: in their zone or in UTC, "4 min ago", and counts
// the seconds of what runs. A page has only the moments.
import { now, onChange } from "./live.js";

const root = document.documentElement;
const utc = () => root.dataset.zone === "utc";

const formats = new Map();
function format(style) {
  const key = style + root.dataset.zone;
  if (!formats.has(key)) {
    const zone = utc() ? { timeZone: "UTC" } : {};
    const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
    const date = { year: "numeric", month: "2-digit", day: "2-digit" };
    formats.set(key, new Intl.DateTimeFormat("sv-SE", {
      clock: { ...zone, ...clock, fractionalSecondDigits: 3 },
      time: { ...zone, ...clock },
      day: { ...zone, ...date },
      full: { ...zone, ...date, ...clock },
    }[style]));
  }
  return formats.get(key);
}

const today = () => format("day").format(now());
const zones = new Intl.DateTimeFormat("en", { timeZoneName: "short" }); // made once: a page may have thousands of times

/** The name of the zone that times are written in, at a moment. */
export function zone(at) {
  return utc() ? "UTC" : zones.formatToParts(at).find((p) => p.type === "timeZoneName").value;
}

/** A moment in the parts that axes are written of. */
export function parts(at) {
  const fraction = clock(at).slice(0, -2);
  return { day: format("day").format(at), minute: fraction.slice(0, 5), second: fraction.slice(0, 8), fraction };
}

/** A moment as date and time, with the zone. */
export const moment = (at) => `${format("full").format(at)} ${zone(at)}`;

/** A moment as a time of day. */
const clock = (at) => format("clock").format(at).replace(",", ".");

const two = (n) => String(n).padStart(2, "0");

/** A duration of so many ms, as the server writes it: 12.4 s, 3 m 07 s. Never negative.
 * In whole seconds it is one that goes on: a second counts when it is over. */
export function took(ms, whole = false) {
  ms = Math.max(0, ms);
  if (ms < 1000 && !whole) return `${Math.floor(ms)} ms`;
  if (ms < 59950) return whole ? `${Math.floor(ms / 1000)} s` : `${(ms / 1000).toFixed(1)} s`;
  const s = whole ? Math.floor(ms / 1000) : Math.round(ms / 1000);
  const m = Math.floor(s / 60), h = Math.floor(m / 60);
  if (h >= 24) return `${Math.floor(h / 24)} d ${two(h % 24)} h`;
  if (h > 0) return `${h} h ${two(m % 60)} m`;
  return `${m} m ${two(s % 60)} s`;
}

function ago(ms) {
  if (ms < 5000) return "just now";
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 48 * 3600) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86400)} d ago`;
}

function words(form, at) {
  const left = at - now();
  switch (form) {
    case "ago": return ago(-left);
    case "since": return took(-left, true);
    case "until": return left > 0 ? `in ${took(left + 999, true)}` : "now";
    case "clock": return clock(at);
    case "time": return `${format("time").format(at)} ${zone(at)}`;
    default:
      // Today needs no date.
      if (format("day").format(at) === today()) return `${format("time").format(at)} ${zone(at)}`;
      return moment(at);
  }
}

function write(node) {
  const at = Date.parse(node.dateTime);
  if (Number.isNaN(at)) return;
  const text = words(node.dataset.form, at);
  if (node.textContent !== text) node.textContent = text;
  const title = moment(at);
  if (node.title !== title) node.title = title;
}

const writeAll = (within) => within.querySelectorAll("time[datetime]").forEach(write);

onChange(writeAll);
addEventListener("flower:zone", () => writeAll(document));
let day = today();
setInterval(() => {
  if (document.visibilityState !== "visible") return;
  document.querySelectorAll('time[data-form="ago"], time[data-form="since"], time[data-form="until"]').forEach(write);
  // At midnight what was today needs its date.
  if (day !== today()) writeAll(document);
  day = today();
}, 1000);
