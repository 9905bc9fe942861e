package e2e

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// Told to stop, a watcher claims nothing more, lets what runs end, records it, and ends.
// Started again, it goes on where the flow was.
func TestSIGTERMDrains(t *testing.T) {
	w := newWorld(t)
	free := make(gate)
	p := newPeer(t, free.wait)
	w.define("drain", p.calling("/1"), p.calling("/2"))
	s := w.register()
	watcher := w.watcher()
	flow := s.post("drain")
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(p.seen()) == 1 })
	watcher.Signal(syscall.SIGTERM)
	watcher.Await("stopping: waiting for running tasks")
	other := s.post("drain") // for whoever comes next
	close(free)
	require.Equal(t, 0, watcher.Exit())
	require.Equal(t, "3 0", w.statuses(flow))
	require.Equal(t, "0 0", w.statuses(other))
	var watchers int
	require.NoError(t, w.Get(&watchers, `SELECT count(*) FROM kr_watcher`))
	require.Zero(t, watchers)

	w.watcher()
	w.await(flow, "3 3")
	w.await(other, "3 3")
	require.Equal(t, 1, w.rows(flow)[0].Attempt)
	w.sound()
}

// What does not end in time is handed back: the next watcher runs it at once, unless it
// must not run twice.
func TestSIGTERMHandsBack(t *testing.T) {
	w := newWorld(t)
	free := make(gate)
	p := newPeer(t, free.wait)
	once := p.calling("/once")
	once.onLost = "suspend"
	w.define("again", p.calling("/again"))
	w.define("once", once)
	s := w.register()
	watcher := w.watcher("-shutdown-timeout", "300ms")
	flow, only := s.post("again"), s.post("once")
	pgtest.Eventually(t, soon, "both run", func() bool { return len(p.seen()) == 2 })
	watcher.Signal(syscall.SIGTERM)
	require.Equal(t, 0, watcher.Exit())
	require.Equal(t, "0", w.statuses(flow))
	require.Equal(t, "2", w.statuses(only))
	require.Equal(t, "lost", w.rows(only)[0].Reason)

	next := w.watcher()
	pgtest.Eventually(t, soon, "it runs again", func() bool { return p.at("/again") == 2 })
	require.Equal(t, 1, p.at("/once"))
	close(free)
	w.await(flow, "3")
	require.True(t, next.Running())
}

// A second signal ends a watcher at once, whatever runs.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	w := newWorld(t)
	p := newPeer(t, make(gate).wait)
	w.define("hangs", p.calling("/"))
	s := w.register()
	watcher := w.watcher("-shutdown-timeout", "10m")
	flow := s.post("hangs")
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(p.seen()) == 1 })
	watcher.Signal(syscall.SIGINT)
	watcher.Await("stopping: waiting for running tasks")
	begin := time.Now()
	watcher.Signal(syscall.SIGINT)
	require.Equal(t, -1, watcher.Exit(), "it ends by the signal")
	require.Less(t, time.Since(begin), 10*time.Second)
	require.Equal(t, "1", w.statuses(flow), "others will find it")
}

// Requests in flight are answered when register is told to stop.
func TestRegisterStops(t *testing.T) {
	w := newWorld(t)
	s := w.register()
	tx, err := w.Beginx()
	require.NoError(t, err)
	_, err = tx.Exec(`LOCK TABLE kr_flow`) // a registration waits
	require.NoError(t, err)
	answered := make(chan answer, 1)
	go func() { answered <- s.send(http.MethodPost, "/register/sample", "", "") }()
	pgtest.Eventually(t, soon, "a registration waits", func() bool {
		var waits bool
		require.NoError(t, w.Get(&waits, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`))
		return waits
	})
	s.Signal(syscall.SIGTERM)
	s.Await("stopping")
	require.NoError(t, tx.Commit())
	require.Equal(t, http.StatusCreated, (<-answered).status)
	require.Equal(t, 0, s.Exit())
}

// Killed and started again, a watcher finds its own tasks, when the lease of the one that
// it was has ended.
func TestKilledAndStartedAgain(t *testing.T) {
	w := newWorld(t)
	free := make(gate)
	p := newPeer(t, free.wait)
	w.define("killed", p.calling("/1"), p.calling("/2"))
	s := w.register()
	first := w.watcher()
	flow := s.post("killed")
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(p.seen()) == 1 })
	first.Signal(syscall.SIGKILL)
	first.Exit()
	w.watcher()
	pgtest.Eventually(t, soon, "it runs again", func() bool { return p.at("/1") == 2 })
	close(free)
	w.await(flow, "3 3")
	require.Equal(t, 2, w.rows(flow)[0].Attempt)
	calls := p.seen()
	require.Equal(t, calls[0].key, calls[1].key, "a rescue is no deliberate rerun")
}

// A watcher that was frozen for longer than its lease: others have run its task, its late
// result counts for nothing, and it works on under another name.
func TestFrozen(t *testing.T) {
	w := newWorld(t)
	free := make(gate)
	p := newPeer(t, free.wait)
	w.define("frozen", p.calling("/1"), p.calling("/2"))
	s := w.register()
	frozen := w.watcher()
	flow := s.post("frozen")
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(p.seen()) == 1 })
	other := w.watcher()
	stable(w)
	frozen.Signal(syscall.SIGSTOP)
	pgtest.Eventually(t, soon, "another one runs it", func() bool { return p.at("/1") == 2 })
	close(free)
	w.await(flow, "3 3")

	frozen.Signal(syscall.SIGCONT)
	frozen.Await("declared dead by the others: starting again under a new id")
	frozen.Await("late result refused: the task was changed by hand or taken over", "seq=1")
	require.Equal(t, "3 3", w.statuses(flow))
	require.Equal(t, 2, w.rows(flow)[0].Attempt)
	require.Equal(t, 1, p.at("/2"))

	other.Signal(syscall.SIGTERM)
	require.Equal(t, 0, other.Exit())
	w.define("quick", task{program: "NoOp"})
	w.await(s.post("quick"), "3")
	require.True(t, frozen.Running())
}
