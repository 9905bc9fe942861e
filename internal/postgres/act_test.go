package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
)

// act carries out an action, and asserts that everything is right after it.
func act(t *testing.T, w *world, a flow.Action) flow.Effect {
	t.Helper()
	e, err := w.Act(t.Context(), a)
	require.NoError(t, err)
	sound(t, w)
	return e
}

// dry makes a dry run of an action.
func dry(a flow.Action) flow.Action {
	a.DryRun = true
	return a
}

func TestAct_Rerun(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		id := register(t, w, def(), def(1), def(2), def(2, 3), def(4))
		finish(t, w, claimOne(t, w))
		verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
		rerun := flow.Action{Kind: flow.ActionRerun, Flow: id, Terms: flow.Terms{
			Actor: "alice", Way: flow.WayAPI, Note: "the API was down",
		}}
		preview := act(t, w, dry(rerun))
		require.Equal(t, flow.Effect{
			DryRun: true, Tasks: []flow.TaskChange{{Flow: id, Seq: 2, Title: "NoOp", From: flow.Suspended, To: flow.Waiting, Attempt: 1}},
			CanGo: []int{2}, Follow: []int{3, 4, 5}, Kept: 4, Refused: []flow.Refusal{}, Plan: preview.Plan,
		}, preview)
		require.Equal(t, "3 2 0 0 0", statuses(t, w, id))
		rerun.Expect, rerun.Plan = new(1), preview.Plan
		done := act(t, w, rerun)
		require.Equal(t, "3 0 0 0 0", statuses(t, w, id))
		done.DryRun = true
		require.Equal(t, preview, done)
		require.Equal(t, "alice api rerun the API was down flower", value[string](t, w, `SELECT concat_ws(' ', actor, way, kind, note, login) FROM kr_event`))

		rerun.Expect, rerun.Plan = nil, ""
		require.Zero(t, act(t, w, rerun).Changed(), "again: nothing to do")
		require.Len(t, run(t, w), 4)
	})
}

// shape is a flow for tests of plans, put in by hand: a task for each, with what it depends
// on and how it stands: 0 waiting, 1 running, 2 failed, 3 finished, 9 skipped, h held, c cancelled.
type shape struct {
	after  [][]int
	states string
}

var shapes = map[string]shape{
	"chain, failed":       {[][]int{{}, {1}, {2}, {3}}, "3200"},
	"chain, finished":     {[][]int{{}, {1}, {2}, {3}}, "3333"},
	"chain, running":      {[][]int{{}, {1}, {2}, {3}}, "3310"},
	"chain, cancelled":    {[][]int{{}, {1}, {2}, {3}}, "3ccc"},
	"diamond, one failed": {[][]int{{}, {1}, {1}, {2, 3}}, "3230"},
	"diamond, both":       {[][]int{{}, {1}, {1}, {2, 3}}, "3220"},
	"diamond, one runs":   {[][]int{{}, {1}, {1}, {2, 3}}, "3210"},
	"fan-out":             {[][]int{{}, {1}, {1}, {1}, {1}, {2, 3, 4, 5}}, "323210"},
	"a skipped task":      {[][]int{{}, {1}, {2}, {3}, {4}}, "39332"},
	"a held task":         {[][]int{{}, {1}, {1}, {2, 3}, {4}}, "3h3h0"},
	"of everything":       {[][]int{{}, {}, {1}, {1, 2}, {3}, {4}, {5, 6}, {}}, "39329hc0"},
	"two apart":           {[][]int{{}, {1}, {}, {3}}, "3220"},
}

