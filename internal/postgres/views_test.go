package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// What a flow is called, the first line that holds.
func TestViews_StatusOfAFlow(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, c := range []struct {
		want  string
		tasks string // exec_status, and the reason of those at 2; r is a task that waits for a retry
		chain bool
	}{
		{"running", "1 0", true},
		{"running", "1 2failed", false},
		{"running", "3 0", true},  // one can go, another is done
		{"running", "9 0", true},  // skipped counts as done
		{"running", "3 0r", true}, // retries are on their way
		{"running", "3 2failed 0", false},
		{"running", "3 2held 0", false},
		{"failed", "3 2failed 0", true},
		{"failed", "2failed", false},
		{"failed", "2timeout 0", true},
		{"failed", "2lost", false},
		{"failed", "2invalid", false},
		{"failed", "2", false}, // without a reason
		{"failed", "2held 2failed 2cancelled", false},
		{"failed", "0 2failed", false}, // nothing has finished yet
		{"held", "3 2held 0", true},
		{"held", "2held 2cancelled", false},
		{"cancelled", "3 2cancelled 2cancelled", true},
		{"cancelled", "2cancelled 0", true},
		{"queued", "0 0", true},
		{"running", "0r", false}, // it has begun
		{"running", "0r 0", true},
		{"running", "0 2failed 0r", false},
		{"finished", "3 3", true},
		{"finished", "3 9", false},
		{"finished", "9", false},
	} {
		t.Run(fmt.Sprint(c.want, c.tasks, c.chain), func(t *testing.T) {
			id := newID()
			for i, s := range strings.Fields(c.tasks) {
				after := 0
				if c.chain {
					after = i
				}
				mustExec(t, w.psql, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, reason, run_after, attempt, failed_count)
				                     VALUES ($1, $2, $3, 'x', $2, $4, nullif($5, ''), CASE WHEN $6 THEN now() + interval '1 h' END, $6::int, $6::int)`,
					id, i+1, after, s[:1], strings.TrimSuffix(s[1:], "r"), s[1:] == "r")
			}
			require.Equal(t, c.want, value[string](t, w, `SELECT status FROM v_flow WHERE task_flow_id = $1`, id))
		})
	}
	sound(t, w)
}

func TestViews_Flow(t *testing.T) {
	t.Parallel()
	w := open(t)
	first, second := def(), def(1)
	first.Description, second.Description = "load", "  \nno title"
	define(t, w, "viewed", first, second, def(2))
	f, err := w.Register(t.Context(), flow.Registration{
		FlowID: "f", WorkflowID: "viewed", RegisteredBy: "me", Note: "why", Parameters: object(`{"a": 1}`), IdempotencyKey: "k",
	})
	require.NoError(t, err)
	finish(t, w, claimOne(t, w))
	verdict(t, w, &flow.Result{Task: claimOne(t, w), Outcome: flow.OutcomeFailed, Error: "the first line\nthe second"})
	require.Equal(t, "f|viewed|failed|1/3|2|the first line|1|0|1|1|0|me", value[string](t, w, `
		SELECT concat_ws('|', task_flow_id, task_id, status, progress, failed_task, error, waiting, running, suspended, finished, ignored, registered_by)
		FROM v_flow`))
	require.True(t, value[bool](t, w, `SELECT took >= '0 s' AND ended_ts >= started_ts AND started_ts >= registered_ts FROM v_flow`))

	s, err := w.Flow(t.Context(), "f")
	require.NoError(t, err)
	require.Equal(t, f.RegisteredAt, s.RegisteredAt)
	require.Equal(t, "failed", s.Status)
	require.Equal(t, "me", s.RegisteredBy)
	require.Equal(t, "why", s.Note)
	require.JSONEq(t, `{"a": 1}`, string(s.Parameters))
	require.WithinDuration(t, time.Now(), s.AsOf, time.Minute)
	require.Len(t, s.Tasks, 3)
	require.Equal(t, "load", s.Tasks[0].Title())
	require.Equal(t, "NoOp", s.Tasks[1].Title(), "its description has no first line")
	require.Equal(t, []int{}, s.Tasks[0].Parents)
	require.Equal(t, []int{2}, s.Tasks[2].Parents)
	require.Equal(t, flow.Finished, s.Tasks[0].Status)
	require.False(t, s.Tasks[0].Ended().IsZero())
	require.Equal(t, flow.Suspended, s.Tasks[1].Status)
	require.Equal(t, flow.ReasonFailed, s.Tasks[1].Reason)
	require.Equal(t, "the first line\nthe second", s.Tasks[1].Error)
	require.Equal(t, 1, s.Tasks[1].Attempt)
	require.Equal(t, 0, s.Tasks[2].Attempt)
	require.JSONEq(t, `{"a": 1}`, string(s.Tasks[2].Parameters))

	require.Equal(t, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = 'f' AND exec_status = 2`, s.Recover)
	byHand(t, w, s.Recover)
	require.Equal(t, "3 0 0", statuses(t, w, "f"))
	s, err = w.Flow(t.Context(), "f")
	require.NoError(t, err)
	require.Empty(t, s.Recover)

	_, err = w.Flow(t.Context(), "no such flow")
	require.ErrorIs(t, err, flow.ErrNotFound)

	// A flow that was inserted by hand, with a name that must be quoted.
	insert(t, w, `it's "a" flow`, 2, [2]int{1, 0})
	s, err = w.Flow(t.Context(), `it's "a" flow`)
	require.NoError(t, err)
	require.Equal(t, "failed", s.Status)
	require.Empty(t, s.RegisteredBy)
	require.Nil(t, s.Parameters)
	byHand(t, w, s.Recover)
	require.Equal(t, "0", statuses(t, w, `it's "a" flow`))
}

// A flow is read as of one moment, however long it takes.
func TestViews_FlowIsOfOneMoment(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, independent(50)...)
	stop := make(chan struct{})
	wait := async(func() error {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return nil
			default:
			}
			if _, err := w.psql.Exec(`UPDATE kr_task_stat SET exec_status = $2 WHERE task_flow_id = $1`, string(id), []int{9, 0}[i%2]); err != nil {
				return err
			}
		}
	})
	for range 30 {
		s, err := w.Flow(t.Context(), id)
		require.NoError(t, err)
		want := map[string]flow.Status{"queued": flow.Waiting, "finished": flow.Ignored}[s.Status]
		for _, task := range s.Tasks {
			require.Equal(t, want, task.Status, s.Status)
		}
	}
	close(stop)
	require.NoError(t, wait())
}

