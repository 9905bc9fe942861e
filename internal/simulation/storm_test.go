package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/watcher"
)

// stormChanges is for how many statements of operators the storm lasts.
var stormChanges = flag.Int64("storm.changes", 1500, "how many statements operators make during the storm")

// TestStorm has three watchers run flows of random graphs, of programs that fail, panic,
// pause and run into their timeouts, while operators change rows by hand as fast as they can
// and declare watchers dead. Nothing that must never be may be, at any moment; and when
// the storm is over, everything ends.
func TestStorm(t *testing.T) {
	t.Parallel()
	const flows, tasks, watchers = 25, 16, 3
	s := newStorm(t)
	for range flows {
		s.register(t, tasks)
	}
	stop := s.watch(t, watchers)

	begin := time.Now()
	weather, calm := context.WithCancel(t.Context())
	defer calm()
	var storm errgroup.Group
	for what, f := range map[string]func(context.Context) error{"observe": s.observe, "declare dead": s.declareDead} {
		storm.Go(func() error {
			defer calm() // what is wrong ends it
			if err := f(weather); err != nil {
				return fmt.Errorf("%s after %d changes: %w", what, s.changes.Load(), err)
			}
			return nil
		})
	}
	var operators errgroup.Group
	for range 2 {
		operators.Go(func() error { return s.operate(weather) })
	}
	err := operators.Wait()
	calm()
	require.NoError(t, errors.Join(err, storm.Wait()))
	t.Logf("%d changes by hand in %s, of which %d were refused and %d gave way; v_invariant was read %d times",
		min(s.changes.Load(), *stormChanges), time.Since(begin).Round(time.Second), s.refused.Load(), s.gaveWay.Load(), s.looks.Load())
	require.GreaterOrEqual(t, s.changes.Load(), *stormChanges)
	require.Greater(t, s.refused.Load(), int64(0))

	s.quiet.Store(true)
	s.insist(t, `SELECT flower_resume(task_flow_id) FROM kr_flow`)
	pgtest.Eventually(t, time.Minute, "every flow has ended", func() bool {
		// Again and again: what still runs may fail, or be lost, once more.
		s.insist(t, `UPDATE kr_task_stat SET exec_status = 0 WHERE exec_status = 2`)
		var open int
		require.NoError(t, s.db.Get(&open, `SELECT count(*) FROM kr_task_stat WHERE exec_status NOT IN (3, 9)`))
		return open == 0
	})
	stop()
	require.NoError(t, s.observed(t.Context()))
	s.check(t)
}

type storm struct {
	db      *pgtest.DB
	store   *postgres.DB // of register
	quiet   atomic.Bool  // programs do not fail any more
	changes atomic.Int64
	refused atomic.Int64
	gaveWay atomic.Int64 // to a deadlock
	looks   atomic.Int64 // of the observer

	mu    sync.Mutex // guards the rest
	runs  []*run
	wrong []string
}

// insist runs a statement on many flows as a person does who meets a deadlock: again.
func (s *storm) insist(t *testing.T, query string) {
	t.Helper()
	_, err := s.db.Exec(query)
	for pq.As(err, pqerror.TRDeadlockDetected) != nil {
		s.gaveWay.Add(1)
		_, err = s.db.Exec(query)
	}
	require.NoError(t, err)
}

// run is one attempt, as its program saw it.
type run struct {
	task       flow.Task
	begin, end time.Time
	ok         bool
}

func newStorm(t *testing.T) *storm {
	t.Helper()
	db := pgtest.New(t)
	return &storm{db: db, store: open(t, db)}
}

