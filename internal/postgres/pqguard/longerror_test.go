package pqguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// long is what the server repeats in its error, which is then too long for lib/pq.
var long = strings.Repeat("x", 40_000)

// rowsSQL fails in its third row.
const rowsSQL = `SELECT CASE WHEN i = 3 THEN (repeat('x', 40000) || i)::uuid END FROM generate_series(1, 3) AS i`

// ways has every way in which an error can come. Each returns the error that it met.
var ways = map[string]func(context.Context, *sql.DB) error{
	"Exec": func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, "SELECT '"+long+"'::uuid")
		return err
	},
	"Exec with arguments": func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, "SELECT $1::uuid", long)
		return err
	},
	"Query": func(ctx context.Context, db *sql.DB) error {
		return query(db.QueryContext(ctx, "SELECT '"+long+"'::uuid"))
	},
	"Query with arguments": func(ctx context.Context, db *sql.DB) error {
		return query(db.QueryContext(ctx, "SELECT $1::uuid", long))
	},
	"QueryRow with arguments": func(ctx context.Context, db *sql.DB) error {
		return db.QueryRowContext(ctx, "SELECT $1::uuid", long).Scan(new(string))
	},
	"RAISE": func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, "DO $$ BEGIN RAISE '%', repeat('x', 40000); END $$")
		return err
	},
	"Prepare": func(ctx context.Context, db *sql.DB) error {
		s, err := db.PrepareContext(ctx, "SELECT '"+long+"'::uuid")
		return errors.Join(err, closeIf(err == nil, s))
	},
	"prepared Exec": func(ctx context.Context, db *sql.DB) error {
		return prepared(ctx, db, "SELECT $1::uuid", func(s *sql.Stmt) error {
			_, err := s.ExecContext(ctx, long)
			return err
		})
	},
	"prepared Query": func(ctx context.Context, db *sql.DB) error {
		return prepared(ctx, db, "SELECT $1::uuid", func(s *sql.Stmt) error {
			return query(s.QueryContext(ctx, long))
		})
	},
	"prepared Query, a later row": func(ctx context.Context, db *sql.DB) error {
		return prepared(ctx, db, rowsSQL, func(s *sql.Stmt) error { return query(s.QueryContext(ctx)) })
	},
	"a later row": func(ctx context.Context, db *sql.DB) error {
		return query(db.QueryContext(ctx, rowsSQL))
	},
	"a later row with arguments": func(ctx context.Context, db *sql.DB) error {
		return query(db.QueryContext(ctx, rowsSQL+" WHERE i > $1", 0))
	},
	"a row that nobody reads": func(ctx context.Context, db *sql.DB) error {
		rows, err := db.QueryContext(ctx, rowsSQL)
		if err != nil {
			return err
		}
		return errors.Join(rows.Close(), rows.Err())
	},
	"a row that QueryRow does not read": func(ctx context.Context, db *sql.DB) error {
		return db.QueryRowContext(ctx, rowsSQL).Scan(new(sql.NullString))
	},
	"a second result set": func(ctx context.Context, db *sql.DB) error {
		return query(db.QueryContext(ctx, "SELECT 1; SELECT '"+long+"'::uuid"))
	},
	"Exec in a transaction": func(ctx context.Context, db *sql.DB) error {
		return inTx(ctx, db, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "SELECT $1::uuid", long)
			return err
		})
	},
	"Query in a transaction": func(ctx context.Context, db *sql.DB) error {
		return inTx(ctx, db, func(tx *sql.Tx) error { return query(tx.QueryContext(ctx, rowsSQL)) })
	},
	"on a pinned connection": func(ctx context.Context, db *sql.DB) error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.ExecContext(ctx, "SELECT $1::uuid", long)
		return err
	},
}

// query reads all rows of all result sets.
func query(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for more := true; more; more = rows.NextResultSet() {
		for rows.Next() {
		}
	}
	return rows.Err()
}

func prepared(ctx context.Context, db *sql.DB, text string, f func(*sql.Stmt) error) error {
	s, err := db.PrepareContext(ctx, text)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	return f(s)
}

func closeIf(yes bool, s *sql.Stmt) error {
	if yes {
		return s.Close()
	}
	return nil
}

func inTx(ctx context.Context, db *sql.DB, f func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // it would wait for ever, but for the guard
	return f(tx)
}

