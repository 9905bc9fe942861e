package postgres

import (
	"context"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

const storageSQL = `
-- flower: storage
SELECT clock_timestamp() AS as_of, current_setting('server_version') AS postgres, pg_database_size(current_database()) AS size,
       coalesce((SELECT max(version_id) FROM goose_db_version WHERE is_applied), 0) AS schema`

// A partitioned table is the sum of its parts.
const tableSizesSQL = `
-- flower: sizes of tables
SELECT c.relname AS name, (CASE WHEN max(p.reltuples) < 0 THEN -1 ELSE sum(greatest(p.reltuples, 0)) END)::bigint AS rows, sum(pg_total_relation_size(p.oid))::bigint AS bytes,
       coalesce(split_part(obj_description(c.oid, 'pg_class'), ':', 1), '') AS means
FROM   pg_class c
CROSS  JOIN LATERAL (SELECT c.oid AS relid UNION SELECT relid FROM pg_partition_tree(c.oid)) t
JOIN   pg_class p ON p.oid = t.relid AND p.relkind = 'r'
WHERE  c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'kr_task_stat'::regclass)
       AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname ~ '^(kr|ms)_'
GROUP  BY c.oid, c.relname
ORDER  BY bytes DESC, name`

// Storage returns what the database holds.
func (d *DB) Storage(ctx context.Context) (flow.Storage, error) {
	var s flow.Storage
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		row := tx.QueryRowxContext(ctx, storageSQL)
		if err := row.Scan(&s.AsOf, &s.Postgres, &s.Size, &s.Schema); err != nil {
			return err
		}
		var tables []struct {
			Name  string `db:"name"`
			Rows  int64  `db:"rows"`
			Bytes int64  `db:"bytes"`
			Means string `db:"means"`
		}
		if err := tx.SelectContext(ctx, &tables, tableSizesSQL); err != nil {
			return err
		}
		for _, t := range tables {
			s.Tables = append(s.Tables, flow.TableSize(t))
		}
		return nil
	})
	return s, translate("read what the database holds", err)
}
