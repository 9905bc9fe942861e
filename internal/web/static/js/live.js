// An open page asks for its own URL again and morphs what has changed into #live. It asks
// only while it can be seen, is not paused, and no other request is out. What a person
// has opened, typed, ticked or selected stays.

const root = document.documentElement;
const build = document.querySelector('meta[name="build"]').content;

const out = new Set(); // requests that are out for #live
let past = new Set(); // those of them after which something else was asked for: they are not shown
let fails = 0; // refreshes that failed, one after another
let gone = false; // the last one did since what is shown is no longer there
let timer = 0;
let shown = ""; // the ETag of what #live shows
let fresh = Date.now(); // when it was last known to be right, by the server's clock
let skew = 0; // the server's clock minus ours, in ms

const live = () => document.getElementById("live");

/** Lets those hear something who cannot see the page: of what is beneath a dialog nothing is heard. */
export const say = (text) => document.querySelectorAll(".say").forEach((n) => (n.textContent = text));

/** The moment by the server's clock, in ms: what times on a page are compared with. */
export const now = () => Date.now() + skew;

/** Runs f on what a refresh has changed, and on the whole page now. */
export function onChange(f) {
  f(document);
  document.addEventListener("htmx:afterSwap", (e) => f(e.detail.target?.isConnected ? e.detail.target : document));
}

/** Looks for news at once, whatever the timer says. */
export function tick() {
  clearTimeout(timer);
  timer = 0;
  if (out.size === 0 && live()) htmx.trigger(document.body, "tick");
  else plan();
}

/** Shows a URL of the same page. #live itself would not do as its source: htmx has it wait there
    for a refresh that is out, and forgets it when that one changes an attribute of #live. */
export const show = (href) => htmx.ajax("GET", href, { source: "body", target: "#live", select: "#live", swap: "morph:outerHTML" });

/** Shows what the address says now: what was asked for beside an action may be of before it, or of elsewhere. */
export function again() {
  if (out.size === 0) show(location.href);
  else plan();
}

function every() {
  const ms = Number(live()?.dataset.every ?? 0);
  if (fails === 0) return ms;
  return Math.min(30000, Math.max(ms, 1000) * 2 ** fails) * (0.75 + Math.random() / 2);
}

function plan() {
  clearTimeout(timer);
  timer = 0;
  const ms = every();
  if (ms > 0 && root.dataset.live === "on" && document.visibilityState === "visible") timer = setTimeout(tick, ms);
}

document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible" && root.dataset.live === "on" && every() > 0) tick();
  else plan();
});
addEventListener("flower:live", plan); // paused, or no more

// A page is asked for as browsers do: "/" says something else to curl.
document.addEventListener("htmx:configRequest", (e) => (e.detail.headers.Accept = "text/html"));

const ours = (e) => e.detail.target?.id === "live";

document.addEventListener("htmx:beforeRequest", (e) => {
  if (!ours(e)) return;
  past = new Set(out);
  out.add(e.detail.xhr);
});

document.addEventListener("htmx:beforeSwap", (e) => {
  const { xhr, requestConfig } = e.detail;
  if (!ours(e) || !e.detail.shouldSwap) return;
  const tag = xhr.getResponseHeader("ETag");
  // The browser hands on its own copy as 200 where the server has answered 304.
  const last = !past.has(xhr) || requestConfig.verb === "post"; // that one has a message, too
  e.detail.shouldSwap = last && (!tag || tag !== shown);
  if (last) shown = tag ?? "";
});

document.addEventListener("htmx:afterRequest", (e) => {
  const { xhr, successful, requestConfig } = e.detail;
  if (xhr.status === 401) location.reload(); // the token is no longer good: to where one is asked for
  if (!out.delete(xhr)) return;
  if (!ours(e) || past.has(xhr) || (requestConfig.verb === "post" && !successful)) return plan(); // an action, of which dialog.js tells
  gone = xhr.status === 404;
  fails = successful ? 0 : fails + 1;
  if (successful) {
    const date = Date.parse(xhr.getResponseHeader("Date") ?? "");
    // The header has whole seconds: half of one is as likely over as not.
    if (date) skew = Math.abs(date + 500 - Date.now()) < 2000 ? 0 : date + 500 - Date.now();
    fresh = now();
    const theirs = xhr.getResponseHeader("Flower-Build");
    document.getElementById("updated").hidden = !theirs || theirs === build;
    const title = /<title>([^<]*)<\/title>/.exec(xhr.responseText)?.[1];
    if (title) document.title = new DOMParser().parseFromString(title, "text/html").documentElement.textContent;
    const icon = /<link rel="icon"[^>]* href="([^"]+)"/.exec(xhr.responseText)?.[1];
    const link = document.querySelector('link[rel="icon"]');
    if (icon && link.getAttribute("href") !== icon) link.setAttribute("href", icon);
  }
  stale();
  plan();
});

// What a refresh could not bring is said, with how old the page is; its last content stays.
// It is heard once, and not every second.
function stale() {
  const note = document.getElementById("stale");
  const [why, since] = note.firstChild.children;
  note.hidden = fails === 0;
  root.classList.toggle("stale", fails > 0);
  why.textContent = gone ? "This is no longer there" : "Reconnecting";
  since.dateTime = new Date(fresh).toISOString();
  if (fails === 1) say(why.textContent);
}

// Who cannot see the page hears what matters: that a task has failed.
let failing = null;
onChange(() => {
  const now = new Map([...document.querySelectorAll("tr.s-failed[data-title]")].map((row) => [row.dataset.seq, row.dataset.title]));
  const fresh = [...now].filter(([seq]) => failing && !failing.has(seq)).map(([seq, title]) => `${seq} ${title} failed`);
  if (fresh.length > 0) say(fresh.slice(0, 3).join(", "));
  failing = now;
});

// How a morph leaves alone what belongs to the person. (Not by ignoreActiveValue: with it
// nothing that is inside the focused element changes, be that a button or the whole page.)
const typed = (n) => n.matches?.("input:not([type=hidden]), textarea, select");
Object.assign(Idiomorph.defaults.callbacks, {
  beforeAttributeUpdated(name, node) {
    if (name === "open") return !node.matches("details, dialog");
    if (name === "checked" || name === "value") return !typed(node);
    if (name === "selected") return false;
    return true;
  },
  beforeNodeMorphed(old, next) {
    if (old.nodeType !== 1) return true;
    if (old === document.activeElement && typed(old)) return false;
    // A time that is the same is written as the person wants it.
    if (old.localName === "time" && next.localName === "time")
      return old.dateTime !== next.dateTime || old.dataset.form !== next.dataset.form;
    // What a script keeps up by itself, as long as it is about the same thing.
    if (old.dataset?.keep) return old.dataset.keep !== next.dataset?.keep;
    return true;
  },
});

// The first look says at once what the server's clock is, and sets the timer.
if (live()) document.addEventListener("DOMContentLoaded", () => (every() > 0 && root.dataset.live === "on" ? tick() : plan()));