func TestViews_WhyWaiting(t *testing.T) {
	t.Parallel()
	w := open(t)
	why := func(id flow.ID, seq int) string {
		t.Helper()
		return value[string](t, w, `SELECT wait_reason || ': ' || why FROM v_why_waiting WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(id), seq)
	}
	d := def()
	d.MaxAttempts, d.RetryDelay = 3, time.Hour
	other := def()
	other.Program = "Rep'ort"
	id := register(t, w, d, def(1), def(1, 2), def(), other)
	require.Equal(t, "queued: can go: waits for a free worker", why(id, 1))
	require.Equal(t, "dependency: waits for task 1", why(id, 2))
	require.Equal(t, "dependency: waits for task 1, 2", why(id, 3))
	require.Equal(t, "no_watcher: no watcher has the program 'Rep''ort'", why(id, 5))

	task := claim(t, w, 1)[0]
	require.Equal(t, "dependency: waits for task 1", why(id, 2))
	verdict(t, w, ended(task, flow.OutcomeFailed))
	require.Contains(t, why(id, 1), "retry: attempt 1 failed, the next one starts after 20")
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	require.Equal(t, "blocked: blocked by task 1 (held)", why(id, 2))
	require.Equal(t, "blocked: blocked by task 1 (held)", why(id, 3))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = now() + interval '1 h' WHERE task_flow_id = $1 AND task_exec_seq = 4`, string(id))
	require.Contains(t, why(id, 4), "time: not before 20")
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1`, string(id))

	insert(t, w, "half", 0, [2]int{2, 1})
	require.Equal(t, "dependency: task 1, which it depends on, does not exist", why("half", 2))

	several := register(t, w, def(), def(), def(1, 2))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(several))
	byHand(t, w, `SELECT flower_cancel($1, 'not today', 2)`, string(several))
	require.Equal(t, "blocked: blocked by task 1 (held)", why(several, 3), "of several the first, with its own reason")

	require.NoError(t, w.Drain(t.Context(), w.watcher))
	require.Equal(t, "no_watcher: no watcher is running", why(id, 4))
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM v_why_waiting v JOIN kr_task_stat t USING (task_flow_id, task_exec_seq) WHERE t.exec_status <> 0`))
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM v_why_waiting WHERE why IS NULL OR wait_reason IS NULL`))
}

// The statements that the views offer do what they say.
func TestViews_RerunOfAFailure(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(2), def(1))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	require.Equal(t, 3, value[int](t, w, `SELECT blocks FROM v_failed`))
	rerun := value[string](t, w, `SELECT rerun FROM v_failed WHERE task_flow_id = $1`, string(id))
	insert(t, w, `it's`, 2, [2]int{1, 0}, [2]int{2, 0})
	byHand(t, w, value[string](t, w, `SELECT rerun FROM v_failed WHERE task_flow_id = 'it''s' AND task_exec_seq = 2`))
	require.Equal(t, "2 0", statuses(t, w, `it's`))
	require.Equal(t, "2 0 0 0", statuses(t, w, id))
	byHand(t, w, rerun)
	require.Equal(t, "0 0 0 0", statuses(t, w, id))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1`, string(id))
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM v_failed WHERE task_flow_id = $1`, string(id)), "held is not failed")
}

