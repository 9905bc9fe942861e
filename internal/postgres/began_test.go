package postgres

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// startOf reads the start of a task as its row has it and as v_task and Flow show it, and
// that of its flow, as v_flow and Flow show it.
func startOf(t *testing.T, w *world, id flow.ID) (row, task, whole *time.Time) {
	t.Helper()
	row = value[*time.Time](t, w, `SELECT started_ts FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	task = value[*time.Time](t, w, `SELECT started_ts FROM v_task WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
	whole = value[*time.Time](t, w, `SELECT started_ts FROM v_flow WHERE task_flow_id = $1`, string(id))
	s, err := w.Flow(t.Context(), id)
	require.NoError(t, err)
	require.WithinDuration(t, deref(whole), s.StartedAt, 0)
	ended := value[*time.Time](t, w, `SELECT ended_ts FROM v_flow WHERE task_flow_id = $1`, string(id))
	require.WithinDuration(t, deref(ended), s.EndedAt, 0)
	if s.Tasks[0].Status != flow.Running { // then Flow has the present attempt's
		require.WithinDuration(t, deref(task), s.Tasks[0].StartedAt, 0)
	}
	return row, task, whole
}

// began checks that a task, as it is shown, and its flow started then; and its row, too,
// unless it waits.
func began(t *testing.T, w *world, id flow.ID, at time.Time) {
	t.Helper()
	row, task, whole := startOf(t, w, id)
	require.WithinDuration(t, at, deref(task), 0)
	require.WithinDuration(t, at, deref(whole), 0)
	switch status := look(t, w, id, 1).Status; status {
	case 0:
		require.Nil(t, row)
	case 2, 3:
		require.WithinDuration(t, at, deref(row), 0)
	}
	sound(t, w)
}

// What waits two hours, or for another flow, took as long; and has started meanwhile.
func TestBegan_BeforeTheFirstPause(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, w *world) {
		for outcome, end := range map[string]func(flow.Task){
			"finished": func(task flow.Task) { finish(t, w, task) },
			"failed":   func(task flow.Task) { verdict(t, w, ended(task, flow.OutcomeFailed)) },
		} {
			id := register(t, w, def())
			first := claimOne(t, w)
			for range 2 {
				verdict(t, w, paused(last(t, w, first), flow.Pause{After: time.Hour}))
				began(t, w, id, first.StartedAt)
				due(t, w)
				claimOne(t, w)
				began(t, w, id, first.StartedAt)
			}
			end(last(t, w, first))
			began(t, w, id, first.StartedAt)
			took := value[bool](t, w, `SELECT took = ended_ts - started_ts AND took > '0' FROM v_task WHERE task_flow_id = $1`, string(id))
			require.True(t, took, outcome)
			require.True(t, value[bool](t, w, `SELECT began_ts IS NULL FROM kr_task_stat WHERE task_flow_id = $1`, string(id)))
		}
	})
}

// last returns a task as its watcher runs it now.
func last(t *testing.T, w *world, task flow.Task) flow.Task {
	t.Helper()
	claim := value[string](t, w, `SELECT claim_id FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2`, string(task.Flow), task.Seq)
	owned, err := w.Owned(t.Context(), w.watcher, []string{claim})
	require.NoError(t, err)
	require.Len(t, owned, 1)
	return owned[0]
}

func TestBegan_OfWhatAsks(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def())
	first := claimOne(t, w)
	verdict(t, w, paused(first, flow.Pause{Ask: true, Why: "publish?"}))
	began(t, w, id, first.StartedAt)
	hasEnded := `SELECT ended_ts IS NOT NULL AND took = ended_ts - started_ts FROM v_flow WHERE task_flow_id = $1`
	require.False(t, value[bool](t, w, hasEnded, string(id)), "it goes on with the answer")
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status, reason)
	              VALUES ($1, 2, 0, 'sample', 1, 2, 'failed')`, string(id))
	require.True(t, value[bool](t, w, hasEnded, string(id)), "what failed is repaired first")
	byHand(t, w, `DELETE FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id))
	byHand(t, w, `SELECT flower_approve($1, 1)`, string(id))
	began(t, w, id, first.StartedAt)
	finish(t, w, claimOne(t, w))
	began(t, w, id, first.StartedAt)
}

func TestBegan_ByHand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		statement string
		task      bool // its own start is still that of before the pause
	}{
		"finished":             {`exec_status = 3`, true},
		"held":                 {`exec_status = 2`, true},
		"skipped":              {`exec_status = 9`, false},
		"run again":            {`exec_status = 0`, false}, // of a running one
		"run again, and later": {`exec_status = 0, run_after = now() + interval '1 h'`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			id := register(t, w, def())
			first := claimOne(t, w)
			verdict(t, w, paused(first, flow.Pause{After: time.Hour}))
			if c.statement[:15] == `exec_status = 0` {
				due(t, w)
				claimOne(t, w)
			}
			byHand(t, w, `UPDATE kr_task_stat SET `+c.statement+` WHERE task_flow_id = $1`, string(id))
			_, task, whole := startOf(t, w, id)
			if c.task {
				require.WithinDuration(t, first.StartedAt, deref(task), 0)
			} else {
				require.Nil(t, task)
			}
			if name != "skipped" { // it has not run, then
				require.WithinDuration(t, first.StartedAt, deref(whole), 0)
			}
			sound(t, w)
		})
	}
}

// A flow has started with the first attempt, though its task is tried again.
func TestBegan_FlowOfRetries(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := def()
	d.MaxAttempts = 2
	id := register(t, w, d)
	first := claimOne(t, w)
	verdict(t, w, ended(first, flow.OutcomeFailed))
	_, task, whole := startOf(t, w, id)
	require.Nil(t, task)
	require.WithinDuration(t, first.StartedAt, deref(whole), 0)
	due(t, w)
	second := claimOne(t, w)
	finish(t, w, second)
	row, task, whole := startOf(t, w, id)
	require.WithinDuration(t, second.StartedAt, deref(row), 0)
	require.WithinDuration(t, second.StartedAt, deref(task), 0)
	require.WithinDuration(t, first.StartedAt, deref(whole), 0)

	page, err := w.Flows(t.Context(), flow.Filter{}, flow.Position{}, 1)
	require.NoError(t, err)
	require.WithinDuration(t, first.StartedAt, page.Flows[0].StartedAt, 0)
}
