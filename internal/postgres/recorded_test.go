package postgres

import (
	"database/sql"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// Whatever a person changes that decides what runs, when, and with which data is written
// down, with who and why; what the engine and the triggers write meanwhile is not.
func TestEvents_OfEachColumn(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(1, 2))
	finish(t, w, claimOne(t, w))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_event`), "the engine")
	for _, c := range []struct{ task, set, change string }{
		{"3", "task_id = 'x', task_seq = 9", `{"task_id": ["…", "x"], "task_seq": [3, 9]}`},
		{"3", "depends_task_exec_seq = 2, depends_task_exec_seqs = NULL", `{"depends_task_exec_seq": [1, 2], "depends_task_exec_seqs": [[1, 2], null]}`},
		{"3", "registered_ts = '2020-01-01Z', description = 'd'", `{"registered_ts": ["…", "2020-01-01T00:00:00+00:00"], "description": [null, "d"]}`},
		{"3", "run_after = '2099-01-01Z'", `{"run_after": [null, "2099-01-01T00:00:00+00:00"]}`},
		{"3", "run_after = NULL", `{"run_after": ["…", null]}`},
		{"1", `output = '{"a": 1}'`, `{"output": [null, {"a": 1}]}`},
		{"2", "error = 'known'", `{"error": ["it is failed", "known"]}`},
		{"2", "reason = 'held', suspended_ts = '2020-01-01Z'", `{"reason": ["failed", "held"], "suspended_ts": ["…", "2020-01-01T00:00:00+00:00"]}`},
		{"2", "exec_status = 0, run_after = '2099-01-01Z'", `{"run_after": [null, "2099-01-01T00:00:00+00:00"]}`},
	} {
		last := value[int](t, w, `SELECT coalesce(max(event_id), 0) FROM kr_event`)
		byHand(t, w, `UPDATE kr_task_stat SET `+c.set+` WHERE task_flow_id = $1 AND task_exec_seq = `+c.task, string(id))
		require.JSONEq(t, c.change, value[string](t, w, `
			SELECT regexp_replace(string_agg(change::text, ' '), '\["(20|workflow )[^"]*"', '["…"', 'g') FROM kr_event
			WHERE event_id > $1 AND change IS NOT NULL AND task_exec_seq = $2`, last, c.task), c.set)
	}
	byHand(t, w, `UPDATE kr_flow SET registered_by = 'somebody else' WHERE task_flow_id = $1`, string(id))
	require.JSONEq(t, `{"registered_by": [null, "somebody else"]}`, value[string](t, w, `SELECT change FROM kr_event ORDER BY event_id DESC LIMIT 1`))

	before := value[int](t, w, `SELECT count(*) FROM kr_event`)
	byHand(t, w, `UPDATE kr_task_stat SET error = error, output = output, run_after = run_after, description = description`)
	require.Equal(t, before, value[int](t, w, `SELECT count(*) FROM kr_event`), "nothing changed")
	sound(t, w)
}

// Nor is what a pause, a retry, its end, a rescue or an answer writes into the same columns.
func TestEvents_NoneOfTheEngine(t *testing.T) {
	t.Parallel()
	w := open(t)
	again := def()
	again.MaxAttempts, again.RetryDelay = 3, time.Minute
	register(t, w, again, def(1))
	for range 2 {
		verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
		behind(t, w, `UPDATE kr_task_stat SET run_after = now() - interval '1 s' WHERE run_after IS NOT NULL`)
		_, _, err := w.Promote(t.Context())
		require.NoError(t, err)
	}
	dead := join(t, w, "NoOp")
	require.Len(t, claimAs(t, w, dead, 1), 1)
	age(t, w, dead, 11)
	rescueAll(t, w)
	run(t, w)
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_event`))

	id := register(t, w, def(), def(1))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	_, err := w.Act(t.Context(), flow.Action{Kind: flow.ActionRerun, Flow: id})
	require.NoError(t, err)
	require.Equal(t, "2>0", value[string](t, w, `SELECT string_agg(concat(old_status, '>', new_status, change), ' ') FROM kr_event`), "an action is one line a task")
}

