package simulation

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/internal/postgres"
)

// A mutant is a protocol that is known to be wrong. It must be caught, or the test that
// lets it live is of no use.
type mutant struct {
	sql    []string                                   // changes the schema
	edit   map[string][2]string                       // in a function's text, replaces the first by the second
	engine func(db *pgtest.DB, e *postgres.DB) engine // wraps the engine

	story    int  // that catches it, as far as we know
	harmless bool // nothing is wrong with it
}

// stories are told to a mutant, at most: its own first, which saves two minutes. When
// stories have changed and it does not catch it any more, all others are tried; the test
// says which one does.
const stories = 200

var mutants = map[string]mutant{
	"no mutant": {harmless: true},

	// A change by hand that the application alone would have to notice strands tasks.
	"changes by hand release nothing":        {sql: []string{`DROP TRIGGER kr_task_edited ON kr_task_stat`}},
	"what is given back is not in the queue": {story: 5, edit: map[string][2]string{"flower_task_edited": {"PERFORM flower_requeue(NEW.task_flow_id, NEW.task_exec_seq);\n        RETURN NULL;", "RETURN NULL;"}}},
	"what waits no more is not in the queue": {sql: []string{`DROP TRIGGER kr_task_requeued ON kr_task_stat`}},
	"inserted rows do not know their flow":   {sql: []string{`DROP TRIGGER kr_tasks_inserted ON kr_task_stat`}},
	"what is deleted still counts":           {story: 2, sql: []string{`DROP TRIGGER kr_tasks_deleted ON kr_task_stat`}},
	"changed dependencies are not noticed":   {sql: []string{`DROP TRIGGER kr_task_relinked ON kr_task_stat`}},
	"a parent that is there twice counts 2":  {edit: map[string][2]string{"flower_unmet": {"count(DISTINCT d.d)", "count(*)"}}},
	"no pause after a revocation":            {edit: map[string][2]string{"flower_task_edited": {"clock_timestamp() + interval '5 s'", "NULL"}}},
	"a parent may be reset under a running child": {
		story: 35, edit: map[string][2]string{"flower_task_edited": {"was_met AND state = 1", "false"}},
	},
	"a rerun does not count from anew": {
		edit: map[string][2]string{"flower_task_edited": {"failed_count = CASE WHEN anew THEN 0", "failed_count = CASE WHEN false THEN 0"}},
	},
	"a hold misses what runs": {story: 15, edit: map[string][2]string{"flower_planned": {"t.exec_status IN (0, 1) AND NOT t.hold", "t.exec_status = 0 AND NOT t.hold"}}},
	"a cancel misses what is blocked": {
		story: 4, edit: map[string][2]string{"flower_planned": {"t.meant AND (t.exec_status IN (0, 1) OR", "t.meant AND (t.exec_status = 1 OR t.exec_status = 0 AND t.unmet = 0 OR"}},
	},

	"a pause outlives a rerun":       {story: 7, edit: map[string][2]string{"flower_task_edited": {"PERFORM flower_unpause(OLD, NEW)", "NULL"}}},
	"what was held begins anew":      {story: 8, edit: map[string][2]string{"flower_task_edited": {"AND NEW.exec_status = 0 AND OLD.failed_count < OLD.max_attempts", "AND false"}}},
	"a pause that was held is gone":  {story: 39, edit: map[string][2]string{"flower_unpause": {"held AND after.exec_status = 0", "false"}}},
	"a resume answers what is asked": {story: 102, edit: map[string][2]string{"flower_planned": {"t.held AND NOT t.asks THEN 0", "t.held THEN 0"}}},
	"a cancel leaves what is asked": {
		story: 89, edit: map[string][2]string{"flower_planned": {"(t.exec_status IN (0, 1) OR t.held)", "(t.exec_status IN (0, 1) OR t.held AND NOT t.asks)"}},
	},
	"a rerun of everything runs what was skipped": {
		story: 71, edit: map[string][2]string{"flower_planned": {"ELSE t.exec_status = 2 AND NOT t.held OR t.exec_status = 3 END", "ELSE t.exec_status IN (2, 3, 9) AND NOT t.held END"}},
	},
	"a rerun from a task leaves what has finished": {
		story: 47, edit: map[string][2]string{"flower_planned": {"OR t.after AND (t.exec_status = 2 AND NOT t.held OR t.exec_status = 3)", "OR t.after AND t.exec_status = 2 AND NOT t.held"}},
	},
	"a rerun takes what runs": {
		story: 10, edit: map[string][2]string{"flower_planned": {"WHEN 'only' THEN t.meant WHEN 'from' THEN t.after ELSE true END THEN 'task-running'", "ELSE false END THEN 'task-running'"}},
	},
	"a pause uses up an attempt": {engine: func(_ *pgtest.DB, e *postgres.DB) engine { return impatientWithPauses{e} }},

	"a result counts without its claim": {engine: func(db *pgtest.DB, e *postgres.DB) engine { return unfenced{e, db} }},
	"more is claimed than workers are free": {
		engine: func(_ *pgtest.DB, e *postgres.DB) engine { return greedy{e} },
	},
	"the most urgent task is not claimed first": {
		engine: func(db *pgtest.DB, e *postgres.DB) engine { return unordered{e, db} },
	},
	"a failure counts as a success":          {engine: func(_ *pgtest.DB, e *postgres.DB) engine { return careless{e} }},
	"results are dropped":                    {engine: func(_ *pgtest.DB, e *postgres.DB) engine { return dropping{e} }},
	"a heartbeat revives a dead watcher":     {engine: func(_ *pgtest.DB, e *postgres.DB) engine { return reviving{e} }},
	"tasks of the living are rescued":        {story: 2, engine: func(db *pgtest.DB, e *postgres.DB) engine { return overeager{e, db} }},
	"a rescue does not count the loss":       {story: 3, engine: func(db *pgtest.DB, e *postgres.DB) engine { return forgetful{e, db} }},
	"an unanswered claim is not found":       {engine: func(_ *pgtest.DB, e *postgres.DB) engine { return blind{e} }},
	"a watcher that drains may claim":        {story: 5, engine: func(_ *pgtest.DB, e *postgres.DB) engine { return undrained{e} }},
	"a task may be claimed before it is due": {engine: func(db *pgtest.DB, e *postgres.DB) engine { return impatient{e, db} }},
}