// put inserts a shape.
func put(t *testing.T, w *world, s shape) flow.ID {
	t.Helper()
	id := flow.ID(newID())
	var rows []string
	for i, state := range s.states {
		first := 0
		if len(s.after[i]) > 0 {
			first = s.after[i][0]
		}
		status, reason := string(state), "NULL"
		switch state {
		case '2':
			reason = "'failed'"
		case 'h':
			status, reason = "2", "'held'"
		case 'c':
			status, reason = "2", "'cancelled'"
		}
		rows = append(rows, fmt.Sprintf("('%s', %d, %d, '%s', 'shape', %d, %s, %s, 'NoOp')", id, i+1, first, arrayText(s.after[i]), i+1, status, reason))
	}
	mustExec(t, w.psql, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq, exec_status, reason, program)
	                     VALUES `+strings.Join(rows, ", "))
	return id
}

// everything is all that stands in the tables.
func everything(t *testing.T, w *world) string {
	t.Helper()
	return value[string](t, w, `SELECT concat_ws(E'\n', (SELECT string_agg(x::text, E'\n' ORDER BY x::text) FROM kr_task_stat x),
		(SELECT string_agg(x::text, E'\n' ORDER BY x::text) FROM kr_ready x), (SELECT string_agg(x::text, E'\n' ORDER BY x::text) FROM kr_flow x),
		(SELECT string_agg(x::text, E'\n' ORDER BY x::text) FROM kr_task_attempt x), (SELECT string_agg(x::text, E'\n' ORDER BY x::text) FROM kr_event x),
		(SELECT string_agg(x::text, E'\n' ORDER BY x::text) FROM kr_request x))`)
}

// actions are all that can be done to a flow of n tasks.
func actions(id flow.ID, n int) []flow.Action {
	all := []flow.Action{
		{Kind: flow.ActionRerun},
		{Kind: flow.ActionRerun, Scope: flow.ScopeAll},
		{Kind: flow.ActionCancel},
		{Kind: flow.ActionHold},
		{Kind: flow.ActionResume},
	}
	for seq := 1; seq <= n; seq++ {
		all = append(
			all,
			flow.Action{Kind: flow.ActionRerun, Seq: seq}, flow.Action{Kind: flow.ActionRerun, Seq: seq, Scope: flow.ScopeOnly},
			flow.Action{Kind: flow.ActionCancel, Seq: seq}, flow.Action{Kind: flow.ActionHold, Seq: seq}, flow.Action{Kind: flow.ActionResume, Seq: seq},
			flow.Action{Kind: flow.ActionSkip, Seq: seq}, flow.Action{Kind: flow.ActionFinish, Seq: seq},
		)
	}
	for i := range all {
		all[i].Flow = id
	}
	return all
}

// A preview changes nothing, and is what the action then does: exactly these tasks, to
// exactly these states, and these can go. Where it refuses, nothing happens, and it is
// refused at psql, too. Done once more, it changes nothing.
func TestAct_ThePreviewIsTheEffect(t *testing.T) {
	t.Parallel()
	for name, s := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			for i := range actions("", len(s.states)) {
				id := put(t, w, s)
				a := actions(id, len(s.states))[i]
				what := fmt.Sprintf("%s %s %d", a.Kind, a.Scope, a.Seq)
				before := everything(t, w)
				preview, errPreview := w.Act(t.Context(), dry(a))
				require.Equal(t, before, everything(t, w), "%s: a preview changes nothing", what)
				old := rowsOf(t, w, id)
				done, err := w.Act(t.Context(), a)
				done.DryRun = true
				require.Equal(t, preview, done, what)
				if errPreview != nil {
					sameRefusal(t, errPreview, err, done)
					require.Equal(t, before, everything(t, w), "%s: it was refused", what)
					continue
				}
				require.NoError(t, err, what)
				sound(t, w)
				require.Equal(t, changesOf(id, old, rowsOf(t, w, id)), done.Tasks, what)
				require.Equal(t, newlyReady(old, rowsOf(t, w, id)), done.CanGo, what)
				require.Equal(t, len(s.states), done.Kept+done.Changed(), what)
				again, err := w.Act(t.Context(), a)
				require.NoError(t, err, what)
				if a.Kind != flow.ActionRerun || a.Scope == "" {
					require.Zero(t, again.Changed(), "%s: again", what)
				}
			}
		})
	}
}

func sameRefusal(t *testing.T, preview, err error, e flow.Effect) {
	t.Helper()
	var first, second *flow.RefusedError
	require.ErrorAs(t, preview, &first)
	require.ErrorAs(t, err, &second)
	require.Equal(t, first.Refused, second.Refused)
	require.Equal(t, e.Refused, second.Refused)
	require.NotEmpty(t, second.Refused[0].Detail)
}

type shownRow struct {
	Seq     int    `db:"task_exec_seq"`
	Status  int16  `db:"exec_status"`
	Attempt int    `db:"attempt"`
	Hold    bool   `db:"hold"`
	Reason  string `db:"reason"`
	Ready   bool   `db:"ready"`
}

func rowsOf(t *testing.T, w *world, id flow.ID) []shownRow {
	t.Helper()
	var rows []shownRow
	require.NoError(t, w.psql.Select(&rows, `SELECT task_exec_seq, exec_status, attempt, hold, coalesce(reason, '') AS reason,
		EXISTS (SELECT FROM kr_ready r WHERE r.task_flow_id = t.task_flow_id AND r.task_exec_seq = t.task_exec_seq) AS ready
		FROM kr_task_stat t WHERE task_flow_id = $1 ORDER BY 1`, string(id)))
	return rows
}

// changesOf is what has become of tasks.
func changesOf(id flow.ID, old, now []shownRow) []flow.TaskChange {
	changes := []flow.TaskChange{}
	for i, o := range old {
		if n := now[i]; n.Status != o.Status || n.Hold != o.Hold || o.Reason == "held" && n.Reason == "cancelled" {
			changes = append(changes, flow.TaskChange{
				Flow: id, Seq: o.Seq, Title: "NoOp", From: flow.Status(o.Status), To: flow.Status(n.Status), Attempt: o.Attempt,
			})
		}
	}
	return changes
}

func newlyReady(old, now []shownRow) []int {
	ready := []int{}
	for i, o := range old {
		if !o.Ready && now[i].Ready {
			ready = append(ready, o.Seq)
		}
	}
	return ready
}

// What each scope is for, and what stands in its way.
func TestAct_Scopes(t *testing.T) {
	t.Parallel()
	w := open(t)
	const running, dependant, wrong = flow.RefusedTaskRunning, flow.RefusedDependantRunning, flow.RefusedWrongStatus
	for _, c := range []struct {
		shape  string
		action flow.Action
		after  string // the states, or the code of the refusal and the tasks
	}{
		{"chain, failed", flow.Action{Kind: flow.ActionRerun}, "3000"},
		{"chain, failed", flow.Action{Kind: flow.ActionRerun, Scope: flow.ScopeAll}, "0000"},
		{"chain, failed", flow.Action{Kind: flow.ActionRerun, Seq: 1}, "0000"},
		{"chain, failed", flow.Action{Kind: flow.ActionRerun, Seq: 1, Scope: flow.ScopeOnly}, "0200"},
		{"chain, finished", flow.Action{Kind: flow.ActionRerun}, "3333"},
		{"chain, finished", flow.Action{Kind: flow.ActionRerun, Seq: 3}, "3300"},
		{"chain, finished", flow.Action{Kind: flow.ActionRerun, Seq: 2, Scope: flow.ScopeOnly}, "3033"},
		{"chain, running", flow.Action{Kind: flow.ActionRerun}, "3310"},
		{"chain, running", flow.Action{Kind: flow.ActionRerun, Scope: flow.ScopeAll}, string(running) + " 3"},
		{"chain, running", flow.Action{Kind: flow.ActionRerun, Seq: 1}, string(running) + " 3"},
		{"chain, running", flow.Action{Kind: flow.ActionRerun, Seq: 2, Scope: flow.ScopeOnly}, string(dependant) + " 2"},
		{"chain, running", flow.Action{Kind: flow.ActionRerun, Seq: 1, Scope: flow.ScopeOnly}, "0310"},
		{"chain, running", flow.Action{Kind: flow.ActionRerun, Seq: 4}, "3310"},
		{"chain, running", flow.Action{Kind: flow.ActionCancel}, "33cc"},
		{"chain, running", flow.Action{Kind: flow.ActionHold}, "331h"},
		{"chain, cancelled", flow.Action{Kind: flow.ActionRerun}, "3000"},
		{"diamond, both", flow.Action{Kind: flow.ActionRerun}, "3000"},
		{"diamond, both", flow.Action{Kind: flow.ActionRerun, Seq: 2}, "3020"},
		{"diamond, both", flow.Action{Kind: flow.ActionSkip, Seq: 2}, "3920"},
		{"diamond, one runs", flow.Action{Kind: flow.ActionRerun, Seq: 2}, "3010"},
		{"fan-out", flow.Action{Kind: flow.ActionRerun}, "303010"},
		{"a skipped task", flow.Action{Kind: flow.ActionRerun, Scope: flow.ScopeAll}, "09000"},
		{"a skipped task", flow.Action{Kind: flow.ActionRerun, Seq: 1}, "09000"},
		{"a skipped task", flow.Action{Kind: flow.ActionRerun, Seq: 2}, "30000"},
		{"a skipped task", flow.Action{Kind: flow.ActionSkip, Seq: 1}, string(wrong) + " 1"},
		{"a skipped task", flow.Action{Kind: flow.ActionFinish, Seq: 2}, "33332"},
		{"a held task", flow.Action{Kind: flow.ActionRerun}, "3h3h0"},
		{"a held task", flow.Action{Kind: flow.ActionRerun, Seq: 1}, "0h0h0"},
		{"a held task", flow.Action{Kind: flow.ActionRerun, Seq: 2}, "303h0"},
		{"a held task", flow.Action{Kind: flow.ActionResume}, "30300"},
		{"a held task", flow.Action{Kind: flow.ActionCancel}, "3c3cc"},
		{"a held task", flow.Action{Kind: flow.ActionCancel, Seq: 2}, "3c3h0"},
		{"of everything", flow.Action{Kind: flow.ActionCancel}, "39329ccc"},
		{"a held task", flow.Action{Kind: flow.ActionResume, Seq: 4}, "3h300"},
		{"chain, failed", flow.Action{Kind: flow.ActionResume, Seq: 2}, string(wrong) + " 2"},
		{"chain, failed", flow.Action{Kind: flow.ActionFinish, Seq: 4}, "3203"},
	} {
		id := put(t, w, shapes[c.shape])
		c.action.Flow = id
		what := fmt.Sprintf("%s: %s %s %d", c.shape, c.action.Kind, c.action.Scope, c.action.Seq)
		_, err := w.Act(t.Context(), c.action)
		sound(t, w)
		if refused, ok := errors.AsType[*flow.RefusedError](err); ok {
			text := string(refused.Code())
			for _, r := range refused.Refused {
				text += fmt.Sprint(" ", r.Seq)
			}
			require.Equal(t, c.after, text, what)
			continue
		}
		require.NoError(t, err, what)
		require.Equal(t, c.after, value[string](t, w, `SELECT string_agg(CASE reason WHEN 'held' THEN 'h' WHEN 'cancelled' THEN 'c' ELSE exec_status::text END, '' ORDER BY task_exec_seq)
			FROM kr_task_stat WHERE task_flow_id = $1`, string(id)), what)
	}
}

// What makes no sense, whatever the tasks are.
func TestAct_Invalid(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := put(t, w, shapes["chain, failed"])
	for text, a := range map[string]flow.Action{
		"action: it is rerun, cancel, hold, resume, approve, skip or finish, and not retry": {Kind: "retry"},
		"scope: it is failed, from, only or all, and not some":                              {Kind: flow.ActionRerun, Scope: "some"},
		"scope: cancel has none":                   {Kind: flow.ActionCancel, Scope: flow.ScopeAll},
		"seq: rerun from needs a task":             {Kind: flow.ActionRerun, Scope: flow.ScopeFrom},
		"seq: skip needs a task":                   {Kind: flow.ActionSkip},
		"seq: rerun all is for whole flows":        {Kind: flow.ActionRerun, Scope: flow.ScopeAll, Seq: 1},
		"parameters: they must be a JSON object":   {Kind: flow.ActionRerun, Parameters: object(`[1]`)},
		"parameters: an expression, ${{ … }}, can": {Kind: flow.ActionRerun, Parameters: object(`{"a": ["${{ secrets.KEY }}"]}`)},
	} {
		a.Flow = id
		_, err := w.Act(t.Context(), a)
		var invalid *flow.InvalidError
		require.ErrorAs(t, err, &invalid, text)
		require.Contains(t, invalid.Error(), text)
	}
	for _, a := range []flow.Action{{Kind: flow.ActionRerun, Flow: "nobody's"}, {Kind: flow.ActionSkip, Flow: id, Seq: 77}} {
		for _, a := range []flow.Action{a, dry(a)} {
			_, err := w.Act(t.Context(), a)
			require.ErrorIs(t, err, flow.ErrNotFound)
			require.NotContains(t, err.Error(), "pq:")
		}
	}
}

// A rerun with other parameters: merged over the tasks' own, and checked as those of a
// request for a new flow.
func TestAct_RerunWithParameters(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.Parameters = object(`{"a": 1, "b": {"c": 2}, "wrong": "soon"}`)
	id := register(t, w, d, def(1))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	var seen []string
	w.CheckParameters(func(wf flow.Workflow, request json.RawMessage) error {
		for _, task := range wf.Tasks {
			seen = append(seen, fmt.Sprintf("%d %q %s %v", task.Seq, task.Program, task.Parameters, task.DependsOn))
		}
		if strings.Contains(string(request), "fixed") {
			return &flow.InvalidError{Subject: "parameter", Problem: "not for a request"}
		}
		return nil
	})
	a := flow.Action{Kind: flow.ActionRerun, Flow: id, Parameters: object(`{"fixed": 1, "wrong": 2}`)}
	_, err := w.Act(t.Context(), a)
	var invalid *flow.InvalidError
	require.ErrorAs(t, err, &invalid)
	require.Equal(t, "2 0", statuses(t, w, id))
	a.Parameters = object(`{"b": 3, "wrong": 4}`)
	act(t, w, a)
	require.Equal(t, []string{
		`1 "NoOp" {"a":1,"b":{"c":2}} []`, `2 "\x00"  [1]`,
		`1 "NoOp" {"a":1} []`, `2 "\x00"  [1]`,
	}, seen)
	require.JSONEq(t, `{"a": 1, "b": 3, "wrong": 4}`, look(t, w, id, 1).Parameters)
	require.JSONEq(t, `{}`, look(t, w, id, 2).Parameters, "it does not run again, but for the first time")
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_event WHERE change ? 'parameters' AND kind = 'rerun'`))
}

