// The graph: a drawing of the rows of the task list, which are its data and its accessible
// equivalent. Loaded where there is one. A row says:
//
//	data-seq="3" data-after="1 2"   the task, and what it depends on
//	data-title data-label data-took what its node says; a running one's time is in its <time>
//	class="s-failed chosen planned" its state, whether it is the selected one, and whether
//	                                the action that a dialog previews would change it
//	data-ms                         how long it took, for the slowest path
//	.icon use                       its state's icon
//	a[data-select]                  what a click on its node does
//
// A change of state changes classes and words; nothing moves. It is laid out again only
// when there are other tasks or edges to show.
import { onChange } from "./live.js";

const SVG = "http://www.w3.org/2000/svg";
const panel = document.getElementById("graph");
const box = panel.querySelector(".graph-box");
const height = 46, text = { left: 36, right: 12, least: 106, most: 200 };

/**
 * @typedef {{seq: number, after: number[], state: string, title: string, label: string, took: string,
 *   ms: number, icon: string, chosen: boolean, planned: boolean, row: Element}} Task
 */
/** @type {Map<number, Task>} */
let tasks = new Map();
/** @type {{svg: SVGSVGElement, nodes: Map<number, Element>, edges: {from: number, to: number, g: Element}[],
 *   at: Map<number, {x: number, y: number}>, node: number, width: number, height: number} | null} */
let drawn = null;
let shape = ""; // what drawn is a drawing of, or will be
let scale = 1;
let inSight = 0; // the chosen task that was last brought into view

// --- reading

function read() {
  tasks = new Map();
  for (const row of document.querySelectorAll("[data-seq][data-after]")) {
    const { seq, after, title, label, took, ms } = row.dataset;
    const since = row.querySelector('time[data-form="since"]');
    tasks.set(Number(seq), {
      row, title: title ?? "", label: label ?? "", ms: Number(ms ?? 0),
      seq: Number(seq),
      after: [...new Set(after.split(" ").filter(Boolean).map(Number))],
      took: since?.textContent ?? took ?? "",
      state: [...row.classList].find((c) => c.startsWith("s-")) ?? "",
      icon: row.querySelector(".icon use")?.getAttribute("href") ?? "",
      chosen: row.classList.contains("chosen"),
      planned: row.classList.contains("planned"),
    });
  }
  for (const t of tasks.values()) t.after = t.after.filter((seq) => tasks.has(seq));
}

/** Everything that can be reached from seqs, themselves included. */
function reach(seqs, next) {
  const seen = new Set(seqs);
  for (const seq of seen) for (const n of next(seq)) seen.add(n);
  return seen;
}

const before = (seq) => tasks.get(seq).after;
function after() {
  const follow = new Map([...tasks.keys()].map((seq) => [seq, []]));
  for (const t of tasks.values()) for (const seq of t.after) follow.get(seq).push(t.seq);
  return (seq) => follow.get(seq);
}

const failed = () => [...tasks.values()].filter((t) => t.state === "s-failed").map((t) => t.seq);

/** The path on which the flow spent the most time, from a first task to a last one. */
function slowest() {
  const best = new Map(); // seq to [ms up to its end, the task before it]
  const visit = (seq) => {
    if (best.has(seq)) return best.get(seq);
    best.set(seq, [0, 0]); // whoever made a cycle by hand must not hang the page
    let ms = 0, from = 0;
    for (const b of before(seq)) if (visit(b)[0] >= ms) [ms, from] = [visit(b)[0], b];
    best.set(seq, [ms + tasks.get(seq).ms, from]);
    return best.get(seq);
  };
  let end = 0;
  for (const seq of tasks.keys()) if (visit(seq)[0] > (best.get(end)?.[0] ?? 0)) end = seq;
  const path = new Set();
  for (let seq = end; seq && !path.has(seq); seq = best.get(seq)[1]) path.add(seq);
  return path;
}

// --- laying out

const worker = new Worker(new URL("./layout-worker.js", import.meta.url));
let orders = 0;

/** Which tasks are drawn: all, or with "only the failed path" what led to a failure and what follows it. */
function shown() {
  const causes = failed();
  if (!option("failed").checked || causes.length === 0) return [...tasks.keys()];
  const path = reach(causes, before);
  for (const seq of reach(causes, after())) path.add(seq);
  return [...tasks.keys()].filter((seq) => path.has(seq));
}

function layout() {
  const seqs = shown().sort((a, b) => a - b);
  const some = new Set(seqs);
  const edges = seqs.flatMap((seq) => before(seq).filter((b) => some.has(b)).map((b) => [b, seq]));
  const width = nodeWidth();
  const now = JSON.stringify([seqs, edges, width]);
  if (now === shape) return;
  shape = now;
  worker.postMessage({ id: ++orders, width, height, seqs, edges });
}

worker.onmessage = ({ data }) => {
  if (data.id !== orders) return; // another one is on its way
  draw(data);
  update();
  fit();
  box.dataset.drawn = String(data.id);
};

