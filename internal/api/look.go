package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
)

func (a *API) addLooks() {
	look := func(id, path, summary, text string) operation {
		return operation{
			id: id, method: http.MethodGet, path: path, tag: tagLook, need: access.Reader, formats: asLists, summary: summary, text: text,
		}
	}
	add(a, look("list-failures", "/failures", "What is failed now, in groups of failures that look alike",
		"The groups with the most tasks come first. The same rows as v_failure_group."), a.listFailures)
	add(a, look("list-queue", "/queue", "What goes next, in the order of claims", "Of one workflow: what is among the next 5,000."), a.listQueue)
	add(a, look("list-running", "/running", "What runs, the longest first", ""), a.listRunning)
	add(a, look("list-watchers", "/watchers", "The watchers", ""), a.listWatchers)
	add(a, look("list-events", "/events", "What people changed",
		"With `after`, those that came later, in their order: ask again with `after` = `next` to follow them, and miss none. "+
			"Without it the latest first."), a.listEvents)
	stats := look("get-stats", "/stats", "How everything stands, and how it went",
		"Buckets have what watchers recorded: what people set by hand is not in them.")
	stats.formats = asLists
	add(a, stats, a.getStats)
	version := look("get-version", "/version", "Version of the server and of the database", "")
	version.formats = nil
	add(a, version, a.getVersion)
	add(a, look("list-programs", "/programs", "What a task can run, with its parameters", ""), a.listPrograms)
}

// FailureGroup is tasks that failed alike.
type FailureGroup struct {
	Tasks       int        `json:"tasks"`
	Flows       int        `json:"flows"`
	Exact       bool       `json:"exact" doc:"False: there are at least so many."`
	TaskID      string     `json:"taskId" doc:"The workflow."`
	TaskSeq     int        `json:"taskSeq"`
	Title       string     `json:"title"`
	Program     *string    `json:"program"`
	Reason      *string    `json:"reason"`
	Error       *string    `json:"error" doc:"The first line of the error of the latest of them."`
	Fingerprint string     `json:"fingerprint" doc:"The same for errors that differ only in numbers and ids."`
	FirstTs     *timestamp `json:"firstTs"`
	LastTs      *timestamp `json:"lastTs"`
	TaskFlowID  string     `json:"taskFlowId" doc:"Of the one that failed last."`
	TaskExecSeq int        `json:"taskExecSeq"`
}

// FailureList has groups of failures.
type FailureList struct {
	Items []FailureGroup `json:"items" nullable:"false"`
	More  bool           `json:"more" doc:"There are more groups."`
}

func (a *API) listFailures(ctx context.Context, in *struct {
	TaskID      string `query:"taskId" maxLength:"256" doc:"The workflow."`
	Program     string `query:"program" maxLength:"256" doc:"Of the failed tasks."`
	Reason      string `query:"reason" enum:"failed,timeout,lost,invalid" doc:"Why they are suspended."`
	Fingerprint string `query:"fingerprint" maxLength:"64" doc:"The group of one error."`
	Since       string `query:"since" maxLength:"40" doc:"Failed since: only such tasks are counted."`
	Limit       int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"At most so many."`
},
) (FailureList, error) {
	since, err := moment("since", in.Since)
	if err != nil {
		return FailureList{}, err
	}
	groups, err := a.store.FailureGroups(ctx, flow.FailureFilter{
		WorkflowID: flow.WorkflowID(in.TaskID), Program: in.Program, Reason: flow.Reason(in.Reason), Fingerprint: in.Fingerprint,
		Since: since, Limit: in.Limit,
	})
	if err != nil {
		return FailureList{}, err
	}
	list := FailureList{make([]FailureGroup, len(groups.Groups)), groups.More}
	for i, g := range groups.Groups {
		list.Items[i] = FailureGroup{
			Tasks: g.Tasks.N, Flows: g.Flows.N, Exact: !g.Tasks.More, TaskID: string(g.WorkflowID), TaskSeq: g.TaskSeq, Title: g.Title,
			Program: orNull(g.Program), Reason: orNull(string(g.Reason)), Error: orNull(g.Error), Fingerprint: g.Fingerprint,
			FirstTs: stamp(g.FirstAt), LastTs: stamp(g.LastAt), TaskFlowID: string(g.Latest.Flow), TaskExecSeq: g.Latest.Seq,
		}
	}
	return list, nil
}

// Queued is a task that can go.
type Queued struct {
	Position     int        `json:"position" doc:"1 goes next."`
	TaskPriority int        `json:"taskPriority"`
	TaskFlowID   string     `json:"taskFlowId"`
	TaskExecSeq  int        `json:"taskExecSeq"`
	TaskID       string     `json:"taskId"`
	Title        string     `json:"title"`
	Program      *string    `json:"program"`
	RegisteredTs *timestamp `json:"registeredTs"`
	ReadyTs      *timestamp `json:"readyTs" doc:"Since when it could go."`
	WaitedMs     int64      `json:"waitedMs"`
	WaitReason   string     `json:"waitReason"`
	Why          string     `json:"why"`
}

// QueueList has what goes next.
type QueueList struct {
	Items []Queued `json:"items" nullable:"false"`
}

func (a *API) listQueue(ctx context.Context, in *struct {
	TaskID string `query:"taskId" maxLength:"256" doc:"The workflow."`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"50" doc:"At most so many."`
},
) (QueueList, error) {
	tasks, now, err := a.store.Queue(ctx, flow.WorkflowID(in.TaskID), in.Limit)
	if err != nil {
		return QueueList{}, err
	}
	list := QueueList{make([]Queued, len(tasks))}
	for i, t := range tasks {
		list.Items[i] = Queued{
			Position: t.Position, TaskPriority: t.Priority, TaskFlowID: string(t.Flow), TaskExecSeq: t.Seq, TaskID: string(t.WorkflowID),
			Title: t.Title, Program: orNull(t.Program), RegisteredTs: stamp(t.RegisteredAt), ReadyTs: stamp(t.ReadySince),
			WaitedMs: max(now.Sub(t.ReadySince), 0).Milliseconds(), WaitReason: t.WaitReason, Why: t.Why,
		}
	}
	return list, nil
}