// What a request gave is of its whole flow: given anew, tasks that have yet to run take it as
// well. What has ended, and what has begun, keeps what it began with; other names are of the
// tasks alone that run again.
func TestAct_RerunWithParametersOfTheFlow(t *testing.T) {
	t.Parallel()
	w := open(t)
	days := func(id flow.ID) string {
		return value[string](t, w, `SELECT string_agg(concat(parameters->>'day', parameters->>'n'), ' ' ORDER BY task_exec_seq) FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
	}
	define(t, w, "daily", def(), def(), def(), def(1), def(4))
	f, err := w.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "daily", Parameters: object(`{"day": "mon"}`)})
	require.NoError(t, err)
	tasks := claim(t, w, 3)
	verdict(t, w, ended(tasks[0], flow.OutcomeFailed))
	verdict(t, w, finished(tasks[1])[0])
	verdict(t, w, paused(tasks[2], flow.Pause{Ask: true, Why: "go on?"}))
	act(t, w, flow.Action{Kind: flow.ActionHold, Flow: f.ID, Seq: 5})

	a := flow.Action{Kind: flow.ActionRerun, Flow: f.ID, Seq: 1, Scope: flow.ScopeOnly, Parameters: object(`{"day": "tue", "n": 1}`)}
	act(t, w, a)
	require.Equal(t, "tue1 mon mon mon mon", days(f.ID), "this one alone")
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	a.Seq, a.Scope, a.Parameters = 0, "", object(`{"day": "wed", "n": 2}`)
	act(t, w, a)
	require.Equal(t, "wed2 mon mon wed wed", days(f.ID))
	require.Equal(t, 2+2+2, value[int](t, w, `SELECT count(*) FROM kr_event WHERE kind = 'rerun'`), "each is written down: two reruns, and four rows")
}

func TestAct_FinishWithOutput(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	running := claimOne(t, w)
	e := act(t, w, flow.Action{Kind: flow.ActionFinish, Flow: id, Seq: 1, Output: object(`{"rows": 3}`)})
	require.Equal(t, []int{2}, e.CanGo)
	require.JSONEq(t, `{"rows": 3}`, look(t, w, id, 1).Output)
	require.Equal(t, flow.VerdictRefused, verdict(t, w, finished(running)[0]).Verdict, "what a person says wins")
	require.Equal(t, []int{2}, seqsOf(claim(t, w, 5)))
}

// Between preview and action somebody claims a task, or it fails once more.
func TestAct_ThePlanHasChanged(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def())
	cancel := flow.Action{Kind: flow.ActionCancel, Flow: id}
	preview := act(t, w, dry(cancel))
	task := claim(t, w, 1)[0]
	cancel.Plan = preview.Plan
	e, err := w.Act(t.Context(), cancel)
	var changed *flow.PlanChangedError
	require.ErrorAs(t, err, &changed)
	require.Equal(t, changed.Effect, e)
	require.Equal(t, flow.Running, e.Tasks[0].From)
	require.NotEqual(t, preview.Plan, e.Plan)
	require.Equal(t, "1 0 0", statuses(t, w, id))
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_event`))

	cancel.Plan, cancel.Expect = "", new(2)
	_, err = w.Act(t.Context(), cancel)
	require.ErrorAs(t, err, &changed, "three, not two")
	cancel.Expect = new(3)
	act(t, w, cancel)
	require.Len(t, beat(t, w, w.watcher, task).Revoked, 1)

	// The same tasks and states, but other attempts.
	rerun := flow.Action{Kind: flow.ActionRerun, Flow: id}
	rerun.Plan = act(t, w, dry(rerun)).Plan
	act(t, w, rerun)
	mustExec(t, w.psql, `UPDATE kr_task_stat SET run_after = NULL`)
	for _, task := range claim(t, w, 2) {
		verdict(t, w, ended(task, flow.OutcomeFailed))
	}
	act(t, w, flow.Action{Kind: flow.ActionCancel, Flow: id})
	_, err = w.Act(t.Context(), rerun)
	require.ErrorAs(t, err, &changed)
}

