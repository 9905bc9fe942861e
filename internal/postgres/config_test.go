package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// What the driver makes of the string is what counts.
func TestConfig_DSN(t *testing.T) {
	t.Parallel()
	const odd = `it's \ "odd" = ü`
	for name, c := range map[string]struct {
		cfg  Config
		want string // user password host port dbname sslmode application_name
	}{
		"defaults": {Config{}, "flower||localhost|5432|flower|prefer|"},
		"fields": {
			Config{User: "u", Password: "p", Host: "h", Port: 7, Name: "n", SSLMode: "disable", Application: "a"},
			"u|p|h|7|n|disable|a",
		},
		"fields with odd characters": {
			Config{User: odd, Password: odd, Host: "h", Name: odd, Application: odd},
			strings.Join([]string{odd, odd, "h", "5432", odd, "prefer", odd}, "|"),
		},
		"a password that looks like a setting": {Config{Password: "x' host='evil"}, "flower|x' host='evil|localhost|5432|flower|prefer|"},
		"URL":                                  {Config{URL: "postgres://u:p@h:7/n?sslmode=disable&application_name=a"}, "u|p|h|7|n|disable|a"},
		"URL, little of it":                    {Config{URL: "postgresql://h"}, "flower||h|5432|flower|prefer|"},
		"URL with escapes":                     {Config{URL: "postgres://u%40x:p%20%27%5C%2F%3A@h/n%20m"}, `u@x|p '\/:|h|5432|n m|prefer|`},
		"URL with an IPv6 address":             {Config{URL: "postgres://[::1]:7/n"}, "flower||::1|7|n|prefer|"},
		"URL of a socket":                      {Config{URL: "postgres://u@/n?host=/var/run&port=7"}, "u||/var/run|7|n|disable|"},
		"pairs":                                {Config{URL: `user=u password='p \' q' host=h port=7 dbname=n sslmode=disable`}, "u|p ' q|h|7|n|disable|"},
		"fields beat the URL": {
			Config{URL: "postgres://u:p@h:7/n?sslmode=disable", User: "U", Password: "P", Host: "H", Port: 8, Name: "N", SSLMode: "require"},
			"U|P|H|8|N|require|",
		},
		"fields beat pairs": {Config{URL: "user=u password=p host=h port=7 dbname=n", Password: "P", Name: "N"}, "u|P|h|7|N|prefer|"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.NoError(t, c.cfg.Validate())
			got, err := pq.NewConfig(c.cfg.dsn())
			require.NoError(t, err, c.cfg.dsn())
			require.Equal(t, c.want, fmt.Sprintf("%s|%s|%s|%d|%s|%s|%s", got.User, got.Password, got.Host, got.Port, got.Database, got.SSLMode, got.ApplicationName))
			require.Equal(t, "UTC", got.Runtime["timezone"])
			require.Equal(t, 3*time.Second, got.ConnectTimeout)
		})
	}
}

func TestConfig_SeveralHosts(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"postgres://u@a:1,b:2/n?target_session_attrs=read-write",
		"host=a,b port=1,2 user=u dbname=n target_session_attrs=read-write",
	} {
		c := Config{URL: text}
		require.NoError(t, c.Validate())
		got, err := pq.NewConfig(c.dsn())
		require.NoError(t, err)
		require.Equal(t, "a 1", fmt.Sprint(got.Host, " ", got.Port))
		require.Len(t, got.Multi, 1)
		require.Equal(t, "b 2", fmt.Sprint(got.Multi[0].Host, " ", got.Multi[0].Port))
		require.EqualValues(t, "read-write", got.TargetSessionAttrs)
	}
}

func TestConfig_Validate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"port too large": {Config{Port: 65536}, "database port 65536: must be from 1 to 65535"},
		"port negative":  {Config{Port: -1}, "must be from 1 to 65535"},
		"sslmode":        {Config{SSLMode: "on"}, `sslmode "on": must be disable`},
		"scheme":         {Config{URL: "mysql://u:s3cret@h/n"}, "must begin with postgres://, not mysql://"},
		"no URL":         {Config{URL: "postgres://u:s3cret@h:port/n"}, "must look like"},
		"bad escape":     {Config{URL: "postgres://u:s3cret%zz@h/n"}, "must look like"},
	} {
		err := c.cfg.Validate()
		require.ErrorContains(t, err, c.want, name)
		require.NotContains(t, err.Error(), "s3cret", name)
	}
}