func TestMutants(t *testing.T) {
	t.Parallel()
	for name, m := range mutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			store := open(t, db)
			for _, query := range m.sql {
				exec(t, db, query)
			}
			for function, change := range m.edit {
				edit(t, db, function, change[0], change[1])
			}
			var e engine = store
			if m.engine != nil {
				e = m.engine(db, store)
			}
			if m.harmless {
				known := map[int]bool{}
				for _, other := range mutants {
					known[other.story] = true
				}
				for seed := range known {
					require.Empty(t, story(db, e, seed), "story %d catches what is not wrong", seed)
				}
				return
			}
			if caught := story(db, e, m.story); caught != "" {
				return
			}
			for seed := range stories {
				if caught := story(db, e, seed); caught != "" {
					t.Logf("no longer caught by story %d: make it %d, which says: %s", m.story, seed, caught)
					return
				}
			}
			require.Fail(t, "not caught", "in %d stories", stories)
		})
	}
}

// story plays one story, and returns how it failed.
func story(db *pgtest.DB, e engine, seed int) string {
	return rapid.Custom(func(t *rapid.T) (failure string) {
		var w *world
		defer func() {
			if w == nil || w.failure == "" {
				return
			}
			_ = recover() // how rapid ends a story that failed
			failure = w.failure
		}()
		w = newWorld(t, db, e)
		w.play()
		return ""
	}).Example(seed)
}

// edit changes a function of the schema.
func edit(t *testing.T, db *pgtest.DB, function, from, to string) {
	t.Helper()
	var text string
	require.NoError(t, db.Get(&text, `SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE proname = $1`, function))
	require.Contains(t, text, from, "%s is not what this mutant was made for", function)
	exec(t, db, strings.ReplaceAll(text, from, to))
}

