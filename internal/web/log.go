package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/problem"
)

// How much of a log is on a page.
const (
	logPanel = 200       // lines in a task's panel
	logPage  = 1000      // lines of the log's own page, and of what scripts load
	logBytes = 256 << 10 // of either
	lineShow = 10 << 10  // bytes of a line; the rest is folded
)

// logView is a part of an attempt's log.
type logView struct {
	Flow     flow.ID
	Seq      int
	Attempt  int
	Lines    []logLine
	Running  bool
	Text     string // what lines were searched for
	Wrap     bool
	Earlier  string // link to the lines before these; empty where there are none
	Later    string // link to the lines after these
	WrapHref string
	Query    query
	Path     string // of the log's own page, whose lines scripts load
	Own      bool   // this is that page
}

// Key changes when it is about another log, so that a script keeps what it has loaded of
// this one.
func (v logView) Key() string { return fmt.Sprintf("%d.%d.%s", v.Seq, v.Attempt, v.Text) }

// logLine is a line; of a long one the rest is folded.
type logLine struct {
	flow.LogLine
	Rest string
}

// readLog reads the part of a log that a URL's query says: the end, or what is before or
// after a line.
func (s *Site) readLog(ctx context.Context, key flow.TaskKey, q query, limit int) (logView, error) {
	number := func(name string) int64 {
		n, _ := strconv.ParseInt(q.get(name), 10, 64)
		return max(n, 0)
	}
	f := flow.LogFilter{TaskKey: key, Attempt: int(min(number("attempt"), 1<<31-1)), Text: clip(q.get("q"), 200), Before: number("before"), Limit: limit}
	if after := number("after"); after > 0 {
		f.After = &after
	}
	page, err := s.store.Log(ctx, f)
	if err != nil {
		return logView{}, err
	}
	v := logView{
		Flow: key.Flow, Seq: key.Seq, Attempt: page.Attempt, Running: page.Running, Text: f.Text, Query: q, Wrap: q.get("wrap") != "0",
		Path: fmt.Sprintf("%s/tasks/%d/log", flowPath(key.Flow), key.Seq),
	}
	lines, cutEnd := bounded(page.Lines, f.After != nil)
	v.Lines = make([]logLine, len(lines))
	for i, l := range lines {
		v.Lines[i].LogLine = l
		if len(l.Text) > lineShow {
			v.Lines[i].Text = strings.ToValidUTF8(l.Text[:lineShow], "")
			v.Lines[i].Rest = l.Text[len(v.Lines[i].Text):]
		}
	}
	v.WrapHref = q.with("wrap", map[bool]string{true: "0"}[v.Wrap]).String()
	v.link(f, page.More, cutEnd)
	return v, nil
}

// link finds out where the lines before and after go on.
func (v *logView) link(f flow.LogFilter, more, cut bool) {
	if len(v.Lines) == 0 {
		return
	}
	first, last := v.Lines[0].No, v.Lines[len(v.Lines)-1].No
	here := v.Query.without("before", "after")
	earlier, later := more || cut, f.Before > 0
	if f.After != nil {
		earlier, later = true, more || cut
	}
	if earlier && (first > 1 || v.Text != "") {
		v.Earlier = here.with("before", strconv.FormatInt(first, 10)).String()
	}
	if later {
		v.Later = here.with("after", strconv.FormatInt(last, 10)).String()
	}
}

// bounded leaves lines out where there is too much text: the first ones, or, going
// forward, the last.
func bounded(lines []flow.LogLine, forward bool) (kept []flow.LogLine, cut bool) {
	size, n := 0, 0
	for n < len(lines) {
		at := len(lines) - 1 - n
		if forward {
			at = n
		}
		if size += len(lines[at].Text); size > logBytes && n > 0 {
			break
		}
		n++
	}
	if forward {
		return lines[:n], n < len(lines)
	}
	return lines[len(lines)-n:], n < len(lines)
}

// taskKey returns the task that the path names.
func taskKey(r *http.Request) (flow.TaskKey, error) {
	id, err := pathID(r, "task_flow_id")
	if err != nil {
		return flow.TaskKey{}, err
	}
	seq, err := seqOf(mux.Vars(r)["task_exec_seq"])
	return flow.TaskKey{Flow: flow.ID(id), Seq: seq}, err
}

// seqOf returns a task's number.
func seqOf(text string) (int, error) {
	seq, err := strconv.Atoi(text)
	if err != nil || seq < 1 || seq > 1<<31-1 {
		return 0, problem.TaskNotFound.Because("there is no task %q", clip(text, 40))
	}
	return seq, nil
}

// logPageView is the log's own page.
type logPageView struct {
	State flow.State
	Task  flow.TaskState
	Look  look
	Log   logView
}

// showLog is GET /flows/{id}/tasks/{seq}/log: the log in all its length. Scripts load
// lines from it, too.
func (s *Site) showLog(r *http.Request, sh *shell) (any, error) {
	key, err := taskKey(r)
	if err != nil {
		return nil, err
	}
	state, err := s.store.Task(r.Context(), key)
	if err != nil {
		return nil, known(err, key)
	}
	v := logPageView{State: state, Task: state.Tasks[0]}
	v.Look = lookOfState(v.Task)
	if v.Log, err = s.readLog(r.Context(), key, query{r.URL.Query()}, logPage); err != nil {
		return nil, known(err, key)
	}
	sh.Title = fmt.Sprintf("Log of %d %s · %s %s", key.Seq, clip(v.Task.Title(), 40), state.WorkflowID, short(key.Flow))
	sh.Active, sh.Icon, sh.AsOf = "Flows", v.Look.Class, state.AsOf
	v.Log.Own = true
	if v.Log.Running && r.URL.Query().Get("before") == "" {
		sh.Every = everyActive
	}
	return v, nil
}

// known makes a sentence of what was not found.
func known(err error, key flow.TaskKey) error {
	switch {
	case errors.Is(err, flow.ErrNoTask):
		return problem.TaskNotFound.Because("flow %q has no task %d", key.Flow, key.Seq)
	case errors.Is(err, flow.ErrNotFound):
		return &unknownFlow{id: key.Flow}
	}
	return err
}

// downloadLog is GET /flows/{id}/tasks/{seq}/log.txt: every line of an attempt. It reads
// and sends a page of lines at a time: a log may be long.
func (s *Site) downloadLog(w http.ResponseWriter, r *http.Request) {
	key, err := taskKey(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	attempt, _ := strconv.Atoi(r.URL.Query().Get("attempt"))
	var after int64
	f := flow.LogFilter{TaskKey: key, Attempt: max(0, attempt), After: &after, Limit: 10_000}
	for begun := false; ; begun = true {
		page, err := s.store.Log(r.Context(), f)
		if err != nil {
			if begun {
				panic(http.ErrAbortHandler) // half a log must not look like a whole one
			}
			s.fail(w, r, known(err, key))
			return
		}
		if !begun {
			h := w.Header()
			h.Set("Content-Type", "text/plain; charset=utf-8")
			h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="task-%d-attempt-%d.log"`, key.Seq, page.Attempt))
			h.Set("Cache-Control", "no-store")
			f.Attempt = page.Attempt
		}
		var b strings.Builder
		for _, l := range page.Lines {
			b.WriteString(l.At.UTC().Format(time.RFC3339Nano) + " " + string(l.Stream) + " " + l.Text + "\n")
			after = l.No
		}
		if _, err := w.Write([]byte(b.String())); err != nil || !page.More || len(page.Lines) == 0 {
			return
		}
	}
}
