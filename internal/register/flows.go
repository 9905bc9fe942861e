package register

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/d-tsuji/flower/internal/flow"
)

// maxFlowID is the length of task_flow_id, in characters. A longer id is nobody's.
const maxFlowID = 256

// showFlow answers GET /api/v1/flows/{task_flow_id}: JSON, or text for a terminal.
func (s *Server) showFlow(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r, "task_flow_id")
	if err != nil {
		return err
	}
	asText, err := wantsText(r)
	if err != nil {
		return err
	}
	unknown := flowNotFound.because("there is no flow %q", cut(id, 4*maxFlowID))
	if utf8.RuneCountInString(id) > maxFlowID {
		return unknown
	}
	state, err := s.store.Flow(r.Context(), flow.ID(id))
	if errors.Is(err, flow.ErrNotFound) {
		return unknown
	}
	if err != nil {
		return fmt.Errorf("read flow %q: %w", id, err)
	}
	w.Header().Set("Vary", "Accept")
	if asText {
		writeText(w, http.StatusOK, flowText(state, r.URL.Query().Get("ascii") == "1"))
		return nil
	}
	writeJSON(w, http.StatusOK, newFlowJSON(state))
	return nil
}

// listPrograms answers GET /api/v1/programs.
func (s *Server) listPrograms(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	write(w, http.StatusOK, s.cfg.Programs)
	return nil
}

// wantsText reports whether the caller asked for text: by ?format=, else by Accept.
func wantsText(r *http.Request) (bool, error) {
	switch format := r.URL.Query().Get("format"); format {
	case "text":
		return true, nil
	case "json":
		return false, nil
	case "":
	default:
		return false, invalidFilter.because("format %q: must be json or text", cut(format, 40))
	}
	for accepted := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		kind, _, _ := strings.Cut(accepted, ";")
		switch strings.TrimSpace(kind) {
		case "text/plain":
			return true, nil
		case "application/json", "*/*":
			return false, nil
		}
	}
	return false, nil
}

// flowJSON is a flow in the API. A field's name is the column's in camelCase.
type flowJSON struct {
	TaskFlowID   string          `json:"taskFlowId"`
	TaskID       string          `json:"taskId"`
	Status       string          `json:"status"`
	Counts       countsJSON      `json:"counts"`
	Failure      *failureJSON    `json:"failure"`
	RegisteredBy *string         `json:"registeredBy"`
	Note         *string         `json:"note"`
	RegisteredTs *timestamp      `json:"registeredTs"`
	StartedTs    *timestamp      `json:"startedTs"`
	EndedTs      *timestamp      `json:"endedTs"`
	DurationMs   *int64          `json:"durationMs"`
	Parameters   json.RawMessage `json:"parameters"`
	Tasks        []taskJSON      `json:"tasks"`
}

type countsJSON struct {
	Waiting   int `json:"waiting"`
	Running   int `json:"running"`
	Suspended int `json:"suspended"`
	Finished  int `json:"finished"`
	Ignored   int `json:"ignored"`
}

// failureJSON is the failure that came first: the others may follow from it.
type failureJSON struct {
	TaskExecSeq int     `json:"taskExecSeq"`
	Title       string  `json:"title"`
	Reason      *string `json:"reason"`
	Error       *string `json:"error"`
}

// taskJSON is a task in the API.
type taskJSON struct {
	TaskFlowID          string          `json:"taskFlowId"`
	TaskExecSeq         int             `json:"taskExecSeq"`
	DependsTaskExecSeqs []int           `json:"dependsTaskExecSeqs"`
	TaskID              string          `json:"taskId"`
	TaskSeq             int             `json:"taskSeq"`
	Title               string          `json:"title"`
	Program             string          `json:"program"`
	TaskPriority        int             `json:"taskPriority"`
	ExecStatus          int             `json:"execStatus"`
	Status              string          `json:"status"`
	Reason              *string         `json:"reason"`
	Error               *string         `json:"error"`
	Attempt             int             `json:"attempt"`
	MaxAttempts         int             `json:"maxAttempts"`
	Parameters          json.RawMessage `json:"parameters"`
	Output              json.RawMessage `json:"output"`
	WatcherID           *string         `json:"watcherId"`
	RegisteredTs        *timestamp      `json:"registeredTs"`
	StartedTs           *timestamp      `json:"startedTs"`
	FinishedTs          *timestamp      `json:"finishedTs"`
	SuspendedTs         *timestamp      `json:"suspendedTs"`
	RunAfter            *timestamp      `json:"runAfter"`
	DurationMs          *int64          `json:"durationMs"`
}

// timestamp is written in UTC with milliseconds.
type timestamp time.Time

// MarshalText makes it a JSON string.
func (t timestamp) MarshalText() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, "2006-01-02T15:04:05.000Z"), nil
}

