package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/migrations"
)

// oneMoment is for reads of several statements that must fit together.
var oneMoment = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}

// pooledRailsSQL is readSettings for one transaction, behind a pooler.
const pooledRailsSQL = `
-- flower: rails for reads
SELECT set_config(name, 'off', true) FROM unnest('{jit,enable_seqscan,enable_hashjoin,enable_mergejoin}'::text[]) AS name`

// reading runs f in a transaction that only reads, as of one moment, for people and for
// programs that look. It has connections of its own, so that whoever acts does not wait for
// those who look. f must do nothing but SQL. What the server cuts off since it takes too long
// is flow.ErrTooSlow: that the same is asked again and again would only make it worse.
func (d *DB) reading(ctx context.Context, f func(tx *sqlx.Tx) error) error {
	err := runTx(ctx, d.reads, oneMoment, func(tx *sqlx.Tx) error {
		if d.cfg.Pooler {
			if _, err := tx.ExecContext(ctx, pooledRailsSQL); err != nil {
				return err
			}
		}
		return f(tx)
	})
	if pq.As(err, pqerror.QueryCanceled) != nil {
		return fmt.Errorf("%w: %w", flow.ErrTooSlow, err)
	}
	return err
}

const nowSQL = `
-- flower: now
SELECT clock_timestamp()`

// Now returns the database's time.
func (d *DB) Now(ctx context.Context) (time.Time, error) {
	var now time.Time
	err := d.reading(ctx, func(tx *sqlx.Tx) error { return tx.GetContext(ctx, &now, nowSQL) })
	return now, translate("ask for the time", err)
}

const flowStatusSQL = `
-- flower: status of a flow
SELECT status FROM v_flow WHERE task_flow_id = $1`

// FlowStatus returns the word for a flow; flow.ErrNotFound if there is none.
func (d *DB) FlowStatus(ctx context.Context, id flow.ID) (string, error) {
	var status []string
	err := d.reading(ctx, func(tx *sqlx.Tx) error { return tx.SelectContext(ctx, &status, flowStatusSQL, string(id)) })
	switch {
	case err != nil:
		return "", translate(fmt.Sprintf("read the status of flow %q", id), err)
	case len(status) == 0:
		return "", fmt.Errorf("flow %q: %w", id, flow.ErrNotFound)
	}
	return status[0], nil
}

const versionSQL = `
-- flower: version
SELECT coalesce(max(version_id), 0) AS schema, current_setting('server_version') AS postgres
FROM   goose_db_version WHERE is_applied`

// Version returns what the database is, and what this program needs of it.
func (d *DB) Version(ctx context.Context) (flow.Version, error) {
	need, err := migrations.Latest()
	if err != nil {
		return flow.Version{}, err
	}
	v := flow.Version{NeedsSchema: need}
	err = d.reading(ctx, func(tx *sqlx.Tx) error { return tx.GetContext(ctx, &v, versionSQL) })
	return v, translate("ask for the database's version", err)
}
