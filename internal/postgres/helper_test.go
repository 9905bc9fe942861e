package postgres

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

func TestMain(m *testing.M) {
	// Many of these tests wait, for locks or for a network that is silent. The command line,
	// which is read later, counts more.
	_ = flag.Set("test.parallel", "4")
	pgtest.Main(m)
}

// soon is how long a test waits for what happens at once on an idle machine.
const soon = 20 * time.Second

// world is a database with the code under test, a watcher that has joined, and a person
// at psql.
type world struct {
	*DB
	psql    *pgtest.DB
	watcher string
	pooler  bool
}

// open makes a world. When the test ends, v_invariant must be empty.
func open(t *testing.T) *world {
	t.Helper()
	w := openBroken(t)
	t.Cleanup(func() {
		if !t.Failed() {
			sound(t, w)
		}
	})
	return w
}

// both runs a test in two worlds: with the session settings of the engine and, as behind
// a pooler, without.
func both(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("direct", func(t *testing.T) {
		t.Parallel()
		test(t, open(t))
	})
	t.Run("pooled", func(t *testing.T) {
		t.Parallel()
		w := open(t)
		w.pooler = true
		w.DB = another(t, w)
		test(t, w)
	})
}

// openBroken makes a world whose test leaves things wrong on purpose.
func openBroken(t *testing.T) *world {
	t.Helper()
	w := &world{psql: pgtest.New(t)}
	w.DB = another(t, w)
	w.watcher = join(t, w, "NoOp", "Test1", "Test2", "Test3")
	// It sends no heartbeats, and must not die of a busy machine.
	mustExec(t, w.psql, `UPDATE kr_watcher SET lease_until = lease_until + interval '1 h' WHERE watcher_id = $1`, w.watcher)
	return w
}