const measure = document.createElement("canvas").getContext("2d");
const fonts = {
  title: () => `600 13px ${getComputedStyle(box).fontFamily}`,
  note: () => `400 11.5px ${getComputedStyle(box).fontFamily}`,
};

/** One width for all nodes, by the longest title and not by the state. */
function nodeWidth() {
  text.left = [...tasks.values()].some((t) => t.icon) ? 36 : 12;
  measure.font = fonts.title();
  const longest = Math.max(0, ...[...tasks.values()].map((t) => measure.measureText(`${t.seq} ${t.title}`).width + 6));
  return Math.ceil(Math.min(text.most, Math.max(text.least, longest))) + text.left + text.right;
}

/** As much of s as has room in width. */
function cut(s, font, width) {
  measure.font = font;
  const size = (t) => measure.measureText(t).width;
  if (size(s) <= width) return s;
  const all = [...s];
  let n = Math.ceil((all.length * width) / size(s)), t;
  do t = all.slice(0, n--).join("").trimEnd() + "…";
  while (n > 0 && size(t) > width);
  return t;
}

// --- drawing

function make(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent?.append(node);
  return node;
}

function draw({ width, height: tall, nodes, edges }) {
  const size = nodeWidth();
  const svg = make("svg", { class: "graph-svg", role: "img", viewBox: `0 0 ${width} ${tall}` });
  const lines = make("g", {}, svg), boxes = make("g", {}, svg);
  drawn = { svg, nodes: new Map(), edges: [], at: new Map(), node: size, width, height: tall };
  for (const [seq, x, y] of nodes) {
    drawn.at.set(seq, { x, y });
    drawn.nodes.set(seq, drawNode(seq, x - size / 2, y - height / 2, size, boxes));
  }
  for (const [from, to, d, right] of edges) {
    const g = make("g", {}, lines);
    const { x, y } = drawn.at.get(to), tipX = x - (right * size) / 2;
    make("path", { class: "line", d }, g);
    make("path", { class: "tip", d: `M${tipX - right * 7} ${y - 4.5}L${tipX - right} ${y}L${tipX - right * 7} ${y + 4.5}z` }, g);
    drawn.edges.push({ from, to, g });
  }
  box.replaceChildren(svg);
}

function drawNode(seq, x, y, width, parent) {
  const g = make("g", { id: `n-${seq}`, transform: `translate(${x} ${y})` }, parent);
  g.dataset.node = String(seq);
  make("title", {}, g);
  make("rect", { class: "ring", x: -4, y: -4, width: width + 8, height: height + 8, rx: 12 }, g);
  make("rect", { class: "node", width, height, rx: 8 }, g);
  make("use", { class: "sign", x: 11, y: (height - 16) / 2, width: 16, height: 16 }, g);
  const title = make("text", { class: "title", x: text.left, y: 20 }, g);
  make("tspan", { class: "seq" }, title).textContent = `${seq} `;
  make("tspan", {}, title);
  make("text", { class: "note", x: text.left, y: 36 }, g);
  return g;
}

/** Takes over what the rows say; no node moves. */
function update() {
  if (!drawn) return;
  const causes = failed();
  const doomed = reach(causes, after());
  const slow = option("slowest").checked ? slowest() : new Set();
  for (const [seq, g] of drawn.nodes) {
    const t = tasks.get(seq);
    const blocked = doomed.has(seq) && (t.state === "s-blocked" || t.state === "s-waiting");
    set(g, "class", ["n", t.state, t.chosen && "chosen", blocked && "doomed", slow.has(seq) && "slow", t.planned && "ringed"]
      .filter(Boolean).join(" "));
    if (t.icon) set(g.querySelector(".sign"), "href", t.icon);
    write(g, t);
  }
  for (const { from, to, g } of drawn.edges) {
    const blocked = doomed.has(from) && drawn.nodes.get(to).classList.contains("doomed");
    const done = tasks.get(from).state === "s-finished" || tasks.get(from).state === "s-skipped";
    set(g, "class", ["edge", blocked ? "doomed" : done && "done", slow.has(from) && slow.has(to) && "slow"].filter(Boolean).join(" "));
  }
  set(drawn.svg, "aria-label", `Graph of ${drawn.nodes.size} tasks. The list of tasks says the same.`);
  follow();
}

function write(g, t) {
  const note = [t.label, t.took].filter(Boolean).join(" · ");
  const [tooltip, title, small] = [g.querySelector("title"), g.querySelector(".title"), g.querySelector(".note")];
  const room = drawn.node - text.left - text.right;
  const full = `${t.seq} ${t.title}${note && `: ${note}`}`;
  if (tooltip.textContent === full) return;
  tooltip.textContent = full;
  measure.font = fonts.title();
  title.lastChild.textContent = cut(t.title, fonts.title(), room - measure.measureText(`${t.seq} `).width);
  small.textContent = cut(note, fonts.note(), room);
}

