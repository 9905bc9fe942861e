package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/definition"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

func (a *API) addWorkflows() {
	graphs := []string{"json", "dot", "mermaid"}
	add(a, operation{
		id: "list-workflows", method: http.MethodGet, path: "/workflows", tag: tagWorkflows, need: access.Reader, formats: asLists,
		summary: "List definitions, by name", text: "A broken one says why, in `problems`.",
	}, a.listWorkflows)
	add(a, operation{
		id: "get-workflow", method: http.MethodGet, path: "/workflows/{taskId}", tag: tagWorkflows, need: access.Reader, formats: asLists,
		summary: "A definition, with its tasks",
	}, a.getWorkflow)
	add(a, operation{
		id: "get-workflow-stats", method: http.MethodGet, path: "/workflows/{taskId}/stats", tag: tagWorkflows, need: access.Reader, formats: asLists,
		summary: "How its newest flows went", text: "Of up to a thousand flows, fewer of a large workflow.",
	}, a.getWorkflowStats)
	add(a, operation{
		id: "get-workflow-graph", method: http.MethodGet, path: "/workflows/{taskId}/graph", tag: tagWorkflows, need: access.Reader, formats: graphs,
		summary: "Its graph",
	}, a.getWorkflowGraph)
	add(a, operation{
		id: "get-flow-graph", method: http.MethodGet, path: "/flows/{taskFlowId}/graph", tag: tagFlows, need: access.Reader, formats: graphs,
		summary: "The graph of a flow, with the states of its tasks",
	}, a.getFlowGraph)
}

// Workflow is a definition.
type Workflow struct {
	TaskID          string           `json:"taskId"`
	Version         int              `json:"version" doc:"Rises with each change."`
	Description     *string          `json:"description"`
	MaxRunningFlows *int             `json:"maxRunningFlows" doc:"Null is any number."`
	MaxRunningTasks *int             `json:"maxRunningTasks"`
	Problems        []string         `json:"problems" nullable:"false" doc:"Why it cannot be registered; empty: it can."`
	Tasks           []TaskDefinition `json:"tasks" nullable:"false"`
	Last            []Flow           `json:"last" nullable:"false" doc:"Its last flows, the latest first."`
	URL             string           `json:"url"`
}

// TaskDefinition is a task of a definition.
type TaskDefinition struct {
	TaskSeq         int     `json:"taskSeq"`
	Title           string  `json:"title"`
	Program         string  `json:"program"`
	TaskPriority    int     `json:"taskPriority"`
	Parameters      object  `json:"parameters"`
	DependsTaskSeqs []int   `json:"dependsTaskSeqs" nullable:"false" doc:"What must be finished first, also where the row leaves it to the chain."`
	MaxAttempts     int     `json:"maxAttempts"`
	RetryDelayMs    int64   `json:"retryDelayMs"`
	TimeoutMs       *int64  `json:"timeoutMs"`
	OnLost          string  `json:"onLost"`
	RunIf           *string `json:"runIf"`
	Description     *string `json:"description"`
}

// WorkflowList is a part of the definitions.
type WorkflowList struct {
	Items      []Workflow `json:"items" nullable:"false"`
	NextCursor *string    `json:"nextCursor"`
}

func (l WorkflowList) header(h http.Header, r *http.Request) { linkNext(h, r, "cursor", l.NextCursor) }

