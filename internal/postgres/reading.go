package postgres

import (
	"context"
	"database/sql"

	"github.com/jmoiron/sqlx"
)

// oneMoment is for reads of several statements that must fit together.
var oneMoment = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}

// pooledRailsSQL is readSettings for one transaction, behind a pooler.
const pooledRailsSQL = `
-- flower: rails for reads
SELECT set_config(name, 'off', true) FROM unnest('{jit,enable_seqscan,enable_hashjoin,enable_mergejoin}'::text[]) AS name`

// reading runs f in a transaction that only reads, as of one moment, for people and for
// programs that look. It has connections of its own, so that whoever acts does not wait for
// those who look. f must do nothing but SQL.
func (d *DB) reading(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	return runTx(ctx, d.reads, oneMoment, func(tx *sqlx.Tx) error {
		if d.cfg.Pooler {
			if _, err := tx.ExecContext(ctx, pooledRailsSQL); err != nil {
				return err
			}
		}
		return f(tx)
	})
}
