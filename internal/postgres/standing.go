package postgres

import (
	"context"

	"github.com/d-tsuji/flower/internal/flow"
)

// identitySQL names the cluster and the database in it. A physical copy of the cluster has
// the same name, and its standby should: after a failover it is the same database.
const identitySQL = `
-- flower: identity
SELECT s.system_identifier::text || '-' || d.oid::text
FROM   pg_control_system() s, pg_database d
WHERE  d.datname = current_database()`

// Identity returns what is the same for everybody who uses this database, and for nobody
// who uses another one: what watchers leave outside the database is marked with it.
func (d *DB) Identity(ctx context.Context) (string, error) {
	var id string
	err := d.pool.GetContext(ctx, &id, identitySQL)
	return id, translate("ask for the database's identity", err)
}

const standingsSQL = `
-- flower: standings
SELECT t.task_flow_id, t.task_exec_seq, t.exec_status, t.attempt, t.attempt_base,
       t.exec_status = 2 AND t.reason IS NOT DISTINCT FROM 'held' AS held,
       coalesce(CASE WHEN t.exec_status = 1 THEN extract(epoch FROM clock_timestamp() - t.started_ts) END, 0)::float8 AS running
FROM   unnest($1::text[], $2::int[]) AS k(flow, seq)
JOIN   kr_task_stat t ON t.task_flow_id = k.flow AND t.task_exec_seq = k.seq`

// Standings returns how tasks stand. Those that do not exist are missing.
func (d *DB) Standings(ctx context.Context, keys []flow.TaskKey) ([]flow.Standing, error) {
	flows, seqs := keyColumns(keys)
	var rows []struct {
		keyRow
		Status      int16   `db:"exec_status"`
		Held        bool    `db:"held"`
		Attempt     int     `db:"attempt"`
		AttemptBase int     `db:"attempt_base"`
		Running     float64 `db:"running"`
	}
	if err := d.pool.SelectContext(ctx, &rows, standingsSQL, flows, seqs); err != nil {
		return nil, translate("ask how tasks stand", err)
	}
	standings := make([]flow.Standing, len(rows))
	for i, r := range rows {
		standings[i] = flow.Standing{
			TaskKey: r.key(), Status: flow.Status(r.Status), Held: r.Held, Attempt: r.Attempt, AttemptBase: r.AttemptBase,
			Running: seconds(r.Running),
		}
	}
	return standings, nil
}