// register makes a flow of a random graph.
func (s *storm) register(t *testing.T, n int) {
	t.Helper()
	id := "w" + uuid.NewString()[:8]
	for seq := 1; seq <= n; seq++ {
		parents := []int32{}
		for p := max(1, seq-6); p < seq; p++ {
			if rand.IntN(3) == 0 {
				parents = append(parents, int32(p))
			}
		}
		exec(t, s.db, `INSERT INTO ms_task_definition (task_id, task_seq, program, task_priority, depends_task_seqs, max_attempts, retry_delay, timeout, on_lost)
			VALUES ($1, $2, 'Work', $3, $4, $5, $6 * interval '1 ms', CASE WHEN $7 THEN interval '150 ms' END, $8)`,
			id, seq, rand.IntN(5)-2, parents, 1+rand.IntN(3), rand.IntN(2)*100, rand.IntN(10) == 0,
			[]string{"rerun", "rerun", "rerun", "suspend"}[rand.IntN(4)])
	}
	copies := 1
	if rand.IntN(3) == 0 { // a workflow with limits, and more of it than they allow
		copies = 2
		exec(t, s.db, `INSERT INTO ms_workflow (task_id, max_running_flows, max_running_tasks) VALUES ($1, nullif($2, 2), $3)`,
			id, 1+rand.IntN(2), 1+rand.IntN(3))
	}
	for range copies {
		_, err := s.store.Register(t.Context(), flow.Registration{FlowID: flow.ID(uuid.NewString()), WorkflowID: flow.WorkflowID(id)})
		require.NoError(t, err)
	}
}

