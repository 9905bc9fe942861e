// Keys, while no field has the focus. None of them changes anything but how a page looks.
import { open } from "./dialog.js";
import { turn } from "./settings.js";

const root = document.documentElement;
let going = 0; // until when a second key says where to go

const visible = (n) => n && n.offsetParent !== null;
const click = (selector) => document.querySelector(selector)?.click();

function step(by) {
  const rows = [...document.querySelectorAll("[data-row]")].filter(visible);
  if (rows.length === 0) return;
  const at = rows.findIndex((r) => r.contains(document.activeElement));
  const row = rows[Math.min(rows.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
  row.querySelector("a[href]")?.focus();
  row.scrollIntoView({ block: "nearest" });
}

function failed(by) {
  const links = [...document.querySelectorAll("a[data-failed]")];
  if (links.length === 0) return;
  const at = links.findIndex((a) => a.ariaCurrent);
  links[at < 0 ? 0 : (at + by + links.length) % links.length].click();
}

// The panel of the selected task may be further down.
function panel(name) {
  click(`[data-panel="${name}"]`);
  document.getElementById("task")?.scrollIntoView();
}

const keys = {
  "/": () => document.getElementById("search").focus(),
  "?": () => open(`${root.dataset.base}help`),
  j: () => step(1),
  k: () => step(-1),
  n: () => failed(1),
  p: () => failed(-1),
  x: () => document.activeElement.closest("[data-row]")?.querySelector("input[type=checkbox]")?.click(),
  e: () => panel("error"),
  l: () => panel("log"),
  w: () => click("[data-wrap]"),
  r: () => click("a[data-rerun], .picks:has(td input:checked) [data-rerun]"),
  t: () => turn("theme"),
  u: () => turn("zone"),
  v: () => turn("live"),
};

document.addEventListener("keydown", (e) => {
  if (root.dataset.keys === "off" || e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return;
  if (e.target.matches("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]")) return;
  if (going > performance.now()) {
    going = 0;
    const link = document.querySelector(`a[data-go="${CSS.escape(e.key)}"]`);
    if (link) {
      e.preventDefault();
      link.click();
    }
    return;
  }
  if (e.key === "g") {
    going = performance.now() + 1500;
    return;
  }
  if (keys[e.key]) {
    e.preventDefault();
    keys[e.key]();
  }
});
