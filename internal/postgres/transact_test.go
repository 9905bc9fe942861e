package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// effects makes a table that statements write to.
func effects(t *testing.T, w *world) {
	t.Helper()
	byHand(t, w, `CREATE TABLE effect (v text)`)
}

func countEffects(t *testing.T, w *world) int {
	t.Helper()
	return value[int](t, w, `SELECT count(*) FROM effect`)
}

// transactional makes a statement that ends its task.
func transactional(task flow.Task, text string, args ...string) Statement {
	st := statement(text, args...)
	st.Task, st.Transactional = task, true
	return st
}

const effect = `INSERT INTO effect VALUES ($1) RETURNING v`

// The effect and the end of the task come together, and what depends on it can go.
func TestTransact_FinishesItsTask(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	id := register(t, w, def(), def(1), def(1), def(2, 3))
	task := claimOne(t, w)
	output, err := own(w).Run(t.Context(), transactional(task, effect, `"once"`))
	require.NoError(t, err)
	require.JSONEq(t, `{"row_count": 1, "rows": [{"v": "once"}]}`, string(output))
	require.Equal(t, 1, countEffects(t, w))
	require.Equal(t, "3 0 0 0", statuses(t, w, id))
	r := look(t, w, id, 1)
	require.JSONEq(t, string(output), r.Output)
	require.NotNil(t, r.Finished)
	require.Empty(t, r.Watcher)
	require.Equal(t, task.ClaimID, r.Claim, "an engine's end, not one by hand")
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_event`))
	require.Equal(t, []flow.TaskKey{{Flow: id, Seq: 2}, {Flow: id, Seq: 3}}, ready(t, w))
	sound(t, w)

	// The dispatcher gives the result like any other, as often as it likes.
	for range 2 {
		j := verdict(t, w, &flow.Result{Task: task, Outcome: flow.OutcomeFinished, Output: output})
		require.Equal(t, flow.VerdictRecorded, j.Verdict)
		require.Equal(t, flow.Finished, j.Status)
	}
	run(t, w)
	require.Equal(t, "3 3 3 3", statuses(t, w, id))
}

// What is recorded with the statement has no secret in it, either.
func TestTransact_MasksItsOutput(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	id := register(t, w, def())
	st := transactional(claimOne(t, w), effect, `"s3cr3t"`)
	st.Mask = func(output json.RawMessage) json.RawMessage {
		return json.RawMessage(strings.ReplaceAll(string(output), "s3cr3t", "***"))
	}
	output, err := own(w).Run(t.Context(), st)
	require.NoError(t, err)
	const masked = `{"row_count": 1, "rows": [{"v": "***"}]}`
	require.JSONEq(t, masked, string(output))
	require.JSONEq(t, masked, look(t, w, id, 1).Output)
}

// Without a finish there is no effect, whatever kept it from coming.
func TestTransact_AllOrNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, prepare, want string
	}{
		"its statement fails":         {text: `INSERT INTO effect SELECT 1/0`, want: "division by zero (SQLSTATE 22012)"},
		"a check at the commit fails": {text: `INSERT INTO effect VALUES (NULL)`, want: "23503", prepare: deferred},
		"its output cannot be kept":   {text: `INSERT INTO effect VALUES ('x') RETURNING '"\u0000"'::json`, want: "record the task"},
		"it ends its transaction":     {text: `COMMIT`, want: "must not end its transaction, and COMMIT does"},
		"likewise":                    {text: `ROLLBACK`, want: "must not end its transaction, and ROLLBACK does"},
		"also where it begins one":    {text: `COMMIT AND CHAIN`, want: "COMMIT does"},
		"it commits in a block":       {text: `DO $$ BEGIN INSERT INTO effect VALUES ('x'); COMMIT; END $$`, want: "2D000"},
		"it cannot be in one":         {text: `VACUUM effect`, want: "25001"},
		"it lets nobody write":        {text: `SET TRANSACTION READ ONLY`, want: "25006"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			effects(t, w)
			if c.prepare != "" {
				byHand(t, w, c.prepare)
			}
			id := register(t, w, def(), def(1))
			task := claimOne(t, w)
			output, err := own(w).Run(t.Context(), transactional(task, c.text))
			require.ErrorContains(t, err, c.want)
			require.Nil(t, output)
			require.Zero(t, countEffects(t, w))
			require.Equal(t, "1 0", statuses(t, w, id))
			require.Equal(t, flow.VerdictRecorded, verdict(t, w, ended(task, flow.OutcomeFailed)).Verdict)
			require.Equal(t, "2 0", statuses(t, w, id))
			awaitNoSession(t, w)
		})
	}
}

// deferred refuses NULL when the transaction commits.
const deferred = `
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN RAISE EXCEPTION 'no customer' USING ERRCODE = 'foreign_key_violation'; END $$;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON effect DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`

// What a statement does to its session does not reach the statement that ends the task.
func TestTransact_TheSessionIsFlowersAgain(t *testing.T) {
	t.Parallel()
	w := open(t)
	byHand(t, w, `CREATE SCHEMA elsewhere; CREATE TABLE elsewhere.kr_task_stat (x int)`)
	for _, text := range []string{
		`SET search_path = elsewhere`, `SELECT set_config('search_path', 'elsewhere', true)`,
		`SET ROLE pg_read_all_data`, `SET SESSION AUTHORIZATION pg_read_all_data`, `SET LOCAL lock_timeout = 1`, `DISCARD PLANS`,
	} {
		id := register(t, w, def())
		_, err := own(w).Run(t.Context(), transactional(claimOne(t, w), text))
		require.NoError(t, err, text)
		require.Equal(t, "3", statuses(t, w, id))
	}
}

// A claim that is over by the time the statement ends does not count: nothing happens.
func TestTransact_IsFenced(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]string{
		"cancelled":          `UPDATE kr_task_stat SET exec_status = 2 WHERE task_exec_seq = 1`,
		"reset":              `UPDATE kr_task_stat SET exec_status = 0 WHERE task_exec_seq = 1`,
		"finished by hand":   `UPDATE kr_task_stat SET exec_status = 3 WHERE task_exec_seq = 1`,
		"skipped":            `UPDATE kr_task_stat SET exec_status = 9 WHERE task_exec_seq = 1`,
		"taken over":         `DELETE FROM kr_watcher`,
		"deleted with all":   `DELETE FROM kr_task_stat`,
		"changed by itself":  ``,
		"changed, not ended": `UPDATE kr_task_stat SET task_priority = -5, parameters = '{"A": 1}' WHERE task_exec_seq = 1`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			effects(t, w)
			id := register(t, w, def(), def(1))
			task := claimOne(t, w)
			tx := begin(t, w)
			mustExec(t, tx, `LOCK TABLE effect IN SHARE MODE`)
			text := effect
			if meanwhile == "" {
				text = `WITH x AS (UPDATE kr_task_stat SET exec_status = 2 WHERE task_exec_seq = 1) INSERT INTO effect VALUES ($1)`
			}
			wait := async(func() error { _, err := own(w).Run(background, transactional(task, text, `"late"`)); return err })
			awaitBlocked(t, w, 1) // the statement runs, and keeps nobody from changing its task
			if meanwhile != "" {
				byHand(t, w, meanwhile)
			}
			if name == "taken over" {
				_, err := w.Sweep(t.Context())
				require.NoError(t, err)
			}
			require.NoError(t, tx.Rollback())
			err := wait()
			if name == "changed, not ended" {
				require.NoError(t, err)
				require.Equal(t, 1, countEffects(t, w))
				require.Equal(t, "3 0", statuses(t, w, id))
				return
			}
			require.Equal(t, errLostClaim, err)
			require.Zero(t, countEffects(t, w))
			if meanwhile == "" {
				require.Equal(t, "1 0", statuses(t, w, id), "its own change was rolled back, too")
			}
		})
	}
}

// A person who holds the task's row makes its end wait, and may decide.
func TestTransact_WaitsForWhoeverHoldsTheTask(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	id := register(t, w, def())
	for _, decides := range []string{``, `UPDATE kr_task_stat SET exec_status = 2 WHERE exec_status = 1`} {
		task := claimOne(t, w)
		tx := begin(t, w)
		mustExec(t, tx, `SELECT FROM kr_task_stat FOR UPDATE`)
		wait := async(func() error { _, err := own(w).Run(background, transactional(task, effect, `"x"`)); return err })
		awaitBlocked(t, w, 1)
		mustExec(t, tx, decides+`;`)
		require.NoError(t, tx.Commit())
		if decides == "" {
			require.NoError(t, wait())
			require.Equal(t, "3", statuses(t, w, id))
			byHand(t, w, `DELETE FROM effect; UPDATE kr_task_stat SET exec_status = 0`)
			continue
		}
		require.Equal(t, errLostClaim, wait())
		require.Equal(t, "2", statuses(t, w, id))
		require.Zero(t, countEffects(t, w))
	}
}

func TestTransact_CancelRollsBack(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	id := register(t, w, def())
	task := claimOne(t, w)
	stopped(t, w, own(w), transactional(task, `INSERT INTO effect SELECT 'x' FROM pg_sleep(3600)`), func() { awaitSleep(t, w) })

	// At its end, too, where it waits for somebody.
	tx := begin(t, w)
	mustExec(t, tx, `SELECT FROM kr_task_stat FOR UPDATE`)
	stopped(t, w, own(w), transactional(task, effect, `"x"`), func() { awaitBlocked(t, w, 1) })
	require.NoError(t, tx.Rollback())

	wait := async(func() error {
		_, err := own(w).Run(background, transactional(task, `INSERT INTO effect SELECT 'x' FROM pg_sleep(3600)`))
		return err
	})
	awaitSleep(t, w)
	killSessions(t, w)
	require.ErrorContains(t, wait(), "the connection to the database was lost, and nothing of it took effect")
	require.Zero(t, countEffects(t, w))
	require.Equal(t, "1", statuses(t, w, id))
}

// A workflow's limit is kept, and the end of a transactional task makes room.
func TestTransact_OfAWorkflowWithALimit(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	byHand(t, w, `INSERT INTO ms_workflow (task_id, max_running_tasks) VALUES ('limited', 1)`)
	define(t, w, "limited", def(), def())
	a, b := registerOf(t, w, "limited"), registerOf(t, w, "limited")
	task := claimOne(t, w)
	output, err := own(w).Run(t.Context(), transactional(task, effect, `"x"`))
	require.NoError(t, err)
	adv := advance(t, w, []*flow.Result{{Task: task, Outcome: flow.OutcomeFinished, Output: output}}, flow.Claim{Free: 5})
	require.Len(t, adv.Verdicts, 1)
	require.Equal(t, flow.VerdictRecorded, adv.Verdicts[0].Verdict)
	for range 3 {
		finish(t, w, claimOne(t, w))
	}
	require.Equal(t, "3 3 3 3", statuses(t, w, a)+" "+statuses(t, w, b))
}

// wire is a network that can lose a message to the server or its answer.
type wire struct {
	net.Conn
	match string // in what is sent
	act   func(c net.Conn, p []byte) (n int, err error)
	done  *atomic.Bool
	lost  bool
}

func (c *wire) Write(p []byte) (int, error) {
	if c.lost {
		return len(p), nil
	}
	if bytes.Contains(p, []byte(c.match)) && c.done.CompareAndSwap(false, true) {
		c.lost = true
		return c.act(c.Conn, p)
	}
	return c.Conn.Write(p)
}

func (c *wire) Read(p []byte) (int, error) {
	if c.lost {
		return 0, io.EOF
	}
	return c.Conn.Read(p)
}

func (c *wire) Close() error {
	if c.lost {
		return nil // act has done it, or not
	}
	return c.Conn.Close()
}

// failing makes statements whose first message with match meets act.
func failing(w *world, match string, act func(c net.Conn, p []byte) (int, error)) *Statements {
	s, done := own(w), new(atomic.Bool)
	s.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := netDialer.DialContext(ctx, network, address)
		return &wire{Conn: c, match: match, act: act, done: done}, err
	}
	return s
}

// answered passes a message on, waits for its answer, and loses that.
func answered(c net.Conn, p []byte) (int, error) {
	n, err := c.Write(p)
	_, readErr := c.Read(make([]byte, 4096))
	return n, errors.Join(err, readErr, c.Close())
}

// unsent loses a message.
func unsent(c net.Conn, p []byte) (int, error) { return len(p), c.Close() }

// unheard loses a message, and the server does not notice that there is nobody any more.
func unheard(_ net.Conn, p []byte) (int, error) { return len(p), nil }

const commitMessage = "COMMIT\x00"

// A lost answer of the COMMIT is no failure: the task's row tells what has become of it.
func TestTransact_LostAnswerOfTheCommit(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	id := register(t, w, def(), def(1))
	task := claimOne(t, w)
	output, err := failing(w, commitMessage, answered).Run(t.Context(), transactional(task, effect, `"x"`))
	require.NoError(t, err)
	require.Equal(t, 1, countEffects(t, w))
	require.Equal(t, "3 0", statuses(t, w, id))
	require.Equal(t, flow.VerdictRecorded, verdict(t, w, &flow.Result{Task: task, Outcome: flow.OutcomeFinished, Output: output}).Verdict)

	// Likewise where a person has it run again meanwhile.
	id = register(t, w, def())
	s := failing(w, commitMessage, func(c net.Conn, p []byte) (int, error) {
		n, lostErr := answered(c, p)
		_, resetErr := w.psql.Exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1`, string(id))
		return n, errors.Join(lostErr, resetErr)
	})
	for _, task := range claim(t, w, 5) {
		if task.Flow == id {
			_, err = s.Run(t.Context(), transactional(task, effect, `"y"`))
			require.NoError(t, err)
		}
	}
	require.Equal(t, "0", statuses(t, w, id))
	require.Equal(t, 2, countEffects(t, w))
}

