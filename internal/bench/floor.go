package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/postgres"
)

// The floor is what PostgreSQL itself takes for the same changes of state, durable, in
// batches, over two connections: the barest table that has a text key and a time, with
// an index by which waiting rows are found in order, and statements that know no
// dependencies, owners, fences, retries or errors. Each statement has as many rows as a
// call of the engine: a third of the workers' tasks is in each of two calls, a third in
// their hands.
const (
	floorTableSQL = `
CREATE TABLE floor (flow varchar(256) COLLATE "C" NOT NULL, seq integer NOT NULL, status smallint NOT NULL DEFAULT 0,
	registered timestamptz NOT NULL, started timestamptz, finished timestamptz, program text NOT NULL DEFAULT 'NoOp',
	parameters jsonb NOT NULL DEFAULT '{}', next integer[] NOT NULL, PRIMARY KEY (flow, seq)) WITH (fillfactor = 50)`

	floorFillSQL = `
INSERT INTO floor (flow, seq, registered, next)
SELECT lpad(to_hex(n), 8, '0') || '-' || substr(md5(n::text), 10, 28), s, now() + n * interval '1 ms',
	CASE WHEN s < $2 THEN ARRAY[s + 1] ELSE '{}' END
FROM generate_series(1, $1) n, generate_series(1, $2) s ORDER BY n, s`

	// A claim leaves the index, a finish does not touch it (HOT).
	floorIndexSQL = `CREATE INDEX ON floor (registered, flow, seq) WHERE started IS NULL`

	// Independent rows must be found: the oldest that nobody holds.
	floorTakeSQL = `
UPDATE floor t SET status = 1, started = clock_timestamp()
FROM (SELECT flow, seq FROM floor WHERE started IS NULL ORDER BY registered, flow, seq LIMIT %d FOR NO KEY UPDATE SKIP LOCKED) c
WHERE t.flow = c.flow AND t.seq = c.seq
RETURNING t.flow, t.seq, t.program, t.parameters::text`

	// What follows in a chain stands in the row, and is claimed by its key.
	floorClaimSQL = `
UPDATE floor t SET status = 1, started = clock_timestamp()
FROM unnest($1::text[], $2::int[]) u(flow, seq) WHERE t.flow = u.flow AND t.seq = u.seq AND t.status = 0
RETURNING t.flow, t.seq, t.program, t.parameters::text`
	floorFinishSQL = `
UPDATE floor t SET status = 3, finished = clock_timestamp()
FROM unnest($1::text[], $2::int[]) u(flow, seq) WHERE t.flow = u.flow AND t.seq = u.seq AND t.status = 1
RETURNING t.flow, coalesce(t.next[1], 0), '', ''`
)

// floor takes flows of size tasks through it, and returns tasks a second.
func (b *bench) floor(ctx context.Context, flows, size int) (rate float64, err error) {
	err = b.database(ctx, func(db *sql.DB, _ postgres.Config) error {
		if _, err := db.ExecContext(ctx, floorTableSQL); err != nil {
			return err
		}
		if _, err := db.ExecContext(ctx, floorFillSQL, flows, size); err != nil {
			return err
		}
		for _, q := range []string{floorIndexSQL, "VACUUM ANALYZE floor", "CHECKPOINT"} {
			if _, err := db.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		rate, err = perSecond(flows*size, func() error { return b.floorLanes(ctx, db, size) })
		if err != nil {
			return err
		}
		var left int
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM floor WHERE status <> 3`).Scan(&left); err != nil {
			return err
		}
		if left > 0 {
			return fmt.Errorf("the floor left %d rows unfinished", left)
		}
		return nil
	})
	return rate, err
}

func (b *bench) floorLanes(ctx context.Context, db *sql.DB, size int) error {
	var lanes errgroup.Group
	for lane := range 2 {
		lanes.Go(func() error {
			conn, err := db.Conn(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			if size == 1 {
				return floorIndependent(ctx, conn, b.workers/3)
			}
			return floorChains(ctx, conn, size, lane, b.workers/3)
		})
	}
	return lanes.Wait()
}

func floorIndependent(ctx context.Context, conn *sql.Conn, batch int) error {
	take, err := conn.PrepareContext(ctx, fmt.Sprintf(floorTakeSQL, batch))
	if err != nil {
		return err
	}
	defer func() { _ = take.Close() }()
	finish, err := conn.PrepareContext(ctx, floorFinishSQL)
	if err != nil {
		return err
	}
	defer func() { _ = finish.Close() }()
	for {
		flows, seqs, err := keysOf(take.QueryContext(ctx))
		if err != nil || len(flows) == 0 {
			return err
		}
		if _, _, err := keysOf(finish.QueryContext(ctx, flows, seqs)); err != nil {
			return err
		}
	}
}

func floorChains(ctx context.Context, conn *sql.Conn, size, lane, batch int) error {
	all, _, err := keysOf(conn.QueryContext(ctx, `SELECT flow, 1, '', '' FROM floor WHERE seq = 1 ORDER BY flow`))
	if err != nil {
		return err
	}
	all = all[lane*len(all)/2 : (lane+1)*len(all)/2]
	claim, err := conn.PrepareContext(ctx, floorClaimSQL)
	if err != nil {
		return err
	}
	defer func() { _ = claim.Close() }()
	finish, err := conn.PrepareContext(ctx, floorFinishSQL)
	if err != nil {
		return err
	}
	defer func() { _ = finish.Close() }()
	for ; len(all) > 0; all = all[min(len(all), batch):] {
		flows := all[:min(len(all), batch)]
		seqs := slices.Repeat([]int32{1}, len(flows))
		for range size {
			if flows, seqs, err = keysOf(claim.QueryContext(ctx, flows, seqs)); err != nil {
				return err
			}
			if flows, seqs, err = keysOf(finish.QueryContext(ctx, flows, seqs)); err != nil {
				return err
			}
		}
	}
	return nil
}

// keysOf reads rows as an engine must: with what there is to run.
func keysOf(rows *sql.Rows, err error) (flows []string, seqs []int32, _ error) {
	if err != nil {
		return nil, nil, err
	}
	for rows.Next() {
		var flow, program, parameters string
		var seq int32
		if err := rows.Scan(&flow, &seq, &program, &parameters); err != nil {
			return nil, nil, errors.Join(err, rows.Close())
		}
		flows, seqs = append(flows, flow), append(seqs, seq)
	}
	return flows, seqs, errors.Join(rows.Err(), rows.Close())
}
