package postgres

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// Whoever uses a database sees the same identity, an ordinary role included, and in
// another database another one.
func TestIdentity(t *testing.T) {
	t.Parallel()
	one, two := open(t), open(t)
	identity := func(d *DB) string {
		id, err := d.Identity(t.Context())
		require.NoError(t, err)
		return id
	}
	require.Regexp(t, `^[0-9]+-[0-9]+$`, identity(one.DB))
	require.Equal(t, identity(one.DB), identity(another(t, one)))
	require.NotEqual(t, identity(one.DB), identity(two.DB))

	role := "ordinary_" + strings.ReplaceAll(newID(), "-", "")
	_, err := one.psql.Exec(`CREATE ROLE ` + role + ` LOGIN`)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = two.psql.Exec(`DROP ROLE ` + role) })
	d, err := Open(Config{URL: one.psql.DSN + " user=" + role, Application: "flower-test"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, identity(one.DB), identity(d))
	require.NoError(t, d.Close())
}

func TestStandings(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", chain(2)...)
	id := registerOf(t, w, "w")
	first, second := flow.TaskKey{Flow: id, Seq: 1}, flow.TaskKey{Flow: id, Seq: 2}
	task := claim(t, w, 1)[0]
	_, err := w.psql.Exec(`UPDATE kr_task_stat SET started_ts = clock_timestamp() - interval '1 h' WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	require.NoError(t, err)

	standings := func(keys ...flow.TaskKey) map[flow.TaskKey]flow.Standing {
		list, listErr := w.Standings(t.Context(), keys)
		require.NoError(t, listErr)
		stands := map[flow.TaskKey]flow.Standing{}
		for _, s := range list {
			stands[s.TaskKey] = s
		}
		require.Len(t, stands, len(list))
		return stands
	}
	got := standings(first, second, flow.TaskKey{Flow: id, Seq: 3}, flow.TaskKey{Flow: "none", Seq: 1})
	require.Len(t, got, 2)
	require.InDelta(t, time.Hour, got[first].Running, float64(time.Minute))
	require.Equal(t, flow.Standing{TaskKey: first, Status: flow.Running, Attempt: 1, Running: got[first].Running}, got[first])
	require.Equal(t, flow.Standing{TaskKey: second, Status: flow.Waiting}, got[second])
	require.Equal(t, task.IdempotencyKey(), got[first].IdempotencyKey())
	require.Empty(t, standings())

	// It is held, and its watcher hands it back: it is as it was when somebody resumes it.
	_, err = w.psql.Exec(`SELECT flower_hold($1)`, string(id))
	require.NoError(t, err)
	require.True(t, verdict(t, w, ended(task, flow.OutcomeHandedBack)).Held)
	require.Equal(t, flow.Standing{TaskKey: first, Status: flow.Suspended, Held: true, Attempt: 1}, standings(first)[first])
	_, err = w.psql.Exec(`SELECT flower_resume($1)`, string(id))
	require.NoError(t, err)
	require.Equal(t, flow.Standing{TaskKey: first, Status: flow.Waiting, Attempt: 1}, standings(first)[first])

	// A person cancels it, and then resets it: the next attempt has another key.
	_, err = w.psql.Exec(`SELECT flower_cancel($1)`, string(id))
	require.NoError(t, err)
	_, err = w.psql.Exec(`UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	require.NoError(t, err)
	reset := standings(first)[first]
	require.Equal(t, flow.Standing{TaskKey: first, Status: flow.Waiting, Attempt: 1, AttemptBase: 1}, reset)
	require.NotEqual(t, task.IdempotencyKey(), reset.IdempotencyKey())
}
