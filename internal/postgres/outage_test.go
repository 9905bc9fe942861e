package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/migrations"
)

// shortLimits are for what is silent: nobody has time to wait for the usual ones.
var shortLimits = limits{
	silence: 200 * time.Millisecond, probe: 500 * time.Millisecond,
	quick: time.Second, slow: time.Minute, beat: 200 * time.Millisecond, logs: time.Second,
}

// held is how long a call may be held up under them. By a silence and a probe, or by the
// making of a connection (1 s), it is for a second; the rest is for a busy machine. It is
// shorter than what somebody waits for who notices nothing.
const held = 30 * time.Second

// through opens a database by another URL, as one more process does.
func through(t *testing.T, address string) *DB {
	t.Helper()
	return limited(t, address+"&connect_timeout=10", usualLimits)
}

// limited is through with limits and a connect_timeout for what a test is about.
func limited(t *testing.T, address string, l limits) *DB {
	t.Helper()
	d, err := Open(Config{URL: address, Application: "flower-outage", limits: l}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// call is one of what a process asks of its database.
type call struct {
	writes bool
	do     func(ctx context.Context, d *DB) error
}

// calls has all of them.
func calls(w *world, id flow.ID) map[string]call {
	claim := flow.Claim{Watcher: w.watcher, Programs: programs}
	return map[string]call{
		"Advance": {true, func(ctx context.Context, d *DB) error {
			c := claim
			c.ID, c.Free = newID(), 1
			_, err := d.Advance(ctx, nil, c)
			return err
		}},
		"Beat":  {true, func(ctx context.Context, d *DB) error { _, err := d.Beat(ctx, w.watcher, nil); return err }},
		"Drain": {true, func(ctx context.Context, d *DB) error { return d.Drain(ctx, newID()) }},
		"Flow":  {false, func(ctx context.Context, d *DB) error { _, err := d.Flow(ctx, id); return err }},
		"Join": {true, func(ctx context.Context, d *DB) error {
			return d.Join(ctx, flow.Watcher{ID: newID(), Programs: programs})
		}},
		"Leave":   {true, func(ctx context.Context, d *DB) error { return d.Leave(ctx, newID(), false) }},
		"Migrate": {true, func(ctx context.Context, d *DB) error { return translate("migrate", d.migrate(ctx, migrations.Up)) }},
		"Owned": {true, func(ctx context.Context, d *DB) error {
			_, err := d.Owned(ctx, w.watcher, []string{newID()})
			return err
		}},
		"Promote": {true, func(ctx context.Context, d *DB) error { _, _, err := d.Promote(ctx); return err }},
		"Ready":   {true, func(ctx context.Context, d *DB) error { return d.Ready(ctx) }},
		"Refuse":  {true, func(ctx context.Context, d *DB) error { _, err := d.Refuse(ctx, "nobody's", "x"); return err }},
		"Register": {true, func(ctx context.Context, d *DB) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // it tries again and again
			defer cancel()
			_, err := d.Register(ctx, flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "sample"})
			return err
		}},
		"Rescue":    {true, func(ctx context.Context, d *DB) error { return d.Rescue(ctx, w.watcher, func([]flow.Rescued) {}) }},
		"Strangers": {false, func(ctx context.Context, d *DB) error { _, err := d.Strangers(ctx, programs); return err }},
		"Sweep":     {true, func(ctx context.Context, d *DB) error { _, err := d.Sweep(ctx); return err }},
	}
}

// each does something for every call at once, and returns what came of it.
func each(calls map[string]call, do func(name string, c call) error) map[string]error {
	var mu sync.Mutex
	var all sync.WaitGroup
	errs := make(map[string]error, len(calls))
	for name, c := range calls {
		all.Go(func() {
			err := do(name, c)
			mu.Lock()
			defer mu.Unlock()
			errs[name] = err
		})
	}
	all.Wait()
	return errs
}

// eventually repeats a call until the database can be used, which is expected soon. Under
// short limits a call may fail on a busy machine, too.
func eventually(do func() error) error {
	for begun := time.Now(); ; {
		err := do()
		switch {
		case err != nil && !errors.Is(err, flow.ErrUnavailable):
			return fmt.Errorf("it is not the database that is away: %w", err)
		case err == nil || time.Since(begun) > time.Minute:
			return err
		}
	}
}