// Count, list and statement mean the same set.
func TestViews_RerunOfAGroup(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "grouped", def(), def())
	for i, text := range []string{"GET 10.0.0.7: 503", "GET 10.0.0.99: 503", "no such table", "GET 1: 503\nsecond line"} {
		registerOf(t, w, "grouped")
		tasks := claim(t, w, 2)
		verdict(t, w, &flow.Result{Task: tasks[0], Outcome: flow.OutcomeFailed, Error: text})
		outcome := flow.OutcomeTimeout
		if i == 0 {
			outcome = flow.OutcomeInvalid
		}
		verdict(t, w, &flow.Result{Task: tasks[1], Outcome: outcome, Error: text})
	}
	// The same once more under another program, and once held.
	byHand(t, w, `UPDATE kr_task_stat SET program = 'it''s' WHERE ctid = (SELECT min(ctid) FROM kr_task_stat WHERE reason = 'failed' AND error LIKE 'GET%')`)
	byHand(t, w, `UPDATE kr_task_stat SET program = NULL WHERE ctid = (SELECT min(ctid) FROM kr_task_stat WHERE reason = 'timeout' AND error LIKE 'GET%')`)
	registerOf(t, w, "grouped")
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2, error = 'no such table' WHERE exec_status = 0`)

	total := value[int](t, w, `SELECT sum(tasks) FROM v_failure_group`)
	require.Equal(t, 8, total)
	require.Equal(t, total, value[int](t, w, `SELECT count(*) FROM v_failed`))
	groups := value[int](t, w, `SELECT count(*) FROM v_failure_group`)
	require.Greater(t, groups, 4)
	for ; groups > 0; groups-- {
		var group struct {
			Tasks int64  `db:"tasks"`
			Rerun string `db:"rerun"`
		}
		require.NoError(t, w.psql.Get(&group, `SELECT tasks, rerun FROM v_failure_group ORDER BY tasks DESC, rerun LIMIT 1`))
		result, err := w.psql.Exec(group.Rerun)
		require.NoError(t, err)
		n, err := result.RowsAffected()
		require.NoError(t, err)
		require.Equal(t, group.Tasks, n, group.Rerun)
		require.Equal(t, groups-1, value[int](t, w, `SELECT count(*) FROM v_failure_group`))
	}
	require.Equal(t, 2, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE exec_status = 2`), "what is held stays held")
}

func TestViews_TheOthers(t *testing.T) {
	t.Parallel()
	w := open(t)
	a, b := def(), def()
	b.Priority = -5
	id := register(t, w, a, b, def(1))
	require.Equal(t, []string{"1 2", "2 1"}, all[string](t, w, `SELECT position || ' ' || task_exec_seq FROM v_queue ORDER BY position`))
	claim(t, w, 1)
	require.Equal(t, "host:1", value[string](t, w, `SELECT watcher FROM v_running`))
	require.True(t, value[bool](t, w, `SELECT note IS NULL AND running_for >= '0 s' FROM v_running`))
	insert(t, w, "third party", 1, [2]int{1, 0})
	require.Contains(t, value[string](t, w, `SELECT note FROM v_running WHERE task_flow_id = 'third party'`), "inserted by hand")
	require.Equal(t, []string{"waiting", "running", "waiting"}, all[string](t, w, `SELECT status FROM v_task WHERE task_flow_id = $1 ORDER BY task_exec_seq`, string(id)))
	require.Equal(t, "waits for task 1", value[string](t, w, `SELECT why FROM v_task WHERE task_flow_id = $1 AND task_exec_seq = 3`, string(id)))

	require.Equal(t, "alive", value[string](t, w, `SELECT state FROM v_watcher`))
	require.NoError(t, w.Drain(t.Context(), w.watcher))
	require.Equal(t, "draining", value[string](t, w, `SELECT state FROM v_watcher`))
	age(t, w, w.watcher, 5)
	require.Equal(t, "late", value[string](t, w, `SELECT state FROM v_watcher`))
	age(t, w, w.watcher, 6)
	require.Equal(t, "dead", value[string](t, w, `SELECT state FROM v_watcher`))
	require.Contains(t, value[string](t, w, `SELECT note FROM v_running WHERE watcher IS NOT NULL`), "it will be rescued")
}

