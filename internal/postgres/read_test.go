package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// What a task went through can be read, whoever did it.
func TestAttempts(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 2
	id := register(t, w, d, def(1))
	key := flow.TaskKey{Flow: id, Seq: 1}
	attempts := func() (texts []string) {
		t.Helper()
		as, err := w.Attempts(t.Context(), key)
		require.NoError(t, err)
		for _, a := range as {
			require.Equal(t, key, a.TaskKey)
			require.False(t, a.StartedAt.IsZero())
			require.Equal(t, a.Status == flow.Running && a.Current, a.EndedAt.IsZero())
			texts = append(texts, fmt.Sprintf("%d %v %s %s", a.Number, a.Current, a.Status, strings.TrimSpace(string(a.Reason)+" "+a.Error)))
		}
		return texts
	}
	require.Empty(t, attempts())
	task := claimOne(t, w)
	require.Equal(t, []string{"1 true running "}, attempts())
	verdict(t, w, ended(task, flow.OutcomeFailed))
	require.Len(t, attempts(), 1, "it waits for its retry")
	require.Contains(t, attempts()[0], "1 false ")
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL WHERE task_exec_seq = 1`)
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeTimeout))
	require.Equal(t, "2 true suspended timeout it is timeout", attempts()[0])
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_exec_seq = 1`)
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_exec_seq = 1`)
	require.Equal(t, "2 false suspended timeout it is timeout", attempts()[0], "what is held now is no attempt of its own")
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_exec_seq = 1`)
	verdict(t, w, &flow.Result{Task: claimOne(t, w), Outcome: flow.OutcomeFinished, Output: object(`{"a": 1}`)})
	require.Equal(t, "3 true finished ", attempts()[0])
	require.Len(t, attempts(), 3)

	s, err := w.Task(t.Context(), key)
	require.NoError(t, err)
	require.Equal(t, 2, s.Tasks[0].Failed)
	require.False(t, s.Undefined)
	mustExec(t, w.psql, `DELETE FROM ms_task_definition WHERE task_id = $1`, string(s.WorkflowID))
	s, err = w.Task(t.Context(), key)
	require.NoError(t, err)
	require.True(t, s.Undefined, "no other flow like it can be registered")
	_, err = w.Attempts(t.Context(), flow.TaskKey{Flow: id, Seq: 9})
	require.ErrorIs(t, err, flow.ErrNoTask)
	_, err = w.Task(t.Context(), flow.TaskKey{Flow: id, Seq: 9})
	require.ErrorIs(t, err, flow.ErrNoTask)
	_, err = w.Attempts(t.Context(), flow.TaskKey{Flow: "nope", Seq: 1})
	require.ErrorIs(t, err, flow.ErrNotFound)
}

// A flow's tasks say why they wait, what they block and where they stand in the queue, and a
// task that is read alone says the same.
func TestFlow_Waits(t *testing.T) {
	t.Parallel()
	w := open(t)
	before := register(t, w, def())
	id := register(t, w, def(), def(1), def(2), def(), def(1, 4), def(5))
	require.Equal(t, before, claim(t, w, 1)[0].Flow)
	task := claim(t, w, 1)[0]
	verdict(t, w, ended(task, flow.OutcomeFailed))
	s, err := w.Flow(t.Context(), id)
	require.NoError(t, err)
	var got []string
	for _, task := range s.Tasks {
		got = append(got, fmt.Sprintf("%d %s %v %d blocks %d", task.Seq, task.Wait.Reason, task.Wait.For, task.Wait.Position, task.Blocks))
		alone, err := w.Task(t.Context(), task.TaskKey)
		require.NoError(t, err)
		require.Equal(t, []flow.TaskState{task}, alone.Tasks)
	}
	require.Equal(t, []string{
		"1  [] 0 blocks 4", "2 blocked [1] 0 blocks 0", "3 dependency [2] 0 blocks 0", "4 queued [] 1 blocks 0",
		"5 blocked [1 4] 0 blocks 0", "6 dependency [5] 0 blocks 0",
	}, got)
	require.Equal(t, value[int](t, w, `SELECT blocks FROM v_failed`), s.Tasks[0].Blocks)
	require.Equal(t, "can go: waits for a free worker", s.Tasks[3].Wait.Why)
	require.Equal(t, value[string](t, w, `SELECT fingerprint FROM v_failure_group`), s.Tasks[0].Fingerprint)
	require.Empty(t, s.Tasks[1].Fingerprint)
}

