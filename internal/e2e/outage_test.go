package e2e

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// through is the environment of a program that reaches the database by another URL.
func through(address string) []string { return []string{"DATABASE_URL=" + address} }

// programs starts register and a watcher, which answers health checks.
func (w *world) programs(env []string) (*server, *process) {
	w.Helper()
	s := serve(w.T, env)
	p := run(w.T, "watcher", env, "-health-addr", "127.0.0.1:0", "-poll-interval", "30s")
	p.Await("watching task...")
	return s, p
}

// ready asks a watcher whether it is ready.
func (p *process) ready() bool {
	p.t.Helper()
	address, _ := p.Await("health checks are answered")["address"].(string)
	watcher := server{process: p, url: "http://" + address}
	return watcher.send(http.MethodGet, "/readyz", "", "").status == http.StatusOK
}

func (s *server) readyNow() bool {
	s.t.Helper()
	return s.send(http.MethodGet, "/readyz", "", "").status == http.StatusOK
}

// All connections are ended again and again, whatever they do.
func TestBackendsTerminated(t *testing.T) {
	w := newWorld(t)
	s, watcher := w.programs(w.env())
	l := w.load(s)
	killed := 0
	for begun := time.Now(); time.Since(begun) < 4*time.Second; {
		var n int
		require.NoError(t, w.Get(&n, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name LIKE 'flower-%'`))
		killed += n
		l.progresses(soon)
	}
	require.Greater(t, killed, 20)
	t.Logf("%d backends were terminated", killed)
	l.verify()
	require.True(t, watcher.Running() && s.Running())
}

// Connections are reset in the midst of whatever they carry.
func TestConnectionsCut(t *testing.T) {
	w := newWorld(t)
	p, address := w.Proxy(t)
	s, watcher := w.programs(through(address))
	p.Fragile(50_000)
	p.Cut()
	l := w.load(s)
	for begun := time.Now(); time.Since(begun) < 4*time.Second; {
		l.progresses(soon)
	}
	p.Fragile(0)
	l.verify()
	require.True(t, watcher.Running() && s.Running())
}

// The network falls silent: nothing is closed, and nothing arrives. It is noticed, nobody
// waits for ever, and when it heals, all goes on; connections from before never do.
func TestNetworkSilent(t *testing.T) {
	for what, silence := range map[string]func(*pgtest.Proxy){
		"everything": (*pgtest.Proxy).Silence, "answers": (*pgtest.Proxy).SilenceAnswers,
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			p, address := w.Proxy(t)
			s, watcher := w.programs(through(address))
			free := make(gate)
			slow := newPeer(t, free.wait)
			w.define("slow", slow.calling("/1"), slow.calling("/2"))
			flow := s.post("slow")
			pgtest.Eventually(t, soon, "it runs", func() bool { return len(slow.seen()) == 1 })
			l := w.load(s)
			l.progresses(soon)

			silence(p)
			begun := time.Now()
			close(free) // its result has nowhere to go
			require.False(t, s.readyNow())
			require.Less(t, time.Since(begun), 5*time.Second)
			a := s.send(http.MethodPost, "/register/slow", "", "")
			require.Equal(t, http.StatusServiceUnavailable, a.status, a.text)
			require.Less(t, time.Since(begun), 5*time.Second+15*time.Second+5*time.Second)
			pgtest.Eventually(t, soon, "the watcher says so", func() bool { return !watcher.ready() })
			watcher.Await("the database did not take results or give tasks: trying again")
			require.True(t, watcher.Running() && s.Running())

			p.Lose()
			p.Heal()
			l.resumes()
			w.await(flow, "3 3")
			require.Equal(t, 2, slow.of(flow)) // the other one may exist: nobody could know
			pgtest.Eventually(t, soon, "both are ready", func() bool { return watcher.ready() && s.readyNow() })
			l.verify()
			quiet(t, watcher, s.process)
		})
	}
}

// Nor does a silent network keep a process from ending: it says that nobody knows of it.
func TestSIGTERMInSilence(t *testing.T) {
	w := newWorld(t)
	p, address := w.Proxy(t)
	s, watcher := w.programs(through(address))
	p.Silence()
	begun := time.Now()
	for _, process := range []*process{watcher, s.process} {
		process.Signal(syscall.SIGTERM)
	}
	require.Equal(t, 0, s.Exit(), "it had nothing to do")
	require.Equal(t, 1, watcher.Exit())
	require.Less(t, time.Since(begun), 15*time.Second)
	t.Logf("both ended after %s", time.Since(begun))
}

// quiet fails a test if a process has told of its outage again and again.
func quiet(t *testing.T, processes ...*process) {
	t.Helper()
	for _, p := range processes {
		n := map[string]int{}
		for _, ln := range p.Log.All() {
			if ln["level"] == "ERROR" || ln["level"] == "WARN" || strings.HasPrefix(ln["msg"].(string), "request") {
				n[ln["msg"].(string)]++
			}
		}
		for msg, times := range n {
			require.LessOrEqual(t, times, 3, "%s says %d times: %s", p.Name, times, msg)
		}
	}
}

// There is no connection to be had, at the start and later: both programs wait, say so,
// and go on.
func TestConnectionsExhausted(t *testing.T) {
	w := newWorld(t)
	role := "app_" + strings.TrimPrefix(w.Name, "flower_test_")
	w.exec(`CREATE ROLE ` + role + ` LOGIN SUPERUSER`) // to whom the limit does not apply yet
	t.Cleanup(func() { dropRole(t, w, role) })
	limit := func(to string) { w.exec(`ALTER ROLE ` + role + ` ` + to) }
	limit(`NOSUPERUSER CONNECTION LIMIT 0`)
	w.exec(`GRANT ALL ON ALL TABLES IN SCHEMA public TO ` + role)
	t.Cleanup(func() { w.exec(`DROP OWNED BY ` + role) })

	env := w.env("DB_USER=" + role)
	watcher := run(t, "watcher", env, "-health-addr", "127.0.0.1:0", "-poll-interval", "30s")
	register := run(t, "register", env, "-webport", "0")
	for _, p := range []*process{watcher, register} {
		require.Contains(t, p.Await("waiting for the database")["err"], "too many connections for role")
	}
	require.False(t, watcher.ready())
	limit(`CONNECTION LIMIT -1`)
	watcher.Await("watching task...")
	s := serving(register)
	l := w.load(s)
	l.progresses(soon)

	limit(`CONNECTION LIMIT 0`)
	w.exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1`, role)
	watcher.Await("heartbeat failed: trying again")
	register.Await("the database is away: requests are answered with 503")
	a := s.send(http.MethodPost, "/register/sample", "", "")
	require.Equal(t, http.StatusServiceUnavailable, a.status, a.text)
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.False(t, s.readyNow())
	pgtest.Eventually(t, soon, "the watcher says so", func() bool { return !watcher.ready() })

	limit(`CONNECTION LIMIT -1`)
	l.resumes()
	pgtest.Eventually(t, soon, "both are ready", func() bool { return watcher.ready() && s.readyNow() })
	l.verify()
	watcher.Await("heartbeats go through again")
	register.Await("the database is back")
	quiet(t, watcher, register)
}

// The database becomes read-only under both programs, as one does whose disk is full, or
// that is not the primary any more: they are not ready, keep what they have, and go on
// when it can be written again.
func TestDatabaseReadOnly(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start()
	w := c.world()
	s, watcher := w.programs(w.env())
	free := make(gate)
	slow := newPeer(t, free.wait)
	w.define("slow", slow.calling("/1"), slow.calling("/2"))
	flow := s.post("slow")
	l := w.load(s)
	l.progresses(soon)
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(slow.seen()) == 1 })

	// Everybody's connection is read-only from one moment to the next.
	w.exec(`ALTER SYSTEM SET default_transaction_read_only = on`)
	w.exec(`SELECT pg_reload_conf()`)
	watcher.Await("the database did not take results or give tasks: trying again")
	s.Await("the database is away: requests are answered with 503")
	pgtest.Eventually(t, soon, "they say so", func() bool { return !watcher.ready() && !s.readyNow() })
	close(free) // its result has nowhere to go
	a := s.send(http.MethodPost, "/register/slow", "", "")
	require.Equal(t, http.StatusServiceUnavailable, a.status, a.text)
	for range 50 { // by old connections and by new ones, while writers look for another server
		a = s.send(http.MethodGet, "/api/v1/flows/"+flow, "", "")
		require.Equal(t, http.StatusOK, a.status, a.text)
	}

	w.exec(`ALTER SYSTEM RESET default_transaction_read_only`)
	w.exec(`SELECT pg_reload_conf()`)
	l.resumes()
	w.await(flow, "3 3")
	require.Len(t, slow.seen(), 2)
	pgtest.Eventually(t, soon, "both are ready", func() bool { return watcher.ready() && s.readyNow() })
	l.verify()
	require.True(t, watcher.Running() && s.Running())
	quiet(t, watcher, s.process)
}