func all[T any](t *testing.T, w *world, query string, args ...any) []T {
	t.Helper()
	var v []T
	require.NoError(t, w.psql.Select(&v, query, args...), query)
	return v
}

// v_invariant finds what it is there for. (What it must not find is asked by every test.)
func TestViews_Invariant(t *testing.T) {
	t.Parallel()
	w := openBroken(t)
	register(t, w, def(), def(1))
	for rule, sql := range map[string]string{
		"unmet counts what is not satisfied": `UPDATE kr_task_stat SET unmet = 7 WHERE task_exec_seq = 2`,
		"what can go is in the queue":        `DELETE FROM kr_ready`,
		"only what can go is in the queue":   `INSERT INTO kr_ready VALUES (0, now(), 'x', 1)`,
		"owned means running":                `UPDATE kr_task_stat SET watcher_id = gen_random_uuid(), claim_id = gen_random_uuid() WHERE task_exec_seq = 2`,
		"only a suspended task has a reason": `UPDATE kr_task_stat SET reason = 'held' WHERE task_exec_seq = 2`,
		"a task knows its dependents":        `UPDATE kr_task_stat SET dependents = '{}'`,
	} {
		tx := begin(t, w)
		mustExec(t, tx, `SET LOCAL session_replication_role = replica`)
		mustExec(t, tx, sql)
		var rules []string
		require.NoError(t, tx.Select(&rules, `SELECT DISTINCT rule FROM v_invariant`))
		require.Equal(t, []string{rule}, rules)
		require.NoError(t, tx.Rollback())
	}
}

// Each dependency is looked at, of tasks with one parent and of those with several.
func TestViews_InvariantOfDependents(t *testing.T) {
	t.Parallel()
	w := openBroken(t)
	register(t, w, def(), def(1), def(1), def(2, 3))
	behind(t, w, `UPDATE kr_task_stat SET dependents = '{}'`)
	require.Equal(t, []string{"2: task 1 does not list it", "3: task 1 does not list it", "4: task 2 does not list it", "4: task 3 does not list it"},
		all[string](t, w, `SELECT task_exec_seq || ': ' || detail FROM v_invariant ORDER BY 1`))
}

// \d+ teaches: every table and view says what it is, and every column whose name does
// not say it all.
func TestViews_Comments(t *testing.T) {
	t.Parallel()
	w := open(t)
	require.Empty(t, all[string](t, w, `
		SELECT relname FROM pg_class c
		WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'goose_db_version'
		  AND coalesce(length(obj_description(c.oid)), 0) < 20`), "tables and views without a comment")
	obvious := strings.Fields(`task_flow_id task_exec_seq task_id task_seq task_priority title program parameters description reason error
		output attempt max_attempts retry_delay timeout on_lost registered_ts started_ts finished_ts suspended_ts ended_ts event_ts heartbeat_ts
		run_after registered_by note idempotency_key event_id old_status new_status actor application client watcher_id claim_id
		host pid version programs workers busy draining waiting running finished ignored rule detail`)
	require.Empty(t, all[string](t, w, `
		SELECT relname || '.' || attname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
		WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname NOT IN ('goose_db_version', 'kr_ready')
		  AND attnum > 0 AND NOT attisdropped AND col_description(c.oid, attnum) IS NULL
		  AND attname <> ALL (string_to_array($1, ' '))
		ORDER BY 1`, strings.Join(obvious, " ")), "columns that need a comment")
	// The contract's two tables are where people look first.
	require.Empty(t, all[string](t, w, `
		SELECT attname FROM pg_attribute
		WHERE attrelid IN ('kr_task_stat'::regclass, 'ms_task_definition'::regclass) AND attnum > 0 AND col_description(attrelid, attnum) IS NULL
		  AND attname NOT IN ('registered_ts', 'finished_ts', 'suspended_ts', 'parameters', 'max_attempts', 'retry_delay', 'timeout', 'on_lost', 'description')`))
}

// What a flow's parameters are is what was given, as JSON.
func TestViews_FlowParametersAreJSON(t *testing.T) {
	t.Parallel()
	w := open(t)
	_, err := w.Register(t.Context(), flow.Registration{FlowID: "f", WorkflowID: "sample", Parameters: object(`{}`)})
	require.NoError(t, err)
	s, err := w.Flow(t.Context(), "f")
	require.NoError(t, err)
	require.True(t, json.Valid(s.Parameters))
	require.JSONEq(t, `{}`, string(s.Parameters))
}
