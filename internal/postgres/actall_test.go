package postgres

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// actAll carries out an action on many flows, as its dry run says, and asserts that
// everything is right after it.
func actAll(t *testing.T, w *world, b flow.BulkAction) flow.BulkEffect {
	t.Helper()
	before := everything(t, w)
	b.DryRun = true
	preview, err := w.ActAll(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, before, everything(t, w), "a preview changes nothing")
	b.DryRun, b.Expect, b.Plan = false, &preview.Changed, preview.Plan
	e, err := w.ActAll(t.Context(), b)
	require.NoError(t, err)
	sound(t, w)
	preview.DryRun = false
	require.Equal(t, preview, e)
	return e
}

// failedFlows makes flows of a workflow, which fail in their first task, each with an error of
// its own.
func failedFlows(t *testing.T, w *world, workflow flow.WorkflowID, errors ...string) []flow.ID {
	t.Helper()
	define(t, w, workflow, def(), def(1))
	var ids []flow.ID
	for _, text := range errors {
		id := registerOf(t, w, workflow)
		r := ended(claimOne(t, w), flow.OutcomeFailed)
		r.Error = text
		verdict(t, w, r)
		ids = append(ids, id)
	}
	return ids
}

func fingerprintOf(t *testing.T, w *world, id flow.ID) string {
	t.Helper()
	return value[string](t, w, `SELECT flower_fingerprint(error) FROM kr_task_stat WHERE task_flow_id = $1 AND exec_status = 2`, string(id))
}

// A failure group is mended once and run again, and nothing else.
func TestActAll_AFailureGroup(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		ids := failedFlows(t, w, "nightly", "no answer: 503", "no answer: 504", "no such table")
		other := failedFlows(t, w, "hourly", "no answer: 503")
		byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2, reason = 'failed', error = 'no such table' WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(ids[0]))
		e := actAll(t, w, flow.BulkAction{
			Kind: flow.ActionRerun, Filter: flow.BulkFilter{WorkflowID: "nightly", Fingerprint: fingerprintOf(t, w, ids[1])},
			Terms: flow.Terms{Actor: "alice", Way: flow.WayUI, Note: "it is back"},
		})
		require.Equal(t, 2, e.Changed)
		require.Equal(t, 2, e.CanGo)
		require.ElementsMatch(t, []flow.FlowChange{{Flow: ids[0], Changed: 1}, {Flow: ids[1], Changed: 1}}, e.Flows)
		require.Equal(t, "0 2", statuses(t, w, ids[0]), "another failure of the same flow")
		require.Equal(t, "0 0", statuses(t, w, ids[1]))
		require.Equal(t, "2 0", statuses(t, w, ids[2]))
		require.Equal(t, "2 0", statuses(t, w, other[0]))
		require.Equal(t, 2, value[int](t, w, `SELECT count(*) FROM kr_event WHERE kind = 'rerun' AND actor = 'alice' AND way = 'ui' AND note = 'it is back'`))
	})
}