type unfenced struct {
	*postgres.DB
	db *pgtest.DB
}

func (m unfenced) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	results = copies(results)
	for i, r := range results {
		var now string
		_ = m.db.Get(&now, `SELECT claim_id::text FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2 AND exec_status = 1 AND claim_id IS NOT NULL`,
			string(r.Task.Flow), r.Task.Seq)
		if now != "" {
			results[i].Task.ClaimID = now
		}
	}
	return m.DB.Advance(ctx, results, c)
}

// copies are for mutants to change.
func copies(results []*flow.Result) []*flow.Result {
	var changed []*flow.Result
	for _, r := range results {
		changed = append(changed, new(*r))
	}
	return changed
}

type greedy struct{ *postgres.DB }

func (m greedy) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	c.Free++
	return m.DB.Advance(ctx, results, c)
}

// unordered claims what was registered last: it finishes first and then looks at a queue
// in which priorities are turned round.
type unordered struct {
	*postgres.DB
	db *pgtest.DB
}

func (m unordered) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	turn := func() error {
		_, err := m.db.Exec(`UPDATE kr_task_stat SET task_priority = -task_priority WHERE task_priority <> 0`)
		return err
	}
	if err := turn(); err != nil {
		return flow.Advanced{}, err
	}
	adv, err := m.DB.Advance(ctx, results, c)
	return adv, errors.Join(err, turn())
}

// careless is what the original did: the error is thrown away.
type careless struct{ *postgres.DB }

func (m careless) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	results = copies(results)
	for i := range results {
		results[i].Outcome = flow.OutcomeFinished
	}
	return m.DB.Advance(ctx, results, c)
}

// impatientWithPauses takes a pause for a failure.
type impatientWithPauses struct{ *postgres.DB }

func (m impatientWithPauses) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	changed := copies(results)
	for i, r := range changed {
		if r.Outcome == flow.OutcomePaused {
			changed[i].Outcome, changed[i].Error = flow.OutcomeFailed, "it pauses"
		}
	}
	adv, err := m.DB.Advance(ctx, changed, c)
	return adv, err
}

type dropping struct{ *postgres.DB }

func (m dropping) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	if len(results) < 2 {
		return m.DB.Advance(ctx, results, c)
	}
	adv, err := m.DB.Advance(ctx, results[1:], c)
	adv.Verdicts = append(adv.Verdicts, flow.Judged{Result: results[0], Verdict: flow.VerdictRecorded})
	return adv, err
}

type reviving struct{ *postgres.DB }

func (m reviving) Beat(ctx context.Context, watcher string, running []flow.Task) (flow.Pulse, error) {
	pulse, err := m.DB.Beat(ctx, watcher, running)
	if !errors.Is(err, flow.ErrFenced) {
		return pulse, err
	}
	if err := m.Join(ctx, flow.Watcher{ID: watcher, Programs: []string{}}); err != nil {
		return pulse, err
	}
	return m.DB.Beat(ctx, watcher, running)
}

type overeager struct {
	*postgres.DB
	db *pgtest.DB
}

func (m overeager) Rescue(ctx context.Context, watcher string, tell func([]flow.Rescued)) error {
	if _, err := m.db.Exec(`UPDATE kr_watcher SET lease_until = clock_timestamp() - interval '1 s' WHERE watcher_id <> $1`, watcher); err != nil {
		return err
	}
	return m.DB.Rescue(ctx, watcher, tell)
}

type forgetful struct {
	*postgres.DB
	db *pgtest.DB
}

func (m forgetful) Rescue(ctx context.Context, watcher string, tell func([]flow.Rescued)) error {
	err := m.DB.Rescue(ctx, watcher, tell)
	_, err2 := m.db.Exec(`UPDATE kr_task_stat SET lost_count = 0`)
	return errors.Join(err, err2)
}

type blind struct{ *postgres.DB }

func (blind) Owned(context.Context, string, []string) ([]flow.Task, error) { return nil, nil }

type undrained struct{ *postgres.DB }

func (undrained) Drain(context.Context, string) error { return nil }