func TestEvents(t *testing.T) {
	t.Parallel()
	w := open(t)
	one, other := register(t, w, def(), def(1)), register(t, w, def())
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1`, string(one))
	mustExec(t, w.psql, `BEGIN; SET LOCAL flower.reason = 'why not'; UPDATE kr_task_stat SET exec_status = 0; COMMIT`)
	byHand(t, w, `UPDATE kr_task_stat SET parameters = '{"a": 1}' WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(one))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1`, string(other))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 3 WHERE task_flow_id = $1`, string(one))

	events := func(f flow.EventFilter) (texts []string, page flow.EventPage) {
		t.Helper()
		if f.Limit == 0 {
			f.Limit = 100
		}
		page, err := w.Events(t.Context(), f)
		require.NoError(t, err)
		for _, e := range page.Events {
			require.WithinDuration(t, time.Now(), e.At, time.Minute)
			require.NotEmpty(t, e.Actor)
			texts = append(texts, fmt.Sprintf("%s %d", e.Kind(), e.Seq))
		}
		return texts, page
	}
	start := int64(0)
	got, page := events(flow.EventFilter{After: &start})
	require.Equal(t, []string{"suspend 1", "suspend 2", "rerun 1", "rerun 2", "edit 1", "skip 1", "finish 1", "finish 2"}, got)
	require.False(t, page.More)
	require.Equal(t, page.Events[7].ID, page.Next)
	require.Equal(t, "why not", page.Events[2].Note)
	require.JSONEq(t, `{"parameters": [{}, {"a": 1}]}`, string(page.Events[4].Change))
	got, _ = events(flow.EventFilter{After: &page.Next})
	require.Empty(t, got)

	got, page = events(flow.EventFilter{Limit: 3})
	require.Equal(t, []string{"finish 2", "finish 1", "skip 1"}, got)
	require.True(t, page.More)
	got, page = events(flow.EventFilter{Limit: 5, Before: page.Next})
	require.Equal(t, []string{"edit 1", "rerun 2", "rerun 1", "suspend 2", "suspend 1"}, got)
	require.False(t, page.More)

	got, _ = events(flow.EventFilter{Flow: other})
	require.Equal(t, []string{"skip 1"}, got)
	got, _ = events(flow.EventFilter{Flow: one, Seq: 2, After: &start})
	require.Equal(t, []string{"suspend 2", "rerun 2", "finish 2"}, got)
	got, _ = events(flow.EventFilter{Actor: "nobody"})
	require.Empty(t, got)
	_, err := w.Act(t.Context(), flow.Action{Kind: flow.ActionRerun, Flow: one, Scope: flow.ScopeAll, Terms: flow.Terms{Actor: "alice", Way: flow.WayAPI, Key: "k"}})
	require.NoError(t, err)
	_, page = events(flow.EventFilter{Actor: "alice", Limit: 1})
	require.Equal(t, "rerun alice api k", fmt.Sprint(page.Events[0].Action, " ", page.Events[0].Actor, " ", page.Events[0].Way, " ", page.Events[0].Key))
	require.NotEmpty(t, page.Events[0].Login)
	named := func(f flow.EventFilter) string {
		_, page := events(f)
		return fmt.Sprintf("%q %q", page.Events[0].WorkflowID, page.Events[0].Title)
	}
	id := value[string](t, w, `SELECT task_id FROM kr_flow WHERE task_flow_id = $1`, string(other))
	require.Equal(t, fmt.Sprintf("%q %q", id, "NoOp"), named(flow.EventFilter{Flow: other}))
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1`, string(other))
	byHand(t, w, `DELETE FROM kr_flow WHERE task_flow_id = $1`, string(other))
	require.Equal(t, `"" ""`, named(flow.EventFilter{Flow: other}), "it is no longer there")
	for _, kind := range []string{"rerun", "suspend", "finish", "skip", "edit"} {
		require.Contains(t, flow.EventKinds, kind)
		got, _ = events(flow.EventFilter{Kind: kind})
		require.NotEmpty(t, got)
		for _, text := range got {
			require.Contains(t, text, kind)
		}
	}
}

// Whoever follows the events misses none, though one is committed after another that has a
// later number.
func TestEvents_CommittedInAnotherOrder(t *testing.T) {
	t.Parallel()
	w := open(t)
	one, other := register(t, w, def()), register(t, w, def())
	slow := begin(t, w)
	mustExec(t, slow, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1`, string(one))
	mustExec(t, w.psql, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_flow_id = $1`, string(other))
	mustExec(t, w.psql, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(other))
	var seen []string
	var after int64
	follow := func() {
		page, err := w.Events(t.Context(), flow.EventFilter{After: &after, Limit: 100})
		require.NoError(t, err)
		for _, e := range page.Events {
			seen = append(seen, e.Kind())
		}
		after = page.Next
	}
	follow()
	require.Empty(t, seen, "one with a smaller id may be on its way")
	require.NoError(t, slow.Commit())
	follow()
	require.ElementsMatch(t, []string{"suspend", "skip", "rerun"}, seen)
}

func TestLog_Pages(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 2
	register(t, w, d)
	task := claimOne(t, w)
	keepLog(t, w, logOf(task, printed(1, "a", "B", "c", "50% b", "e", "f")...))
	read := func(f flow.LogFilter) (string, flow.LogPage) {
		t.Helper()
		f.TaskKey = task.TaskKey
		if f.Limit == 0 {
			f.Limit = 100
		}
		page, err := w.Log(t.Context(), f)
		require.NoError(t, err)
		var texts []string
		for _, l := range page.Lines {
			texts = append(texts, fmt.Sprintf("%d%s", l.No, l.Text))
		}
		return strings.Join(texts, " "), page
	}
	text, page := read(flow.LogFilter{})
	require.Equal(t, "1a 2B 3c 450% b 5e 6f", text)
	require.Equal(t, 1, page.Attempt)
	require.True(t, page.Running)
	require.False(t, page.More)
	text, page = read(flow.LogFilter{Limit: 2})
	require.Equal(t, "5e 6f", text)
	require.True(t, page.More)
	text, _ = read(flow.LogFilter{Limit: 2, Before: 5})
	require.Equal(t, "3c 450% b", text)
	text, page = read(flow.LogFilter{Limit: 2, After: new(int64(2))})
	require.Equal(t, "3c 450% b", text)
	require.True(t, page.More)
	text, page = read(flow.LogFilter{After: new(int64(6))})
	require.Empty(t, text)
	require.False(t, page.More)
	text, _ = read(flow.LogFilter{Text: "b"})
	require.Equal(t, "2B 450% b", text)
	text, _ = read(flow.LogFilter{Text: "%"})
	require.Equal(t, "450% b", text)

	verdict(t, w, ended(task, flow.OutcomeFailed))
	text, page = read(flow.LogFilter{})
	require.NotEmpty(t, text, "while it waits for its retry, of the attempt before")
	require.False(t, page.Running)
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL`)
	claimOne(t, w)
	text, page = read(flow.LogFilter{})
	require.Empty(t, text)
	require.Equal(t, 2, page.Attempt)
	text, _ = read(flow.LogFilter{Attempt: 1, Limit: 1})
	require.Equal(t, "6f", text)
	text, _ = read(flow.LogFilter{Attempt: 7})
	require.Empty(t, text)
	_, err := w.Log(t.Context(), flow.LogFilter{TaskKey: flow.TaskKey{Flow: "nope", Seq: 1}, Limit: 1})
	require.ErrorIs(t, err, flow.ErrNotFound)
}

