package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A table that is vacuumed while it is empty, as by a nightly job, is one without pages to
// the planner. The plans made then read all that comes afterwards, until one is slow.
func TestLanes_PlanAnewWhatIsSlow(t *testing.T) {
	t.Parallel()
	w := openBroken(t) // reading v_invariant takes long here
	mustExec(t, w.psql, `VACUUM ANALYZE`)
	l, err := w.openLanes(1, w.net.dialer(w.net.quick), engineSettings...)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.close()) }()
	none := "{}"
	require.NoError(t, l.selectAll(t.Context(), &[]settledRow{}, settleSQL, none, none, none, none, none, none, none, none))
	behind(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, unmet)
		SELECT 'f' || n, 1, 'w', 1, 3, 0 FROM generate_series(1, 20000) n`)
	register(t, w, independent(3)...)
	keys := newKeys(sorted(finished(claim(t, w, 3)...)))

	run := func(query string) {
		t.Helper()
		require.NoError(t, l.selectAll(t.Context(), &[]string{}, query))
	}
	buffers := func() int {
		t.Helper()
		ln, err := l.take(t.Context())
		require.NoError(t, err)
		defer l.give(ln)
		tx, err := ln.conn.BeginTxx(t.Context(), nil)
		require.NoError(t, err)
		defer func() { require.NoError(t, tx.Rollback()) }()
		var name, plan string
		require.NoError(t, tx.Get(&name, `SELECT name FROM pg_prepared_statements WHERE statement LIKE '%kr_task_attempt%'`))
		require.NoError(t, tx.Get(&plan, fmt.Sprintf(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)
			EXECUTE "%s"('{%s}', '{1,2,3}', '{%s}', '{failed,failed,failed}', '{a,b,c}', '{}', '{}', '{}')`,
			name, strings.Join(keys.flows, ","), strings.Join(keys.claims, ","))))
		return buffersIn(t, plan)
	}
	l.doubt = time.Hour
	run(`SELECT ''`)
	run(`SELECT ''`)
	require.Greater(t, buffers(), 500, "planned while there was nothing")
	l.doubt = 0
	run(`SELECT ''`) // which takes too long
	run(`SELECT ''`)
	require.Less(t, buffers(), 300)
}

// A session that has its plans and knows the tables' pages goes on, as long as one is enough.
func TestLanes_TheOneUsedLastIsTakenFirst(t *testing.T) {
	t.Parallel()
	w := open(t)
	session := func() int {
		t.Helper()
		var pid []int
		require.NoError(t, w.writer.selectAll(t.Context(), &pid, `SELECT pg_backend_pid()`))
		return pid[0]
	}
	first := session()
	require.Equal(t, first, session())
	held, err := w.writer.take(t.Context())
	require.NoError(t, err)
	second := session()
	require.NotEqual(t, first, second)
	w.writer.give(held)
	require.Equal(t, first, session())

	var others []*lane
	for range writerLanes {
		held, err = w.writer.take(t.Context())
		require.NoError(t, err)
		others = append(others, held)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.writer.take(done)
	require.ErrorIs(t, err, context.Canceled, "all are used")
	for _, ln := range others {
		w.writer.give(ln)
	}
}