type impatient struct {
	*postgres.DB
	db *pgtest.DB
}

func (m impatient) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	if _, err := m.db.Exec(`UPDATE kr_task_stat SET run_after = NULL WHERE run_after IS NOT NULL AND exec_status = 0`); err != nil {
		return flow.Advanced{}, err
	}
	return m.DB.Advance(ctx, results, c)
}

// Two last parents that are finished by hand at the same time: under READ COMMITTED a
// count from a snapshot misses one of them, whoever takes it. The counter is changed
// relatively, under the row's own lock; the mutant counts anew.
func TestMutantThatCountsFromASnapshot(t *testing.T) {
	t.Parallel()
	const relative = "unmet + CASE WHEN is_met THEN -1 ELSE 1 END"
	const anew = `(SELECT count(DISTINCT d) FROM unnest(flower_parents(depends_task_exec_seq, depends_task_exec_seqs)) d
		WHERE NOT EXISTS (SELECT FROM kr_task_stat p WHERE p.task_flow_id = kr_task_stat.task_flow_id AND p.task_exec_seq = d AND p.exec_status IN (3, 9)))`
	for name, mutate := range map[string]bool{"the real one": false, "the mutant": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			if mutate {
				edit(t, db, "flower_task_edited", relative, anew)
			}
			exec(t, db, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq)
				VALUES ('f', 1, 0, NULL, 'x', 1), ('f', 2, 0, NULL, 'x', 2), ('f', 3, 1, '{1,2}', 'x', 3)`)
			const finish = `UPDATE kr_task_stat SET exec_status = 3 WHERE task_exec_seq = $1`
			first, err := db.Beginx()
			require.NoError(t, err)
			exec(t, first, finish, 1) // holds the child
			second := make(chan error, 1)
			go func() {
				_, failed := db.Exec(finish, 2)
				second <- failed
			}()
			pgtest.Eventually(t, 30*time.Second, "the second waits for the child", func() bool {
				var waits bool
				require.NoError(t, db.Get(&waits, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`))
				return waits
			})
			require.NoError(t, first.Commit())
			require.NoError(t, <-second)
			var broken []string
			require.NoError(t, db.Select(&broken, `SELECT rule FROM v_invariant`))
			require.Equal(t, mutate, len(broken) > 0, broken)

			// The sweep repairs even that.
			_, err = open(t, db).Sweep(t.Context())
			require.NoError(t, err)
			require.NoError(t, db.Select(&broken, `SELECT rule FROM v_invariant`))
			require.Empty(t, broken)
		})
	}
}

// A rescue that looks for the lost and takes them in one step takes tasks away that a
// living watcher has just claimed: the claim that was read must still be there.
func TestRescueTakesOnlyTheClaimThatItRead(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	store := open(t, db)
	dead, alive := uuid.NewString(), uuid.NewString()
	for _, id := range []string{dead, alive} {
		require.NoError(t, store.Join(t.Context(), flow.Watcher{ID: id, Host: "test", Programs: []string{"A"}}))
	}
	exec(t, db, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program) VALUES ('f', 1, 'x', 1, 'A')`)
	_, err := store.Advance(t.Context(), nil, flow.Claim{ID: uuid.NewString(), Watcher: dead, Free: 1, Programs: []string{"A"}})
	require.NoError(t, err)
	exec(t, db, `UPDATE kr_watcher SET lease_until = clock_timestamp() - interval '1 s' WHERE watcher_id = $1`, dead)

	// Somebody has just set it back, and the living one has it; the rescue reads what was.
	tx, err := db.Beginx()
	require.NoError(t, err)
	exec(t, tx, `UPDATE kr_task_stat SET exec_status = 0`)
	require.NoError(t, store.Rescue(t.Context(), alive, func([]flow.Rescued) {
		require.Fail(t, "it is locked, and left to the next round")
	}))
	require.NoError(t, tx.Commit())
	swept, err := store.Sweep(t.Context())
	require.NoError(t, err)
	require.Empty(t, swept.Rescued)
	require.Empty(t, swept.Recounted)
}
