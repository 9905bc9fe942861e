package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
)

// The demo has about two hundred flows of every kind, in which every rule of the database
// holds, and something goes on. The database of make run has none of it.
func TestDemo(t *testing.T) {
	t.Parallel()
	d := start(t, checkout(t), commandtest.FreePort(t), "-demo")
	d.await("Two hundred flows")
	d.await("task started")
	address, err := os.ReadFile(filepath.Join(d.cmd.Dir, urlFile))
	require.NoError(t, err)
	url := strings.TrimSpace(string(address))
	require.Contains(t, url, demoDatabase)
	db, err := sqlx.ConnectContext(t.Context(), "postgres", url)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()

	var n int
	require.NoError(t, db.GetContext(t.Context(), &n, `SELECT count(*) FROM kr_flow WHERE registered_ts < now() - interval '2 minutes'`))
	require.InDelta(t, 200, n, 20)
	var words []string
	require.NoError(t, db.SelectContext(t.Context(), &words, `SELECT DISTINCT status FROM v_flow`))
	require.Subset(t, words, []string{"failed", "held", "cancelled", "finished"})
	require.NoError(t, db.SelectContext(t.Context(), &words, `SELECT DISTINCT reason FROM v_failed`))
	require.ElementsMatch(t, []string{"failed", "timeout", "lost", "invalid"}, words)
	require.NoError(t, db.GetContext(t.Context(), &n, `SELECT count(*) FROM v_invariant`))
	require.Zero(t, n)
	require.NoError(t, db.GetContext(t.Context(), &n, `SELECT count(*) FROM kr_flow WHERE registered_ts > now()`))
	require.Zero(t, n, "nothing of the past is in the future")
	require.NoError(t, db.GetContext(t.Context(), &n, `SELECT count(*) FROM kr_task_stat t JOIN kr_task_stat p
		ON p.task_flow_id = t.task_flow_id AND p.task_exec_seq = ANY (flower_parents(t.depends_task_exec_seq, t.depends_task_exec_seqs))
		WHERE t.started_ts < p.finished_ts`))
	require.Zero(t, n, "no task began before what it depends on had ended")

	require.NoError(t, db.Close())
	require.NoError(t, d.cmd.Process.Signal(syscall.SIGINT))
	require.Equal(t, 0, d.exitCode())
	d.requireNothingLeft()
}

// What never happened is put into no database of somebody's own.
func TestDemo_OnlyInItsOwnDatabase(t *testing.T) {
	t.Parallel()
	d := start(t, checkout(t), commandtest.FreePort(t), "DATABASE_URL=postgres://nobody@127.0.0.1:1/x", "-demo")
	require.Equal(t, 1, d.exitCode())
	require.Contains(t, d.out.String(), "the demo fills a database of its own")
}
