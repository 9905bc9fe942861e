package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// A retry leaves no event; a person who runs a task again does, and that is when it could
// go again.
func TestSuperseded(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 2
	id := register(t, w, d, def(1))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	byHand(t, w, `UPDATE kr_task_stat SET run_after = NULL WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	none, err := w.Superseded(t.Context(), "nobody's")
	require.NoError(t, err)
	require.Empty(t, none)

	require.Equal(t, 1, operate(t, w, `flower_rerun($1)`, string(id)))
	run(t, w)
	attempts, err := w.Superseded(t.Context(), id)
	require.NoError(t, err)
	require.Len(t, attempts, 2)
	for i, a := range attempts {
		require.Equal(t, flow.TaskKey{Flow: id, Seq: 1}, a.TaskKey)
		require.Equal(t, i+1, a.Number)
		require.False(t, a.EndedAt.Before(a.StartedAt))
	}
	require.Equal(t, flow.Suspended, attempts[1].Status)
	require.Equal(t, flow.ReasonFailed, attempts[1].Reason)
	require.False(t, attempts[1].AgainAt.Before(attempts[1].EndedAt))
	require.Equal(t, attempts[1].AgainAt, attempts[0].AgainAt, "whoever reads it looks at what came between")
}
