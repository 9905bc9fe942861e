package e2e

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/commandtest"
	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// cluster is a PostgreSQL of a test's own, always at the same address, which can be away.
type cluster struct {
	t      *testing.T
	o      pgdev.Options
	server *pgdev.Server // nil: it is away
}

// newCluster makes a cluster with an empty database flower. It does not run yet.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "flower-e2e-db-") // not t.TempDir: PostgreSQL's user must get there
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	c := &cluster{t: t, o: pgdev.Options{DataDir: filepath.Join(dir, "data"), Port: commandtest.FreePort(t), Conf: []string{"max_connections=100"}}}
	t.Cleanup(func() {
		c.stop()
		require.NoError(t, os.RemoveAll(dir))
	})
	c.start()
	db, err := sqlx.Connect("postgres", c.server.URL("postgres"))
	require.NoError(t, err)
	_, err = db.Exec(`CREATE DATABASE flower`)
	require.NoError(t, errors.Join(err, db.Close()))
	c.stop()
	return c
}

func (c *cluster) start() {
	c.t.Helper()
	var err error
	// A server that was killed may still be there for a moment, as a process that nobody
	// has waited for, and the next one then refuses to start on its data.
	pgtest.Eventually(c.t, 30*time.Second, "PostgreSQL starts again", func() bool {
		c.server, err = pgdev.Start(context.Background(), c.o)
		return err == nil
	})
	require.NoError(c.t, err)
}

func (c *cluster) stop() {
	if c.server != nil {
		c.server.Stop()
		c.server = nil
	}
}

// world is what runs on the cluster, once it runs.
func (c *cluster) world() *world {
	c.t.Helper()
	url := c.server.URL("flower")
	db, err := sqlx.Connect("postgres", url)
	require.NoError(c.t, err)
	db.SetMaxOpenConns(2)
	c.t.Cleanup(func() { _ = db.Close() })
	return &world{c.t, &pgtest.DB{URL: url, DSN: c.server.DSN, Name: "flower", DB: db}}
}

// Both programs may be started before their database. They wait, register says so to
// whoever asks, and one of them makes the tables.
func TestStartedBeforeTheDatabase(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	env := databaseEnv(t, (&pgdev.Server{Port: c.o.Port}).URL("flower"))
	watcher := run(t, "watcher", env)
	site := "http://localhost:" + strconv.Itoa(commandtest.FreePort(t))
	register := run(t, "register", env, "-webport", site[len("http://localhost:"):])
	for _, p := range []*process{watcher, register} {
		p.Await("waiting for the database")
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/": 200, "/api/v1/flows": 503} {
		answer, err := http.Get(site + path)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, want, answer.StatusCode, path)
	}
	c.start()
	watcher.Await("watching task...")
	register.Await("starting server on address")
	w := c.world()
	w.define("quick", task{program: "NoOp"}, task{program: "NoOp"})
	s := serve(t, env) // another one, which finds the tables
	w.await(s.post("quick"), "3 3")
}

// The database is restarted under both: register says so meanwhile, the watcher keeps
// what it has, and both go on.
func TestDatabaseRestarted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start()
	w := c.world()
	s := w.register()
	watcher := w.watcher("-poll-interval", "1s")

	free := make(gate)
	p := newPeer(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1" {
			free.wait(rw, r)
		}
	})
	w.define("outage", p.calling("/1"), p.calling("/2"), p.calling("/3"))
	flow := s.post("outage")
	pgtest.Eventually(t, soon, "it runs", func() bool { return len(p.seen()) == 1 })

	c.stop()
	a := s.send(http.MethodPost, "/register", "", `{"taskId": "outage"}`)
	require.Equal(t, http.StatusServiceUnavailable, a.status, a.text)
	require.Contains(t, a.text, `"status":"failed"`)
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.Equal(t, http.StatusServiceUnavailable, s.send(http.MethodGet, "/readyz", "", "").status)
	require.Equal(t, http.StatusOK, s.send(http.MethodGet, "/healthz", "", "").status)
	close(free) // its result has nowhere to go yet
	watcher.Await("the database did not take results or give tasks: trying again")

	c.start()
	back := time.Now()
	w = c.world()
	w.await(flow, "3 3 3")
	t.Logf("the flow went on and ended %s after the database was back", time.Since(back))
	require.Len(t, p.seen(), 3, "nothing ran twice")
	require.Equal(t, 1, w.rows(flow)[0].Attempt)
	pgtest.Eventually(t, soon, "register is ready", func() bool {
		return s.send(http.MethodGet, "/readyz", "", "").status == http.StatusOK
	})
	w.await(s.post("outage"), "3 3 3")
	require.True(t, watcher.Running())
	require.True(t, s.Running())
	w.sound()
}