// No error that leaves the room has the password in it.
func TestConfig_PasswordsStaySecret(t *testing.T) {
	t.Parallel()
	const closed = "127.0.0.1"
	for name, cfg := range map[string]Config{
		"pairs that are none":            {URL: "host=h password=two s3cret words"},
		"a quote that is not closed":     {URL: "host=h password='s3cret"},
		"a port that is none":            {URL: "host=h port=x password=s3cret"},
		"an sslmode that is none":        {URL: "host=h sslmode=on password=s3cret"},
		"a URL with a setting that none": {URL: "postgres://u:s3cret@h/n?sslmode=on"},
		"nobody there":                   {Host: closed, Port: 1, Password: "s3cret"},
		"nobody there, by URL":           {URL: "postgres://u:s3cret@127.0.0.1:1/n"},
		"nobody there, by pairs":         {URL: "host=127.0.0.1 port=1 password=s3cret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := Open(cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				err = d.Ready(t.Context())
				require.ErrorIs(t, err, flow.ErrUnavailable)
				require.NoError(t, d.Close())
			}
			require.Error(t, err)
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
	err := errors.New("x s3cret y")
	require.Equal(t, "x … y", redact(err, Config{Password: "s3cret"}).Error())
	require.Equal(t, "x … y", redact(err, Config{URL: "postgres://u:s3cret@h/n"}).Error())
	require.Equal(t, "x … y", redact(err, Config{URL: "user=u password=s3cret host=h"}).Error())
	require.Equal(t, "x … y", redact(err, Config{URL: "user=u password='s3cret' host=h"}).Error())
	require.Equal(t, err, redact(err, Config{}))
}

// The settings arrive, and a pooler gets none that it would refuse.
func TestConfig_SessionSettings(t *testing.T) {
	t.Parallel()
	w := open(t)
	ask := func(d *DB, l *lanes, setting string) string {
		t.Helper()
		var v []string
		require.NoError(t, l.selectAll(t.Context(), &v, `SELECT current_setting('`+setting+`')`))
		return v[0]
	}
	for setting, want := range map[string]string{"statement_timeout": "8s", "lock_timeout": "500ms", "TimeZone": "UTC", "application_name": "flower-test"} {
		require.Equal(t, want, ask(w.DB, w.engine, setting), setting)
	}
	require.Equal(t, "2s", ask(w.DB, w.beat, "statement_timeout"))
	require.Equal(t, "2s", ask(w.DB, w.writer, "lock_timeout"))

	pooled, err := Open(Config{URL: w.psql.DSN, Pooler: true}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, pooled.Close()) }()
	require.Equal(t, "0", ask(pooled, pooled.engine, "statement_timeout"))
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM pg_stat_activity WHERE application_name = '' AND query LIKE 'PREPARE%'`))
}

// What a database's administrator sets for everybody does not change what the engine relies on.
func TestConfig_SettingsOfTheDatabase(t *testing.T) {
	t.Parallel()
	w := open(t)
	for _, setting := range []string{"default_transaction_isolation = 'serializable'", "idle_session_timeout = '1min'", "statement_timeout = '1ms'", "timezone = 'Asia/Kathmandu'"} {
		mustExec(t, w.psql, `ALTER DATABASE `+w.psql.Name+` SET `+setting)
	}
	d := another(t, w)
	const settingsSQL = `SELECT concat_ws(' ', current_setting('transaction_isolation'), current_setting('idle_session_timeout'), current_setting('timezone'))`
	for name, l := range map[string]*lanes{"engine": d.engine, "writer": d.writer, "beat": d.beat, "logs": d.logs} {
		var got []string
		require.NoError(t, l.selectAll(t.Context(), &got, settingsSQL), name)
		require.Equal(t, []string{"read committed 0 UTC"}, got, name)
	}
	for name, pool := range map[string]*sqlx.DB{"pool": d.pool, "slow": d.slow, "reads": d.reads} {
		var got string
		require.NoError(t, pool.Get(&got, settingsSQL), name)
		require.Equal(t, "read committed 0 UTC", got, name)
	}
}

// Everything works the same with one message per statement, as a pooler needs it.
func TestConfig_Pooler(t *testing.T) {
	t.Parallel()
	w := open(t)
	mustExec(t, w.psql, `ALTER DATABASE `+w.psql.Name+` SET statement_timeout = '8s'`) // as the README says of a role
	pooled, err := Open(Config{URL: w.psql.DSN, Pooler: true}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pooled.Close()) })
	w.DB = pooled
	for want, inTx := range map[string]func(context.Context, func(*sqlx.Tx) error) error{"8s": w.inTx, "1min": w.inSlowTx, "10min": w.inLongTx} {
		var limit string
		require.NoError(t, inTx(t.Context(), func(tx *sqlx.Tx) error { return tx.Get(&limit, `SHOW statement_timeout`) }))
		require.Equal(t, want, limit)
	}
	d := def()
	d.MaxAttempts, d.Timeout = 2, time.Minute
	d.Parameters = object(`{"a": "ü'\""}`)
	id := register(t, w, d, def(1))
	task := claimOne(t, w)
	require.JSONEq(t, `{"a": "ü'\""}`, string(task.Parameters))
	require.Equal(t, time.Minute, task.Timeout)
	require.Empty(t, beat(t, w, w.watcher, task).Revoked)
	require.Equal(t, flow.Waiting, verdict(t, w, ended(task, flow.OutcomeFailed)).Status)
	require.Len(t, run(t, w), 2)
	require.Equal(t, "3 3", statuses(t, w, id))
	dead := join(t, w, programs...)
	register(t, w, def())
	require.Len(t, claimAs(t, w, dead, 1), 1)
	age(t, w, dead, 60)
	require.Len(t, rescueAll(t, w), 1)
	_, err = w.Strangers(t.Context(), programs)
	require.NoError(t, err)
	_, err = w.Refuse(t.Context(), "none", "text")
	require.NoError(t, err)
	_, err = w.Owned(t.Context(), w.watcher, []string{newID()})
	require.NoError(t, err)
	promote(t, w)
	sweep(t, w)
	s, err := w.Flow(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, "finished", s.Status)
}

// A database that is away is met by the first call, not by Open.
func TestOpen_DoesNotConnect(t *testing.T) {
	t.Parallel()
	d, err := Open(Config{Host: "127.0.0.1", Port: 1, SSLMode: "disable"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = d.Advance(t.Context(), nil, flow.Claim{ID: newID(), Watcher: newID(), Free: 1})
	require.ErrorIs(t, err, flow.ErrUnavailable)
	_, err = d.Beat(t.Context(), newID(), nil)
	require.ErrorIs(t, err, flow.ErrUnavailable)
	require.NotErrorIs(t, err, flow.ErrFenced)
	require.NoError(t, d.Close())
}

func TestReady(t *testing.T) {
	t.Parallel()
	w := open(t)
	require.NoError(t, w.Ready(t.Context()))
	require.NoError(t, w.Migrate(t.Context()), "nothing to do")

	empty := pgtest.Empty(t)
	d, err := Open(Config{URL: empty.URL}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	err = d.Ready(t.Context())
	require.ErrorIs(t, err, ErrSchemaOld)
	require.ErrorContains(t, err, "register -migrate only")
	wait := async(func() error { return d.WaitReady(background) })
	require.NoError(t, d.Migrate(t.Context()))
	require.NoError(t, wait())
	require.NoError(t, d.Ready(t.Context()))
}

// What the server says of a standby, or of a password that is missing, tells nobody what to do.
func TestAdvise(t *testing.T) {
	t.Parallel()
	password := &pq.Error{Code: pqerror.InvalidPassword, Message: "password authentication failed"}
	standby := &pq.Error{Code: pqerror.FeatureNotSupported, Message: "cannot set transaction read-write mode during recovery"}
	for _, c := range []struct {
		cfg  Config
		err  error
		want string
	}{
		{Config{}, password, "none was given"},
		{Config{Password: "wrong"}, password, "authentication failed"},
		{Config{URL: "postgres://u:wrong@h/n"}, password, "authentication failed"},
		{Config{}, standby, "name the primary"},
		{Config{}, &pq.Error{Code: pqerror.ReadOnlySQLTransaction}, "name the primary"},
		{Config{}, &pq.Error{Code: pqerror.InsufficientPrivilege, Message: "permission denied for schema public"}, "must own the database"},
		{Config{}, &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}, "ulimit -n"},
		{Config{}, errors.New("other"), "other"},
	} {
		err := (&DB{cfg: c.cfg}).advise(fmt.Errorf("begin: %w", c.err))
		require.ErrorIs(t, err, c.err)
		require.Contains(t, err.Error(), c.want)
		require.Equal(t, c.want == "none was given", strings.Contains(err.Error(), "none was given"))
	}
	require.NoError(t, (&DB{}).advise(nil))
}