// A repeated request with a key gets the first one's answer, and nothing happens twice.
func TestAct_Key(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	fail := func() { verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed)) }
	fail()
	rerun := flow.Action{Kind: flow.ActionRerun, Flow: id, Terms: flow.Terms{Actor: "alice", Way: flow.WayUI, Key: "k1"}}
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_request`))
	act(t, w, dry(rerun))

	// At once, twice: a double click.
	var group errgroup.Group
	effects := make([]flow.Effect, 4)
	for i := range effects {
		group.Go(func() (err error) {
			effects[i], err = w.Act(background, rerun)
			return err
		})
	}
	require.NoError(t, group.Wait())
	first := slices.IndexFunc(effects, func(e flow.Effect) bool { return !e.Replayed })
	for i, e := range effects {
		require.Equal(t, i != first, e.Replayed)
		e.Replayed = false
		require.Equal(t, effects[first], e)
	}
	require.Equal(t, 1, value[int](t, w, `SELECT count(*) FROM kr_event WHERE idempotency_key = 'k1' AND way = 'ui'`))

	// Long after.
	fail()
	again := act(t, w, rerun)
	require.True(t, again.Replayed)
	require.Equal(t, 1, again.Changed())
	require.Equal(t, "2 0", statuses(t, w, id), "nothing has happened")

	other := rerun
	other.Scope = flow.ScopeAll
	_, err := w.Act(t.Context(), other)
	require.ErrorIs(t, err, flow.ErrKeyReused)
	other.Actor = "bob"
	require.False(t, act(t, w, other).Replayed, "keys are their owner's")
	require.Equal(t, "0 0", statuses(t, w, id))

	// What was refused may be repeated.
	rerun.Key, rerun.Scope = "k2", flow.ScopeAll
	task := claimOne(t, w)
	_, err = w.Act(t.Context(), rerun)
	require.ErrorAs(t, err, new(*flow.RefusedError))
	finish(t, w, task)
	require.Equal(t, 1, act(t, w, rerun).Changed())

	mustExec(t, w.psql, `UPDATE kr_request SET request_ts = request_ts - interval '8 days' WHERE idempotency_key = 'k1'`)
	rerun.Key = "k3"
	act(t, w, rerun)
	require.Equal(t, "k2 k3", value[string](t, w, `SELECT string_agg(idempotency_key, ' ' ORDER BY 1) FROM kr_request WHERE actor = 'alice'`))
}

// What one request forgets, in a transaction that takes long, another does not wait for.
func TestAct_KeyBesideAnother(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	mustExec(t, w.psql, `INSERT INTO kr_request (actor, idempotency_key, request_ts, request) VALUES ('alice', 'old', now() - interval '8 days', '')`)
	mustExec(t, begin(t, w), forgetSQL)
	e, err := w.Act(t.Context(), flow.Action{Kind: flow.ActionHold, Flow: id, Terms: flow.Terms{Actor: "bob", Key: "k"}})
	require.NoError(t, err)
	require.Equal(t, 1, e.Changed())
}

// What the database refuses for a reason of its own keeps its words.
func TestAct_Guard(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := put(t, w, shapes["chain, failed"])
	mustExec(t, w.psql, `CREATE FUNCTION closed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'the books are closed' USING HINT = 'Ask Carol.', ERRCODE = 'check_violation'; END $$;
		CREATE TRIGGER zz_closed AFTER UPDATE ON kr_task_stat FOR EACH ROW EXECUTE FUNCTION closed()`)
	_, err := w.Act(t.Context(), flow.Action{Kind: flow.ActionRerun, Flow: id})
	var guard *flow.GuardError
	require.ErrorAs(t, err, &guard)
	require.Equal(t, flow.GuardError{Message: "the books are closed", Hint: "Ask Carol."}, *guard)
}

// Flows that a task has registered are cancelled with it, and are in the preview.
func TestAct_CancelWithChildren(t *testing.T) {
	t.Parallel()
	w := open(t)
	task := parent(t, w)
	child := startChild(t, w, task, "")
	cancel := flow.Action{Kind: flow.ActionCancel, Flow: task.Flow, Terms: flow.Terms{Note: "too late"}}
	preview := act(t, w, dry(cancel))
	var keys []string
	for _, c := range preview.Tasks {
		keys = append(keys, fmt.Sprintf("%s/%d", c.Flow, c.Seq))
	}
	require.ElementsMatch(t, []string{
		fmt.Sprintf("%s/1", task.Flow), fmt.Sprintf("%s/2", task.Flow), fmt.Sprintf("%s/1", child), fmt.Sprintf("%s/2", child),
	}, keys)
	cancel.Plan = preview.Plan
	act(t, w, cancel)
	require.Equal(t, "too late", look(t, w, child, 2).Error)
	require.Equal(t, 4, value[int](t, w, `SELECT count(*) FROM kr_event WHERE kind = 'cancel' AND note = 'too late'`))
}

func TestAct_ATaskThatAsks(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1))
	verdict(t, w, paused(claimOne(t, w), flow.Pause{Ask: true, Why: "go on?"}))
	require.Zero(t, act(t, w, flow.Action{Kind: flow.ActionResume, Flow: id}).Changed())
	for _, a := range []flow.Action{{Kind: flow.ActionResume}, {Kind: flow.ActionRerun}} {
		a.Flow, a.Seq = id, 1
		_, err := w.Act(t.Context(), a)
		var refused *flow.RefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, flow.RefusedWrongStatus, refused.Code())
		require.Contains(t, err.Error(), "asks a person")
	}
	approve := flow.Action{Kind: flow.ActionApprove, Flow: id, Seq: 1, Terms: flow.Terms{Actor: "alice"}}
	require.Equal(t, []int{1}, act(t, w, approve).CanGo)
	_, err := w.Act(t.Context(), approve)
	require.ErrorContains(t, err, "was approved already, by alice")
	require.Contains(t, string(claimOne(t, w).Pause.Approval), `"approved_by": "alice"`)
}

// A hold is in the record also where it changes no status, and its end is no new run.
func TestAct_HoldAndResumeKeepWhatWas(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 3
	id := register(t, w, d, def(1))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	task := claimOne(t, w)
	hold, resume := flow.Action{Kind: flow.ActionHold, Flow: id}, flow.Action{Kind: flow.ActionResume, Flow: id}
	require.Equal(t, 2, act(t, w, hold).Changed())
	require.Equal(t, `{"hold": [false, true]}`, value[string](t, w, `SELECT change::text FROM kr_event WHERE task_exec_seq = 1 AND kind = 'hold'`))
	verdict(t, w, ended(task, flow.OutcomeFailed)) // it would be tried a third time
	require.Equal(t, "2 2", statuses(t, w, id))
	act(t, w, resume)
	r := look(t, w, id, 1)
	require.Equal(t, 2, r.Failed)
	require.Equal(t, "it is failed", r.Error)
	last := claimOne(t, w)
	require.Equal(t, task.IdempotencyKey(), last.IdempotencyKey())
	require.Equal(t, flow.Suspended, verdict(t, w, ended(last, flow.OutcomeFailed)).Status, "the third attempt of three")

	// A rerun is one, with its own key.
	act(t, w, flow.Action{Kind: flow.ActionRerun, Flow: id})
	require.NotEqual(t, task.IdempotencyKey(), claimOne(t, w).IdempotencyKey())
}

// Events are only ever added to, whatever rights somebody was given.
func TestEvents_AreKept(t *testing.T) {
	t.Parallel()
	w := open(t)
	put(t, w, shapes["chain, failed"])
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 9 WHERE task_exec_seq = 4`)
	role := "events_" + strings.ReplaceAll(newID(), "-", "")
	mustExec(t, w.psql, `CREATE ROLE `+role+`; GRANT ALL ON kr_event TO `+role)
	t.Cleanup(func() { mustExec(t, w.psql, `DROP OWNED BY `+role+`; DROP ROLE `+role) })
	for _, sql := range []string{`UPDATE kr_event SET actor = 'nobody'`, `DELETE FROM kr_event`, `TRUNCATE kr_event`} {
		tx := begin(t, w)
		mustExec(t, tx, `SET LOCAL ROLE `+role)
		_, err := tx.Exec(sql)
		require.ErrorContains(t, err, "kr_event is only ever added to", sql)
		require.NoError(t, tx.Rollback())
	}
	byHand(t, w, `DELETE FROM kr_event`)
}