func TestTransact_LostCommit(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	id := register(t, w, def())
	task := claimOne(t, w)
	_, err := failing(w, commitMessage, unsent).Run(t.Context(), transactional(task, effect, `"x"`))
	require.ErrorContains(t, err, nothingHappened)
	require.Zero(t, countEffects(t, w))
	require.Equal(t, "1", statuses(t, w, id))

	// The server still has the transaction: nothing is known before that has ended.
	wait := async(func() error {
		_, heardErr := failing(w, commitMessage, unheard).Run(background, transactional(task, effect, `"x"`))
		return heardErr
	})
	awaitBlocked(t, w, 1)
	killSessions(t, w)
	require.ErrorContains(t, wait(), nothingHappened)
	require.Zero(t, countEffects(t, w))
	require.Equal(t, "1", statuses(t, w, id))

	_, err = own(w).Run(t.Context(), transactional(task, effect, `"x"`))
	require.NoError(t, err)
	require.Equal(t, 1, countEffects(t, w))
}

// Before the COMMIT there is nothing to ask: the transaction is lost with its connection.
func TestTransact_LostBeforeTheCommit(t *testing.T) {
	t.Parallel()
	for _, match := range []string{"BEGIN", "INSERT INTO effect", "RESET SESSION", "flower: Advance"} {
		for name, act := range map[string]func(net.Conn, []byte) (int, error){"unsent": unsent, "answered": answered} {
			t.Run(strings.ReplaceAll(match, ": ", " ")+" "+name, func(t *testing.T) {
				t.Parallel()
				w := open(t)
				effects(t, w)
				id := register(t, w, def())
				task := claimOne(t, w)
				_, err := failing(w, match, act).Run(t.Context(), transactional(task, effect, `"x"`))
				require.Error(t, err)
				awaitNoSession(t, w)
				require.Zero(t, countEffects(t, w))
				require.Equal(t, "1", statuses(t, w, id))
			})
		}
	}
}