function set(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// --- seeing

const least = 0.75; // on opening nothing is smaller than that

function fit(whole = false) {
  const high = Math.max(box.clientHeight, Math.min(480, innerHeight * 0.6)); // as high as the box may become
  const all = Math.min(box.clientWidth / drawn.width, high / drawn.height, 1);
  zoom(whole ? all : Math.max(all, least));
  inSight = 0;
  follow();
}

/** Zooms, and keeps what is at x, y of the box where it is. */
function zoom(to, x = box.clientWidth / 2, y = box.clientHeight / 2) {
  const old = scale;
  scale = Math.min(2, Math.max(0.1, to));
  const left = ((box.scrollLeft + x) / old) * scale - x, top = ((box.scrollTop + y) / old) * scale - y;
  set(drawn.svg, "width", String(Math.floor(drawn.width * scale)));
  set(drawn.svg, "height", String(Math.floor(drawn.height * scale)));
  box.scrollLeft = left;
  box.scrollTop = top;
}

/** Brings the chosen node into view, once: whoever looks elsewhere is not dragged back. */
function follow() {
  const t = [...tasks.values()].find((one) => one.chosen);
  const at = t && drawn.at.get(t.seq);
  if (!at || t.seq === inSight) return;
  inSight = t.seq;
  const show = (middle, size, start, room) => {
    const low = middle * scale - (size * scale) / 2 - 24, high = middle * scale + (size * scale) / 2 + 24;
    return low >= start && high <= start + room ? start : (low + high - room) / 2;
  };
  box.scrollLeft = show(at.x, drawn.node, box.scrollLeft, box.clientWidth);
  box.scrollTop = show(at.y, height, box.scrollTop, box.clientHeight);
}

// --- doing

const option = (name) => panel.querySelector(`[data-graph="${name}"]`);

const choose = (seq) => tasks.get(seq)?.row.querySelector("a[data-select]");

panel.addEventListener("click", (e) => {
  const node = e.target.closest("[data-node]");
  if (node) choose(Number(node.dataset.node))?.click();
  if (!drawn) return;
  switch (e.target.closest("[data-graph]")?.dataset.graph) {
    case "in": return zoom(scale * 1.25);
    case "out": return zoom(scale / 1.25);
    case "fit": return fit(true);
    case "save": return import("./graph-save.js").then(({ save }) => save(drawn.svg, panel.dataset.name ?? "graph"));
  }
});

panel.addEventListener("change", refresh);

box.addEventListener("wheel", (e) => {
  if (!e.ctrlKey || !drawn) return;
  e.preventDefault();
  const at = box.getBoundingClientRect();
  zoom(scale * Math.exp(-e.deltaY / 300), e.clientX - at.left, e.clientY - at.top);
}, { passive: false });

// The background can be dragged; a node is there to be clicked.
box.addEventListener("pointerdown", (e) => {
  if (e.button !== 0 || e.pointerType !== "mouse" || e.target.closest("[data-node]")) return;
  const start = { x: e.clientX + box.scrollLeft, y: e.clientY + box.scrollTop };
  const move = (m) => box.scrollTo(start.x - m.clientX, start.y - m.clientY);
  box.setPointerCapture(e.pointerId);
  box.addEventListener("pointermove", move);
  box.addEventListener("pointerup", () => box.removeEventListener("pointermove", move), { once: true });
});

/** The task that an arrow leads to: along an edge, or up and down in the column. */
function neighbour(seq, key) {
  const at = drawn.at.get(seq);
  if (!at) return undefined;
  const near = (list) => list.filter((s) => drawn.at.has(s))
    .sort((a, b) => Math.abs(drawn.at.get(a).y - at.y) - Math.abs(drawn.at.get(b).y - at.y))[0];
  const column = (way) => near([...drawn.at.keys()].filter((s) => drawn.at.get(s).x === at.x && (drawn.at.get(s).y - at.y) * way > 0));
  switch (key) {
    case "ArrowLeft": return near(before(seq));
    case "ArrowRight": return near(after()(seq));
    case "ArrowUp": return column(-1);
    case "ArrowDown": return column(1);
  }
}

document.addEventListener("keydown", (e) => {
  if (!drawn || !e.key.startsWith("Arrow") || e.ctrlKey || e.metaKey || e.altKey || e.shiftKey) return;
  if (document.documentElement.dataset.keys === "off" || e.target.matches("input, textarea, select")) return;
  const row = e.target.closest("[data-seq]");
  if (!row && e.target !== box) return;
  const here = row ? Number(row.dataset.seq) : [...tasks.values()].find((t) => t.chosen)?.seq;
  const link = choose(here === undefined ? Math.min(...tasks.keys()) : neighbour(here, e.key));
  if (!link) return;
  e.preventDefault();
  if (row) link.focus();
  link.click();
});

// --- keeping up

function refresh() {
  read();
  option("failed").disabled = failed().length === 0;
  layout();
  update();
}

panel.hidden = false;
onChange(refresh);
addEventListener("flower:planned", refresh);
// Seconds that are counted in a row are counted in its node.
setInterval(() => {
  if (document.visibilityState !== "visible" || ![...tasks.values()].some((t) => t.state === "s-running")) return;
  read();
  update();
}, 1000);
