package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

func hinted(t *testing.T, hints <-chan struct{}, why string) {
	t.Helper()
	select {
	case <-hints:
	case <-time.After(soon):
		t.Fatal("no hint: ", why)
	}
}

// listenTo returns a channel of hints on which everything so far was received.
func listenTo(t *testing.T, w *world) (<-chan struct{}, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(background)
	t.Cleanup(cancel)
	hints := another(t, w).Listen(ctx)
	pgtest.Eventually(t, soon, "somebody listens", func() bool {
		return value[int](t, w, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN "flower"' AND state = 'idle'`) > 0
	})
	return hints, cancel
}

func TestListen(t *testing.T) {
	t.Parallel()
	w := open(t)
	hints, cancel := listenTo(t, w)
	id := registerOf(t, w, "sample")
	hinted(t, hints, "a registration")
	byHand(t, w, `UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = 3`, string(id))
	hinted(t, hints, "a change by hand")
	insert(t, w, "by hand", 0, [2]int{1, 0})
	hinted(t, hints, "a row put in by hand")

	// More was released than the watcher has workers for.
	register(t, w, def(), def(1), def(1))
	hinted(t, hints, "a registration")
	tasks := claim(t, w, 9)
	require.Len(t, tasks, 3)
	advance(t, w, finished(tasks...), flow.Claim{Free: 1})
	hinted(t, hints, "a release")

	// The connection is lost: a notification may have been, too.
	mustExec(t, w.psql, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN "flower"'`)
	hinted(t, hints, "a reconnect")
	registerOf(t, w, "sample")
	hinted(t, hints, "a registration after the reconnect")

	cancel()
	pgtest.Eventually(t, soon, "nobody listens", func() bool {
		return value[int](t, w, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'LISTEN "flower"'`) == 0
	})
}

// An action locks whole flows. What it leaves as it is was passed over by claims meanwhile,
// and nothing but the end of the action tells of it: of the second of two approvals, too.
func TestListen_TheEndOfAnAction(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(w *world, id flow.ID) error{
		"refused": func(w *world, id flow.ID) error {
			_, err := w.Act(background, flow.Action{Kind: flow.ActionApprove, Flow: id, Seq: 1})
			if _, refused := errors.AsType[*flow.RefusedError](err); !refused {
				return fmt.Errorf("it was not refused: %w", err)
			}
			return nil
		},
		"with nothing to do": func(w *world, id flow.ID) error {
			_, err := w.Act(background, flow.Action{Kind: flow.ActionResume, Flow: id})
			return err
		},
		"on many flows, with nothing to do": func(w *world, id flow.ID) error {
			_, err := w.ActAll(background, flow.BulkAction{Kind: flow.ActionResume, Flows: []flow.ID{id}, Terms: flow.Terms{Expect: new(0)}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			id := put(t, w, shape{[][]int{{}, {}}, "h3"})
			hints, _ := listenTo(t, w)
			first, last := begin(t, w), begin(t, w)
			mustExec(t, first, `UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = $1 AND task_exec_seq = 1`, string(id))
			mustExec(t, last, `SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 2 FOR UPDATE`, string(id))
			wait := async(func() error { return act(w, id) })
			awaitBlocked(t, w, 1)
			require.NoError(t, first.Commit())
			hinted(t, hints, "a change by hand")
			pgtest.Eventually(t, soon, "the action has the task", func() bool {
				return value[int](t, w, `SELECT count(*) FROM (SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = 1 FOR UPDATE SKIP LOCKED) x`, string(id)) == 0
			})
			require.Empty(t, claim(t, w, 5), "somebody holds it")
			require.NoError(t, last.Rollback())
			require.NoError(t, wait())
			hinted(t, hints, "the end of an action")
			finish(t, w, claimOne(t, w))
		})
	}
}

// Nothing stays ours behind a pooler, and nothing is lost by that: polling is enough.
func TestListen_BehindAPooler(t *testing.T) {
	t.Parallel()
	w := open(t)
	pooled, err := Open(Config{URL: w.psql.DSN, Pooler: true}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, pooled.Close()) }()
	hints := pooled.Listen(t.Context())
	registerOf(t, w, "sample")
	require.Empty(t, hints)
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`))
}

// A hundred changes are a few notifications, and nobody waits for one.
func TestNotifier_Coalesces(t *testing.T) {
	t.Parallel()
	var sent atomic.Int32
	release := make(chan struct{})
	var last atomic.Value
	n := newNotifier(func(_ context.Context, from place) error {
		last.Store(from)
		sent.Add(1)
		<-release
		return fmt.Errorf("lost")
	})
	for i := range 1000 {
		n.notify(place{priority: i})
	}
	pgtest.Eventually(t, soon, "the first is sent", func() bool { return sent.Load() == 1 })
	for i := range 1000 {
		n.notify(place{priority: (i + 500) % 1000})
	}
	close(release)
	pgtest.Eventually(t, soon, "one more is sent", func() bool { return sent.Load() == 2 })
	n.close()
	require.LessOrEqual(t, sent.Load(), int32(3))
	require.Equal(t, place{priority: 0}, last.Load(), "the first of all that the second one tells of")
}