// Two watchers believe that they own the task: one of them is right.
func TestTransact_OnceOfTwoClaims(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	id := register(t, w, def())
	first := claimOne(t, w)
	behind(t, w, `UPDATE kr_task_stat SET exec_status = 0, watcher_id = NULL`)
	behind(t, w, `INSERT INTO kr_ready SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM kr_task_stat ON CONFLICT DO NOTHING`)
	second := claimOne(t, w)
	require.NotEqual(t, first.ClaimID, second.ClaimID)
	errs := make([]error, 2)
	waits := []func() error{}
	for _, task := range []flow.Task{first, second} {
		waits = append(waits, async(func() error {
			_, err := own(w).Run(background, transactional(task, `INSERT INTO effect SELECT 'x' FROM pg_sleep(0.05)`))
			return err
		}))
	}
	for i, wait := range waits {
		errs[i] = wait()
	}
	require.Equal(t, []error{errLostClaim, nil}, errs)
	require.Equal(t, 1, countEffects(t, w))
	require.Equal(t, "3", statuses(t, w, id))
}

// Whatever message is lost, or its answer: each effect is there once at the end.
func TestTransact_OnceWhateverIsLost(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	const n = 40
	step := def()
	step.MaxAttempts = 10_000
	id := register(t, w, slices.Repeat([]flow.TaskDefinition{step}, n)...)
	s, lost := own(w), new(atomic.Int64)
	s.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := netDialer.DialContext(ctx, network, address)
		faults := []func(net.Conn, []byte) (int, error){unsent, answered}
		return &unsteady{wire{Conn: c, act: faults[rand.IntN(2)], done: new(atomic.Bool)}, rand.IntN(12), lost}, err
	}
	for attempts := 0; statuses(t, w, id) != strings.TrimSpace(strings.Repeat("3 ", n)); attempts++ {
		require.Less(t, attempts, 1000*n)
		beat(t, w, w.watcher) // or its lease ends, on a slow machine
		for _, task := range claim(t, w, 1) {
			r := &flow.Result{Task: task, Outcome: flow.OutcomeFinished}
			var err error
			if r.Output, err = s.Run(t.Context(), transactional(task, effect, `"`+strconv.Itoa(task.Seq)+`"`)); err != nil {
				r = &flow.Result{Task: task, Outcome: flow.OutcomeFailed, Error: err.Error()}
			}
			// Of a session that has not ended yet a task may be locked.
			pgtest.Eventually(t, soon, "it is recorded", func() bool {
				adv := record(t, w, r)
				return len(adv.Verdicts) == 1 && adv.Verdicts[0].Verdict == flow.VerdictRecorded
			})
		}
	}
	require.Greater(t, lost.Load(), int64(n/2))
	require.Equal(t, n, countEffects(t, w))
	require.Equal(t, n, value[int](t, w, `SELECT count(DISTINCT v) FROM effect`))
}

