package postgres

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// logOf makes a part of the log of a claimed task.
func logOf(task flow.Task, lines ...flow.LogLine) flow.LogPart {
	return flow.LogPart{TaskKey: task.TaskKey, Attempt: task.Attempt, ClaimID: task.ClaimID, Lines: lines}
}

// printed makes lines of stdout, which have come just now.
func printed(first int, texts ...string) []flow.LogLine {
	lines := make([]flow.LogLine, len(texts))
	for i, text := range texts {
		lines[i] = flow.LogLine{No: int64(first + i), At: time.Now(), Stream: flow.StreamStdout, Text: text}
	}
	return lines
}

func keepLog(t *testing.T, w *world, parts ...flow.LogPart) {
	t.Helper()
	require.NoError(t, w.KeepLog(t.Context(), parts))
}

// readLog reads a log as its comment in the database says.
func readLog(t *testing.T, w *world, key flow.TaskKey) []string {
	t.Helper()
	var lines []string
	require.NoError(t, w.psql.Select(&lines, `SELECT format('%s %s %s: %s', attempt, line_no, stream, text) FROM v_task_log
		WHERE task_flow_id = $1 AND task_exec_seq = $2 ORDER BY attempt, line_no, claim_id`, string(key.Flow), key.Seq))
	return lines
}

func TestKeepLog(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		register(t, w, def(), def())
		tasks := claim(t, w, 2)
		texts := []string{"", "NULL", `"quoted", {braces} \ and \\x41 $1 %s`, "two\nlines\t'é' 日本 😀 \x1b[31m \u202e", strings.Repeat("x", 40_000)}
		of := []flow.LogPart{logOf(tasks[0], printed(1, texts...)...), logOf(tasks[1], printed(1, "another")...)}
		of[1].Lines[0].Stream = flow.StreamStderr
		keepLog(t, w, of...)
		var got []string
		require.NoError(t, w.psql.Select(&got, `SELECT text FROM v_task_log WHERE task_exec_seq = $1 ORDER BY attempt, line_no`, tasks[0].Seq))
		require.Equal(t, texts, got)
		require.Equal(t, []string{"1 1 stderr: another"}, readLog(t, w, tasks[1].TaskKey))

		// The same again, as after a lost answer, with one line more; and nothing at all.
		of[1].Lines = append(of[1].Lines, printed(2, "more")...)
		of[1].Lines[0].Text = "a repeated line stays as it was"
		keepLog(t, w, of...)
		keepLog(t, w)
		require.Equal(t, []string{"1 1 stderr: another", "1 2 stdout: more"}, readLog(t, w, tasks[1].TaskKey))
		require.Equal(t, len(texts)+2, value[int](t, w, `SELECT count(*) FROM kr_task_log`))
	})
}

// The answer of a call is lost: it has happened, or it has not. Then it is made again.
func TestKeepLog_LostAnswer(t *testing.T) {
	t.Parallel()
	w := open(t)
	for when, there := range map[cut]int{beforeSending: 0, afterAnswer: 2} {
		register(t, w, def())
		task := claimOne(t, w)
		network := flakyNetwork(t, w, &w.logs)
		network.arm(when, task.ClaimID)
		part := logOf(task, printed(1, "one", "two")...)
		require.ErrorIs(t, w.KeepLog(t.Context(), []flow.LogPart{part}), flow.ErrUnavailable)
		require.Len(t, readLog(t, w, task.TaskKey), there)
		part.Lines = append(part.Lines, printed(3, "three")...)
		keepLog(t, w, part)
		require.Equal(t, []string{"1 1 stdout: one", "1 2 stdout: two", "1 3 stdout: three"}, readLog(t, w, task.TaskKey))
	}
}

// Lines have the time at which they came, by the database's clock.
func TestKeepLog_Times(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def())
	task := claimOne(t, w)
	lines := printed(1, "an hour ago", "now")
	lines[0].At = lines[0].At.Add(-time.Hour)
	keepLog(t, w, logOf(task, lines...))
	require.True(t, value[bool](t, w, `SELECT bool_and(line_ts BETWEEN clock_timestamp() - CASE line_no WHEN 1 THEN interval '1 h 20 s' ELSE interval '20 s' END
		AND clock_timestamp() - CASE line_no WHEN 1 THEN interval '1 h' ELSE interval '0 s' END) FROM v_task_log`))
}

// A mark takes the place of a line, the newer one that of the older, and lines go.
func TestKeepLog_Gap(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		register(t, w, def(), def())
		tasks := claim(t, w, 2)
		for _, task := range tasks {
			keepLog(t, w, logOf(task, printed(1, "1", "2", "3", "4", "5", "6")...))
		}
		cut := logOf(tasks[0], flow.LogLine{No: 2, At: time.Now(), Stream: flow.StreamFlower, Text: "2 missing"})
		cut.GoneFrom, cut.GoneTo = 3, 3
		keepLog(t, w, cut)
		require.Equal(t, []string{"1 1 stdout: 1", "1 2 flower: 2 missing", "1 4 stdout: 4", "1 5 stdout: 5", "1 6 stdout: 6"}, readLog(t, w, tasks[0].TaskKey))
		cut.Lines[0].Text = "3 missing"
		cut.Lines = append(cut.Lines, printed(7, "7")...)
		cut.GoneTo = 4
		for range 2 {
			keepLog(t, w, cut, logOf(tasks[1], printed(7, "7")...))
			require.Equal(t, []string{"1 1 stdout: 1", "1 2 flower: 3 missing", "1 5 stdout: 5", "1 6 stdout: 6", "1 7 stdout: 7"}, readLog(t, w, tasks[0].TaskKey))
		}
		require.Len(t, readLog(t, w, tasks[1].TaskKey), 7, "the other one's lines stay")
	})
}