// watch runs watchers; stop ends them, and must find that they end well.
func (s *storm) watch(t *testing.T, n int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var group errgroup.Group
	for range n {
		store := open(t, s.db)
		w, err := watcher.New(watcher.Config{
			Workers: 4, PollInterval: 500 * time.Millisecond, ShutdownTimeout: 10 * time.Second, Host: "storm",
		}, store, work{s}, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		group.Go(func() error { return w.Run(ctx) })
	}
	t.Cleanup(func() { _ = group.Wait() })
	return func() {
		cancel()
		require.NoError(t, group.Wait())
	}
}

// work is the programs of the storm.
type work struct{ *storm }

func (work) Names() []string { return []string{"Work"} }

var errStorm = errors.New("it rains")

func (s work) OffWithout(string) string { return "" }

func (s work) Run(ctx context.Context, a watcher.Attempt) (json.RawMessage, error) {
	t := a.Task
	r := &run{task: t, begin: time.Now()}
	s.note(r)
	fmt.Fprint(a.Stdout, t.ClaimID)
	s.isDue(t)
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.end = time.Now()
	}()
	dice := rand.IntN(100)
	if s.quiet.Load() {
		dice = 50
	}
	pause := rand.N(20 * time.Millisecond)
	if dice < 4 {
		pause = time.Second // past the timeout, where there is one
	}
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	switch {
	case dice > 97:
		panic(errStorm)
	case dice > 85:
		return nil, errStorm
	case dice > 75 && dice <= 83:
		return nil, &flow.Pause{After: rand.N(100 * time.Millisecond)}
	case dice > 83:
		return nil, &flow.Pause{Ask: true, Why: "go on?"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.ok = true
	return json.RawMessage(`{"claim": "` + t.ClaimID + `"}`), nil
}

func (s *storm) note(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = append(s.runs, r)
}

func (s *storm) complain(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, fmt.Sprintf(format, args...))
}

const notDue = `exec_status = 1 AND watcher_id IS NOT NULL AND EXISTS (
	SELECT FROM unnest(flower_parents(depends_task_exec_seq, depends_task_exec_seqs)) d
	WHERE NOT EXISTS (SELECT FROM kr_task_stat p WHERE p.task_flow_id = t.task_flow_id AND p.task_exec_seq = d AND p.exec_status IN (3, 9)))`

// isDue looks, when a program starts, whether what its task depends on is satisfied, if
// the task is still its own.
func (s *storm) isDue(t flow.Task) {
	var early bool
	if err := s.db.Get(&early, `SELECT EXISTS (SELECT FROM kr_task_stat t WHERE task_flow_id = $1 AND task_exec_seq = $2 AND claim_id = $3 AND `+notDue+`)`,
		string(t.Flow), t.Seq, t.ClaimID); err != nil || early {
		s.complain("task %s started before what it depends on had finished, or: %v", t.TaskKey, err)
	}
}

// observe looks again and again at what must hold at every commit.
func (s *storm) observe(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.observed(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		s.looks.Add(1)
	}
	return nil
}

func (s *storm) observed(ctx context.Context) error {
	var broken []string
	if err := s.db.SelectContext(ctx, &broken, `
		SELECT rule || ': ' || task_flow_id || '/' || task_exec_seq || ' ' || detail FROM v_invariant
		UNION ALL
		SELECT 'it runs too early: ' || task_flow_id || '/' || task_exec_seq FROM kr_task_stat t WHERE `+notDue+`
		UNION ALL
		SELECT 'more than its limit of ' || task_id || ' runs' FROM kr_task_stat t JOIN ms_workflow w USING (task_id) WHERE exec_status = 1
		GROUP BY task_id HAVING count(*) > min(max_running_tasks) OR count(DISTINCT task_flow_id) > min(max_running_flows)`); err != nil {
		return err
	}
	if len(broken) > 0 {
		return fmt.Errorf("broken: %v", broken)
	}
	return nil
}

// operate changes by hand what there is: any status to any, one task, a whole flow or all
// of them, priorities and times; and what nobody may change.
func (s *storm) operate(ctx context.Context) error {
	var flows []string
	if err := s.db.Select(&flows, `SELECT DISTINCT task_flow_id FROM kr_task_stat`); err != nil {
		return err
	}
	pick := func(of ...string) string { return of[rand.IntN(len(of))] }
	for ctx.Err() == nil && s.changes.Add(1) <= *stormChanges {
		id, seq := flows[rand.IntN(len(flows))], 1+rand.IntN(16)
		var err error
		switch dice := rand.IntN(100); {
		case dice < 1:
			_, err = s.db.Exec(`UPDATE kr_task_stat SET ` + pick("exec_status = 0", "exec_status = 2", "task_priority = 0", "run_after = NULL"))
		case dice < 5:
			_, err = s.db.Exec(`UPDATE kr_task_stat SET `+pick("exec_status = 5", "exec_status = NULL", "attempt = attempt + 1", "claim_id = gen_random_uuid()",
				"watcher_id = gen_random_uuid(), claim_id = gen_random_uuid()", "task_priority = 99", "task_exec_seq = 99", "reason = 'bored'", "reason = 'held'", "reason = NULL",
				"exec_status = 1, attempt = attempt + 1")+` WHERE task_flow_id = $1 AND task_exec_seq = $2`, id, seq)
		case dice < 60:
			_, err = s.db.Exec(`UPDATE kr_task_stat SET exec_status = `+pick("0", "0", "1", "2", "3", "9")+` WHERE task_flow_id = $1 AND task_exec_seq = $2`, id, seq)
		case dice < 75:
			_, err = s.db.Exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND exec_status = 2`, id)
		case dice < 80:
			_, err = s.db.Exec(`UPDATE kr_task_stat SET exec_status = `+pick("0", "2", "3")+` WHERE task_flow_id = $1`, id)
		case dice < 84:
			_, err = s.db.Exec(`SELECT flower_`+pick("hold", "resume", "cancel", "rerun")+`($1)`, id)
		case dice < 88:
			_, err = s.db.Exec(`SELECT flower_`+pick("hold($1, seq => $2)", "resume($1, seq => $2)", "cancel($1, seq => $2)", "skip($1, $2)", "finish($1, $2)", "approve($1, $2)",
				"rerun($1, seq => $2)", "rerun($1, scope => 'only', seq => $2)", "rerun($1, scope => CASE WHEN $2 > 0 THEN 'all' END)"), id, seq)
		case dice < 95:
			_, err = s.db.Exec(`UPDATE kr_task_stat SET task_priority = $3 WHERE task_flow_id = $1 AND task_exec_seq >= $2`, id, seq, rand.IntN(5)-2)
		default:
			_, err = s.db.Exec(`UPDATE kr_task_stat SET run_after = now() + $3 * interval '1 ms' WHERE task_flow_id = $1 AND task_exec_seq = $2`, id, seq, rand.IntN(300)-100)
		}
		switch {
		case pq.As(err, pqerror.CheckViolation) != nil, pq.As(err, pqerror.NotNullViolation) != nil:
			s.refused.Add(1)
		case pq.As(err, pqerror.TRDeadlockDetected) != nil:
			s.gaveWay.Add(1)
		case err != nil:
			return fmt.Errorf("operate: %w", err)
		}
	}
	return nil
}

// declareDead ends a watcher's lease now and then, although it lives.
func (s *storm) declareDead(ctx context.Context) error {
	tick := time.NewTicker(1500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if _, err := s.db.Exec(`UPDATE kr_watcher SET stable_since = stable_since - interval '1 h',
			lease_until = CASE WHEN watcher_id = (SELECT watcher_id FROM kr_watcher ORDER BY random() LIMIT 1)
			              THEN clock_timestamp() - interval '1 s' ELSE lease_until END`); err != nil {
			return err
		}
	}
}

// check looks at what the programs saw.
func (s *storm) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Empty(t, s.wrong)
	byTask := make(map[flow.TaskKey][]*run)
	claims := make(map[string]*run)
	for _, r := range s.runs {
		require.False(t, r.end.IsZero(), "task %s never ended", r.task.TaskKey)
		require.NotContains(t, claims, r.task.ClaimID+r.task.TaskKey.String(), "a claim ran twice")
		claims[r.task.ClaimID+r.task.TaskKey.String()] = r
		byTask[r.task.TaskKey] = append(byTask[r.task.TaskKey], r)
	}
	overlaps := 0
	for key, runs := range byTask {
		attempts := make(map[int]bool)
		for i, r := range runs {
			require.False(t, attempts[r.task.Attempt], "task %s: attempt %d ran twice", key, r.task.Attempt)
			attempts[r.task.Attempt] = true
			for _, other := range runs[:i] {
				if r.begin.Before(other.end) && other.begin.Before(r.end) {
					overlaps++
					require.True(t, s.superseded(t, other.task) || s.superseded(t, r.task), "task %s ran twice at once", key)
				}
			}
		}
	}
	s.checkRows(t, claims)
	s.checkLogs(t, claims)
	t.Logf("%d attempts at %d tasks, %d overlaps", len(s.runs), len(byTask), overlaps)
}

// superseded reports whether an attempt's claim was taken away while it ran: by a person,
// or since its watcher was declared dead.
func (s *storm) superseded(t *testing.T, task flow.Task) bool {
	t.Helper()
	var yes bool
	require.NoError(t, s.db.Get(&yes, `SELECT EXISTS (SELECT FROM kr_task_attempt
		WHERE task_flow_id = $1 AND task_exec_seq = $2 AND claim_id = $3 AND (exec_status = 1 OR reason = 'lost'))
		OR EXISTS (SELECT FROM kr_event WHERE task_flow_id = $1 AND task_exec_seq = $2 AND old_status = 1)`,
		string(task.Flow), task.Seq, task.ClaimID))
	return yes
}

// checkRows: what a watcher has finished was finished by a program that said so, under
// that claim, and its output is that program's.
func (s *storm) checkRows(t *testing.T, claims map[string]*run) {
	t.Helper()
	var rows []struct {
		Flow   string `db:"task_flow_id"`
		Seq    int    `db:"task_exec_seq"`
		Claim  string `db:"claim_id"`
		Output string `db:"output"`
	}
	require.NoError(t, s.db.Select(&rows, `SELECT task_flow_id, task_exec_seq, claim_id::text, coalesce(output->>'claim', '') AS output
		FROM kr_task_stat WHERE exec_status = 3 AND claim_id IS NOT NULL`))
	require.NotEmpty(t, rows)
	for _, row := range rows {
		key := flow.TaskKey{Flow: flow.ID(row.Flow), Seq: row.Seq}
		r := claims[row.Claim+key.String()]
		require.NotNil(t, r, "task %s finished without having run", key)
		require.True(t, r.ok, "task %s finished although its program failed", key)
		require.Equal(t, row.Claim, row.Output)
	}
}

// checkLogs: what each attempt has printed is there once, under its own name.
func (s *storm) checkLogs(t *testing.T, claims map[string]*run) {
	t.Helper()
	var lines []struct {
		Flow    string `db:"task_flow_id"`
		Seq     int    `db:"task_exec_seq"`
		Attempt int    `db:"attempt"`
		No      int    `db:"line_no"`
		Claim   string `db:"claim_id"`
		Text    string `db:"text"`
	}
	require.NoError(t, s.db.Select(&lines, `SELECT task_flow_id, task_exec_seq, attempt, line_no, claim_id::text, text FROM v_task_log`))
	require.Len(t, lines, len(claims))
	for _, l := range lines {
		r := claims[l.Text+flow.TaskKey{Flow: flow.ID(l.Flow), Seq: l.Seq}.String()]
		require.NotNil(t, r, "nobody has printed %v", l)
		require.Equal(t, []any{r.task.Attempt, 1, r.task.ClaimID}, []any{l.Attempt, l.No, l.Claim})
	}
}