func newFlowJSON(s flow.State) flowJSON {
	started, ended := span(s)
	j := flowJSON{
		TaskFlowID:   string(s.ID),
		TaskID:       string(s.WorkflowID),
		Status:       s.Status,
		RegisteredBy: orNull(s.RegisteredBy),
		Note:         orNull(s.Note),
		RegisteredTs: stamp(s.RegisteredAt),
		StartedTs:    stamp(started),
		EndedTs:      stamp(ended),
		DurationMs:   milliseconds(started, ended, s.AsOf),
		Parameters:   masked(s.Parameters, "{}"),
		Tasks:        make([]taskJSON, 0, len(s.Tasks)),
	}
	for _, t := range s.Tasks {
		j.Counts.add(t.Status)
		j.Tasks = append(j.Tasks, newTaskJSON(t, s.AsOf))
	}
	if t := firstFailure(s); t != nil {
		j.Failure = &failureJSON{t.Seq, t.Title(), orNull(string(t.Reason)), orNull(t.Error)}
	}
	return j
}

func newTaskJSON(t flow.TaskState, now time.Time) taskJSON {
	parents := t.Parents
	if parents == nil {
		parents = []int{}
	}
	return taskJSON{
		TaskFlowID:          string(t.Flow),
		TaskExecSeq:         t.Seq,
		DependsTaskExecSeqs: parents,
		TaskID:              string(t.WorkflowID),
		TaskSeq:             t.TaskSeq,
		Title:               t.Title(),
		Program:             t.Program,
		TaskPriority:        t.Priority,
		ExecStatus:          int(t.Status),
		Status:              t.Status.String(),
		Reason:              orNull(string(t.Reason)),
		Error:               orNull(t.Error),
		Attempt:             t.Attempt,
		MaxAttempts:         t.MaxAttempts,
		Parameters:          masked(t.Parameters, "{}"),
		Output:              masked(t.Output, "null"),
		WatcherID:           orNull(t.WatcherID),
		RegisteredTs:        stamp(t.RegisteredAt),
		StartedTs:           stamp(t.StartedAt),
		FinishedTs:          stamp(t.FinishedAt),
		SuspendedTs:         stamp(t.SuspendedAt),
		RunAfter:            stamp(t.RunAfter),
		DurationMs:          milliseconds(t.StartedAt, t.Ended(), runningUntil(t, now)),
	}
}

func (c *countsJSON) add(s flow.Status) {
	switch s {
	case flow.Waiting:
		c.Waiting++
	case flow.Running:
		c.Running++
	case flow.Suspended:
		c.Suspended++
	case flow.Finished:
		c.Finished++
	case flow.Ignored:
		c.Ignored++
	}
}

// firstFailure returns the task that failed first, or nil. What a person stopped has
// not failed.
func firstFailure(s flow.State) *flow.TaskState {
	var failed []*flow.TaskState
	for i := range s.Tasks {
		t := &s.Tasks[i]
		if t.Status == flow.Suspended && t.Reason != flow.ReasonHeld && t.Reason != flow.ReasonCancelled {
			failed = append(failed, t)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return slices.MinFunc(failed, func(a, b *flow.TaskState) int {
		return cmp.Or(a.SuspendedAt.Compare(b.SuspendedAt), cmp.Compare(a.Seq, b.Seq))
	})
}

// span returns when the first task of a flow started and when the last one ended; the
// latter is zero while something runs or can.
func span(s flow.State) (started, ended time.Time) {
	for _, t := range s.Tasks {
		if !t.StartedAt.IsZero() && (started.IsZero() || t.StartedAt.Before(started)) {
			started = t.StartedAt
		}
		if e := t.Ended(); e.After(ended) {
			ended = e
		}
	}
	if s.Status == "running" || s.Status == "queued" {
		ended = time.Time{}
	}
	return started, ended
}

// runningUntil returns now for a task that runs: its duration grows.
func runningUntil(t flow.TaskState, now time.Time) time.Time {
	if t.Status == flow.Running {
		return now
	}
	return time.Time{}
}

// duration is the time from started to ended, or to now if it has not ended; zero and
// false where that is not known.
func duration(started, ended, now time.Time) (time.Duration, bool) {
	if ended.IsZero() {
		ended = now
	}
	if started.IsZero() || ended.IsZero() {
		return 0, false
	}
	return max(ended.Sub(started), 0), true
}

func milliseconds(started, ended, now time.Time) *int64 {
	d, known := duration(started, ended, now)
	if !known {
		return nil
	}
	ms := d.Milliseconds()
	return &ms
}

func stamp(t time.Time) *timestamp {
	if t.IsZero() {
		return nil
	}
	return (*timestamp)(&t)
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