// On a network that has fallen silent, no call blocks for long, neither on a connection
// that was there before nor on a new one, and all work again when it heals.
func TestSilence(t *testing.T) {
	t.Parallel()
	for what, silence := range map[string]func(*pgtest.Proxy){
		"of everything": (*pgtest.Proxy).Silence, "of the answers": (*pgtest.Proxy).SilenceAnswers,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := open(t)
			p, address := w.psql.Proxy(t)
			all, process := calls(w, register(t, w, chain(3)...)), map[string]*DB{}
			for name, c := range all {
				process[name] = limited(t, address+"&connect_timeout=1", shortLimits)
				require.NoError(t, eventually(func() error { return c.do(background, process[name]) }), name)
			}
			silence(p)
			for _, on := range []string{"the connection that was there", "a new one"} {
				begun := time.Now()
				for name, err := range each(all, func(name string, c call) error { return c.do(background, process[name]) }) {
					require.ErrorIs(t, err, flow.ErrUnavailable, "%s on %s", name, on)
				}
				require.Less(t, time.Since(begun), held)
			}
			p.Lose()
			p.Heal()
			for name, err := range each(all, func(name string, c call) error {
				return eventually(func() error { return c.do(background, process[name]) })
			}) {
				require.NoError(t, err, name)
			}
		})
	}
}

// When one connection was found dead, none that is as old is used again: each would cost
// its user the same time.
func TestSilence_OneDeadConnectionSpeaksForAll(t *testing.T) {
	t.Parallel()
	w := open(t)
	p, address := w.psql.Proxy(t)
	l := limits{silence: 200 * time.Millisecond, probe: 10 * time.Second, quick: time.Minute, slow: time.Minute, beat: 200 * time.Millisecond, logs: time.Minute}
	d := limited(t, address+"&connect_timeout=10", l)
	all := calls(w, register(t, w, chain(3)...))
	for name, c := range all {
		require.NoError(t, eventually(func() error { return c.do(background, d) }), name)
	}
	p.Lose() // what there is; new connections work
	require.ErrorIs(t, all["Beat"].do(background, d), flow.ErrUnavailable)
	for name, c := range all {
		begun := time.Now()
		require.NoError(t, eventually(func() error { return c.do(background, d) }), name)
		require.Less(t, time.Since(begun), l.quick/2, name)
	}
}