// unsteady loses one of its first messages, or none.
type unsteady struct {
	wire
	at   int
	lost *atomic.Int64
}

func (c *unsteady) Write(p []byte) (int, error) {
	if c.at--; c.at == 0 {
		c.lost.Add(1)
	} else if !c.wire.lost {
		return c.Conn.Write(p)
	}
	return c.wire.Write(p) // which has no match: everything has
}

// A dependent that is inserted while the task's end waits is counted down, too.
func TestTransact_DependentInsertedMeanwhile(t *testing.T) {
	t.Parallel()
	w := open(t)
	effects(t, w)
	id := register(t, w, def())
	task := claimOne(t, w)
	tx := begin(t, w)
	mustExec(t, tx, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, program) VALUES ($1, 2, 1, '', 0, 'NoOp')`, string(id))
	wait := async(func() error { _, err := own(w).Run(background, transactional(task, effect, `"x"`)); return err })
	awaitBlocked(t, w, 1)
	require.NoError(t, tx.Commit())
	require.NoError(t, wait())
	pgtest.Eventually(t, soon, "it can go", func() bool { return len(ready(t, w)) == 1 })
	run(t, w)
	require.Equal(t, "3 3", statuses(t, w, id))
}

// The end of a transactional task finds its rows by their keys, however many there are and
// whatever is known of them.
func TestTransact_ReadsNoWholeTable(t *testing.T) {
	t.Parallel()
	w := open(t)
	many := `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program, exec_status, unmet, finished_ts)
		SELECT 'flow ' || n, 1, 'w', 1, 'NoOp', 3, 0, now() FROM generate_series(1, 50000) n`
	for _, prepare := range []string{`ANALYZE`, many, `ANALYZE`} {
		behind(t, w, prepare)
		var plan []string
		require.NoError(t, w.psql.Select(&plan, `EXPLAIN `+advancePooledSQL, pq.Array([]string{"f"}), pq.Array([]int{1}), pq.Array([]string{newID()}),
			pq.Array([]string{"{}"}), nil, nil, 0, pq.Array([]string{}), pq.Array([]string{})))
		if prepare != `ANALYZE` || value[int](t, w, `SELECT count(*) FROM kr_task_stat`) > 0 {
			require.NotContains(t, strings.Join(plan, "\n"), "Seq Scan on kr_task_stat")
		}
	}
}
