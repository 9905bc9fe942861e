package simulation

import (
	"log/slog"
	"testing"

	"github.com/jmoiron/sqlx"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/internal/postgres"
)

// open returns the store of a database, closed at the end of the test.
func open(t *testing.T, db *pgtest.DB) *postgres.DB {
	t.Helper()
	store, err := postgres.Open(postgres.Config{URL: db.URL, Application: "flower-test"}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

// exec runs a statement as somebody at psql would.
func exec(t *testing.T, db sqlx.Execer, query string, args ...any) {
	t.Helper()
	_, err := db.Exec(query, args...)
	require.NoError(t, err)
}

// TestEngine plays random stories and compares the database with the model after every
// action. rapid prints the seed and the shortest story that it finds to fail.
func TestEngine(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	store := open(t, db)
	rapid.Check(t, func(t *rapid.T) { newWorld(t, db, store).play() })
}
