package api

import (
	"encoding/json"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/d-tsuji/flower/internal/flow"
)

// timestamp is written in UTC with milliseconds.
type timestamp time.Time

// MarshalText makes it a JSON string.
func (t timestamp) MarshalText() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z"), nil
}

// UnmarshalText reads it back.
func (t *timestamp) UnmarshalText(text []byte) error {
	at, err := time.Parse(time.RFC3339Nano, string(text))
	*t = timestamp(at)
	return err
}

// Schema says in the document what it looks like.
func (timestamp) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Nullable: true}
}

func stamp(t time.Time) *timestamp {
	if t.IsZero() {
		return nil
	}
	return (*timestamp)(&t)
}

// object is a JSON object, as it stands in a row; nil is null.
type object json.RawMessage

// MarshalJSON writes it as it is.
func (o object) MarshalJSON() ([]byte, error) {
	if len(o) == 0 {
		return []byte("null"), nil
	}
	return o, nil
}

// UnmarshalJSON reads it back.
func (o *object) UnmarshalJSON(text []byte) error {
	*o = append((*o)[:0], text...)
	return nil
}

// Schema says so in the document.
func (object) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true, Nullable: true}
}

// value is whatever JSON stands in a row; nil is null.
type value json.RawMessage

// MarshalJSON writes it as it is.
func (v value) MarshalJSON() ([]byte, error) { return object(v).MarshalJSON() }

// UnmarshalJSON reads it back.
func (v *value) UnmarshalJSON(text []byte) error { return (*object)(v).UnmarshalJSON(text) }

// Schema says so in the document.
func (value) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{AnyOf: []*huma.Schema{{}, {Type: "null"}}}
}

// Counts are the tasks of a flow by state.
type Counts struct {
	Waiting   int `json:"waiting"`
	Running   int `json:"running"`
	Suspended int `json:"suspended"`
	Finished  int `json:"finished"`
	Ignored   int `json:"ignored"`
}

// Failure is the task that failed first: the others may follow from it.
type Failure struct {
	TaskExecSeq int     `json:"taskExecSeq"`
	Title       string  `json:"title"`
	Reason      *string `json:"reason"`
	Error       *string `json:"error"`
}

// Question is what the first task of a flow asks that asks a person.
type Question struct {
	TaskExecSeq int    `json:"taskExecSeq"`
	Title       string `json:"title"`
	Text        string `json:"text"`
}

// Flow is a flow. A field's name is the column's in camelCase.
type Flow struct {
	TaskFlowID      string     `json:"taskFlowId"`
	TaskID          string     `json:"taskId" doc:"The workflow."`
	Status          string     `json:"status" enum:"running,failed,held,cancelled,queued,finished"`
	Counts          Counts     `json:"counts" doc:"Its tasks by state."`
	Failure         *Failure   `json:"failure" doc:"The task that failed first."`
	Asks            int        `json:"asks" doc:"How many of its tasks are held until a person approves them."`
	Question        *Question  `json:"question" doc:"What the first of those asks."`
	WorkflowVersion *int       `json:"workflowVersion" doc:"Of the workflow, when it was registered; null is not known."`
	RegisteredBy    *string    `json:"registeredBy" doc:"Null for rows put in by hand."`
	Note            *string    `json:"note"`
	RegisteredTs    *timestamp `json:"registeredTs"`
	StartedTs       *timestamp `json:"startedTs" doc:"When a task of it was started for the first time."`
	EndedTs         *timestamp `json:"endedTs" doc:"Null while something runs, can, or waits for approval."`
	DurationMs      *int64     `json:"durationMs"`
	Parameters      object     `json:"parameters" doc:"Given with the request. In lists null where they are larger than 1 kB."`
	URL             string     `json:"url" doc:"The path of its page."`
}

// FlowDetail is a flow with what belongs to it.
type FlowDetail struct {
	Flow
	Tasks  []Task  `json:"tasks,omitempty" nullable:"false" doc:"In topological order."`
	Events []Event `json:"events,omitempty" nullable:"false" doc:"What people changed, the latest first; at most a hundred."`

	state flow.State
}

// Task is a task.
type Task struct {
	TaskFlowID          string     `json:"taskFlowId"`
	TaskExecSeq         int        `json:"taskExecSeq"`
	DependsTaskExecSeqs []int      `json:"dependsTaskExecSeqs" nullable:"false"`
	TaskID              string     `json:"taskId" doc:"The workflow."`
	TaskSeq             int        `json:"taskSeq" doc:"Of its definition."`
	Title               string     `json:"title"`
	Program             string     `json:"program"`
	TaskPriority        int        `json:"taskPriority" doc:"Smaller is more urgent."`
	ExecStatus          int        `json:"execStatus" enum:"0,1,2,3,9" doc:"0 waiting, 1 running, 2 suspended, 3 finished, 9 ignored."`
	Status              string     `json:"status" enum:"waiting,running,suspended,finished,ignored"`
	Reason              *string    `json:"reason" doc:"Why it is suspended: failed, timeout, lost, invalid, cancelled or held."`
	Error               *string    `json:"error"`
	Asks                bool       `json:"asks" doc:"It is held until a person approves it: error is what it asks."`
	ChildTaskFlowID     *string    `json:"childTaskFlowId" doc:"The flow that it has registered, the last one."`
	Attempt             int        `json:"attempt" doc:"0 until it starts."`
	MaxAttempts         int        `json:"maxAttempts"`
	FailedAttempts      int        `json:"failedAttempts" doc:"Superseded attempts that had failed."`
	Parameters          object     `json:"parameters"`
	Output              value      `json:"output"`
	WatcherID           *string    `json:"watcherId" doc:"Of the attempt that runs."`
	Blocks              int        `json:"blocks" doc:"How many waiting tasks wait for it, if it is suspended."`
	RegisteredTs        *timestamp `json:"registeredTs"`
	StartedTs           *timestamp `json:"startedTs" doc:"Of a task whose program has paused: before the pause; else of the present attempt."`
	FinishedTs          *timestamp `json:"finishedTs"`
	SuspendedTs         *timestamp `json:"suspendedTs"`
	RunAfter            *timestamp `json:"runAfter"`
	DurationMs          *int64     `json:"durationMs"`
	WaitReason          *string    `json:"waitReason" doc:"Why it waits: dependency, blocked, retry, time, flow, callback, no_watcher, limit or queued."`
	Why                 *string    `json:"why" doc:"The same as a sentence."`
	WaitsFor            []int      `json:"waitsFor" nullable:"false" doc:"Tasks that it depends on and that have not ended."`
	QueuePosition       *int       `json:"queuePosition" doc:"1 goes next; null beyond the next thousand."`
}