// Somebody's open transaction is waited for, not for ever, and is no outage.
func TestAct_WaitsForPeople(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "a", def())
	id := registerOf(t, w, "a")
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1`, string(id)) // to see what that does
	_, err := w.Act(t.Context(), flow.Action{Kind: flow.ActionCancel, Flow: id})
	require.ErrorIs(t, err, flow.ErrLocked)
	require.NotErrorIs(t, err, flow.ErrUnavailable)
	require.NoError(t, tx.Rollback())
	_, err = w.Act(t.Context(), flow.Action{Kind: flow.ActionCancel, Flow: id})
	require.NoError(t, err)
}

// Watchers at work, and operators who act on the same flows: nobody ever waits for
// somebody who waits for him.
func TestAct_BesideWatchers(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "busy", def(), def(1), def(1), def(2, 3), def(4), def(4), def(5, 6))
	var ids []flow.ID
	for range 40 {
		ids = append(ids, registerOf(t, w, "busy"))
	}
	ctx, stop := context.WithCancel(background)
	var watchers errgroup.Group
	for range 3 {
		store, id := another(t, w), join(t, w, programs...)
		watchers.Go(func() error { return work(ctx, store, id) })
	}
	var operators errgroup.Group
	for n := range 3 {
		store := another(t, w)
		operators.Go(func() error {
			for i := range 60 {
				if err := operateAtRandom(store, ids, n+i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, operators.Wait())
	stop()
	require.NoError(t, watchers.Wait())
	sound(t, w)
	require.Zero(t, value[int](t, w, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`))
}

