package api

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// Graph is a graph of tasks.
type Graph struct {
	Nodes  []Node  `json:"nodes" nullable:"false"`
	Edges  []Edge  `json:"edges" nullable:"false"`
	Levels [][]int `json:"levels" nullable:"false" doc:"The tasks by the length of the longest way to them from a root."`

	name string
}

// Node is a task.
type Node struct {
	Seq     int     `json:"seq" doc:"taskExecSeq of a flow, taskSeq of a workflow."`
	Title   string  `json:"title"`
	Program string  `json:"program"`
	Status  *string `json:"status" doc:"Of a flow: waiting, running, finished, ignored, or why it is suspended."`
}

// Edge says that one task comes after another.
type Edge struct {
	From int `json:"from"`
	To   int `json:"to"`
}

func (a *API) getFlowGraph(ctx context.Context, in *struct {
	TaskFlowID string `path:"taskFlowId" doc:"The flow's id. To read, its beginning will do, from 6 characters on."`
},
) (Graph, error) {
	id, err := a.flowID(ctx, in.TaskFlowID)
	if err != nil {
		return Graph{}, err
	}
	s, err := a.store.Flow(ctx, id)
	if err != nil {
		return Graph{}, unknownFlow(id, err)
	}
	g := Graph{name: string(s.WorkflowID)}
	for _, t := range s.Tasks {
		word := t.Status.String()
		if t.Status == flow.Suspended {
			word, _ = describeSuspended(t.Reason)
		}
		g.Nodes = append(g.Nodes, Node{t.Seq, t.Title(), t.Program, &word})
		for _, p := range t.Parents {
			g.Edges = append(g.Edges, Edge{p, t.Seq})
		}
	}
	return g.leveled(), nil
}

func (a *API) getWorkflowGraph(ctx context.Context, in *WorkflowPath) (Graph, error) {
	s, err := a.readWorkflow(ctx, *in, 0)
	if err != nil {
		return Graph{}, err
	}
	g := Graph{name: string(s.ID)}
	for _, t := range a.workflow(s).Tasks {
		g.Nodes = append(g.Nodes, Node{t.TaskSeq, t.Title, t.Program, nil})
		for _, p := range t.DependsTaskSeqs {
			g.Edges = append(g.Edges, Edge{p, t.TaskSeq})
		}
	}
	return g.leveled(), nil
}

// leveled finds the levels. Tasks that depend on themselves, by way of others, are on none.
func (g Graph) leveled() Graph {
	g.Nodes, g.Edges, g.Levels = orEmpty(g.Nodes), orEmpty(g.Edges), [][]int{}
	known := make(map[int]bool, len(g.Nodes))
	for _, n := range g.Nodes {
		known[n.Seq] = true
	}
	children, unmet := map[int][]int{}, map[int]int{}
	for _, e := range g.Edges {
		if known[e.From] {
			children[e.From] = append(children[e.From], e.To)
			unmet[e.To]++
		}
	}
	var next []int
	for _, n := range g.Nodes {
		if unmet[n.Seq] == 0 {
			next = append(next, n.Seq)
		}
	}
	for len(next) > 0 {
		level := next
		next = nil
		for _, seq := range level {
			for _, c := range children[seq] {
				if unmet[c]--; unmet[c] == 0 {
					next = append(next, c)
				}
			}
		}
		g.Levels = append(g.Levels, level)
	}
	return g
}

// graph writes it in DOT or for Mermaid.
func (g Graph) graph(lang string) string {
	if lang == "dot" {
		return g.dot()
	}
	return g.mermaid()
}

// colors are those of states, in DOT.
var colors = map[string]string{
	"finished": "palegreen", "running": "lightskyblue", "ignored": "gray90", "held": "khaki", "cancelled": "tan", "waiting": "white",
}

func (g Graph) dot() string {
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %s {\n  rankdir=LR; node [shape=box, style=\"rounded,filled\", fillcolor=white];\n", dotQuoted(g.name))
	for _, n := range g.Nodes {
		label := strconv.Itoa(n.Seq) + " " + n.Title
		color := ""
		if n.Status != nil {
			label += "\n" + *n.Status
			fill, known := colors[*n.Status]
			if !known {
				fill = "lightcoral"
			}
			color = ", fillcolor=" + fill
		}
		fmt.Fprintf(&b, "  %d [label=%s%s];\n", n.Seq, dotQuoted(label), color)
	}
	for _, e := range g.Edges {
		fmt.Fprintf(&b, "  %d -> %d;\n", e.From, e.To)
	}
	b.WriteString("}\n")
	return b.String()
}

// dotQuoted writes a string of DOT: a backslash in a label would begin an escape.
func dotQuoted(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(oneLine(line))
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}

func (g Graph) mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for _, n := range g.Nodes {
		label := fmt.Sprintf("%d %s", n.Seq, n.Title)
		if n.Status != nil {
			label += " · " + *n.Status
		}
		fmt.Fprintf(&b, "  t%d[\"%s\"]\n", n.Seq, mermaidQuoted(label))
	}
	for _, e := range g.Edges {
		fmt.Fprintf(&b, "  t%d --> t%d\n", e.From, e.To)
	}
	return b.String()
}

// mermaidQuoted writes a text as Mermaid's entities where it could be markup.
func mermaidQuoted(s string) string {
	return strings.NewReplacer(`"`, "#quot;", "#", "#35;", "<", "#lt;", ">", "#gt;", "&", "#amp;", "`", "#96;").Replace(oneLine(s))
}
