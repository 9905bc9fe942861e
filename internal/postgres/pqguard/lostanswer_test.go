package pqguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// Bug C, about which the guard does nothing: a statement whose answer is lost is sent a
// second time, by database/sql, if it went through the pool. This is why every write of
// ours is in a transaction or on a pinned connection, and why ids are made before the
// call. Should the first two fail after an update of lib/pq, that rule may be relaxed.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	const insert = "INSERT INTO written VALUES (1)"
	for name, tc := range map[string]struct {
		write func(context.Context, *sql.DB, *network) error
		err   error
		rows  int
	}{
		"Exec on the pool writes twice, and says nothing": {
			write: func(ctx context.Context, db *sql.DB, n *network) error {
				n.swallow.Store(true)
				_, err := db.ExecContext(ctx, insert)
				return err
			},
			rows: 2,
		},
		"QueryRow on the pool, too": {
			write: func(ctx context.Context, db *sql.DB, n *network) error {
				n.swallow.Store(true)
				return db.QueryRowContext(ctx, insert+" RETURNING n").Scan(new(int))
			},
			rows: 2,
		},
		"a pinned connection writes once": {
			write: func(ctx context.Context, db *sql.DB, n *network) error {
				conn, err := db.Conn(ctx)
				require.NoError(t, err)
				defer func() { _ = conn.Close() }()
				n.swallow.Store(true)
				_, err = conn.ExecContext(ctx, insert)
				return err
			},
			err:  driver.ErrBadConn,
			rows: 1,
		},
		"a transaction does not write": {
			write: func(ctx context.Context, db *sql.DB, n *network) error {
				return inTx(ctx, db, func(tx *sql.Tx) error {
					n.swallow.Store(true)
					_, err := tx.ExecContext(ctx, insert)
					return err
				})
			},
			err:  driver.ErrBadConn,
			rows: 0,
		},
		"the error of a COMMIT means unknown": {
			write: func(ctx context.Context, db *sql.DB, n *network) error {
				return inTx(ctx, db, func(tx *sql.Tx) error {
					_, err := tx.ExecContext(ctx, insert)
					require.NoError(t, err)
					n.swallow.Store(true)
					return tx.Commit()
				})
			},
			err:  driver.ErrBadConn,
			rows: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			look := pgtest.Empty(t)
			look.MustExec("CREATE TABLE written (n int)")
			n := newNetwork(t)
			db := open(t, look.DSN, n, Wrap)

			err := tc.write(t.Context(), db, n)
			if tc.err == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, tc.err)
			}
			require.False(t, n.swallow.Load(), "an answer was lost")
			// A transaction that was lost may not be rolled back yet, but its rows are
			// nobody else's to see.
			var rows int
			require.NoError(t, look.Get(&rows, "SELECT count(*) FROM written"))
			require.Equal(t, tc.rows, rows)
			requireAnswer(t, db)
		})
	}
}