// Running is a task that runs.
type Running struct {
	TaskFlowID     string     `json:"taskFlowId"`
	TaskExecSeq    int        `json:"taskExecSeq"`
	TaskID         string     `json:"taskId"`
	Title          string     `json:"title"`
	Program        *string    `json:"program"`
	Attempt        int        `json:"attempt"`
	WatcherID      *string    `json:"watcherId"`
	Watcher        *string    `json:"watcher" doc:"Its host and process."`
	StartedTs      *timestamp `json:"startedTs"`
	RunningMs      int64      `json:"runningMs"`
	UsualP50Ms     *int64     `json:"usualP50Ms" doc:"How long the same task took in earlier flows."`
	UsualP95Ms     *int64     `json:"usualP95Ms"`
	HeartbeatAgeMs *int64     `json:"heartbeatAgeMs"`
	Note           *string    `json:"note" doc:"What is odd about it."`
}

// RunningList has what runs.
type RunningList struct {
	Items []Running `json:"items" nullable:"false"`
}

func (a *API) listRunning(ctx context.Context, in *struct {
	Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"At most so many."`
},
) (RunningList, error) {
	tasks, err := a.store.Running(ctx, in.Limit)
	if err != nil {
		return RunningList{}, err
	}
	list := RunningList{make([]Running, len(tasks))}
	for i, t := range tasks {
		list.Items[i] = Running{
			TaskFlowID: string(t.Flow), TaskExecSeq: t.Seq, TaskID: string(t.WorkflowID), Title: t.Title, Program: orNull(t.Program),
			Attempt: t.Attempt, WatcherID: orNull(t.WatcherID), Watcher: orNull(t.Watcher), StartedTs: stamp(t.StartedAt),
			RunningMs: max(t.RunningFor, 0).Milliseconds(), UsualP50Ms: orNull(t.UsualP50.Milliseconds()), UsualP95Ms: orNull(t.UsualP95.Milliseconds()),
			HeartbeatAgeMs: orNull(t.HeartbeatAge.Milliseconds()), Note: orNull(t.Odd),
		}
	}
	return list, nil
}

// Watcher is a process that runs tasks.
type Watcher struct {
	WatcherID      string     `json:"watcherId"`
	Host           string     `json:"host"`
	PID            int        `json:"pid"`
	Version        string     `json:"version"`
	Programs       []string   `json:"programs" nullable:"false"`
	Workers        int        `json:"workers"`
	Busy           int        `json:"busy"`
	State          string     `json:"state" enum:"alive,draining,late,dead"`
	HeartbeatTs    *timestamp `json:"heartbeatTs"`
	HeartbeatAgeMs int64      `json:"heartbeatAgeMs"`
	StartedTs      *timestamp `json:"startedTs"`
}

// WatcherList has the watchers.
type WatcherList struct {
	Items []Watcher `json:"items" nullable:"false"`
}

func (a *API) listWatchers(ctx context.Context, _ *struct{}) (WatcherList, error) {
	watchers, err := a.store.Watchers(ctx)
	if err != nil {
		return WatcherList{}, err
	}
	list := WatcherList{make([]Watcher, len(watchers))}
	for i, w := range watchers {
		list.Items[i] = Watcher{
			WatcherID: w.ID, Host: w.Host, PID: w.PID, Version: w.Version, Programs: orEmpty(w.Programs), Workers: w.Workers, Busy: w.Busy,
			State: w.State, HeartbeatTs: stamp(w.HeartbeatAt), HeartbeatAgeMs: max(w.HeartbeatAge, 0).Milliseconds(), StartedTs: stamp(w.StartedAt),
		}
	}
	return list, nil
}

// Version is what the server and its database are.
type Version struct {
	Version     string  `json:"version"`
	Schema      int64   `json:"schema" doc:"Of the database."`
	NeedsSchema int64   `json:"needsSchema" doc:"What this server needs at least."`
	Postgres    *string `json:"postgres"`
}

func (a *API) getVersion(ctx context.Context, _ *struct{}) (Version, error) {
	v, err := a.store.Version(ctx)
	return Version{a.cfg.Version, v.Schema, v.NeedsSchema, orNull(v.Postgres)}, err
}

// ProgramList has what a task can run.
type ProgramList struct {
	Items []Program `json:"items" nullable:"false"`
}

func (a *API) listPrograms(context.Context, *struct{}) (ProgramList, error) {
	return ProgramList{orEmpty(a.cfg.Programs)}, nil
}

func (l FailureList) table() table {
	t := table{columns: []string{"tasks", "flows", "workflow", "seq", "title", "program", "reason", "first", "last", "fingerprint", "error"}, numbers: []int{0, 1, 3}}
	for _, g := range l.Items {
		more := ""
		if !g.Exact {
			more = "+"
		}
		t.add(strconv.Itoa(g.Tasks)+more, strconv.Itoa(g.Flows)+more, g.TaskID, g.TaskSeq, g.Title, orZero(g.Program), orZero(g.Reason),
			at(g.FirstTs), at(g.LastTs), g.Fingerprint, orZero(g.Error))
	}
	return t
}

func (l QueueList) table() table {
	t := table{columns: []string{"position", "priority", "flow", "seq", "workflow", "title", "program", "waited", "why"}, numbers: []int{0, 1, 3, 7}}
	for _, q := range l.Items {
		t.add(q.Position, q.TaskPriority, q.TaskFlowID, q.TaskExecSeq, q.TaskID, q.Title, orZero(q.Program), took(&q.WaitedMs), q.Why)
	}
	return t
}

func (l RunningList) table() table {
	t := table{columns: []string{"flow", "seq", "workflow", "title", "program", "attempt", "watcher", "running", "usual", "note"}, numbers: []int{1, 5, 7, 8}}
	for _, r := range l.Items {
		t.add(r.TaskFlowID, r.TaskExecSeq, r.TaskID, r.Title, orZero(r.Program), r.Attempt, orZero(r.Watcher), took(&r.RunningMs), took(r.UsualP95Ms), orZero(r.Note))
	}
	return t
}

func (l WatcherList) table() table {
	t := table{columns: []string{"watcher", "host", "pid", "state", "busy", "workers", "heartbeat", "version"}, numbers: []int{2, 4, 5, 6}}
	for _, w := range l.Items {
		t.add(w.WatcherID, w.Host, w.PID, w.State, w.Busy, w.Workers, took(&w.HeartbeatAgeMs), w.Version)
	}
	return t
}

func (l ProgramList) table() table {
	t := table{columns: []string{"program", "parameter", "type", "need", "description"}}
	for _, p := range l.Items {
		if len(p.Parameters) == 0 {
			t.add(p.Name, "", "", "", "")
		}
		for _, d := range p.Parameters {
			need := "optional"
			switch {
			case d.Required:
				need = "required"
			case len(d.Default) > 0:
				need = "default " + string(d.Default)
			}
			t.add(p.Name, d.Name, d.Type, need, d.Description)
		}
	}
	return t
}
