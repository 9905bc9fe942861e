package pqguard

import (
	"database/sql"
	"slices"
	"strings"
	"testing"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

const busyText = "pq: there is already a query being processed on this connection"

// requireBusy asks three times, which is for ever.
func requireBusy(t *testing.T, db *sql.DB) {
	t.Helper()
	for range 3 {
		_, err := answer(t, db)
		require.EqualError(t, err, busyText, "bug B is gone: delete this package")
	}
}

// With binary parameters lib/pq refuses a statement with too many of them only after it
// has noted that one is under way.
func TestTooManyParameters(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Empty(t).DSN + binaryParameters
	text := "SELECT ARRAY[" + strings.Repeat("$1, ", 10) + "$1]"
	args := slices.Repeat([]any{1}, 65_536)

	for name, try := range map[string]func(*sql.DB) error{
		"Exec": func(db *sql.DB) error {
			_, err := db.ExecContext(t.Context(), text, args...)
			return err
		},
		"Query": func(db *sql.DB) error { return query(db.QueryContext(t.Context(), text, args...)) },
	} {
		db := open(t, dsn, nil, raw)
		require.ErrorContains(t, try(db), "only supports 65535 parameters", name)
		requireBusy(t, db)

		db = open(t, dsn, nil, Wrap)
		require.ErrorContains(t, try(db), "only supports 65535 parameters", name)
		requireAnswer(t, db)
	}
}

// A socket that is lost right behind an error: lib/pq reports the error, which is right,
// and keeps the connection. The guard cannot see it before the next query, which fails,
// but is the last one that does.
func TestSocketLostBehindAnError(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Empty(t).DSN + binaryParameters
	for name, wrap := range map[string]wrapper{"raw": raw, "guarded": Wrap} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t)
			db := open(t, dsn, n, wrap)
			n.cutError.Store(true)
			_, err := db.ExecContext(t.Context(), "SELECT 1 / $1::int", 0)
			require.NotNil(t, pq.As(err, pqerror.DivisionByZero), "%v", err)

			if name == "raw" {
				requireBusy(t, db)
				return
			}
			_, err = answer(t, db)
			require.EqualError(t, err, busyText)
			requireAnswer(t, db)
		})
	}
}