// The bug is there. When this test fails after an update of lib/pq, delete this package.
func TestLongError_Raw(t *testing.T) {
	t.Parallel()
	forEachWay(t, func(t *testing.T, dsn string, way func(context.Context, *sql.DB) error) {
		n := newNetwork(t)
		db := open(t, dsn, n, raw)
		require.Error(t, way(t.Context(), db))
		_, err := answer(t, db)
		require.True(t, err != nil || n.deaf.Load(), "bug A is gone: delete this package")
	})
}

func TestLongError_Guarded(t *testing.T) {
	t.Parallel()
	forEachWay(t, func(t *testing.T, dsn string, way func(context.Context, *sql.DB) error) {
		n := newNetwork(t)
		db := open(t, dsn, n, Wrap)
		for range 2 {
			require.ErrorContains(t, way(t.Context(), db), "pq: server error: ", "the error is shown as it is")
			requireAnswer(t, db)
			require.False(t, n.deaf.Load(), "it would have waited for ever")
		}
	})
}

// forEachWay goes through all ways, and twice through those that lib/pq goes differently
// with binary parameters.
func forEachWay(t *testing.T, f func(*testing.T, string, func(context.Context, *sql.DB) error)) {
	db := pgtest.Empty(t)
	for name, way := range ways {
		t.Run(name, func(t *testing.T) { f(t, db.DSN, way) })
		if strings.HasSuffix(name, "with arguments") {
			t.Run(name+", binary", func(t *testing.T) { f(t, db.DSN+binaryParameters, way) })
		}
	}
}

// An error of that length is none of COMMIT's troubles: lib/pq itself gives up a
// connection whose COMMIT failed. COPY reads its answers by other means. If one of these
// fails raw, the guard must look there, too.
func TestLongError_HealsByItself(t *testing.T) {
	t.Parallel()
	for name, way := range map[string]func(context.Context, *sql.DB) error{
		"COMMIT": func(ctx context.Context, db *sql.DB) error {
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			_, err = tx.ExecContext(ctx, "INSERT INTO deferred VALUES (1)")
			require.NoError(t, err)
			return tx.Commit()
		},
		"COPY": func(ctx context.Context, db *sql.DB) error {
			return inTx(ctx, db, func(tx *sql.Tx) error {
				s, err := tx.PrepareContext(ctx, "COPY copied (id) FROM STDIN")
				require.NoError(t, err)
				defer func() { _ = s.Close() }()
				if _, err := s.ExecContext(ctx, long); err != nil {
					return err
				}
				_, err = s.ExecContext(ctx)
				return err
			})
		},
	} {
		dsn := pgtest.Empty(t)
		dsn.MustExec(`
CREATE TABLE copied (id uuid);
CREATE TABLE deferred (n int);
CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE '%', repeat('x', 40000); END $$;
CREATE CONSTRAINT TRIGGER complain AFTER INSERT ON deferred
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION complain()`)
		for mode, wrap := range map[string]wrapper{"raw": raw, "guarded": Wrap} {
			t.Run(name+", "+mode, func(t *testing.T) {
				db := open(t, dsn.DSN, newNetwork(t), wrap)
				require.Error(t, way(t.Context(), db))
				requireAnswer(t, db)
			})
		}
	}
}

// What database/sql sees of a connection that is lost: it is not valid, and closing it or
// what belongs to it neither reads nor writes, which would be an error on a closed socket.
func TestLongError_DriverSide(t *testing.T) {
	t.Parallel()
	c, err := pq.NewConnector(pgtest.Empty(t).DSN)
	require.NoError(t, err)
	c.Dialer(newNetwork(t))
	dc, err := Wrap(c).Connect(t.Context())
	require.NoError(t, err)
	conn := dc.(pqConn)
	require.True(t, conn.IsValid())
	require.NoError(t, conn.ResetSession(t.Context()))

	stmt, err := conn.PrepareContext(t.Context(), "SELECT 1")
	require.NoError(t, err)
	rows, err := conn.QueryContext(t.Context(), rowsSQL, nil)
	require.NoError(t, err)
	row := make([]driver.Value, 1)
	require.NoError(t, rows.Next(row))
	require.NoError(t, rows.Next(row))
	require.ErrorContains(t, rows.Next(row), "pq: server error: ")

	require.False(t, conn.IsValid())
	require.ErrorIs(t, conn.ResetSession(t.Context()), driver.ErrBadConn)
	require.NoError(t, rows.Close())
	require.NoError(t, stmt.Close())
	require.NoError(t, conn.Close())
}
