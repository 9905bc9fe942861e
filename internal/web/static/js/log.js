// A log: earlier lines are loaded in place, and of a log that grows none is missing. What
// was loaded stays: a refresh of the page has the last lines alone.
import { onChange } from "./live.js";

const lines = () => document.getElementById("log-lines");
const numberOf = (line) => Number(line.dataset.no);

async function load(query) {
  const log = document.getElementById("log");
  const key = log.dataset.log;
  const url = `${log.dataset.path}?${new URLSearchParams({ attempt: log.dataset.attempt, ...query })}`;
  const answer = await fetch(url, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(String(answer.status));
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  // Another log may have been chosen meanwhile.
  if (document.getElementById("log")?.dataset.log !== key) return null;
  return { found: [...page.querySelectorAll("#log-lines > .line")], earlier: page.querySelector("[data-log-earlier]") };
}

document.addEventListener("click", async (e) => {
  const link = e.target.closest("[data-log-earlier]");
  if (!link || e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return;
  e.preventDefault();
  const query = Object.fromEntries(new URL(link.href).searchParams);
  const first = lines()?.firstElementChild;
  link.ariaBusy = "true";
  const got = await load({ before: numberOf(first), ...(query.q ? { q: query.q } : {}) }).catch(() => null);
  link.ariaBusy = null;
  if (!got) return;
  lines().prepend(...got.found);
  if (!got.earlier) link.parentElement.remove();
});

// Between two refreshes more lines may have come than a page has. One search has gaps by
// its nature.
let filling = false;
async function fill() {
  const log = document.getElementById("log");
  if (!log || filling || log.querySelector('[name="q"]')?.value) return;
  for (const line of lines()?.children ?? []) {
    const before = line.previousElementSibling;
    if (!before || numberOf(before) + 1 >= numberOf(line) || line.dataset.gap === log.dataset.state) continue;
    filling = true;
    const got = await load({ after: numberOf(before) }).catch(() => null);
    filling = false;
    if (!got) return;
    const missing = got.found.filter((l) => numberOf(l) < numberOf(line));
    before.after(...missing);
    if (missing.length === 0) line.dataset.gap = log.dataset.state; // cut out; or not written before it has ended
    return fill();
  }
}

// New lines that follow none of those that are kept were put before them all.
function order() {
  const list = [...(lines()?.children ?? [])];
  if (list.some((line, i) => i > 0 && numberOf(line) < numberOf(list[i - 1]))) lines().append(...list.sort((a, b) => numberOf(a) - numberOf(b)));
}

onChange(() => {
  order();
  // A refresh has the link again, also where all that was before is here.
  if (lines()?.firstElementChild?.dataset.no === "1") document.querySelector("[data-log-earlier]")?.parentElement.remove();
  fill();
});

// A link to a line that is not among the last ones leads to the part that it is in.
const wanted = Number(/^#L(\d+)$/.exec(location.hash)?.[1]);
const there = new URL(location.href);
if (wanted && !document.getElementById(`L${wanted}`) && !there.searchParams.has("before")) {
  there.searchParams.set("before", String(wanted + 10));
  location.replace(there);
}

// A morph keeps the lines that are here, as long as it is about the same log.
let same = false;
const { beforeNodeMorphed, beforeAttributeUpdated } = Idiomorph.defaults.callbacks;
Object.assign(Idiomorph.defaults.callbacks, {
  beforeNodeMorphed(old, next) {
    if (old.id === "log") same = old.dataset.log === next.dataset?.log;
    if (same && old.nodeType === 1 && old.matches(".line[data-no]")) return false; // a line never changes
    return beforeNodeMorphed(old, next);
  },
  // What was looked for in another log does not stand over this one.
  beforeAttributeUpdated: (name, node, ...rest) => (node.id === "log-q" && !same) || beforeAttributeUpdated(name, node, ...rest),
  beforeNodeRemoved: (node) => !(same && node.nodeType === 1 && node.matches(".line[data-no], .log-more")),
});
