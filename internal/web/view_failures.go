package web

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

// failuresView is what /failures shows.
type failuresView struct {
	Title    string
	Query    query
	Names    suggestions
	Workflow string
	Program  string
	Since    []listOption
	Words    string // "23 failed tasks in 6 groups"
	Groups   []groupRow
	More     bool // there are more groups
	Filtered bool
}

// groupRow is a group of failures.
type groupRow struct {
	flow.FailureGroup
	ID      string // of its row
	Look    look
	Task    string // "3 load_orders"
	Lead    string // "12 tasks failed": how many
	Count   string // "12"
	Pieces  []piece
	Spread  spark
	Open    bool
	Toggle  string // link that opens it, or closes it
	List    string // link to all of its flows
	Latest  string // link to the one that failed last
	Shown   []flowRow
	Rerun   button
	Others  []button
	FlowsIn string // "12 flows"
}

// piece is a part of an error. What varies in a group is one by itself.
type piece struct {
	Text   string
	Varies bool
}

func newFailuresView(groups flow.FailureGroups, f flow.FailureFilter, q query, who access.Principal) failuresView {
	v := failuresView{
		Title: "Failures", Query: q, Workflow: string(f.WorkflowID), Program: f.Program, More: groups.More,
		Since:    choose(sinceChoices, q.get("since")),
		Filtered: f.WorkflowID != "" || f.Program != "" || !f.Since.IsZero(),
	}
	var tasks flow.Count
	for _, g := range groups.Groups {
		row := newGroupRow(g, q)
		row.Open = q.get(openGroupName) == row.ID
		if row.Open {
			row.Toggle = q.without(openGroupName).String()
		}
		row.act(q, who)
		v.Groups = append(v.Groups, row)
		tasks.N += g.Tasks.N
		tasks.More = tasks.More || g.Tasks.More || groups.More
	}
	if n := len(v.Groups); n > 0 {
		v.Title = fmt.Sprintf("%s failed · Failures", number(tasks))
		v.Words = fmt.Sprintf("%s in %s", counted(tasks, "failed task", "failed tasks"), plural(n, "group", "groups"))
	}
	return v
}

func newGroupRow(g flow.FailureGroup, q query) groupRow {
	key := g.Key()
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", []any{key.Fingerprint, key.WorkflowID, key.TaskSeq, key.Program, key.Reason}))
	id := hex.EncodeToString(sum[:5])
	return groupRow{
		FailureGroup: g, ID: id, Look: lookOfReason(g.Reason), Task: fmt.Sprintf("%d %s", g.TaskSeq, g.Title),
		Count: number(g.Tasks), Lead: counted(g.Tasks, "task", "tasks"), FlowsIn: counted(g.Flows, "flow", "flows"),
		Pieces: pieces(g.Error), Spread: newSpark(spreadWords(g), "failed", g.Spread),
		Toggle: q.with(openGroupName, id).String(), List: "/flows" + groupQuery(key).String(),
		Latest: taskHref(g.Latest),
	}
}

func spreadWords(g flow.FailureGroup) string {
	return fmt.Sprintf("when its %s failed, from the first to the last", counted(g.Tasks, "task", "tasks"))
}

// act makes the buttons of a group: on its tasks, and on no others.
func (g *groupRow) act(q query, who access.Principal) {
	target := groupQuery(g.Key()).with("since", q.get("since")).with("back", "/failures"+q.String()).String()
	on := func(kind flow.ActionKind, label string) button {
		w := bulkWords[kind]
		return button{Label: label, Icon: w.Look.Icon, Path: "/bulk/" + string(kind), Query: target, Dialog: true}.needs(who, access.Operator)
	}
	g.Rerun = on(flow.ActionRerun, "Rerun "+g.Lead+"…")
	g.Others = []button{on(flow.ActionSkip, "Skip "+g.Lead+"…"), on(flow.ActionFinish, "Mark "+g.Lead+" finished…")}
}

// varying is what flower_fingerprint replaces.
var varying = regexp.MustCompile(`[0-9a-fA-F-]{8,}|[0-9]+`)

// pieces cuts an error's first line into what is the same for its group and what varies:
// numbers and ids, as flower_fingerprint has them.
func pieces(line string) []piece {
	var all []piece
	for line != "" {
		at := varying.FindStringIndex(line)
		if at == nil {
			return append(all, piece{Text: line})
		}
		if at[0] > 0 {
			all = append(all, piece{Text: line[:at[0]]})
		}
		all = append(all, piece{line[at[0]:at[1]], true})
		line = line[at[1]:]
	}
	return all
}
