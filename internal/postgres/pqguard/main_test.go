package pqguard

import (
	"database/sql"
	"database/sql/driver"
	"testing"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// binaryParameters is appended to a DSN where everything is to take lib/pq's other way.
const binaryParameters = " binary_parameters=yes"

// open opens a pool of one connection, so that every query meets what the last one left.
func open(t *testing.T, dsn string, n *network, wrap wrapper) *sql.DB {
	t.Helper()
	c, err := pq.NewConnector(dsn)
	require.NoError(t, err)
	if n != nil {
		c.Dialer(n)
	}
	db := sql.OpenDB(wrap(c))
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	require.NoError(t, db.PingContext(t.Context()))
	return db
}

// wrapper is Wrap or raw.
type wrapper func(driver.Connector) driver.Connector

// raw is lib/pq as it is.
func raw(c driver.Connector) driver.Connector { return c }

// answer asks for 42, in both of lib/pq's ways.
func answer(t *testing.T, db *sql.DB) (n int, err error) {
	t.Helper()
	if err = db.QueryRowContext(t.Context(), "SELECT 42").Scan(&n); err != nil {
		return 0, err
	}
	return n, db.QueryRowContext(t.Context(), "SELECT $1::int + 2", 40).Scan(&n)
}

func requireAnswer(t *testing.T, db *sql.DB) {
	t.Helper()
	n, err := answer(t, db)
	require.NoError(t, err)
	require.Equal(t, 42, n)
}