// Each attempt has its own log, also two that have one number.
func TestKeepLog_Attempts(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 3
	register(t, w, d)
	first := claimOne(t, w)
	keepLog(t, w, logOf(first, printed(1, "first")...))
	verdict(t, w, ended(first, flow.OutcomeFailed))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL`)
	second := claimOne(t, w)
	keepLog(t, w, logOf(second, printed(1, "second")...), logOf(first, printed(2, "still printing")...))
	foreign := second
	foreign.ClaimID = newID()
	cut := logOf(foreign, printed(1, "another second")...)
	cut.GoneFrom, cut.GoneTo = 1, 9
	keepLog(t, w, cut)
	got := readLog(t, w, first.TaskKey)
	require.Equal(t, []string{"1 1 stdout: first", "1 2 stdout: still printing"}, got[:2])
	require.ElementsMatch(t, []string{"2 1 stdout: second", "2 1 stdout: another second"}, got[2:])
}

// A log goes with its task, and nothing comes after it.
func TestKeepLog_GoesWithItsTask(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(), def())
	other := register(t, w, def())
	tasks := claim(t, w, 4)
	print := func() {
		for i, task := range tasks {
			keepLog(t, w, logOf(task, printed(1, "a", fmt.Sprint(i))...), logOf(flow.Task{TaskKey: flow.TaskKey{Flow: "x", Seq: 1}, ClaimID: newID()}, printed(1, "no such task")...))
		}
	}
	print()
	require.Equal(t, 8, value[int](t, w, `SELECT count(*) FROM kr_task_log`))
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq < 3`, string(id))
	print()
	require.Equal(t, 4, value[int](t, w, `SELECT count(*) FROM kr_task_log`))
	require.Len(t, readLog(t, w, flow.TaskKey{Flow: other, Seq: 1}), 2)
	byHand(t, w, `TRUNCATE kr_task_stat`)
	print()
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kr_task_log`))
}

// A table that somebody has locked holds up the logs alone, and not for long.
func TestKeepLog_HoldsUpNobody(t *testing.T) {
	t.Parallel()
	w := open(t)
	register(t, w, def(), def(1))
	task := claimOne(t, w)
	lock := begin(t, w)
	mustExec(t, lock, `LOCK TABLE kr_task_log IN ACCESS EXCLUSIVE MODE`)
	wait := async(func() error { return w.KeepLog(background, []flow.LogPart{logOf(task, printed(1, "line")...)}) })
	awaitBlocked(t, w, 1)
	require.Empty(t, beat(t, w, w.watcher, task).Revoked)
	adv := advance(t, w, finished(task), flow.Claim{Free: 1})
	require.Len(t, adv.Claimed, 1)
	_, _, err := w.Promote(t.Context())
	require.NoError(t, err)
	require.ErrorIs(t, wait(), flow.ErrUnavailable)
	require.NoError(t, lock.Rollback())
	keepLog(t, w, logOf(task, printed(1, "line")...))
	require.Len(t, readLog(t, w, task.TaskKey), 1)
}

// A call costs what its lines cost, however many tasks and lines there are; also where it
// was planned when there were few, and nobody has gathered statistics since.
func TestKeepLog_CostsLittleBesideManyRows(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // reading v_invariant takes long here
	direct, err := w.open(1, w.net.dialer(w.net.logs), logSettings...)
	require.NoError(t, err)
	defer func() { require.NoError(t, direct.Close()) }()
	pooled, err := w.open(1, w.net.dialer(w.net.quick))
	require.NoError(t, err)
	defer func() { require.NoError(t, pooled.Close()) }()
	mustExec(t, pooled, `SET plan_cache_mode = force_custom_plan`)
	behind(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, unmet)
		SELECT 'few', n, 'w', n, 3, 0 FROM generate_series(1, 8) n`)
	mustExec(t, w.psql, `ANALYZE`)
	for _, session := range []*sqlx.DB{direct, pooled} {
		mustExec(t, session, `PREPARE keep AS `+keepLogSQL)
		mustExec(t, session, `EXECUTE keep('{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')`)
	}
	behind(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, unmet)
		SELECT 'f' || n, 1, 'w', 1, 3, 0 FROM generate_series(1, 50000) n`)
	behind(t, w, `INSERT INTO kr_task_log SELECT 'f' || n, 1, 1, $1::uuid, 1, now(), 'stdout', 'text' FROM generate_series(1, 50000) n`, newID())

	var numbers []int64
	for n := range int64(100) {
		numbers = append(numbers, n+1)
	}
	for i, when := range []string{"with statistics of few rows", "with statistics"} {
		for name, session := range map[string]*sqlx.DB{"direct": direct, "pooled": pooled} {
			var plan string
			require.NoError(t, session.Get(&plan, fmt.Sprintf(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE keep(
				array_fill('f7'::text, '{100}'), array_fill(1, '{100}'), array_fill(1, '{100}'), array_fill('%s'::text, '{100}'),
				'{%s}',  array_fill(0, '{100}'), array_fill('stdout'::text, '{100}'), array_fill('a line'::text, '{100}'),
				'{f7}', '{1}', '{1}', '{%[1]s}', '{1000}', '{2000}')`, newID(), strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ","), "[]"))))
			buffers := buffersIn(t, plan)
			t.Logf("%s, %s: %d buffers for 100 lines", name, when, buffers)
			require.Less(t, buffers, 3000, "%s, %s", name, when)
		}
		if i == 0 {
			mustExec(t, w.psql, `ANALYZE`)
		}
	}
}
