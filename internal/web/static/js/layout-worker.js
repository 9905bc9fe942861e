// Lays out a graph, away from the page: 300 tasks take half a second. One size for all
// nodes and one order of input, so that the result is the same each time.
importScripts("../vendor/dagre-3.1.3.min.js");

const between = { nodes: 18, edges: 12, columns: 44 };
const margin = 16;
const tip = 6; // length of an edge's tip

/**
 * @typedef {{id: number, width: number, height: number, seqs: number[], edges: [number, number][]}} Order
 * @typedef {{id: number, width: number, height: number,
 *   nodes: [seq: number, x: number, y: number][],
 *   edges: [from: number, to: number, path: string, right: 1 | -1][]}} Drawing  the middles of
 *   nodes; an edge's path ends where its tip begins, which points to the right or left
 */

/** @param {MessageEvent<Order>} e */
self.onmessage = ({ data: { id, width, height, seqs, edges } }) => {
  const g = new dagre.graphlib.Graph();
  g.setGraph({
    rankdir: "LR", marginx: margin, marginy: margin,
    nodesep: between.nodes, edgesep: between.edges, ranksep: between.columns,
  });
  g.setDefaultEdgeLabel(() => ({}));
  for (const seq of seqs) g.setNode(String(seq), { width, height });
  for (const [from, to] of edges) g.setEdge(String(from), String(to));
  dagre.layout(g);
  const columns = new Set(seqs.map((seq) => Math.round(g.node(String(seq)).x)));
  self.postMessage({
    id,
    width: Math.ceil(g.graph().width),
    height: Math.ceil(g.graph().height),
    nodes: seqs.map((seq) => [seq, g.node(String(seq)).x, g.node(String(seq)).y]),
    edges: edges.map(([from, to]) => [from, to, ...route(g, String(from), String(to), columns, width)]),
  });
};

/**
 * An edge is level inside a column of nodes, at the height that dagre keeps free for it
 * there, and rises or falls only between columns. Drawn straight through dagre's points
 * it would cut through nodes, which are wide.
 */
function route(g, from, to, columns, width) {
  const a = g.node(from), b = g.node(to);
  const inside = g.edge(from, to).points.slice(1, -1)
    .filter((p) => columns.has(Math.round(p.x)) && Math.round(p.x) !== Math.round(a.x) && Math.round(p.x) !== Math.round(b.x));
  const stops = [a, ...inside, b];
  const n = (v) => Math.round(v * 10) / 10;
  let d = "", right = 1;
  for (let i = 1; i < stops.length; i++) {
    const p = stops[i - 1], q = stops[i], last = i === stops.length - 1;
    right = Math.sign(q.x - p.x) || 1; // an edge of a cycle goes back
    const x1 = p.x + (right * width) / 2;
    const x2 = q.x - right * (width / 2 + (last ? tip : 0)), mid = (x1 + x2) / 2;
    d += i === 1 ? `M${n(x1)} ${n(p.y)}` : `H${n(x1)}`;
    d += n(p.y) === n(q.y) ? `H${n(x2)}` : `C${n(mid)} ${n(p.y)} ${n(mid)} ${n(q.y)} ${n(x2)} ${n(q.y)}`;
  }
  return [d, right];
}
