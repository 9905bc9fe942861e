package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/access"
	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
	"github.com/d-tsuji/flower/internal/request"
)

func (a *API) addTasks() {
	const task = "/flows/{taskFlowId}/tasks/{taskExecSeq}"
	add(a, operation{
		id: "list-tasks", method: http.MethodGet, path: "/flows/{taskFlowId}/tasks", tag: tagTasks, need: access.Reader, formats: asLists,
		summary: "The tasks of a flow, in topological order",
	}, a.listTasks)
	add(a, operation{
		id: "get-task", method: http.MethodGet, path: task, tag: tagTasks, need: access.Reader,
		summary: "A task",
	}, a.getTask)
	add(a, operation{
		id: "list-attempts", method: http.MethodGet, path: task + "/attempts", tag: tagTasks, need: access.Reader, formats: asLists,
		summary: "The tries at a task, the latest first",
	}, a.listAttempts)
	add(a, operation{
		id: "get-log", method: http.MethodGet, path: task + "/log", tag: tagTasks, need: access.Reader, formats: []string{"text", "json"},
		summary: "What an attempt has said and printed",
		text: "The last lines, or those after a line: to follow a log, ask again with `after` = the header Flower-Last-Line " +
			"(in JSON `lastLine`).",
	}, a.getLog)
}

// TaskPath is where a task is.
type TaskPath struct {
	TaskFlowID  string `path:"taskFlowId" doc:"The flow's id. To read, its beginning will do, from 6 characters on."`
	TaskExecSeq string `path:"taskExecSeq" doc:"The task's number in the flow, from 1."`
}

// key finds the task that a path names; whether it exists is seen when it is read.
func (a *API) key(ctx context.Context, p TaskPath) (flow.TaskKey, error) {
	id, err := a.flowID(ctx, p.TaskFlowID)
	if err != nil {
		return flow.TaskKey{}, err
	}
	seq, err := p.seq()
	return flow.TaskKey{Flow: id, Seq: seq}, err
}

// unknownTask says which task does not exist.
func unknownTask(key flow.TaskKey, err error) error {
	if errors.Is(err, flow.ErrNoTask) {
		return problem.TaskNotFound.Because("flow %q has no task %d", request.ShortID(string(key.Flow)), key.Seq)
	}
	return unknownFlow(key.Flow, err)
}

// TaskList has the tasks of a flow.
type TaskList struct {
	Items []Task `json:"items" nullable:"false"`

	state flow.State
}

func (a *API) listTasks(ctx context.Context, in *struct {
	TaskFlowID string `path:"taskFlowId" doc:"The flow's id. To read, its beginning will do, from 6 characters on."`
},
) (TaskList, error) {
	id, err := a.flowID(ctx, in.TaskFlowID)
	if err != nil {
		return TaskList{}, err
	}
	s, err := a.store.Flow(ctx, id)
	if err != nil {
		return TaskList{}, unknownFlow(id, err)
	}
	return TaskList{a.detail(s).Tasks, s}, nil
}

func (a *API) getTask(ctx context.Context, in *TaskPath) (Task, error) {
	key, err := a.key(ctx, *in)
	if err != nil {
		return Task{}, err
	}
	s, err := a.store.Task(ctx, key)
	if err != nil {
		return Task{}, unknownTask(key, err)
	}
	return newTask(s.Tasks[0], s.AsOf), nil
}

// Attempt is one try at a task.
type Attempt struct {
	Attempt    int        `json:"attempt"`
	Current    bool       `json:"current" doc:"The task's row is of this attempt; the others were superseded."`
	ExecStatus int        `json:"execStatus"`
	Status     string     `json:"status" doc:"What it came to; running if it still was when it was superseded."`
	Reason     *string    `json:"reason"`
	Error      *string    `json:"error"`
	Output     value      `json:"output"`
	WatcherID  *string    `json:"watcherId"`
	StartedTs  *timestamp `json:"startedTs"`
	EndedTs    *timestamp `json:"endedTs"`
	DurationMs *int64     `json:"durationMs"`
}

// AttemptList has the tries at a task.
type AttemptList struct {
	Items []Attempt `json:"items" nullable:"false"`
}

func (a *API) listAttempts(ctx context.Context, in *TaskPath) (AttemptList, error) {
	key, err := a.key(ctx, *in)
	if err != nil {
		return AttemptList{}, err
	}
	attempts, err := a.store.Attempts(ctx, key)
	if err != nil {
		return AttemptList{}, unknownTask(key, err)
	}
	list := AttemptList{make([]Attempt, len(attempts))}
	for i, t := range attempts {
		list.Items[i] = Attempt{
			Attempt: t.Number, Current: t.Current, ExecStatus: int(t.Status), Status: t.Status.String(), Reason: orNull(string(t.Reason)),
			Error: orNull(t.Error), Output: value(masked(t.Output, "null")), WatcherID: orNull(t.WatcherID),
			StartedTs: stamp(t.StartedAt), EndedTs: stamp(t.EndedAt), DurationMs: milliseconds(t.StartedAt, t.EndedAt, t.EndedAt),
		}
	}
	return list, nil
}

