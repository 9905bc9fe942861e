package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// pooled is a cluster behind a transaction pooler, which gives each transaction whichever
// connection is free. There are few, so that they change hands all the time.
type pooled struct {
	*cluster
	pooler *pgdev.Server
	port   int
}

func newPooled(t *testing.T) *pooled {
	t.Helper()
	if _, err := pgdev.FindPooler(); err != nil {
		t.Skip(err)
	}
	p := &pooled{cluster: newCluster(t), port: commandtest.FreePort(t)}
	p.start()
	t.Cleanup(p.stopPooler)
	p.startPooler()
	return p
}

func (p *pooled) startPooler() {
	p.t.Helper()
	var err error
	p.pooler, err = pgdev.StartPooler(context.Background(), p.o.Port, p.port,
		"default_pool_size = 8", "server_login_retry = 1", "server_reset_query_always = 0")
	require.NoError(p.t, err)
}

func (p *pooled) stopPooler() {
	if p.pooler != nil {
		p.pooler.Stop()
		p.pooler = nil
	}
}

// console tells the pooler something.
func (p *pooled) console(command string) {
	p.t.Helper()
	db, err := sql.Open("postgres", p.pooler.DSN+" dbname=pgbouncer")
	require.NoError(p.t, err)
	defer func() { _ = db.Close() }()
	_, err = db.Exec(command)
	require.NoError(p.t, err, command)
}

// env reaches the database through the pooler.
func (p *pooled) env() []string {
	return []string{
		fmt.Sprintf("DATABASE_URL=postgres://flower@127.0.0.1:%d/flower?sslmode=disable", p.port), "FLOWER_DB_POOLER=true",
	}
}

// The whole of it through a transaction pooler: the migrations, by both programs at once,
// registrations, work, a watcher that is killed, changes by hand, the end.
func TestPooler(t *testing.T) {
	t.Parallel()
	p := newPooled(t)
	watchers := []*process{run(t, "watcher", p.env(), "-poll-interval", "1s"), run(t, "watcher", p.env(), "-poll-interval", "1s")}
	s := serve(t, p.env())
	for _, watcher := range watchers {
		watcher.Await("watching task...")
	}
	w := p.world()
	var locks int
	require.NoError(t, w.Get(&locks, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4097083626`))
	require.Zero(t, locks, "the migrations' lock is nobody's")
	l := w.load(s)
	l.progresses(soon)

	// Nobody is notified through a pooler: a change by hand is found by the next poll.
	free := make(gate)
	slow := newPeer(t, free.wait)
	w.define("slow", slow.calling("/1"), slow.calling("/2"))
	held := s.post("slow")
	pgtest.Eventually(t, soon, "it runs", func() bool { return slow.at("/1") == 1 })
	w.exec(`UPDATE kr_task_stat SET exec_status = 2 WHERE task_flow_id = $1 AND task_exec_seq = 1`, held)
	pgtest.Eventually(t, soon, "it is cancelled", func() bool { return slow.seen()[0].gone })
	w.exec(`UPDATE kr_task_stat SET exec_status = 0, run_after = NULL WHERE task_flow_id = $1 AND task_exec_seq = 1`, held)
	pgtest.Eventually(t, soon, "it runs again", func() bool { return slow.at("/1") == 2 })

	// Its tasks are rescued by the other one.
	l.verify()
	stable(w)
	var pid int
	require.NoError(t, w.Get(&pid, `SELECT pid FROM kr_watcher WHERE watcher_id = (SELECT watcher_id FROM kr_task_stat WHERE task_flow_id = $1 AND exec_status = 1)`, held))
	survivor := watchers[0]
	for i, watcher := range watchers {
		if watcher.Cmd.Process.Pid == pid {
			survivor = watchers[1-i]
			watcher.Signal(syscall.SIGKILL)
		}
	}
	pgtest.Eventually(t, soon, "it runs once more", func() bool { return slow.at("/1") == 3 })
	close(free)
	w.await(held, "3 3")
	survivor.Await("task rescued")

	require.Equal(t, http.StatusOK, s.send(http.MethodGet, "/api/v1/flows/"+held, "", "").status)
	for _, process := range []*process{survivor, s.process} {
		process.Signal(syscall.SIGTERM)
		require.Equal(t, 0, process.Exit())
	}
	var n int
	require.NoError(t, w.Get(&n, `SELECT count(*) FROM kr_watcher`))
	require.Zero(t, n)
	w.sound()
}

// The pooler, or what is behind it, is restarted under load; its connections are those of
// others now.
func TestPoolerOutage(t *testing.T) {
	t.Parallel()
	p := newPooled(t)
	s, watcher := serve(t, p.env()), run(t, "watcher", p.env(), "-poll-interval", "1s")
	watcher.Await("watching task...")
	w := p.world()
	l := w.load(s)
	l.progresses(soon)

	p.stopPooler()
	s.Await("the database is away: requests are answered with 503")
	p.startPooler()
	l.resumes()

	// It is told to let nobody through: to us that is a silence.
	beats := func() int { return len(watcher.Log.With("heartbeat failed: trying again")) }
	before := beats()
	p.console(`PAUSE`)
	pgtest.Eventually(t, soon, "it is noticed", func() bool { return beats() > before })
	p.console(`RESUME`)
	l.resumes()

	p.stop()
	require.False(t, s.readyNow())
	p.start()
	l.w = p.world()
	l.resumes()

	for range 10 {
		l.w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'flower-%'`)
		l.progresses(soon)
	}
	l.verify()
	require.True(t, watcher.Running() && s.Running())
}
