package pgtest_test

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// noWait spares a child the second that the race detector waits at a process's end.
const noWait = "GORACE=atexit_sleep_ms=0"

func TestNew_MigratedAndApart(t *testing.T) {
	t.Parallel()
	a, b := pgtest.New(t), pgtest.New(t)
	require.NotEqual(t, a.Name, b.Name)

	_, err := a.Exec("INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('mine', 1, 'shell')")
	require.NoError(t, err)
	var n int
	require.NoError(t, b.Get(&n, "SELECT count(*) FROM ms_task_definition WHERE task_id = 'mine'"))
	require.Zero(t, n)
}

func TestNew_Addresses(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	const who = "SELECT current_database(), current_setting('application_name'), current_setting('TimeZone')"
	var name, application, zone string
	require.NoError(t, db.QueryRow(who).Scan(&name, &application, &zone))
	require.Equal(t, []string{db.Name, "pgtest", "UTC"}, []string{name, application, zone})

	for _, address := range []string{db.DSN, db.DSN + " application_name=flower", db.URL, db.URL + "&application_name=flower"} {
		pool, err := sql.Open("postgres", address)
		require.NoError(t, err)
		defer func() { _ = pool.Close() }()
		require.NoError(t, pool.QueryRow(who).Scan(&name, &application, &zone), address)
		require.Equal(t, db.Name, name)
		require.Equal(t, strings.HasSuffix(address, "application_name=flower"), application == "flower")
	}
}

// A test's database goes with the test, whoever is still connected to it.
func TestNew_DroppedWithTheTest(t *testing.T) {
	t.Parallel()
	look := pgtest.Empty(t)
	var name string
	var left *sql.DB
	t.Run("inner", func(t *testing.T) {
		db := pgtest.New(t)
		name = db.Name
		var err error
		left, err = sql.Open("postgres", db.DSN)
		require.NoError(t, err)
		require.NoError(t, left.Ping())
	})
	defer func() { _ = left.Close() }()
	var n int
	require.NoError(t, look.Get(&n, "SELECT count(*) FROM pg_database WHERE datname = $1", name))
	require.Zero(t, n)
	require.Error(t, left.Ping())
}

func TestEmpty(t *testing.T) {
	t.Parallel()
	var n int
	require.NoError(t, pgtest.Empty(t).Get(&n, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))
	require.Zero(t, n)
}

// The template cannot be connected to, so that it can be copied at any moment.
func TestNew_TemplateIsClosed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	var template string
	require.NoError(t, db.Get(&template, `SELECT datname FROM pg_database WHERE datname LIKE 'flower\_tpl\_%' AND NOT datallowconn LIMIT 1`))
	pool, err := sql.Open("postgres", db.DSN+" dbname="+template)
	require.NoError(t, err)
	defer func() { _ = pool.Close() }()
	require.ErrorContains(t, pool.Ping(), "not currently accepting connections")
}

// Packages are processes: several of them, each with many tests at once, start on a server
// that has no template yet.
func TestNew_ManyProcessesAndTests(t *testing.T) {
	t.Parallel()
	if os.Getenv("PGTEST_TEST_CHILD") != "" {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				t.Run(fmt.Sprint(i), func(t *testing.T) { require.NoError(t, pgtest.New(t).Ping()) })
			})
		}
		all.Wait()
		return
	}
	s, err := pgtest.StartServer(t.Context())
	require.NoError(t, err)
	defer s.Stop()
	var all sync.WaitGroup
	outs, errs := make([][]byte, 4), make([]error, 4)
	for i := range outs {
		c := exec.Command(os.Args[0], "-test.run=^TestNew_ManyProcessesAndTests$")
		c.Env = append(os.Environ(), "PGTEST_TEST_CHILD=1", noWait, pgtest.EnvDSN+"="+s.URL("postgres"))
		all.Go(func() { outs[i], errs[i] = c.CombinedOutput() })
	}
	all.Wait()
	require.NoError(t, errors.Join(errs...), "%s", outs)

	db, err := sql.Open("postgres", s.DSN)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	var templates, others int
	require.NoError(t, db.QueryRow(`SELECT count(*) FILTER (WHERE datname LIKE 'flower\_tpl\_%'),
		count(*) FILTER (WHERE datname LIKE 'flower\_test\_%') FROM pg_database`).Scan(&templates, &others))
	require.Equal(t, 1, templates)
	require.Zero(t, others, "all are dropped")
}

// A template whose maker was killed is one that can still be connected to.
func TestNew_UnfinishedTemplateIsMadeAgain(t *testing.T) {
	t.Parallel()
	if os.Getenv("PGTEST_TEST_CHILD") != "" {
		require.NoError(t, pgtest.New(t).Get(new(int), "SELECT count(*) FROM kr_task_stat"))
		return
	}
	s, err := pgtest.StartServer(t.Context())
	require.NoError(t, err)
	defer s.Stop()
	db, err := sql.Open("postgres", s.DSN)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()

	child := func() {
		c := exec.Command(os.Args[0], "-test.run=^TestNew_UnfinishedTemplateIsMadeAgain$")
		c.Env = append(os.Environ(), "PGTEST_TEST_CHILD=1", noWait, pgtest.EnvDSN+"="+s.DSN)
		out, childErr := c.CombinedOutput()
		require.NoError(t, childErr, string(out))
	}
	child()
	var name string
	require.NoError(t, db.QueryRow(`SELECT datname FROM pg_database WHERE datname LIKE 'flower\_tpl\_%'`).Scan(&name))
	_, err = db.Exec("DROP DATABASE " + name)
	require.NoError(t, err)
	_, err = db.Exec("CREATE DATABASE " + name)
	require.NoError(t, err)
	child()
}

func TestEventually(t *testing.T) {
	t.Parallel()
	calls := 0
	pgtest.Eventually(t, time.Minute, "three calls", func() bool { calls++; return calls == 3 })
	require.Equal(t, 3, calls)

	failed := &recorder{TB: t}
	done := make(chan struct{})
	go func() { // Fatalf ends the goroutine
		defer close(done)
		pgtest.Eventually(failed, time.Millisecond, "pigs fly", func() bool { return false })
	}()
	<-done
	require.Equal(t, "not within 1ms: pigs fly", failed.text)
}

// A look that takes longer than the deadline counts, if it is what was waited for.
func TestEventually_LooksALastTime(t *testing.T) {
	t.Parallel()
	over := time.NewTimer(20 * time.Millisecond)
	pgtest.Eventually(t, time.Millisecond, "the second look", func() bool {
		if over == nil {
			return true
		}
		<-over.C
		over = nil
		return false
	})
}

// recorder is a test that fails without harm.
type recorder struct {
	testing.TB
	text string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.text = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// BenchmarkNew is what every test pays.
func BenchmarkNew(b *testing.B) {
	pgtest.New(b)
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			pgtest.New(b)
		}
	})
}