func (a *API) listWorkflows(ctx context.Context, in *struct {
	Q      string `query:"q" maxLength:"200" doc:"A part of the name."`
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"At most so many."`
	Last   int    `query:"last" minimum:"0" maximum:"100" default:"1" doc:"How many of its flows come with each."`
	Cursor string `query:"cursor" maxLength:"1024" doc:"The nextCursor of the page before."`
},
) (WorkflowList, error) {
	states, more, err := a.store.Workflows(ctx, flow.WorkflowID(in.Cursor), in.Q, in.Limit, in.Last)
	if err != nil {
		return WorkflowList{}, err
	}
	list := WorkflowList{Items: make([]Workflow, len(states))}
	for i, s := range states {
		list.Items[i] = a.workflow(s)
	}
	if more && len(states) > 0 {
		list.NextCursor = orNull(string(states[len(states)-1].ID))
	}
	return list, nil
}

func (a *API) workflow(s flow.WorkflowState) Workflow {
	w := Workflow{
		TaskID: string(s.ID), Version: s.Version, Description: orNull(s.Description), MaxRunningFlows: orNull(s.MaxRunningFlows), MaxRunningTasks: orNull(s.MaxRunningTasks),
		Problems: orEmpty(s.Problems), Tasks: make([]TaskDefinition, len(s.Tasks)), Last: make([]Flow, len(s.Last)),
		URL: a.cfg.BasePath + "/workflows/" + url.PathEscape(string(s.ID)),
	}
	for i, f := range s.Last {
		w.Last[i] = a.flow(f)
	}
	for i, t := range s.Tasks {
		parents := t.DependsOn
		if parents == nil && i > 0 {
			parents = []int{s.Tasks[i-1].Seq}
		}
		w.Tasks[i] = TaskDefinition{
			TaskSeq: t.Seq, Title: t.Title(), Program: t.Program, TaskPriority: t.Priority,
			Parameters: masked(t.Parameters, "{}"), DependsTaskSeqs: orEmpty(parents), MaxAttempts: t.MaxAttempts,
			RetryDelayMs: t.RetryDelay.Milliseconds(), TimeoutMs: orNull(t.Timeout.Milliseconds()), OnLost: string(t.OnLost),
			RunIf: orNull(t.RunIf), Description: orNull(t.Description),
		}
	}
	return w
}

// header has what an edit is to replace.
func (w Workflow) header(h http.Header, _ *http.Request) { h.Set("ETag", etag(w.Version)) }

type WorkflowPath struct {
	TaskID string `path:"taskId" doc:"The workflow."`
}

func (p WorkflowPath) id() (flow.WorkflowID, error) {
	id, err := request.ID(p.TaskID)
	if err != nil {
		return "", err
	}
	if utf8.RuneCountInString(id) > flow.MaxWorkflowID {
		return "", unknownWorkflow(flow.WorkflowID(id), flow.ErrNotFound)
	}
	return flow.WorkflowID(id), nil
}

func unknownWorkflow(id flow.WorkflowID, err error) error {
	if errors.Is(err, flow.ErrNotFound) {
		return problem.WorkflowNotFound.Because("there is no workflow %q", request.ShortID(string(id)))
	}
	return fmt.Errorf("read workflow %q: %w", id, err)
}

// noWorkflow says which one was meant, if that can be told.
func (a *API) noWorkflow(ctx context.Context, id string) error {
	text := fmt.Sprintf("there is no workflow %q", request.ShortID(id))
	if ids, err := a.store.WorkflowIDs(ctx, 1000); err == nil {
		names := make([]string, len(ids))
		for i, id := range ids {
			names[i] = string(id)
		}
		if near := definition.Nearest(id, slices.Values(names)); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
	}
	return problem.WorkflowNotFound.Because("%s", text)
}

func (a *API) readWorkflow(ctx context.Context, p WorkflowPath, last int) (flow.WorkflowState, error) {
	id, err := p.id()
	if err != nil {
		return flow.WorkflowState{}, err
	}
	s, err := a.store.Workflow(ctx, id, last)
	if err != nil {
		return flow.WorkflowState{}, unknownWorkflow(id, err)
	}
	return s, nil
}

func (a *API) getWorkflow(ctx context.Context, in *struct {
	WorkflowPath
	Last int `query:"last" minimum:"0" maximum:"1000" default:"10" doc:"How many of its flows come with it."`
},
) (Workflow, error) {
	s, err := a.readWorkflow(ctx, in.WorkflowPath, in.Last)
	if err != nil {
		return Workflow{}, err
	}
	return a.workflow(s), nil
}

// WorkflowStats is how the newest flows of a workflow went.
type WorkflowStats struct {
	TaskID      string         `json:"taskId"`
	SinceTs     *timestamp     `json:"sinceTs"`
	Flows       int            `json:"flows" doc:"How many were looked at."`
	Exact       bool           `json:"exact" doc:"False: there were more in that time."`
	ByStatus    map[string]int `json:"byStatus"`
	SuccessRate *float64       `json:"successRate" doc:"Of those that ended, the share that finished."`
	DurationMs  Quantiles      `json:"durationMs" doc:"Of finished ones."`
	Tasks       []TaskStats    `json:"tasks" nullable:"false" doc:"By taskSeq."`
}

// Quantiles are those of durations.
type Quantiles struct {
	P50 *int64 `json:"p50"`
	P95 *int64 `json:"p95"`
	Max *int64 `json:"max"`
}

// TaskStats is how the tasks of one definition went.
type TaskStats struct {
	TaskSeq        int       `json:"taskSeq"`
	Title          string    `json:"title"`
	Program        string    `json:"program"`
	Runs           int       `json:"runs" doc:"Tasks that finished or failed."`
	Failed         int       `json:"failed" doc:"That are failed now."`
	FailedAttempts int       `json:"failedAttempts" doc:"Superseded attempts that had failed."`
	DurationMs     Quantiles `json:"durationMs"`
}

func quantiles(q flow.Quantiles) Quantiles {
	return Quantiles{orNull(q.P50.Milliseconds()), orNull(q.P95.Milliseconds()), orNull(q.Max.Milliseconds())}
}

func (a *API) getWorkflowStats(ctx context.Context, in *struct {
	WorkflowPath
	Window string `query:"window" maxLength:"20" default:"7d" doc:"How far back: 24h, 7d, 30d."`
},
) (WorkflowStats, error) {
	id, err := in.id()
	if err != nil {
		return WorkflowStats{}, err
	}
	window, err := period("window", in.Window)
	if err != nil {
		return WorkflowStats{}, err
	}
	s, err := a.store.WorkflowStats(ctx, id, window)
	if err != nil {
		return WorkflowStats{}, err
	}
	if s.Flows.N == 0 { // its definition may be gone, and its flows are not
		if _, err := a.store.Workflow(ctx, id, 0); err != nil {
			return WorkflowStats{}, unknownWorkflow(id, err)
		}
	}
	stats := WorkflowStats{
		TaskID: string(id), SinceTs: stamp(s.Since), Flows: s.Flows.N, Exact: !s.Flows.More, ByStatus: s.ByStatus,
		DurationMs: quantiles(s.Took), Tasks: make([]TaskStats, len(s.Tasks)),
	}
	if rate, known := s.SuccessRate(); known {
		stats.SuccessRate = &rate
	}
	for i, t := range s.Tasks {
		stats.Tasks[i] = TaskStats{t.TaskSeq, t.Title, t.Program, t.Runs, t.Failed, t.Attempts, quantiles(t.Took)}
	}
	return stats, nil
}

func (l WorkflowList) table() table {
	t := table{columns: []string{"workflow", "tasks", "last", "registered", "problems"}, numbers: []int{1}}
	for _, w := range l.Items {
		status, registered := "", ""
		if len(w.Last) > 0 {
			status, registered = w.Last[0].Status, at(w.Last[0].RegisteredTs)
		}
		t.add(w.TaskID, len(w.Tasks), status, registered, strings.Join(w.Problems, "; "))
	}
	if l.NextCursor != nil {
		t.foot = "more: &cursor=" + url.QueryEscape(*l.NextCursor) + "\n"
	}
	return t
}

func (w Workflow) table() table {
	t := table{columns: []string{"seq", "title", "program", "priority", "depends on", "attempts", "timeout"}, numbers: []int{0, 3, 5}}
	for _, d := range w.Tasks {
		t.add(d.TaskSeq, d.Title, d.Program, d.TaskPriority, list(d.DependsTaskSeqs), d.MaxAttempts, took(d.TimeoutMs))
	}
	for _, p := range w.Problems {
		t.foot += "problem: " + oneLine(p) + "\n"
	}
	return t
}

func (s WorkflowStats) table() table {
	t := table{columns: []string{"seq", "title", "program", "runs", "failed", "failed attempts", "p50", "p95"}, numbers: []int{0, 3, 4, 5, 6, 7}}
	for _, d := range s.Tasks {
		t.add(d.TaskSeq, d.Title, d.Program, d.Runs, d.Failed, d.FailedAttempts, took(d.DurationMs.P50), took(d.DurationMs.P95))
	}
	t.foot = fmt.Sprintf("%d flows since %s", s.Flows, time.Time(*s.SinceTs).UTC().Format("2006-01-02 15:04Z"))
	if s.SuccessRate != nil {
		t.foot += fmt.Sprintf(", %.0f%% of those that ended finished", 100**s.SuccessRate)
	}
	t.foot += "\n"
	return t
}
