package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// checkSQL reads v_invariant, whole, and leaves what it finds where both programs look.
// It is written down once it was read, so that nobody waits for a lock meanwhile.
const checkSQL = `
-- flower: check
WITH broken AS MATERIALIZED (
    SELECT rule, count(*) AS rows, min(ARRAY[task_flow_id::text COLLATE "default", task_exec_seq::text, left(detail, 200)]) AS example
    FROM   v_invariant
    GROUP  BY rule
), found AS MATERIALIZED (
    SELECT coalesce(jsonb_agg(jsonb_build_object('rule', rule, 'rows', rows, 'flow', example[1], 'seq', example[2]::int, 'detail', example[3])
                              ORDER BY rule), '[]') AS broken
    FROM   broken
)
INSERT INTO kr_check AS k (checked_ts, took, broken, broken_since)
SELECT clock_timestamp(), clock_timestamp() - statement_timestamp(), broken,
       CASE WHEN broken <> '[]' THEN clock_timestamp() END
FROM   found
ON CONFLICT (one) DO UPDATE
SET    checked_ts   = excluded.checked_ts,
       took         = excluded.took,
       broken       = excluded.broken,
       broken_since = CASE WHEN excluded.broken <> '[]' THEN coalesce(k.broken_since, excluded.broken_since) END,
       repaired     = CASE WHEN excluded.broken = '[]' AND k.broken <> '[]' THEN k.broken ELSE k.repaired END,
       repaired_ts  = CASE WHEN excluded.broken = '[]' AND k.broken <> '[]' THEN excluded.checked_ts ELSE k.repaired_ts END
RETURNING broken::text`

// forgetUnownedSQL keeps kr_unowned short.
const forgetUnownedSQL = `
-- flower: forget what was not owned
DELETE FROM kr_unowned u
WHERE  NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = u.task_flow_id AND t.task_exec_seq = u.task_exec_seq
                   AND t.exec_status = 1)`

// checkDueSQL is true for one of many who ask, when it is time: after a minute, or when
// the last check was so long ago that checks take no more than their share of the time.
// A check in the future is none: the clock was set back.
const checkDueSQL = `
-- flower: check due
SELECT pg_try_advisory_xact_lock(hashtextextended('flower check', 0))
       AND ($1 OR NOT EXISTS (SELECT FROM kr_check WHERE checked_ts <= clock_timestamp()
                              AND checked_ts > clock_timestamp() - greatest($2 * interval '1 s', $3 * took)))`

// Check reads v_invariant and leaves what it finds for Checked; one watcher at a time, and
// not sooner than is worth it: the others return at once. It returns the rules that it
// found broken itself. anew: however short ago the last check was.
func (d *DB) Check(ctx context.Context, anew bool) ([]flow.BrokenRule, error) {
	var broken []flow.BrokenRule
	err := d.inLongTx(ctx, func(tx *sqlx.Tx) error {
		var due bool
		// A little less than the pause: whoever comes after a pause finds it due.
		if err := tx.GetContext(ctx, &due, checkDueSQL, anew, flow.CheckEvery.Seconds()*3/4, flow.CheckShare); err != nil || !due {
			return err
		}
		var text string
		if err := tx.GetContext(ctx, &text, checkSQL); err != nil {
			return err
		}
		var err error
		if broken, err = brokenRules(text); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, forgetUnownedSQL)
		return err
	})
	return broken, translate("check v_invariant", err)
}

const checkedSQL = `
-- flower: checked
SELECT extract(epoch FROM clock_timestamp() - checked_ts)::float8 AS age, extract(epoch FROM took)::float8 AS took,
       broken::text AS broken, coalesce(extract(epoch FROM clock_timestamp() - broken_since), 0)::float8 AS broken_for,
       repaired::text AS repaired, coalesce(extract(epoch FROM clock_timestamp() - repaired_ts), 0)::float8 AS repaired_age
FROM   kr_check`

type checkedRow struct {
	Age         float64 `db:"age"` // seconds, as the others
	Took        float64 `db:"took"`
	Broken      string  `db:"broken"`
	BrokenFor   float64 `db:"broken_for"`
	Repaired    string  `db:"repaired"`
	RepairedAge float64 `db:"repaired_age"`
}

// Checked returns what the last Check found, whoever made it.
func (d *DB) Checked(ctx context.Context) (flow.Check, error) {
	var rows []checkedRow
	if err := d.reads.SelectContext(ctx, &rows, checkedSQL); err != nil || len(rows) == 0 {
		return flow.Check{}, translate("read what the last check found", err)
	}
	r := rows[0]
	c := flow.Check{
		Done: true, Age: seconds(r.Age), Took: seconds(r.Took),
		BrokenFor: seconds(r.BrokenFor), RepairedAge: seconds(r.RepairedAge),
	}
	var err error
	if c.Broken, err = brokenRules(r.Broken); err == nil {
		c.Repaired, err = brokenRules(r.Repaired)
	}
	return c, err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// brokenRules reads what checkSQL wrote.
func brokenRules(text string) ([]flow.BrokenRule, error) {
	var rows []struct {
		Rule, Flow, Detail string
		Rows, Seq          int
	}
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return nil, fmt.Errorf("read kr_check: %w", err)
	}
	var rules []flow.BrokenRule
	for _, r := range rows {
		rules = append(rules, flow.BrokenRule{
			Rule: r.Rule, Rows: r.Rows, Key: flow.TaskKey{Flow: flow.ID(r.Flow), Seq: r.Seq}, Detail: r.Detail,
		})
	}
	return rules, nil
}
