//go:build unix

package pgdev_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev"
)

// Through a transaction pooler one finds the server, and what is set there, but no
// session of one's own.
func TestStartPooler(t *testing.T) {
	t.Parallel()
	if _, err := pgdev.FindPooler(); err != nil {
		t.Skip(err)
	}
	server := start(t, pgdev.Options{})
	p, err := pgdev.StartPooler(t.Context(), server.Port, 0, "server_login_retry = 1")
	require.NoError(t, err)
	defer p.Stop()
	require.NotEqual(t, server.Port, p.Port)
	require.Equal(t, ask(t, server.DSN, "SHOW cluster_name"), ask(t, p.DSN, "SHOW cluster_name"))
	require.Equal(t, ask(t, server.DSN, "SELECT oid FROM pg_database WHERE datname = 'template1'"),
		ask(t, p.DSN+" dbname=template1", "SELECT oid FROM pg_database WHERE datname = current_database()"))
	p.Stop()
	require.True(t, gone(p.DSN))
	p.Stop()

	_, err = pgdev.StartPooler(t.Context(), server.Port, 0, "no_such_setting = 1")
	require.ErrorContains(t, err, "no_such_setting", "its own words")
}
