package postgres

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// Every flow that is not over is counted under the status that v_flow gives it.
func TestCensus(t *testing.T) {
	t.Parallel()
	w := open(t)
	c, err := w.Census(t.Context())
	require.NoError(t, err)
	require.Equal(t, flow.Census{
		Flows:     map[string]int{"running": 0, "failed": 0, "held": 0, "cancelled": 0, "queued": 0},
		Suspended: map[flow.Reason]int{}, Watchers: c.Watchers, Workers: c.Workers, HeartbeatAge: c.HeartbeatAge,
	}, c, "nothing but the watcher")
	require.Equal(t, map[string]int{"alive": 1}, c.Watchers)

	mustExec(t, w.psql, `INSERT INTO ms_workflow (task_id, max_running_tasks) VALUES ('limited', 1)`)
	for i, statuses := range [][]int{{0, 0}, {3, 0}, {3, 3}, {9}, {2, 0}, {2, 2}, {0}, {3, 2}, {0, 3}, {2}} {
		for seq, status := range statuses {
			after := seq
			if i == 8 { // side by side
				after = 0
			}
			mustExec(t, w.psql, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, program, registered_ts)
				VALUES ($1, $2, $3, 'x', 1, $4, 'NoOp', now() - interval '1 h')`, fmt.Sprint("f", i), seq+1, after, status)
		}
	}
	for _, change := range []string{
		`UPDATE kr_task_stat SET reason = 'held' WHERE task_flow_id = 'f5'`,
		`UPDATE kr_task_stat SET reason = 'cancelled' WHERE task_flow_id = 'f9'`,
		`UPDATE kr_task_stat SET run_after = now() + interval '1 h' WHERE task_flow_id = 'f6'`,
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, program) VALUES ('l1', 1, 'limited', 1, 'NoOp'), ('l2', 1, 'limited', 1, 'NoOp')`,
	} {
		mustExec(t, w.psql, change)
	}
	adv, err := w.Advance(t.Context(), nil, flow.Claim{ID: newID(), Watcher: w.watcher, Free: 1, Programs: []string{"NoOp"}})
	require.NoError(t, err)
	require.Len(t, adv.Claimed, 1)
	_, err = w.Beat(t.Context(), w.watcher, adv.Claimed)
	require.NoError(t, err)

	c, err = w.Census(t.Context())
	require.NoError(t, err)
	var rows []struct {
		Status string
		N      int
	}
	require.NoError(t, w.psql.Select(&rows, `SELECT status, count(*) AS n FROM v_flow GROUP BY 1`))
	for _, r := range rows {
		if r.Status != "finished" {
			require.Equal(t, r.N, c.Flows[r.Status], r.Status)
		}
	}
	require.Equal(t, map[flow.Reason]int{"": 2, "held": 2, "cancelled": 1}, c.Suspended)
	require.Equal(t, 1, c.Running)
	require.Equal(t, 1, c.Delayed)
	require.Equal(t, value[int](t, w, `SELECT count(*) FROM kr_task_stat WHERE gate = 2`), c.Limited)
	require.Positive(t, c.Limited)
	require.Equal(t, 1, c.Busy)
	require.Equal(t, value[int](t, w, `SELECT count(*) FROM kr_ready`), c.Queued)
	require.Greater(t, c.OldestWait, 50*time.Minute)
	require.Less(t, c.HeartbeatAge, time.Minute)
}

// With a hundred thousand tasks of each kind and many more that are finished it costs what
// it may cost each half minute: the plan reads no whole table.
func TestCensus_ReadsNoWholeTable(t *testing.T) {
	t.Parallel()
	w := open(t)
	mustExec(t, w.psql, `INSERT INTO kr_flow (task_flow_id, task_id) SELECT 'f' || n, 'x' FROM generate_series(1, 20000) n`)
	mustExec(t, w.psql, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, unmet, program, finished_ts)
		SELECT 'f' || n, s, 'x', s, 3, 0, 'NoOp', now() FROM generate_series(1, 20000) n, generate_series(1, 3) s`)
	mustExec(t, w.psql, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id IN (SELECT 'f' || n FROM generate_series(1, 100) n) AND task_exec_seq = 3`)
	mustExec(t, w.psql, `VACUUM ANALYZE kr_task_stat`)
	var plan []string
	require.NoError(t, w.psql.Select(&plan, "EXPLAIN "+strings.ReplaceAll(censusSQL, "$1", strconv.Itoa(flow.MaxCensus))))
	require.NotContains(t, strings.Join(plan, "\n"), "Seq Scan on kr_task_stat")
	var row censusRow
	require.NoError(t, w.psql.Get(&row, censusSQL, flow.MaxCensus))
	require.JSONEq(t, `{"running":0,"failed":0,"held":100,"cancelled":0,"queued":0}`, row.Flows)
	require.JSONEq(t, `{"held":100}`, row.Suspended)
}

// Who sizes max_connections goes by what README.md says. A watcher also listens.
func TestPools_AreWhatTheReadmeSays(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	const beat, logs, listener = 1, 1, 1
	register := poolConns + readConns + slowConns + writerLanes + beat
	watcher := register + engineLanes + logs + listener
	require.Contains(t, string(readme), fmt.Sprintf("a watcher takes up to %d, `register` up to %d,", watcher, register))
}

func TestEachPool(t *testing.T) {
	t.Parallel()
	w := open(t)
	require.NoError(t, w.Ready(t.Context()))
	all, connections := 0, 0
	w.EachPool(func(name string, open, _ int, _ int64, _ time.Duration) {
		require.NotEmpty(t, name)
		all, connections = all+1, connections+open
	})
	require.Equal(t, 7, all)
	require.Positive(t, connections)
}