// another opens the database of w once more, as a second process does.
func another(t *testing.T, w *world) *DB {
	t.Helper()
	d, err := Open(Config{URL: w.psql.DSN, Application: "flower-test", Pooler: w.pooler}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// sound asserts that nothing is as it should never be.
func sound(t *testing.T, w *world) {
	t.Helper()
	var broken []string
	require.NoError(t, w.psql.Select(&broken,
		`SELECT format('%s: %s/%s: %s', rule, task_flow_id, task_exec_seq, detail) FROM v_invariant LIMIT 20`))
	require.Empty(t, broken, "v_invariant")
}

// newID makes the id of a flow, a watcher or a claim.
func newID() string { return uuid.NewString() }

// def makes the definition of a task that depends on after. Its seq and its program
// have defaults.
func def(after ...int) flow.TaskDefinition {
	return flow.TaskDefinition{Program: "NoOp", DependsOn: append([]int{}, after...), MaxAttempts: 1, OnLost: flow.OnLostRerun}
}

// chain makes n definitions, each of which depends on the one before.
func chain(n int) []flow.TaskDefinition {
	defs := make([]flow.TaskDefinition, n)
	for i := range defs {
		defs[i] = def()
		defs[i].DependsOn = nil
	}
	return defs
}

// define inserts a workflow, as a person does.
func define(t *testing.T, w *world, id flow.WorkflowID, defs ...flow.TaskDefinition) {
	t.Helper()
	n := len(defs)
	seqs, priorities, attempts := make([]int, n), make([]int, n), make([]int, n)
	names, parameters, delays, onLost, descriptions := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	after, timeouts := make([]*string, n), make([]*string, n)
	for i, d := range defs {
		seqs[i], priorities[i], attempts[i] = cmp.Or(d.Seq, i+1), d.Priority, d.MaxAttempts
		names[i], parameters[i], delays[i] = d.Program, cmp.Or(string(d.Parameters), "{}"), d.RetryDelay.String()
		onLost[i], descriptions[i] = string(d.OnLost), d.Description
		if d.DependsOn != nil {
			after[i] = new(arrayText(d.DependsOn))
		}
		if d.Timeout > 0 {
			timeouts[i] = new(d.Timeout.String())
		}
	}
	_, err := w.psql.Exec(`
		INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, parameters, depends_task_seqs,
		                                max_attempts, retry_delay, timeout, on_lost, description)
		SELECT $1, seq, program, priority, parameters::jsonb, after::int[], attempts, delay::interval, timeout::interval,
		       lost, nullif(description, '')
		FROM unnest($2::int[], $3::text[], $4::int[], $5::text[], $6::text[], $7::int[], $8::text[], $9::text[], $10::text[], $11::text[])
		     AS d(seq, program, priority, parameters, after, attempts, delay, timeout, lost, description)`,
		string(id), pq.Array(seqs), pq.Array(names), pq.Array(priorities), pq.Array(parameters), pq.Array(after),
		pq.Array(attempts), pq.Array(delays), pq.Array(timeouts), pq.Array(onLost), pq.Array(descriptions))
	require.NoError(t, err)
}

// register makes a flow of a new workflow with these tasks.
func register(t *testing.T, w *world, defs ...flow.TaskDefinition) flow.ID {
	t.Helper()
	id := flow.WorkflowID("workflow " + newID())
	define(t, w, id, defs...)
	return registerOf(t, w, id)
}

// registerOf makes one more flow of a workflow.
func registerOf(t *testing.T, w *world, id flow.WorkflowID) flow.ID {
	t.Helper()
	f, err := w.Register(t.Context(), flow.Registration{FlowID: flow.ID(newID()), WorkflowID: id})
	require.NoError(t, err)
	return f.ID
}

// join makes another watcher known, with these programs.
func join(t *testing.T, w *world, programs ...string) string {
	t.Helper()
	id := newID()
	require.NoError(t, w.Join(t.Context(), flow.Watcher{
		ID: id, Host: "host", PID: 1, Version: "test", Programs: programs, Workers: 5,
	}))
	return id
}

var programs = []string{"NoOp", "Test1", "Test2", "Test3"}

// claim claims up to n tasks for the watcher of w.
func claim(t *testing.T, w *world, n int) []flow.Task {
	t.Helper()
	return claimAs(t, w, w.watcher, n)
}

func claimAs(t *testing.T, w *world, watcher string, n int) []flow.Task {
	t.Helper()
	adv := advance(t, w, nil, flow.Claim{Watcher: watcher, Free: n})
	return adv.Claimed
}

// claimOne claims the one task that can be claimed.
func claimOne(t *testing.T, w *world) flow.Task {
	t.Helper()
	tasks := claim(t, w, 10)
	require.Len(t, tasks, 1)
	return tasks[0]
}

// advance fills up the claim with defaults.
func advance(t *testing.T, w *world, results []*flow.Result, c flow.Claim) flow.Advanced {
	t.Helper()
	if c.ID == "" {
		c.ID = newID()
	}
	if c.Watcher == "" {
		c.Watcher = w.watcher
	}
	if c.Programs == nil {
		c.Programs = programs
	}
	adv, err := w.Advance(t.Context(), results, c)
	require.NoError(t, err)
	return adv
}

// record gives results and claims nothing.
func record(t *testing.T, w *world, results ...*flow.Result) flow.Advanced {
	t.Helper()
	return advance(t, w, results, flow.Claim{})
}

// finish records tasks as finished.
func finish(t *testing.T, w *world, tasks ...flow.Task) {
	t.Helper()
	adv := record(t, w, finished(tasks...)...)
	require.Empty(t, adv.Rejected)
	require.Len(t, adv.Verdicts, len(tasks))
	for _, j := range adv.Verdicts {
		require.Equal(t, flow.VerdictRecorded, j.Verdict, "task %s", j.Result.Task.TaskKey)
	}
}

func finished(tasks ...flow.Task) []*flow.Result {
	results := make([]*flow.Result, len(tasks))
	for i, task := range tasks {
		results[i] = &flow.Result{Task: task, Outcome: flow.OutcomeFinished}
	}
	return results
}

// ended is the result of a task that did not succeed.
func ended(task flow.Task, outcome flow.Outcome) *flow.Result {
	return &flow.Result{Task: task, Outcome: outcome, Error: "it is " + string(outcome)}
}

// verdict records one result and returns what became of it.
func verdict(t *testing.T, w *world, r *flow.Result) flow.Judged {
	t.Helper()
	adv := record(t, w, r)
	require.Empty(t, adv.Rejected)
	require.Len(t, adv.Verdicts, 1)
	require.Same(t, r, adv.Verdicts[0].Result)
	return adv.Verdicts[0]
}

// run claims and finishes tasks until none is left, and returns them in the order in
// which they were claimed.
func run(t *testing.T, w *world) []flow.TaskKey {
	t.Helper()
	var order []flow.TaskKey
	for tasks := claim(t, w, 1); len(tasks) > 0; {
		for _, task := range tasks {
			order = append(order, task.TaskKey)
		}
		adv := advance(t, w, finished(tasks...), flow.Claim{Free: 1})
		require.Empty(t, adv.Rejected)
		tasks = adv.Claimed
	}
	return order
}

// row is a task as it stands in its tables.
type row struct {
	Status      int            `db:"exec_status"`
	Unmet       *int           `db:"unmet"`
	Ready       bool           `db:"ready"` // it has its one entry in the queue
	Attempt     int            `db:"attempt"`
	AttemptBase int            `db:"attempt_base"`
	Failed      int            `db:"failed_count"`
	Lost        int            `db:"lost_count"`
	Claim       string         `db:"claim_id"`
	Watcher     string         `db:"watcher_id"`
	RunAfter    *time.Time     `db:"run_after"`
	RunIn       *float64       `db:"run_in"` // seconds
	Reason      string         `db:"reason"`
	Error       string         `db:"error"`
	Output      string         `db:"output"`
	Registered  time.Time      `db:"registered_ts"`
	Started     *time.Time     `db:"started_ts"`
	Finished    *time.Time     `db:"finished_ts"`
	Suspended   *time.Time     `db:"suspended_ts"`
	Depends     int            `db:"depends_task_exec_seq"`
	DependsAll  pq.Int64Array  `db:"depends_task_exec_seqs"`
	Dependents  pq.Int64Array  `db:"dependents"`
	WorkflowID  string         `db:"task_id"`
	TaskSeq     int            `db:"task_seq"`
	Program     string         `db:"program"`
	Priority    int            `db:"task_priority"`
	Parameters  string         `db:"parameters"`
	MaxAttempts int            `db:"max_attempts"`
	RetryDelay  string         `db:"retry_delay"`
	Timeout     string         `db:"timeout"`
	OnLost      string         `db:"on_lost"`
	Description string         `db:"description"`
	Attempts    pq.StringArray `db:"attempts"` // of kr_task_attempt: "attempt: exec_status reason error"
}

const rowSQL = `
SELECT exec_status, unmet, attempt, attempt_base, failed_count, lost_count, coalesce(claim_id::text, '') AS claim_id,
       coalesce(watcher_id::text, '') AS watcher_id, run_after,
       extract(epoch FROM run_after - clock_timestamp())::float8 AS run_in, coalesce(reason, '') AS reason,
       coalesce(error, '') AS error, coalesce(output::text, '') AS output, registered_ts, started_ts, finished_ts,
       suspended_ts, depends_task_exec_seq, depends_task_exec_seqs, dependents, task_id, task_seq,
       coalesce(program, '') AS program, task_priority, parameters::text AS parameters, max_attempts,
       retry_delay::text AS retry_delay, coalesce(timeout::text, '') AS timeout, on_lost, coalesce(description, '') AS description,
       EXISTS (SELECT FROM kr_ready r WHERE r.task_priority = t.task_priority AND r.registered_ts = t.registered_ts
               AND r.task_flow_id = t.task_flow_id AND r.task_exec_seq = t.task_exec_seq) AS ready,
       ARRAY(SELECT format('%s: %s %s %s', a.attempt, a.exec_status, coalesce(a.reason, '-'), coalesce(a.error, '-'))
             FROM kr_task_attempt a WHERE a.task_flow_id = t.task_flow_id AND a.task_exec_seq = t.task_exec_seq
             ORDER BY a.attempt) AS attempts
FROM   kr_task_stat t WHERE task_flow_id = $1 AND task_exec_seq = $2`

// look reads a task.
func look(t *testing.T, w *world, id flow.ID, seq int) row {
	t.Helper()
	var r row
	require.NoError(t, w.psql.Get(&r, rowSQL, string(id), seq), "task %s/%d", id, seq)
	return r
}

// statuses returns exec_status of a flow's tasks, in their order: "3 1 0 0".
func statuses(t *testing.T, w *world, id flow.ID) string {
	t.Helper()
	return value[string](t, w, `SELECT coalesce(string_agg(exec_status::text, ' ' ORDER BY task_exec_seq), '')
	                            FROM kr_task_stat WHERE task_flow_id = $1`, string(id))
}

// ready returns the queue, in the order of claims.
func ready(t *testing.T, w *world) []flow.TaskKey {
	t.Helper()
	var rows []keyRow
	require.NoError(t, w.psql.Select(&rows, `SELECT task_flow_id, task_exec_seq FROM kr_ready ORDER BY `+order))
	keys := make([]flow.TaskKey, len(rows))
	for i, r := range rows {
		keys[i] = r.key()
	}
	return keys
}

// value asks for one value.
func value[T any](t *testing.T, w *world, query string, args ...any) T {
	t.Helper()
	var v T
	require.NoError(t, w.psql.Get(&v, query, args...), query)
	return v
}

// byHand runs a statement as a person does, and asserts that everything is right after
// it.
func byHand(t *testing.T, w *world, query string, args ...any) {
	t.Helper()
	_, err := w.psql.Exec(query, args...)
	require.NoError(t, err, query)
	sound(t, w)
}

// refused runs a statement that must fail, and returns the server's error.
func refused(t *testing.T, w *world, query string, args ...any) *pq.Error {
	t.Helper()
	_, err := w.psql.Exec(query, args...)
	require.Error(t, err, query)
	var e *pq.Error
	require.ErrorAs(t, err, &e, query)
	sound(t, w)
	return e
}

// behind runs a statement with the triggers switched off.
func behind(t *testing.T, w *world, query string, args ...any) {
	t.Helper()
	tx := begin(t, w)
	mustExec(t, tx, `SET LOCAL session_replication_role = replica`)
	mustExec(t, tx, query, args...)
	require.NoError(t, tx.Commit())
}

// begin starts a transaction of a person at psql; it is rolled back at the end of the
// test unless it was committed.
func begin(t *testing.T, w *world) *sqlx.Tx {
	t.Helper()
	tx, err := w.psql.Beginx()
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

func mustExec(t *testing.T, tx sqlx.Execer, query string, args ...any) {
	t.Helper()
	_, err := tx.Exec(query, args...)
	require.NoError(t, err, query)
}

// async runs f in a goroutine; the function that it returns waits for its error.
func async(f func() error) (wait func() error) {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return func() error { return <-done }
}

// awaitBlocked waits until n sessions of the database wait for a lock.
func awaitBlocked(t *testing.T, w *world, n int) {
	t.Helper()
	pgtest.Eventually(t, soon, fmt.Sprintf("%d sessions wait for a lock", n), func() bool {
		return value[int](t, w, `SELECT count(*) FROM pg_stat_activity
		                         WHERE datname = current_database() AND wait_event_type = 'Lock'`) >= n
	})
}

// keysOf returns the keys of tasks, sorted.
func keysOf(tasks []flow.Task) []flow.TaskKey {
	keys := make([]flow.TaskKey, len(tasks))
	for i, task := range tasks {
		keys[i] = task.TaskKey
	}
	slices.SortFunc(keys, func(a, b flow.TaskKey) int { return strings.Compare(a.String(), b.String()) })
	return keys
}

// seqsOf returns the sequence numbers of tasks, sorted.
func seqsOf(tasks []flow.Task) []int {
	seqs := make([]int, len(tasks))
	for i, task := range tasks {
		seqs[i] = task.Seq
	}
	slices.Sort(seqs)
	return seqs
}

// object makes a JSON object.
func object(text string) json.RawMessage { return json.RawMessage(text) }

// background is for calls in goroutines that may outlive the test's context.
var background = context.Background()