// flowURL is where a flow is in the API, below the base path, and pagePath where its page is.
func flowURL(id flow.ID) string { return Prefix + "flows/" + url.PathEscape(string(id)) }

func (a *API) pagePath(id flow.ID) string {
	return a.cfg.BasePath + "/flows/" + url.PathEscape(string(id))
}

// flow makes a flow of a list.
func (a *API) flow(s flow.Summary) Flow {
	j := Flow{
		TaskFlowID:      string(s.ID),
		TaskID:          string(s.WorkflowID),
		Status:          s.Status,
		Counts:          Counts(s.Counts),
		Asks:            s.Asks,
		WorkflowVersion: orNull(s.Version),
		RegisteredBy:    orNull(s.RegisteredBy),
		Note:            orNull(s.Note),
		RegisteredTs:    stamp(s.RegisteredAt),
		StartedTs:       stamp(s.StartedAt),
		EndedTs:         stamp(s.EndedAt),
		Parameters:      masked(s.Parameters, "null"),
		URL:             a.pagePath(s.ID),
	}
	if !s.StartedAt.IsZero() {
		ms := max(s.Took, 0).Milliseconds()
		j.DurationMs = &ms
	}
	if q := s.Question; q != nil {
		j.Question = &Question{q.Seq, q.Title, q.Text}
	}
	if f := s.Failure; f != nil {
		j.Failure = &Failure{f.Seq, f.Title, orNull(string(f.Reason)), orNull(f.Error)}
	}
	return j
}

// detail makes a flow with its tasks.
func (a *API) detail(s flow.State) FlowDetail {
	d := FlowDetail{state: s, Flow: Flow{
		TaskFlowID:      string(s.ID),
		TaskID:          string(s.WorkflowID),
		Status:          s.Status,
		WorkflowVersion: orNull(s.Version),
		RegisteredBy:    orNull(s.RegisteredBy),
		Note:            orNull(s.Note),
		RegisteredTs:    stamp(s.RegisteredAt),
		StartedTs:       stamp(s.StartedAt),
		EndedTs:         stamp(s.EndedAt),
		DurationMs:      milliseconds(s.StartedAt, s.EndedAt, s.AsOf),
		Parameters:      masked(s.Parameters, "{}"),
		URL:             a.pagePath(s.ID),
	}}
	d.Tasks = make([]Task, 0, len(s.Tasks))
	var counts flow.Counts
	for _, t := range s.Tasks {
		if t.Asks {
			if d.Asks++; d.Question == nil {
				d.Question = &Question{t.Seq, t.Title(), t.Error}
			}
		}
		counts.Add(t.Status)
		d.Tasks = append(d.Tasks, newTask(t, s.AsOf))
	}
	d.Counts = Counts(counts)
	if t := firstFailure(s); t != nil {
		d.Failure = &Failure{t.Seq, t.Title(), orNull(string(t.Reason)), orNull(t.Error)}
	}
	return d
}

func newTask(t flow.TaskState, now time.Time) Task {
	return Task{
		TaskFlowID:          string(t.Flow),
		TaskExecSeq:         t.Seq,
		DependsTaskExecSeqs: orEmpty(t.Parents),
		TaskID:              string(t.WorkflowID),
		TaskSeq:             t.TaskSeq,
		Title:               t.Title(),
		Program:             t.Program,
		TaskPriority:        t.Priority,
		ExecStatus:          int(t.Status),
		Status:              t.Status.String(),
		Reason:              orNull(string(t.Reason)),
		Error:               orNull(t.Error),
		Asks:                t.Asks,
		ChildTaskFlowID:     orNull(string(t.Child)),
		Attempt:             t.Attempt,
		MaxAttempts:         t.MaxAttempts,
		FailedAttempts:      t.Failed,
		Parameters:          masked(t.Parameters, "{}"),
		Output:              value(masked(t.Output, "null")),
		WatcherID:           orNull(t.WatcherID),
		Blocks:              t.Blocks,
		RegisteredTs:        stamp(t.RegisteredAt),
		StartedTs:           stamp(t.StartedAt),
		FinishedTs:          stamp(t.FinishedAt),
		SuspendedTs:         stamp(t.SuspendedAt),
		RunAfter:            stamp(t.RunAfter),
		DurationMs:          milliseconds(t.StartedAt, t.Ended(), runningUntil(t, now)),
		WaitReason:          orNull(t.Wait.Reason),
		Why:                 orNull(t.Wait.Why),
		WaitsFor:            orEmpty(t.Wait.For),
		QueuePosition:       orNull(t.Wait.Position),
	}
}

// orNull returns nil for the zero value.
func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// orEmpty returns an empty list for none.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