// The groups are those of v_failure_group.
func TestFailureGroups(t *testing.T) {
	t.Parallel()
	w := openBroken(t)
	variety(t, w)
	mustExec(t, w.psql, `UPDATE kr_task_stat SET program = NULL WHERE exec_status = 2 AND task_id = 'w3'`)
	var want []struct {
		Tasks       int
		Flows       int
		WorkflowID  string    `db:"task_id"`
		TaskSeq     int       `db:"task_seq"`
		Program     string    `db:"program"`
		Reason      string    `db:"reason"`
		Fingerprint string    `db:"fingerprint"`
		FirstTS     time.Time `db:"first_ts"`
		LastTS      time.Time `db:"last_ts"`
		Rerun       string    `db:"rerun"`
	}
	require.NoError(t, w.psql.Select(&want, `
		SELECT tasks, flows, task_id, task_seq, coalesce(program, '') AS program, coalesce(reason, '') AS reason, fingerprint, first_ts, last_ts, rerun
		FROM v_failure_group ORDER BY tasks DESC, last_ts DESC, fingerprint, task_id, task_seq`))
	got, err := w.FailureGroups(t.Context(), flow.FailureFilter{Limit: 1000})
	require.NoError(t, err)
	require.Len(t, got.Groups, len(want))
	require.False(t, got.More)
	require.Greater(t, len(want), 20)
	for i, g := range got.Groups {
		require.Equal(t, want[i].Rerun, g.Recover)
		require.Equal(t, flow.Count{N: want[i].Tasks}, g.Tasks)
		require.Equal(t, flow.Count{N: want[i].Flows}, g.Flows)
		require.Equal(t, want[i].Program, g.Program)
		require.Equal(t, want[i].Reason, string(g.Reason))
		require.Equal(t, want[i].FirstTS, g.FirstAt)
		require.Equal(t, want[i].LastTS, g.LastAt)
		require.Equal(t, want[i].LastTS, look(t, w, g.Latest.Flow, g.Latest.Seq).Suspended.UTC())
	}
	some, err := w.FailureGroups(t.Context(), flow.FailureFilter{Limit: 1000, WorkflowID: "w2", Reason: flow.ReasonLost, Program: "NoOp"})
	require.NoError(t, err)
	require.NotEmpty(t, some.Groups)
	for _, g := range some.Groups {
		require.Equal(t, "w2 lost NoOp", fmt.Sprintf("%s %s %s", g.WorkflowID, g.Reason, g.Program))
	}
	recent, err := w.FailureGroups(t.Context(), flow.FailureFilter{Limit: 3, Since: flow.Moment{Before: 200 * time.Hour}})
	require.NoError(t, err)
	require.True(t, recent.More)
	require.Len(t, recent.Groups, 3)
	require.Less(t, recent.Groups[0].Tasks.N, got.Groups[0].Tasks.N)
	for _, since := range []flow.Moment{{Before: 200*time.Hour + 30*time.Minute}, {At: recent.AsOf.Add(-200*time.Hour - 30*time.Minute)}} {
		few, err := w.FailureGroups(t.Context(), flow.FailureFilter{Limit: 3, Since: since})
		require.NoError(t, err)
		for _, g := range few.Groups { // the statement that runs them again is about those alone
			counted := strings.Replace(g.Recover, "UPDATE kr_task_stat SET exec_status = 0", "SELECT count(*) FROM kr_task_stat", 1)
			require.Equal(t, g.Tasks.N, value[int](t, w, counted), counted)
		}
	}
}

