package postgres

import (
	"fmt"
	"log/slog"
	"net/url"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev"
)

// Everything works through a real transaction pooler whose connections are fewer than its
// users, and leaves nothing in their sessions.
func TestPooler(t *testing.T) {
	t.Parallel()
	if _, err := pgdev.FindPooler(); err != nil {
		t.Skip(err)
	}
	w := open(t)
	u, err := url.Parse(w.psql.URL)
	require.NoError(t, err)
	port, err := strconv.Atoi(u.Port())
	if err != nil || u.Hostname() != "127.0.0.1" || u.User.String() != "flower" {
		t.Skip("the pooler is made for a server of ours")
	}
	pooler, err := pgdev.StartPooler(t.Context(), port, 0, "default_pool_size = 4", "server_idle_timeout = 600")
	require.NoError(t, err)
	t.Cleanup(pooler.Stop)
	u.Host = fmt.Sprintf("127.0.0.1:%d", pooler.Port)
	d, err := Open(Config{URL: u.String(), Application: "flower-pooled", Pooler: true}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	direct, err := Open(Config{URL: u.String()}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, direct.Close()) }()
	require.ErrorContains(t, direct.Migrate(t.Context()), "-db-pooler", "whoever forgets it is told, and does not wait")

	all := calls(w, register(t, w, chain(3)...))
	var settings []string
	const settingsSQL = `SELECT name || '=' || setting FROM pg_settings WHERE source IN ('session', 'client') AND name NOT LIKE '%application_name' ORDER BY 1`
	require.NoError(t, d.pool.Select(&settings, settingsSQL))
	for range 3 {
		for name, err := range each(all, func(_ string, c call) error { return c.do(background, d) }) {
			require.NoError(t, err, name)
		}
	}
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`))
	for range 8 { // whichever connection that is
		var after []string
		require.NoError(t, d.pool.Select(&after, settingsSQL))
		require.Equal(t, settings, after)
		var prepared int
		require.NoError(t, d.pool.Get(&prepared, `SELECT count(*) FROM pg_prepared_statements`))
		require.Zero(t, prepared)
	}
}