func TestActAll_Filters(t *testing.T) {
	t.Parallel()
	w := open(t)
	ids := failedFlows(t, w, "a", "one", "two", "three", "four")
	failedFlows(t, w, "b", "one")
	mustExec(t, w.psql, `UPDATE kr_flow SET registered_by = 'cron', registered_ts = now() - interval '2 days' WHERE task_flow_id = $1`, string(ids[0]))
	behind(t, w, `UPDATE kr_task_stat SET suspended_ts = now() - interval '1 day' WHERE task_flow_id = $1 AND exec_status = 2`, string(ids[1]))
	behind(t, w, `UPDATE kr_task_stat SET reason = 'timeout', program = 'Test1' WHERE task_flow_id = $1 AND exec_status = 2`, string(ids[2]))
	act(t, w, flow.Action{Kind: flow.ActionCancel, Flow: ids[3]})
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2, reason = 'cancelled' WHERE task_flow_id = $1`, string(ids[3]))
	act(t, w, flow.Action{Kind: flow.ActionRerun, Flow: ids[3]})
	act(t, w, flow.Action{Kind: flow.ActionCancel, Flow: ids[3]})
	yesterday, now := time.Now().Add(-30*time.Hour), time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		filter flow.BulkFilter
		want   int // tasks that would run again
	}{
		"workflow":       {flow.BulkFilter{WorkflowID: "a"}, 3},
		"by whom":        {flow.BulkFilter{RegisteredBy: "cron"}, 1},
		"since":          {flow.BulkFilter{WorkflowID: "a", Since: yesterday}, 2},
		"until":          {flow.BulkFilter{WorkflowID: "a", Until: yesterday}, 1},
		"status":         {flow.BulkFilter{Status: []string{"failed"}}, 4},
		"another status": {flow.BulkFilter{Status: []string{"held", "queued"}}, 0},
		"cancelled":      {flow.BulkFilter{Status: []string{"cancelled"}}, 2},
		"reason":         {flow.BulkFilter{Reason: flow.ReasonTimeout}, 1},
		"program":        {flow.BulkFilter{Program: "Test1"}, 1},
		"task":           {flow.BulkFilter{TaskSeq: 1}, 4},
		"another task":   {flow.BulkFilter{TaskSeq: 2}, 0},
		"failed since":   {flow.BulkFilter{WorkflowID: "a", FailedSince: now}, 2},
		"failed until":   {flow.BulkFilter{WorkflowID: "a", FailedUntil: now}, 1},
		"several":        {flow.BulkFilter{WorkflowID: "a", Reason: flow.ReasonFailed, FailedSince: now}, 1},
		"fingerprint":    {flow.BulkFilter{Fingerprint: fingerprintOf(t, w, ids[0])}, 2},
	} {
		e, err := w.ActAll(t.Context(), flow.BulkAction{Kind: flow.ActionRerun, Filter: c.filter, Terms: flow.Terms{DryRun: true}})
		require.NoError(t, err, name)
		require.Equal(t, c.want, e.Changed, name)
		require.Empty(t, e.Refused)
	}
}

// Whoever has looked at a list acts on what it shows, also where a flow has two words: it
// still runs, and a task has failed.
func TestActAll_OnWhatTheListShows(t *testing.T) {
	t.Parallel()
	w := open(t)
	ids := map[string]flow.ID{}
	for name, shape := range shapes {
		ids[name] = put(t, w, shape)
	}
	for _, words := range [][]string{{"running"}, {"failed"}, {"held"}, {"cancelled"}, {"finished"}, {"failed", "held"}, {"running", "failed"}} {
		page, err := w.Flows(t.Context(), flow.Filter{Status: words}, flow.Position{}, 100)
		require.NoError(t, err)
		var shown, meant []flow.ID
		for _, f := range page.Flows {
			shown = append(shown, f.ID)
		}
		e, err := w.ActAll(t.Context(), flow.BulkAction{ // which changes something in each, or refuses it
			Kind: flow.ActionRerun, Scope: flow.ScopeAll, Filter: flow.BulkFilter{Status: words}, Terms: flow.Terms{DryRun: true},
		})
		require.NoError(t, err)
		for _, f := range e.Flows {
			meant = append(meant, f.Flow)
		}
		for _, r := range e.Refused {
			meant = append(meant, r.Flow)
		}
		require.ElementsMatch(t, shown, meant, words)
		if slices.Contains(words, "failed") {
			require.Contains(t, shown, ids["fan-out"], "it runs, and tasks of it have failed")
		}
	}
}

func TestActAll_EveryAction(t *testing.T) {
	t.Parallel()
	w := open(t)
	ids := failedFlows(t, w, "a", "one", "two")
	later := register(t, w, def(), def(1))
	of := flow.BulkFilter{WorkflowID: "a"}
	do := func(kind flow.ActionKind, f flow.BulkFilter, want int, states string) {
		t.Helper()
		require.Equal(t, want, actAll(t, w, flow.BulkAction{Kind: kind, Filter: f}).Changed, kind)
		for _, id := range ids {
			require.Equal(t, states, statuses(t, w, id), kind)
		}
		require.Equal(t, "0 0", statuses(t, w, later), "it is no flow of this workflow")
	}
	do(flow.ActionHold, of, 2, "2 2")
	do(flow.ActionHold, of, 0, "2 2")
	do(flow.ActionRerun, of, 2, "0 2") // held tasks stay so
	do(flow.ActionResume, of, 2, "0 0")
	do(flow.ActionCancel, of, 4, "2 2")
	do(flow.ActionRerun, of, 0, "2 2") // somebody cancelled it on purpose
	do(flow.ActionRerun, flow.BulkFilter{WorkflowID: "a", Status: []string{"cancelled"}}, 4, "0 0")
	for _, task := range claim(t, w, 2) {
		verdict(t, w, ended(task, flow.OutcomeFailed))
	}
	do(flow.ActionSkip, of, 2, "9 0")
	do(flow.ActionSkip, of, 0, "9 0") // nothing has failed
	for _, task := range claim(t, w, 2) {
		verdict(t, w, ended(task, flow.OutcomeFailed))
	}
	do(flow.ActionFinish, flow.BulkFilter{TaskSeq: 2}, 2, "9 3")
	all := flow.BulkAction{Kind: flow.ActionRerun, Scope: flow.ScopeAll, Filter: of}
	require.Equal(t, 2, actAll(t, w, all).Changed)
	for _, task := range claim(t, w, 2) {
		verdict(t, w, ended(task, flow.OutcomeFailed))
	}
	from := flow.BulkAction{Kind: flow.ActionRerun, Scope: flow.ScopeFrom, Filter: flow.BulkFilter{Reason: flow.ReasonFailed}}
	require.Equal(t, 2, actAll(t, w, from).Changed)
}

// A flow of which all that is left asks a person is cancelled like any other.
func TestActAll_CancelsWhatAsks(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "a", def())
	id := registerOf(t, w, "a")
	verdict(t, w, paused(claimOne(t, w), flow.Pause{Ask: true, Why: "go on?"}))
	e := actAll(t, w, flow.BulkAction{Kind: flow.ActionCancel, Filter: flow.BulkFilter{WorkflowID: "a"}})
	require.Equal(t, []flow.FlowChange{{Flow: id, Changed: 1}}, e.Flows)
	require.Equal(t, "cancelled", value[string](t, w, `SELECT status FROM v_flow WHERE task_flow_id = $1`, string(id)))
}

// A flow in which a task is in the way is left alone, with its reason; the others are not.
func TestActAll_Refused(t *testing.T) {
	t.Parallel()
	w := open(t)
	var ids []flow.ID
	for range 102 {
		ids = append(ids, put(t, w, shapes["chain, running"]))
	}
	good := put(t, w, shapes["chain, finished"])
	e := actAll(t, w, flow.BulkAction{Kind: flow.ActionRerun, Scope: flow.ScopeAll, Flows: append(ids, good, "nobody's", good)})
	require.Equal(t, []flow.FlowChange{{Flow: good, Changed: 4}}, e.Flows)
	require.Equal(t, 103, e.RefusedCount)
	require.Len(t, e.Refused, 100)
	codes := map[flow.RefusalCode]bool{}
	for _, r := range e.Refused {
		codes[r.Code] = true
		require.NotEmpty(t, r.Detail)
	}
	require.True(t, codes[flow.RefusedTaskRunning])
	require.Equal(t, "3 3 1 0", statuses(t, w, ids[0]))
	require.Equal(t, "0 0 0 0", statuses(t, w, good))
}

// The set moves between look and click: then nothing happens.
func TestActAll_TheSetHasMoved(t *testing.T) {
	t.Parallel()
	w := open(t)
	ids := failedFlows(t, w, "a", "one", "two")
	b := flow.BulkAction{Kind: flow.ActionRerun, Filter: flow.BulkFilter{WorkflowID: "a"}, Terms: flow.Terms{Expect: new(3)}}
	e, err := w.ActAll(t.Context(), b)
	var changed *flow.PlanChangedError
	require.ErrorAs(t, err, &changed)
	require.Equal(t, 2, changed.Bulk.Changed)
	require.Equal(t, *changed.Bulk, e)
	require.Equal(t, "2 0", statuses(t, w, ids[0]))

	// As many, but others.
	b.DryRun, b.Expect = true, nil
	preview, err := w.ActAll(t.Context(), b)
	require.NoError(t, err)
	act(t, w, flow.Action{Kind: flow.ActionRerun, Flow: ids[0]})
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	b.DryRun, b.Expect, b.Plan = false, new(2), preview.Plan
	_, err = w.ActAll(t.Context(), b)
	require.ErrorAs(t, err, &changed)
}

// What the server cuts off since it takes too long has not happened: the database is not away,
// and asking for the same again at once would only make it worse.
func TestActAll_TakesTooLong(t *testing.T) {
	t.Parallel()
	w := open(t)
	ids := failedFlows(t, w, "a", "one")
	mustExec(t, begin(t, w), `LOCK TABLE kr_flow, kr_task_stat`) // as if there were no end of rows to read
	for name, terms := range map[string]flow.Terms{"preview": {DryRun: true}, "act": {Expect: new(1)}} {
		for of, b := range map[string]flow.BulkAction{
			"filter": {Kind: flow.ActionRerun, Filter: flow.BulkFilter{WorkflowID: "a"}, Terms: terms},
			"named":  {Kind: flow.ActionRerun, Flows: ids, Terms: terms},
		} {
			t.Run(name+"/"+of, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				_, err := w.ActAll(ctx, b)
				require.ErrorIs(t, err, flow.ErrTooSlow)
				require.NotErrorIs(t, err, flow.ErrUnavailable)
			})
		}
	}
}

func TestActAll_Key(t *testing.T) {
	t.Parallel()
	w := open(t)
	ids := failedFlows(t, w, "a", "one", "two")
	b := flow.BulkAction{Kind: flow.ActionRerun, Filter: flow.BulkFilter{WorkflowID: "a"}, Terms: flow.Terms{Expect: new(2), Key: "k"}}
	first, err := w.ActAll(t.Context(), b)
	require.NoError(t, err)
	verdict(t, w, ended(claim(t, w, 1)[0], flow.OutcomeFailed))
	again, err := w.ActAll(t.Context(), b)
	require.NoError(t, err)
	require.True(t, again.Replayed)
	again.Replayed = false
	require.Equal(t, first, again)
	require.Equal(t, "2 0", statuses(t, w, ids[0]))
	b.Kind = flow.ActionSkip
	_, err = w.ActAll(t.Context(), b)
	require.ErrorIs(t, err, flow.ErrKeyReused)
}

func TestActAll_Invalid(t *testing.T) {
	t.Parallel()
	w := open(t)
	dryRun, of := flow.Terms{DryRun: true}, flow.BulkFilter{WorkflowID: "a"}
	for text, b := range map[string]flow.BulkAction{
		"filter: it says nothing":    {Kind: flow.ActionRerun, Terms: dryRun},
		"filter: name the flows, or": {Kind: flow.ActionRerun, Flows: []flow.ID{"x"}, Filter: of, Terms: dryRun},
		"expect: say how many":       {Kind: flow.ActionRerun, Filter: of},
		"scope: of flows that are":   {Kind: flow.ActionRerun, Scope: flow.ScopeFrom, Flows: []flow.ID{"x"}, Terms: dryRun},
		"action: what a task asks":   {Kind: flow.ActionApprove, Filter: of, Terms: dryRun},
		"action: it is rerun":        {Kind: "retry", Flows: []flow.ID{"x"}, Terms: dryRun},
		"scope: it is failed, from":  {Kind: flow.ActionRerun, Scope: "some", Flows: []flow.ID{"x"}, Terms: dryRun},
	} {
		_, err := w.ActAll(t.Context(), b)
		var invalid *flow.InvalidError
		require.ErrorAs(t, err, &invalid, text)
		require.Contains(t, err.Error(), text)
	}
	_, err := w.ActAll(t.Context(), flow.BulkAction{Kind: flow.ActionHold, Flows: make([]flow.ID, flow.MaxBulkTasks+1), Terms: dryRun})
	require.ErrorIs(t, err, flow.ErrTooMany)
}

// Ten thousand failed flows run again with one call, in one transaction, in seconds, beside
// watchers that work on.
func TestActAll_ThousandsOfFlows(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // v_invariant is asked once
	flows, tasks := 2_500, 10
	if *manyFlows > 0 {
		flows = 10_000
	}
	behind(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, started_ts,
		finished_ts, suspended_ts, reason, error, attempt, unmet, claim_id, dependents, program)
		SELECT 'f' || md5(f::text), s, s - 1, 'nightly', s, CASE WHEN s < 5 THEN 3 WHEN s = 5 THEN 2 ELSE 0 END, CASE WHEN s <= 5 THEN now() END,
		       CASE WHEN s < 5 THEN now() END, CASE WHEN s = 5 THEN now() END, CASE WHEN s = 5 THEN 'failed' END, CASE WHEN s = 5 THEN 'no answer: ' || f END,
		       (s <= 5)::int, (s > 5)::int, CASE WHEN s <= 5 THEN gen_random_uuid() END, CASE WHEN s < $2 THEN ARRAY[s + 1] ELSE '{}' END, 'NoOp'
		FROM generate_series(1, $1::int) f, generate_series(1, $2::int) s`, flows, tasks)
	behind(t, w, `INSERT INTO kr_flow (task_flow_id, task_id) SELECT task_flow_id, task_id FROM kr_task_stat WHERE task_exec_seq = 1 ON CONFLICT DO NOTHING`)
	mustExec(t, w.psql, `ANALYZE`)
	b := flow.BulkAction{Kind: flow.ActionRerun, Filter: flow.BulkFilter{WorkflowID: "nightly"}, Terms: flow.Terms{DryRun: true}}
	begin := time.Now()
	preview, err := w.ActAll(t.Context(), b)
	require.NoError(t, err)
	require.Equal(t, flows, preview.Changed)
	looked := time.Since(begin)
	b.DryRun, b.Expect, b.Plan, b.Key = false, &preview.Changed, preview.Plan, "drill"
	begin = time.Now()
	e, err := w.ActAll(t.Context(), b)
	require.NoError(t, err)
	t.Logf("%d flows of %d tasks: looked at in %s, run again in %s", flows, tasks, looked.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	require.Equal(t, flows, e.Changed)
	require.Len(t, e.Flows, flows)
	require.Equal(t, fmt.Sprint(flows), value[string](t, w, `SELECT count(*)::text FROM kr_ready`))
	require.Equal(t, flows, value[int](t, w, `SELECT count(*) FROM kr_event WHERE kind = 'rerun'`))
	require.Equal(t, flows, value[int](t, w, `SELECT count(*) FROM kr_task_attempt`))
	sound(t, w)

	all := flow.BulkAction{Kind: flow.ActionCancel, Filter: flow.BulkFilter{WorkflowID: "nightly"}, Terms: flow.Terms{DryRun: true}}
	preview, err = w.ActAll(t.Context(), all)
	require.NoError(t, err)
	require.Equal(t, flows*6, preview.Changed)
	behind(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program, unmet) SELECT 'g', g, 'nightly', 1, 'NoOp', 0 FROM generate_series(1, $1) g`, flow.MaxBulkTasks-flows*6+1)
	behind(t, w, `INSERT INTO kr_flow (task_flow_id, task_id) VALUES ('g', 'nightly')`)
	_, err = w.ActAll(t.Context(), all)
	require.ErrorIs(t, err, flow.ErrTooMany)
}