func TestQueueRunningWatchers(t *testing.T) {
	t.Parallel()
	w := open(t)
	other := def()
	other.Program = "Elsewhere"
	define(t, w, "queued", def(), def(1), other)
	for range 3 {
		registerOf(t, w, "queued")
	}
	register(t, w, def())
	first := claim(t, w, 1)[0]
	queue, _, err := w.Queue(t.Context(), "", 4)
	require.NoError(t, err)
	require.Len(t, queue, 4)
	for i, q := range queue {
		require.Equal(t, i+1, q.Position)
		require.Equal(t, q.Position, value[int](t, w, `SELECT position FROM v_queue WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(q.Flow), q.Seq))
		require.WithinDuration(t, time.Now(), q.ReadySince, time.Minute)
	}
	require.Equal(t, queue[0].Why, value[string](t, w, `SELECT why FROM v_queue WHERE position = 1 AND waited >= '0 s' AND ready_since <= now()`))
	require.Equal(t, "no_watcher", queue[0].WaitReason)
	require.Equal(t, "queued", queue[1].WaitReason)
	queue, _, err = w.Queue(t.Context(), "queued", 100)
	require.NoError(t, err)
	require.Len(t, queue, 5)

	_, err = w.Beat(t.Context(), w.watcher, []flow.Task{first})
	require.NoError(t, err)
	insert(t, w, "third party", 1, [2]int{1, 0})
	running, err := w.Running(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, running, 2)
	require.ElementsMatch(t, []string{"host:1", ""}, []string{running[0].Watcher, running[1].Watcher})
	require.Zero(t, running[0].UsualP50)
	finish(t, w, first)
	task := claimOneOf(t, w, 1)
	running, err = w.Running(t.Context(), 10)
	require.NoError(t, err)
	for _, r := range running {
		if r.TaskKey == task.TaskKey {
			require.Positive(t, r.UsualP50+1)
			require.Equal(t, w.watcher, r.WatcherID)
		}
	}
	watchers, err := w.Watchers(t.Context())
	require.NoError(t, err)
	require.Len(t, watchers, 1)
	require.Equal(t, "alive", watchers[0].State)
	require.Equal(t, 1, watchers[0].Busy)
	require.Equal(t, []string{"NoOp", "Test1", "Test2", "Test3"}, watchers[0].Programs)

	a, err := w.Attention(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"Elsewhere"}, a.Strangers)
	require.Equal(t, 1, a.Unowned)
	require.False(t, a.NoWatcher)
	require.NoError(t, w.Drain(t.Context(), w.watcher))
	a, err = w.Attention(t.Context())
	require.NoError(t, err)
	require.True(t, a.NoWatcher)
}

func claimOneOf(t *testing.T, w *world, n int) flow.Task {
	t.Helper()
	tasks := claim(t, w, n)
	require.NotEmpty(t, tasks)
	return tasks[0]
}

func TestWorkflows(t *testing.T) {
	t.Parallel()
	w := open(t)
	mustExec(t, w.psql, `DELETE FROM ms_task_definition`)
	w.CheckParameters(func(x flow.Workflow, _ json.RawMessage) error {
		if x.ID == "unusable" {
			return &flow.InvalidError{Subject: "workflow", Problem: "task_seq 1: no such program"}
		}
		return nil
	})
	define(t, w, "b", def(), def(1))
	define(t, w, "circular", def(2), def(1))
	define(t, w, "unusable", def())
	define(t, w, "a%", def())
	mustExec(t, w.psql, `INSERT INTO ms_workflow VALUES ('b', 'what it is for', 1, 2)`)
	first := registerOf(t, w, "b")
	second := registerOf(t, w, "b")
	names := func(after flow.WorkflowID, text string, limit int) (ids []string, more bool) {
		t.Helper()
		states, more, err := w.Workflows(t.Context(), after, text, limit, 0)
		require.NoError(t, err)
		for _, s := range states {
			ids = append(ids, string(s.ID))
		}
		return ids, more
	}
	got, more := names("", "", 10)
	require.Equal(t, []string{"a%", "b", "circular", "unusable"}, got)
	require.False(t, more)
	got, more = names("a%", "", 2)
	require.Equal(t, []string{"b", "circular"}, got)
	require.True(t, more)
	got, _ = names("", "%", 10)
	require.Equal(t, []string{"a%"}, got)
	got, _ = names("", "CIRC", 10)
	require.Equal(t, []string{"circular"}, got)

	s, err := w.Workflow(t.Context(), "b", 10)
	require.NoError(t, err)
	require.Empty(t, s.Problems)
	require.Equal(t, "what it is for", s.Description)
	require.Equal(t, 1, s.MaxRunningFlows)
	require.Equal(t, 2, s.MaxRunningTasks)
	require.Len(t, s.Last, 2)
	require.Equal(t, []flow.ID{second, first}, []flow.ID{s.Last[0].ID, s.Last[1].ID})
	s, err = w.Workflow(t.Context(), "circular", 1)
	require.NoError(t, err)
	require.Equal(t, []string{"its dependencies form a cycle: 1 → 2 → 1"}, s.Problems)
	s, err = w.Workflow(t.Context(), "unusable", 0)
	require.NoError(t, err)
	require.Equal(t, []string{"task_seq 1: no such program"}, s.Problems)
	_, err = w.Workflow(t.Context(), "nope", 1)
	require.ErrorIs(t, err, flow.ErrNotFound)
}

func TestStats(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 2
	define(t, w, "counted", d, def(1))
	for range 4 {
		registerOf(t, w, "counted")
	}
	tasks := claim(t, w, 4)
	finish(t, w, tasks[:2]...)
	verdict(t, w, ended(tasks[2], flow.OutcomeInvalid))
	verdict(t, w, ended(tasks[3], flow.OutcomeFailed)) // is tried again
	w.writeTally(t.Context(), true)

	s, err := w.Stats(t.Context(), time.Hour, 15*time.Minute)
	require.NoError(t, err)
	require.Len(t, s.Buckets, 4)
	finished, failed := 0, 0
	for i, b := range s.Buckets {
		require.Equal(t, s.Buckets[0].At.Add(time.Duration(i)*15*time.Minute), b.At)
		finished, failed = finished+b.Finished, failed+b.Failed
	}
	require.False(t, s.Buckets[3].At.After(s.AsOf))
	require.True(t, s.Buckets[3].At.Add(15*time.Minute).After(s.AsOf))
	require.Equal(t, 2, finished)
	require.Equal(t, 1, failed)
	require.Equal(t, "0 0 1", value[string](t, w, `SELECT concat_ws(' ', 0, 0, sum(retried)) FROM kr_tally`))
	require.Equal(t, 5, s.Workers)
	require.Equal(t, flow.Count{N: 3}, s.Queue)
	require.Less(t, s.Oldest, time.Minute)
	require.Equal(t, flow.Count{N: 4}, s.Flows.All)
	require.Equal(t, flow.Count{N: 1}, s.Flows.ByStatus[flow.FlowFailed])

	var invalid *flow.InvalidError
	for _, bad := range [][2]time.Duration{{time.Hour, time.Second}, {time.Minute, time.Hour}, {1e4 * time.Hour, time.Minute}, {time.Hour, 90 * time.Second}} {
		_, err = w.Stats(t.Context(), bad[0], bad[1])
		require.True(t, errors.As(err, &invalid), bad)
	}

	run(t, w)
	of, err := w.WorkflowStats(t.Context(), "counted", time.Hour)
	require.NoError(t, err)
	require.Equal(t, flow.Count{N: 4}, of.Flows)
	require.Equal(t, map[string]int{"finished": 3, "failed": 1}, of.ByStatus)
	rate, known := of.SuccessRate()
	require.True(t, known)
	require.InDelta(t, 0.75, rate, 0.001)
	require.Len(t, of.Tasks, 2)
	require.Equal(t, "1 4 1 1", fmt.Sprint(of.Tasks[0].TaskSeq, of.Tasks[0].Runs, of.Tasks[0].Failed, of.Tasks[0].Attempts))
	require.Positive(t, of.Took.P95)
	require.GreaterOrEqual(t, of.Tasks[0].Took.Max, of.Tasks[0].Took.P50)
	of, err = w.WorkflowStats(t.Context(), "nope", time.Hour)
	require.NoError(t, err)
	require.Zero(t, of.Flows)
}

// What is less urgent than the rest may have waited for long, and is not among what goes next.
func TestStats_Oldest(t *testing.T) {
	t.Parallel()
	w := open(t)
	mustExec(t, w.psql, `
		INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, program, task_priority, registered_ts)
		SELECT 'f' || n, 1, 0, 'w', 1, 'NoOp', CASE n WHEN 1 THEN 19 ELSE -20 END, now() - CASE n WHEN 1 THEN 3600 ELSE 60 END * interval '1 s' FROM generate_series(1, 100) n`)
	s, err := w.Stats(t.Context(), time.Hour, 15*time.Minute)
	require.NoError(t, err)
	require.Equal(t, flow.Count{N: 100}, s.Queue)
	require.InDelta(t, time.Hour, s.Oldest, float64(time.Minute))
}

func TestFindFlow(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, id := range []flow.ID{"abc-1", "abc-2", "a_c", "100%", `back\slash`} {
		insert(t, w, id, 0, [2]int{1, 0})
	}
	for prefix, want := range map[string][]flow.ID{
		"abc": {"abc-2", "abc-1"}, "abc-1": {"abc-1"}, "a_": {"a_c"}, "100%": {"100%"}, `back\`: {`back\slash`}, "x": nil, "%": nil,
	} {
		ids, err := w.FindFlow(t.Context(), prefix, 10)
		require.NoError(t, err)
		require.ElementsMatch(t, want, ids, prefix)
	}
	ids, err := w.FindFlow(t.Context(), "a", 2)
	require.NoError(t, err)
	require.Len(t, ids, 2)
}

// A question that takes too long says so: the database is not away, and asking again at
// once would not help.
func TestReading_TakesTooLong(t *testing.T) {
	t.Parallel()
	w := open(t)
	err := translate("list flows", w.reading(t.Context(), func(tx *sqlx.Tx) error {
		_, err := tx.Exec(`SET LOCAL statement_timeout = 1; SELECT pg_sleep(20)`)
		return err
	}))
	require.ErrorIs(t, err, flow.ErrTooSlow)
	require.NotErrorIs(t, err, flow.ErrUnavailable)
}
