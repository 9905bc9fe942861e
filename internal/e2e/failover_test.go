package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// pair is a primary and a standby that follows it, each behind a network of its own.
type pair struct {
	*cluster
	standby         *pgdev.Server
	primaryNet, net *pgtest.Proxy // net is the standby's
}

func newPair(t *testing.T) *pair {
	t.Helper()
	if _, err := pgdev.FindBaseBackup(); err != nil {
		t.Skip(err)
	}
	p := &pair{cluster: newCluster(t)}
	p.start()
	var err error
	p.standby, err = pgdev.Start(context.Background(), pgdev.Options{Standby: p.server, Conf: p.o.Conf})
	require.NoError(t, err)
	t.Cleanup(p.standby.Stop)
	p.primaryNet = pgtest.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", p.server.Port))
	p.net = pgtest.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", p.standby.Port))
	return p
}

// env names both servers, in either order.
func (p *pair) env(primaryFirst bool) []string {
	ports := []int{p.primaryNet.Port, p.net.Port}
	if !primaryFirst {
		ports = []int{p.net.Port, p.primaryNet.Port}
	}
	return []string{fmt.Sprintf("DATABASE_URL=host=127.0.0.1,127.0.0.1 port=%d,%d user=flower dbname=flower sslmode=disable target_session_attrs=read-write",
		ports[0], ports[1])}
}

// caughtUp waits until the standby has all that the primary has.
func (p *pair) caughtUp(w *world) {
	p.t.Helper()
	var wal string
	require.NoError(p.t, w.Get(&wal, `SELECT pg_current_wal_lsn()::text`))
	db := p.openStandby()
	pgtest.Eventually(p.t, soon, "the standby has caught up", func() (yes bool) {
		require.NoError(p.t, db.Get(&yes, `SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn`, wal))
		return yes
	})
}

func (p *pair) openStandby() *sqlx.DB {
	p.t.Helper()
	db, err := sqlx.Connect("postgres", p.standby.URL("flower"))
	require.NoError(p.t, err)
	db.SetMaxOpenConns(2)
	p.t.Cleanup(func() { _ = db.Close() })
	return db
}

// promote makes the standby the primary, and returns the world on it.
func (p *pair) promote() *world {
	p.t.Helper()
	db := p.openStandby()
	_, err := db.Exec(`SELECT pg_promote()`)
	require.NoError(p.t, err)
	url := p.standby.URL("flower")
	return &world{p.t, &pgtest.DB{URL: url, DSN: p.standby.DSN, Name: "flower", DB: db}}
}

// The primary is stopped, in the midst of everything, and the standby takes its place:
// both programs find it by themselves, and nothing that was acknowledged is lost or done
// twice. The network to the standby is listed first: it is passed by as long as it is one.
func TestFailover(t *testing.T) {
	t.Parallel()
	pair := newPair(t)
	w := pair.world()
	s, watcher := w.programs(pair.env(false))
	free := make(gate)
	slow := newPeer(t, free.wait)
	w.define("slow", slow.calling("/1"), slow.calling("/2"))
	flow := s.post("slow")
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(slow.seen()) == 1 })
	l := w.load(s)
	l.progresses(soon)

	pair.stop() // it ends when the standby has everything
	close(free) // its result is recorded by nobody yet
	watcher.Await("the database did not take results or give tasks: trying again")
	require.False(t, s.readyNow())
	l.w = pair.promote()
	l.resumes()
	l.w.await(flow, "3 3")
	require.Len(t, slow.seen(), 2)
	require.Equal(t, 1, l.w.rows(flow)[0].Attempt)
	pgtest.Eventually(t, soon, "both are ready", func() bool { return watcher.ready() && s.readyNow() })
	l.verify()
	require.True(t, watcher.Running() && s.Running())
	quiet(t, watcher, s.process)
}

// The primary's host is gone without a word: nobody closes a connection, and none is
// refused. It stays the first in the list.
func TestFailoverFromASilentHost(t *testing.T) {
	t.Parallel()
	pair := newPair(t)
	w := pair.world()
	s, watcher := w.programs(pair.env(true))
	free := make(gate)
	slow := newPeer(t, free.wait)
	w.define("slow", slow.calling("/1"), slow.calling("/2"))
	posted := time.Now()
	flow := s.post("slow")
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(slow.seen()) == 1 })
	usual := time.Since(posted)
	pair.primaryNet.Silence()
	pair.caughtUp(w)
	pair.stop()
	close(free)
	pgtest.Eventually(t, soon, "they say so", func() bool { return !watcher.ready() && !s.readyNow() })
	watcher.Await("the database did not take results or give tasks: trying again")

	w = pair.promote()
	promoted := time.Now()
	w.await(flow, "3 3")
	resumed := time.Since(promoted)
	t.Logf("work went on %s after the promotion", resumed)
	require.Less(t, resumed, promisedHere(usual))
	require.Len(t, slow.seen(), 2)
	require.Equal(t, 1, w.rows(flow)[0].Attempt)
	pgtest.Eventually(t, soon, "both are ready", func() bool { return watcher.ready() && s.readyNow() })
	require.Equal(t, http.StatusCreated, s.send(http.MethodPost, "/register/sample", "", "").status)
	w.sound()
	require.True(t, watcher.Running() && s.Running())
	quiet(t, watcher, s.process)
}
