package pgtest

import (
	"testing"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"
)

// Whatever form a given server's address has, both forms of a database's address lead to
// the same place.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, given := range []string{
		"host=127.0.0.1 port=5433 user=flower dbname=postgres sslmode=disable",
		"postgres://flower:p%40ss%20w%27ord%5C@db.example:5433/postgres?sslmode=verify-full",
		"host=/var/run/postgresql user='with space' sslmode=disable",
		"host=::1 user=flower password='it\\'s' sslmode=disable",
	} {
		cfg, err := pq.NewConfig(given)
		require.NoError(t, err, given)
		s := &server{cfg: cfg}
		for _, address := range []string{s.dsn("other"), s.url("other")} {
			got, err := pq.NewConfig(address)
			require.NoError(t, err, address)
			require.Equal(t,
				[]any{cfg.Host, cfg.Port, cfg.User, cfg.Password, cfg.SSLMode, "other"},
				[]any{got.Host, got.Port, got.User, got.Password, got.SSLMode, got.Database}, address)
		}
	}
}