// work claims and ends tasks until ctx does; every seventh fails.
func work(ctx context.Context, store *DB, watcher string) error {
	var results []*flow.Result
	for n := 0; ctx.Err() == nil || len(results) > 0; {
		free := 4
		if ctx.Err() != nil {
			free = 0
		}
		adv, err := store.Advance(background, results, flow.Claim{ID: newID(), Watcher: watcher, Free: free, Programs: programs})
		if err != nil {
			return err
		}
		results = nil
		for _, r := range adv.Rejected {
			if !r.Busy {
				return r.Cause
			}
			results = append(results, r.Result)
		}
		for _, task := range adv.Claimed {
			outcome := flow.OutcomeFinished
			if n++; n%7 == 0 {
				outcome = flow.OutcomeFailed
			}
			results = append(results, &flow.Result{Task: task, Outcome: outcome})
		}
	}
	return nil
}

// operateAtRandom does something to one flow, or to all.
func operateAtRandom(store *DB, ids []flow.ID, n int) error {
	kinds := []flow.ActionKind{flow.ActionRerun, flow.ActionHold, flow.ActionRerun, flow.ActionResume, flow.ActionCancel, flow.ActionRerun, flow.ActionSkip}
	a := flow.Action{Kind: kinds[n%len(kinds)], Flow: ids[n*7%len(ids)]}
	if a.Kind == flow.ActionSkip || n%5 == 0 {
		a.Seq = 1 + n%7
	}
	var err error
	if n%4 == 0 && a.Kind != flow.ActionSkip {
		b := flow.BulkAction{Kind: a.Kind, Flows: ids, Terms: flow.Terms{DryRun: true}}
		var preview flow.BulkEffect
		if preview, err = store.ActAll(background, b); err == nil {
			b.DryRun, b.Plan, b.Expect = false, "", &preview.Changed
			_, err = store.ActAll(background, b)
		}
	} else {
		_, err = store.Act(background, a)
	}
	var refused *flow.RefusedError
	var changed *flow.PlanChangedError
	if errors.As(err, &refused) || errors.As(err, &changed) {
		return nil
	}
	return err
}
