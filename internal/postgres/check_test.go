package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func check(t *testing.T, w *world, anew bool) []flow.BrokenRule {
	t.Helper()
	broken, err := w.Check(t.Context(), anew)
	require.NoError(t, err)
	return broken
}

func checked(t *testing.T, w *world) flow.Check {
	t.Helper()
	c, err := w.Checked(t.Context())
	require.NoError(t, err)
	return c
}

// elapse makes the last check older.
func elapse(t *testing.T, w *world, d time.Duration) {
	t.Helper()
	mustExec(t, w.psql, `UPDATE kr_check SET checked_ts = checked_ts - $1 * interval '1 ms', broken_since = broken_since - $1 * interval '1 ms',
	                     repaired_ts = repaired_ts - $1 * interval '1 ms'`, d.Milliseconds())
}

// What one process finds, every other one reads: rules, how many rows, one of them.
func TestCheck(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		require.Equal(t, flow.Check{}, checked(t, w), "nobody has looked yet")
		require.Empty(t, check(t, w, false))
		c := checked(t, w)
		require.True(t, c.Done)
		require.Empty(t, c.Broken)
		require.Empty(t, c.Repaired)
		require.Less(t, c.Age, time.Minute)
		require.Positive(t, c.Took)

		id := register(t, w, def(), def(1), def(1))
		behind(t, w, `UPDATE kr_task_stat SET unmet = 7 WHERE task_exec_seq > 1`)
		behind(t, w, `INSERT INTO kr_ready VALUES (0, now(), 'no such "flow"', 1)`)
		require.Empty(t, check(t, w, false), "somebody has looked a moment ago")
		require.Empty(t, checked(t, w).Broken)
		elapse(t, w, time.Minute)
		want := []flow.BrokenRule{
			{Rule: "only what can go is in the queue", Rows: 1, Key: flow.TaskKey{Flow: `no such "flow"`, Seq: 1}, Detail: "its task cannot go"},
			{Rule: "unmet counts what is not satisfied", Rows: 2, Key: flow.TaskKey{Flow: id, Seq: 2}, Detail: "unmet is 7"},
		}
		require.Equal(t, want, check(t, w, false))
		other := *w
		other.DB = another(t, w)
		c = checked(t, &other)
		require.Equal(t, want, c.Broken)
		require.Less(t, c.BrokenFor, time.Minute)

		elapse(t, w, time.Minute)
		require.Equal(t, want, check(t, w, false))
		require.GreaterOrEqual(t, checked(t, w).BrokenFor, time.Minute, "since it was first seen")

		sweep(t, w)
		require.Empty(t, check(t, w, true))
		c = checked(t, w)
		require.Empty(t, c.Broken)
		require.Zero(t, c.BrokenFor)
		require.Equal(t, want, c.Repaired)
		require.Less(t, c.RepairedAge, time.Minute)
		elapse(t, w, time.Minute)
		require.Empty(t, check(t, w, false))
		require.Equal(t, want, checked(t, w).Repaired, "it is kept")
		require.GreaterOrEqual(t, checked(t, w).RepairedAge, time.Minute)
	})
}

// The whole table is read: not more often than once a minute, and not more than a
// fiftieth of the time, however many ask.
func TestCheck_IsDue(t *testing.T) {
	t.Parallel()
	w := openBroken(t)
	check(t, w, false)
	behind(t, w, `INSERT INTO kr_ready VALUES (0, now(), 'x', 1)`)
	for _, c := range []struct {
		after, took time.Duration
		due         bool
	}{
		{30 * time.Second, time.Millisecond, false},
		{50 * time.Second, time.Millisecond, true},
		{50 * time.Second, 2 * time.Second, false},
		{99 * time.Second, 2 * time.Second, false},
		{101 * time.Second, 2 * time.Second, true},
		{-time.Hour, time.Millisecond, true}, // the clock was set back
	} {
		mustExec(t, w.psql, `UPDATE kr_check SET checked_ts = clock_timestamp() - $1 * interval '1 ms', took = $2 * interval '1 ms'`,
			c.after.Milliseconds(), c.took.Milliseconds())
		require.Equal(t, c.due, len(check(t, w, false)) > 0, "%s after one of %s", c.after, c.took)
	}

	tx := begin(t, w)
	mustExec(t, tx, `SELECT pg_advisory_xact_lock(hashtextextended('flower check', 0))`)
	require.Empty(t, check(t, w, true), "somebody else is at it")
	require.NoError(t, tx.Rollback())
	mustExec(t, w.psql, `TRUNCATE kr_check`)
	require.Len(t, check(t, w, false), 1)
}

// Tasks inserted at 1 are remembered while they run.
func TestCheck_ForgetsWhatWasNotOwned(t *testing.T) {
	t.Parallel()
	w := open(t)
	insert(t, w, "a", 1, [2]int{1, 0}, [2]int{2, 0}, [2]int{3, 0})
	insert(t, w, "a", 0, [2]int{4, 0})
	require.Equal(t, 3, value[int](t, w, `SELECT count(*) FROM kr_unowned`))
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 3 WHERE task_exec_seq = 1`)
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_exec_seq = 2`)
	check(t, w, true)
	require.Equal(t, []int{3}, all[int](t, w, `SELECT task_exec_seq FROM kr_unowned`))
}
