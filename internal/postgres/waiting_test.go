package postgres

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// So many flows of one caller may wait, whoever else has as many; those that have begun
// count no more, and a repeated request is answered as before.
func TestLimitWaiting_SecO1(t *testing.T) {
	t.Parallel()
	w := open(t)
	w.LimitWaiting(3)
	register := func(by, key string) error {
		_, err := w.Register(t.Context(), flow.Registration{
			FlowID: flow.ID(newID()), WorkflowID: "sample", RegisteredBy: by, IdempotencyKey: key, Fingerprint: "f",
		})
		return err
	}
	for n := range 3 {
		require.NoError(t, register("alice", fmt.Sprint("key ", n)))
	}
	require.ErrorIs(t, register("alice", ""), flow.ErrWaiting)
	require.ErrorIs(t, register("alice", "another"), flow.ErrWaiting)
	require.NoError(t, register("alice", "key 1"), "it is there already")
	require.NoError(t, register("bob", ""))

	adv, err := w.Advance(t.Context(), nil, flow.Claim{ID: newID(), Watcher: w.watcher, Free: 1, Programs: []string{"Test1"}})
	require.NoError(t, err)
	require.Len(t, adv.Claimed, 1, "the first one begins")
	require.NoError(t, register("alice", ""))
	require.ErrorIs(t, register("alice", ""), flow.ErrWaiting)
	w.LimitWaiting(0)
	require.NoError(t, register("alice", ""))
}