type getLogInput struct {
	TaskPath
	Attempt int    `query:"attempt" minimum:"1" maximum:"2000000000" doc:"Without it the latest that has a log."`
	Tail    int    `query:"tail" minimum:"1" maximum:"10000" default:"1000" doc:"How many lines, at most."`
	After   int64  `query:"after" minimum:"0" doc:"The number of a line: those that follow."`
	Before  int64  `query:"before" minimum:"1" doc:"The number of a line: those before it."`
	Q       string `query:"q" maxLength:"200" doc:"A part of the line."`
}

// LogLine is a line of a log.
type LogLine struct {
	No     int64      `json:"lineNo" doc:"Counts what the attempt printed, from 1."`
	At     *timestamp `json:"lineTs"`
	Stream string     `json:"stream" doc:"stdout, stderr, log (what the program says) or flower (lines are missing here)."`
	Text   string     `json:"text"`
}

// Log is a part of the log of an attempt.
type Log struct {
	Attempt  int       `json:"attempt" doc:"0: the task has not started yet."`
	Items    []LogLine `json:"items" nullable:"false"`
	LastLine int64     `json:"lastLine" doc:"Where to go on with after."`
	More     bool      `json:"more" doc:"There are more: after these with after, else before them."`
	Running  bool      `json:"running" doc:"The attempt runs: more may come."`
}

func (a *API) getLog(ctx context.Context, in *getLogInput) (Log, error) {
	key, err := a.key(ctx, in.TaskPath)
	if err != nil {
		return Log{}, err
	}
	f := flow.LogFilter{TaskKey: key, Attempt: in.Attempt, Text: in.Q, Before: in.Before, Limit: in.Tail}
	if viewOf(ctx).asks("after") {
		f.After = &in.After
	}
	page, err := a.store.Log(ctx, f)
	if err != nil {
		return Log{}, unknownTask(key, err)
	}
	if in.Attempt > page.Latest {
		return Log{}, problem.AttemptNotFound.Because("task %d of flow %q has no attempt %d: the latest is %d", key.Seq, request.ShortID(string(key.Flow)), in.Attempt, page.Latest)
	}
	log := Log{Attempt: page.Attempt, Items: make([]LogLine, len(page.Lines)), LastLine: in.After, More: page.More, Running: page.Running}
	for i, l := range page.Lines {
		log.Items[i] = LogLine{l.No, stamp(l.At), string(l.Stream), l.Text}
		log.LastLine = l.No
	}
	return log, nil
}

func (l Log) text(view) string {
	var b strings.Builder
	for _, line := range l.Items {
		b.WriteString(line.Text + "\n")
	}
	return b.String()
}

// header says in text, too, where to go on.
func (l Log) header(h http.Header, _ *http.Request) {
	h.Set("Flower-Attempt", strconv.Itoa(l.Attempt))
	h.Set("Flower-Last-Line", strconv.FormatInt(l.LastLine, 10))
	h.Set("Flower-More", strconv.FormatBool(l.More))
	h.Set("Flower-Running", strconv.FormatBool(l.Running))
}

func (l TaskList) table() table {
	t := table{columns: []string{"seq", "title", "status", "attempt", "took", "program", "depends on", "why"}, numbers: []int{0, 3, 4}}
	for _, task := range l.Items {
		status := task.Status
		if task.Reason != nil {
			status = *task.Reason
		}
		why := orZero(task.Error)
		if why == "" {
			why = orZero(task.Why)
		}
		t.add(task.TaskExecSeq, task.Title, status, task.Attempt, took(task.DurationMs), task.Program, list(task.DependsTaskExecSeqs), why)
	}
	return t
}

func (l AttemptList) table() table {
	t := table{columns: []string{"attempt", "status", "reason", "started", "took", "error"}, numbers: []int{0, 4}}
	for _, a := range l.Items {
		t.add(a.Attempt, a.Status, orZero(a.Reason), at(a.StartedTs), took(a.DurationMs), orZero(a.Error))
	}
	return t
}

// list writes numbers with commas between them.
func list(seqs []int) string {
	words := make([]string, len(seqs))
	for i, s := range seqs {
		words[i] = strconv.Itoa(s)
	}
	return strings.Join(words, ",")
}
