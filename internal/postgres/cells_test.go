package postgres

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

func TestCells(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, def(), def(1), def(2))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))
	require.Equal(t, 1, operate(t, w, `flower_rerun($1)`, string(id)))
	verdict(t, w, ended(claimOne(t, w), flow.OutcomeFailed))

	other := register(t, w, def())
	cells, err := w.Cells(t.Context(), []flow.ID{id, other, "nobody's"}, 2)
	require.NoError(t, err)
	require.Len(t, cells, 2)
	require.Len(t, cells[other], 1)
	require.Len(t, cells[id], 2, "the first two")
	first := cells[id][0]
	require.Equal(t, flow.Suspended, first.Status)
	require.Equal(t, flow.ReasonFailed, first.Reason)
	require.Equal(t, 1, first.Failed)
	require.NotEmpty(t, first.Title())
	require.False(t, first.Ended().Before(first.StartedAt))
	require.Equal(t, flow.Waiting, cells[id][1].Status)
}