// A rerun with parameters of which no task takes any says so.
func TestRerun_ParametersThatNobodyTakes(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	connector, err := pq.NewConnector(w.psql.DSN)
	require.NoError(t, err)
	var said []string
	psql := sql.OpenDB(pq.ConnectorWithNoticeHandler(connector, func(e *pq.Error) { said = append(said, e.Message) }))
	defer func() { require.NoError(t, psql.Close()) }()
	const rerun = `SELECT flower_rerun($1, seq => 1, parameters => '{"a": 1}')`
	_, err = psql.Exec(rerun, string(id))
	require.NoError(t, err)
	require.Equal(t, []string{"nothing runs again, so no task takes these parameters"}, said)
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	_, err = psql.Exec(rerun, string(id))
	require.NoError(t, err)
	require.Len(t, said, 1)
	require.JSONEq(t, `{"a": 1}`, look(t, w, id, 1).Parameters)
}

// Tasks that are inserted or deleted by hand are a line for each flow, which says what they
// were: with the last of its tasks a flow is gone. Flows that are over are one line: they are
// deleted night after night.
func TestEvents_OfInsertedAndDeletedTasks(t *testing.T) {
	t.Parallel()
	w := open(t)
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq) VALUES ('f', 2, 1, 'sample', 2), ('f', 1, 0, 'sample', 1)`)
	insert(t, w, "f", 3, [2]int{3, 0})
	register(t, w, def())
	byHand(t, w, `SELECT set_config('flower.reason', 'old', true); DELETE FROM kr_task_stat`)
	var got []string
	require.NoError(t, w.psql.Select(&got, `SELECT concat_ws(' ', kind, note, change) FROM kr_event WHERE task_flow_id = 'f' ORDER BY event_id`))
	require.Equal(t, []string{
		`insert {"tasks": [null, 2], "task_id": [null, "sample"], "exec_status": [null, [0, 0]], "task_exec_seq": [null, [1, 2]]}`,
		`insert {"tasks": [null, 1], "task_id": [null, "sample"], "exec_status": [null, [3]], "task_exec_seq": [null, [3]]}`,
		`delete old {"tasks": [3, null], "task_id": ["sample", null], "exec_status": [[0, 0, 3], null], "task_exec_seq": [[1, 2, 3], null]}`,
	}, got)
	require.Equal(t, "delete", value[string](t, w, `SELECT string_agg(kind, ',') FROM kr_event WHERE task_flow_id <> 'f'`), "the engine's registration is in kr_flow")
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status) SELECT 'large', s, 'sample', 1, 9 FROM generate_series(1, 1000) s`)
	require.Equal(t, "1000 100", value[string](t, w, `SELECT concat_ws(' ', change->'tasks'->1, jsonb_array_length(change->'task_exec_seq'->1)) FROM kr_event WHERE task_flow_id = 'large'`))
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status)
		SELECT 'old ' || i / 2, i % 2 + 1, 'w' || i % 4 / 2, 1, CASE WHEN i < 7 THEN 3 + 6 * (i % 2) ELSE 0 END FROM generate_series(0, 7) i`)
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id LIKE 'old %'`)
	require.NoError(t, w.psql.Select(&got, `SELECT concat_ws(' ', task_flow_id, kind, change) FROM kr_event WHERE task_flow_id LIKE 'old %' ORDER BY event_id`))
	require.Equal(t, []string{
		`old 0 insert {"flows": [null, 3], "tasks": [null, 6], "task_id": [null, ["w0", "w1"]]}`,
		`old 3 insert {"tasks": [null, 2], "task_id": [null, "w1"], "exec_status": [null, [3, 0]], "task_exec_seq": [null, [1, 2]]}`,
		`old 0 delete {"flows": [3, null], "tasks": [6, null], "task_id": [["w0", "w1"], null]}`,
		`old 3 delete {"tasks": [2, null], "task_id": ["w1", null], "exec_status": [[3, 0], null], "task_exec_seq": [[1, 2], null]}`,
	}, got)
	// What has finished of flows that go on is no flow that is over.
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status)
		SELECT 'open ' || i / 2, i % 2 + 1, 'w', 1, 3 * (i % 2) FROM generate_series(0, 3) i`)
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id LIKE 'open %' AND exec_status = 3`)
	require.Equal(t, "open 0, open 1", value[string](t, w, `SELECT string_agg(task_flow_id, ', ' ORDER BY event_id) FROM kr_event
		WHERE kind = 'delete' AND task_flow_id LIKE 'open %'`))
	var kinds []string
	page, err := w.Events(t.Context(), flow.EventFilter{Flow: "f", Limit: 9})
	require.NoError(t, err)
	for _, e := range page.Events {
		require.Contains(t, flow.EventKinds, e.Kind())
		kinds = append(kinds, e.Kind())
	}
	require.Equal(t, []string{"delete", "insert", "insert"}, kinds)
}