// What reads whole tables takes long on a network that is well: it is given up only when
// the server does not answer others either.
func TestSilence_SlowIsNotDead(t *testing.T) {
	t.Parallel()
	w := open(t)
	p, address := w.psql.Proxy(t)
	d := limited(t, address+"&connect_timeout=3", limits{silence: 200 * time.Millisecond, probe: 3 * time.Second, quick: 2 * time.Second, slow: time.Minute, beat: time.Second, logs: time.Second})
	sleep := func(pool *sqlx.DB, seconds float64) error {
		_, err := pool.Exec(`SELECT pg_sleep($1)`, seconds)
		return err
	}
	require.NoError(t, sleep(d.slow, 3))
	require.NoError(t, sleep(d.pool, 0.4))
	err := sleep(d.pool, 4)
	require.Error(t, err, "there is an end to it")
	require.True(t, broken(err))

	// A context's end sends a cancel request, whose answer is not waited for either.
	asked := async(func() error { return sleep(d.slow, 60) })
	pgtest.Eventually(t, soon, "it sleeps", func() bool {
		return value[bool](t, w, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'flower-outage' AND state = 'active')`)
	})
	p.Silence()
	begun := time.Now()
	require.Error(t, asked())
	require.Less(t, time.Since(begun), held)
	p.Heal()
}

// The next host is tried as soon as the time for one is over, also where something there
// takes connections and says nothing, and TLS was asked for first.
func TestSilence_OfOneHost(t *testing.T) {
	t.Parallel()
	w := open(t)
	silent, _ := w.psql.Proxy(t)
	silent.Silence()
	well, _ := w.psql.Proxy(t)
	const timeout = 4 * time.Second
	d := limited(t, fmt.Sprintf("postgres://flower@127.0.0.1:%d,127.0.0.1:%d/%s?sslmode=prefer&connect_timeout=4", silent.Port, well.Port, w.psql.Name), usualLimits)
	begun := time.Now()
	require.NoError(t, d.Ready(background))
	require.GreaterOrEqual(t, time.Since(begun), timeout)
	require.Less(t, time.Since(begun), 2*timeout, "once")

	// Now it is known where the server is.
	begun = time.Now()
	all := calls(w, register(t, w, chain(3)...))
	for name, c := range all {
		require.NoError(t, c.do(background, d), name)
	}
	require.Less(t, time.Since(begun), time.Duration(len(all))*timeout/2, "though each call could have waited")
}

// A connection that leads to another host than the last one did ends the use of those to
// the old one.
func TestHosts_Switch(t *testing.T) {
	t.Parallel()
	w := open(t)
	one, _ := w.psql.Proxy(t)
	other, _ := w.psql.Proxy(t)
	l := limits{silence: 30 * time.Second, probe: 30 * time.Second, quick: time.Minute, slow: time.Minute, beat: time.Minute, logs: time.Minute}
	d := limited(t, fmt.Sprintf("postgres://flower@127.0.0.1:%d,127.0.0.1:%d/%s?sslmode=disable&connect_timeout=3", one.Port, other.Port, w.psql.Name), l)
	all := calls(w, register(t, w, chain(3)...))
	for name, c := range all {
		require.NoError(t, c.do(background, d), name)
	}
	one.Silence()
	require.NoError(t, all["Migrate"].do(background, d), "it always makes a connection")
	begun := time.Now()
	for name, c := range all {
		require.NoError(t, c.do(background, d), name)
	}
	require.Less(t, time.Since(begun), l.silence, "nobody has waited for the old one")
}

// The real limits, which no test can wait for, fit together, and keep what is promised: no
// call is held up for longer than 15 s, and no watcher loses its lease to one dead
// connection.
func TestLimits(t *testing.T) {
	t.Parallel()
	setting := func(settings []string, name string) time.Duration {
		for _, s := range slices.Backward(settings) { // the last one counts
			if text, found := strings.CutPrefix(s, name+"="); found {
				ms, err := strconv.Atoi(text)
				require.NoError(t, err)
				return time.Duration(ms) * time.Millisecond
			}
		}
		require.FailNow(t, "no "+name)
		return 0
	}
	parsed, err := pq.NewConfig(Config{}.dsn())
	require.NoError(t, err)
	connect := parsed.ConnectTimeout
	l := usualLimits
	require.LessOrEqual(t, l.silence+l.probe, 6*time.Second, "of everything")
	require.LessOrEqual(t, l.quick+l.probe, 15*time.Second, "of one connection")
	require.LessOrEqual(t, connect, l.probe)
	for name, c := range map[string]struct {
		settings []string
		limit    time.Duration
	}{
		"pool":   {sessionSettings, l.quick},
		"engine": {engineSettings, l.quick},
		"slow":   {slowSettings, l.slow},
		"beat":   {beatSettings, l.beat},
	} {
		require.Less(t, setting(c.settings, "statement_timeout"), c.limit, "%s: the server's own error comes first", name)
		require.Less(t, setting(c.settings, "lock_timeout"), setting(c.settings, "statement_timeout"), name)
	}
	const heartbeat, pause = 2 * time.Second, 250 * time.Millisecond // of package watcher
	require.Less(t, heartbeat+l.beat+pause+connect, secondsOf(t, leaseSQL), "the next heartbeat, on a new connection, is in time")
	require.Greater(t, secondsOf(t, leaseSQL), secondsOf(t, lateSQL)+heartbeat+connect)
}

// secondsOf reads an interval of SQL.
func secondsOf(t *testing.T, interval string) time.Duration {
	t.Helper()
	var n int
	_, err := fmt.Sscanf(interval, "interval '%d s'", &n)
	require.NoError(t, err)
	return time.Duration(n) * time.Second
}

// A read-only database takes nothing, reads as before, and is noticed by everybody. The
// connections are made anew, so that whoever takes writes by then is found.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := through(t, w.psql.URL)
	all := calls(w, register(t, w, chain(3)...))
	for name, c := range all {
		require.NoError(t, c.do(background, d), name)
	}
	setReadOnly(t, w, true)
	for name, c := range all {
		if !c.writes {
			require.NoError(t, eventually(func() error { return c.do(background, d) }), name)
			continue
		}
		var err error
		pgtest.Eventually(t, soon, name+" finds out", func() bool { // first it may have a connection that was ended
			err = c.do(background, d)
			require.ErrorIs(t, err, flow.ErrUnavailable, name)
			return strings.Contains(err.Error(), "read-only")
		})
	}
	// A connection that was made meanwhile stays read-only.
	setReadOnly(t, w, false)
	for name, c := range all {
		require.NoError(t, eventually(func() error { return c.do(background, d) }), name)
	}
}

// Who writes to a read-only database makes connections anew, again and again. Nobody who
// reads notices, not even on a connection that is made meanwhile.
func TestReadOnly_ReadsGoOn(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, chain(3)...)
	setReadOnly(t, w, true)
	d := through(t, w.psql.URL)
	ctx, cancel := context.WithTimeout(background, 3*anew)
	defer cancel()
	var writers sync.WaitGroup
	var refused atomic.Int32
	for range 4 {
		writers.Go(func() {
			for ctx.Err() == nil {
				if _, err := d.Sweep(ctx); err != nil {
					refused.Add(1)
				}
			}
		})
	}
	read := 0
	for ; ctx.Err() == nil; read++ {
		_, err := d.Flow(background, id)
		require.NoError(t, err)
	}
	writers.Wait()
	require.Greater(t, refused.Load(), int32(3))
	t.Logf("%d reads beside %d refused writes", read, refused.Load())
}

// Of several servers the one that takes writes is meant; while there is none, another one
// will do to read from, until there is one again.
func TestReadOnly_SeveralHosts(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, chain(3)...)
	d := through(t, strings.Replace(w.psql.URL, "@", "@127.0.0.1:1,", 1))
	_, err := d.Flow(t.Context(), id)
	require.NoError(t, err)
	setReadOnly(t, w, true)
	require.NoError(t, eventually(func() error { _, lookErr := d.Flow(background, id); return lookErr }))
	_, err = d.Cells(background, []flow.ID{id}, 3)
	require.NoError(t, err)
	_, err = d.DefinitionVersions(background, "sample", 0, 10)
	require.NoError(t, err)
	require.ErrorIs(t, d.Ready(background), flow.ErrUnavailable)
	_, err = d.Sweep(background)
	require.ErrorIs(t, err, flow.ErrUnavailable)

	setReadOnly(t, w, false)
	require.NoError(t, eventually(func() error { return d.Ready(background) }))
	require.NoError(t, eventually(func() error { _, err := d.Flow(background, id); return err }))
	require.False(t, d.net.makeshift.Load(), "those that were makeshift are used no more")
	require.NoError(t, eventually(func() error { _, err := d.Sweep(background); return err }))
}

// A makeshift connection is used until the right server is found: even one that was made
// while somebody was on the way to that. Those to the right server stay.
func TestHosts_MakeshiftUntilTheRightOneIsFound(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := through(t, strings.Replace(w.psql.URL, "@", "@127.0.0.1:1,", 1))
	d.net.makeshift.Store(true)
	require.NoError(t, d.Ready(background))
	require.False(t, d.net.makeshift.Load(), "it is found, and on another host than the last one")

	peer, end := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	t.Cleanup(func() { _, _ = peer.Close(), end.Close() })
	reader := d.net.reader(time.Minute)
	right := &watchedConn{Conn: end, dialer: reader, made: time.Now()}
	reader.makeshift = true
	makeshift := &watchedConn{Conn: end, dialer: reader, made: time.Now().Add(time.Minute)}
	d.net.makeshift.Store(true)
	for _, c := range []*watchedConn{right, makeshift} {
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
	}
	_, err := d.reads.Exec(`SELECT 1`)
	require.NoError(t, err)
	_, err = makeshift.Write([]byte("x"))
	require.ErrorIs(t, err, errDistrusted)
	_, err = right.Write([]byte("x"))
	require.NoError(t, err)
}

// Who only reads waits once for a host that is dead: it is known by then which one is there.
func TestHosts_MakeshiftIsKnown(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, chain(1)...)
	setReadOnly(t, w, true)
	silent, _ := w.psql.Proxy(t)
	silent.Silence()
	well, _ := w.psql.Proxy(t)
	const timeout = 4 * time.Second
	d := limited(t, fmt.Sprintf("postgres://flower@127.0.0.1:%d,127.0.0.1:%d/%s?sslmode=disable&connect_timeout=4", silent.Port, well.Port, w.psql.Name), usualLimits)
	begun := time.Now()
	_, err := d.Flow(background, id)
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(begun), timeout)
	require.Less(t, time.Since(begun), 2*timeout, "once")
}

// A standby is read-only in ways of its own; when it is promoted, the same connections
// could be used, and others are.
func TestReadOnly_Standby(t *testing.T) {
	t.Parallel()
	if _, err := pgdev.FindBaseBackup(); err != nil {
		t.Skip(err)
	}
	primary, err := pgdev.Start(t.Context(), pgdev.Options{TmpDir: pgdev.MemoryDir()})
	require.NoError(t, err)
	t.Cleanup(primary.Stop)
	w := &world{psql: &pgtest.DB{URL: primary.URL("postgres")}}
	w.psql.DB, err = sqlx.Connect("postgres", w.psql.URL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.psql.Close() })
	w.DB = through(t, w.psql.URL)
	require.NoError(t, w.Migrate(t.Context()))
	w.watcher = join(t, w, programs...)
	all := calls(w, register(t, w, chain(3)...))
	standby, err := pgdev.Start(t.Context(), pgdev.Options{TmpDir: pgdev.MemoryDir(), Standby: primary})
	require.NoError(t, err)
	t.Cleanup(standby.Stop)

	d := through(t, standby.URL("postgres"))
	for name, c := range all {
		if !c.writes {
			require.NoError(t, c.do(background, d), name)
			continue
		}
		require.ErrorIs(t, c.do(background, d), flow.ErrUnavailable, name)
	}
	db, err := sqlx.Connect("postgres", standby.URL("postgres"))
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	mustExec(t, db, `SELECT pg_promote()`)
	for name, c := range all {
		require.NoError(t, eventually(func() error { return c.do(background, d) }), name)
	}
}

// A transaction of ours does not say that it wants to write, and then does, to a database
// that somebody has made read-only.
func TestReadOnly_IsObeyed(t *testing.T) {
	t.Parallel()
	w := open(t)
	id := register(t, w, chain(2)...)
	behind(t, w, `UPDATE kr_task_stat SET unmet = 7 WHERE task_flow_id = $1 AND task_exec_seq = 2`, string(id))
	setReadOnly(t, w, true)
	_, err := w.Sweep(t.Context())
	require.ErrorIs(t, err, flow.ErrUnavailable)
	setReadOnly(t, w, false)
	require.Equal(t, 7, *look(t, w, id, 2).Unmet)
	var swept flow.Swept
	require.NoError(t, eventually(func() (err error) { swept, err = w.Sweep(background); return err }))
	require.Len(t, swept.Recounted, 1)
}

// setReadOnly changes what new connections may do, and ends the present ones unless they
// are to find out.
func setReadOnly(t *testing.T, w *world, on bool) {
	t.Helper()
	if !on {
		_, err := w.psql.Exec(`BEGIN READ WRITE; ALTER DATABASE ` + w.psql.Name + ` RESET default_transaction_read_only; COMMIT`)
		require.NoError(t, err)
		return
	}
	_, err := w.psql.Exec(`ALTER DATABASE ` + w.psql.Name + ` SET default_transaction_read_only = on`)
	require.NoError(t, err)
	_, err = w.psql.Exec(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'flower-%'`)
	require.NoError(t, err)
}

// Where no connection can be had, everybody is told so, and all is well when there is one.
func TestExhaustedConnections(t *testing.T) {
	t.Parallel()
	w := open(t)
	role := "app_" + strings.ReplaceAll(newID(), "-", "")
	mustExec(t, w.psql, `CREATE ROLE `+role+` LOGIN IN ROLE flower CONNECTION LIMIT 0`)
	mustExec(t, w.psql, `GRANT ALL ON ALL TABLES IN SCHEMA public TO `+role)
	t.Cleanup(func() {
		mustExec(t, w.psql, `DROP OWNED BY `+role)
		mustExec(t, w.psql, `DROP ROLE `+role)
	})
	d := through(t, strings.Replace(w.psql.URL, "flower@", role+"@", 1))
	all := calls(w, register(t, w, chain(3)...))
	for range 2 {
		for name, c := range all {
			err := c.do(background, d)
			require.ErrorIs(t, err, flow.ErrUnavailable, name)
			require.ErrorContains(t, err, "too many connections for role", name)
		}
	}
	mustExec(t, w.psql, `ALTER ROLE `+role+` CONNECTION LIMIT -1`)
	for name, c := range all {
		require.NoError(t, c.do(background, d), name)
	}
}

// Of several hosts, it is enough that one may come back.
func TestUnavailable_SeveralHosts(t *testing.T) {
	t.Parallel()
	w := open(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	closed := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	p, _ := w.psql.Proxy(t)
	for _, hosts := range []string{"127.0.0.1:%d,127.0.0.1:%d", "127.0.0.1:%[2]d,127.0.0.1:%[1]d"} {
		d := through(t, fmt.Sprintf("postgres://flower@"+hosts+"/no_such_database?sslmode=disable", closed, p.Port))
		err = d.Ready(t.Context())
		require.ErrorContains(t, err, "no_such_database")
		require.ErrorIs(t, err, flow.ErrUnavailable)
	}
	d := through(t, fmt.Sprintf("postgres://flower@127.0.0.1:%d/no_such_database?sslmode=disable", p.Port))
	require.NotErrorIs(t, d.Ready(t.Context()), flow.ErrUnavailable, "somebody has to make it")
}

// A single server can be asked for by its role, too; until it has it, it is away.
func TestUnavailable_NotThePrimary(t *testing.T) {
	t.Parallel()
	w := open(t)
	d := through(t, w.psql.URL+"&target_session_attrs=read-write")
	require.NoError(t, d.Ready(t.Context()))
	setReadOnly(t, w, true)
	for range 3 {
		require.ErrorIs(t, d.Ready(t.Context()), flow.ErrUnavailable)
	}
	err := d.Ready(t.Context())
	require.True(t, strings.HasSuffix(err.Error(), "session is read-only"), err)
	setReadOnly(t, w, false)
	require.NoError(t, eventually(func() error { return d.Ready(background) }))
	require.True(t, readOnly(fmt.Errorf("begin: %w", errors.New("server is in hot standby mode"))))
}

// A ping that the server answers with an error is no end of the process: lib/pq panics.
func TestListen_APingFails(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	pinged := make(chan bool)
	go cancelledServer(l, pinged)
	listener := pq.NewListener(fmt.Sprintf("host=127.0.0.1 port=%d user=u dbname=d sslmode=disable", l.Addr().(*net.TCPAddr).Port), time.Hour, time.Hour, nil)
	defer func() { require.NoError(t, listener.Close()) }()
	require.NoError(t, listener.Listen("x"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		pingListener(listener)
	}()
	require.True(t, <-pinged)
	<-done
	go pingListener(listener)
	require.True(t, <-pinged, "it goes on")
}

// cancelledServer speaks as much of the protocol as a listener needs. It answers empty
// queries as a server does on which somebody has cancelled them.
func cancelledServer(l net.Listener, pinged chan<- bool) {
	c, err := l.Accept()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	message := func(kind byte, body string) string {
		return string(kind) + string([]byte{0, 0, 0, byte(len(body) + 4)}) + body
	}
	ready := message('Z', "I")
	read := func(header int) (kind byte, body string) {
		head := make([]byte, header)
		if _, err := io.ReadFull(c, head); err != nil {
			return 'X', ""
		}
		rest := make([]byte, int(head[header-1])+int(head[header-2])<<8-4)
		_, _ = io.ReadFull(c, rest)
		return head[0], string(rest)
	}
	say := func(text string) { _, _ = c.Write([]byte(text)) }
	read(4)
	say(message('R', "\x00\x00\x00\x00") + ready)
	for {
		switch kind, query := read(5); {
		case kind != 'Q':
			return
		case query == "\x00":
			say(message('E', "SERROR\x00C57014\x00Mcanceling statement due to user request\x00\x00") + ready)
			pinged <- true
		default:
			say(message('C', "LISTEN\x00") + ready)
		}
	}
}
