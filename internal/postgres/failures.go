package postgres

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// Limits of what one call looks at.
const (
	maxGroups    = 1000 // groups of failures
	maxGroupSize = 5000 // tasks of one of them are counted so far
)

// failureGroupsSQL finds what v_failure_group has, without computing the fingerprints of
// all failures anew: it leaps along the index that has them, from group to group, and
// counts each there.
func failureGroupsSQL(q *query, f flow.FailureFilter) string {
	where, since, again := "true", "", ""
	most := cmp.Or(f.CountTo, maxGroupSize)
	for column, value := range map[string]string{
		"task_id": string(f.WorkflowID), "program": f.Program, "reason": string(f.Reason), "fingerprint": f.Fingerprint,
	} {
		if value != "" {
			where += " AND g." + column + " = " + q.arg(value)
		}
	}
	if !f.Since.IsZero() {
		since = " AND suspended_ts >= " + q.moment(f.Since)
		again = " AND suspended_ts >= now() - interval '" + strconv.FormatFloat(f.Since.Before.Seconds(), 'f', -1, 64) + " s'"
		if !f.Since.At.IsZero() {
			again = " AND suspended_ts >= '" + f.Since.At.UTC().Format(time.RFC3339Nano) + "'"
		}
	}
	const key = `flower_fingerprint(error), task_id, task_seq, coalesce(program, ''), coalesce(reason, '')`
	const failed = `suspended_ts IS NOT NULL AND coalesce(reason, 'failed') NOT IN ('held', 'cancelled')`
	const next = `SELECT flower_fingerprint(error) AS fingerprint, task_id::text COLLATE "C" AS task_id, task_seq,
           coalesce(program, '')::text AS program, coalesce(reason, '') AS reason
    FROM   kr_task_stat WHERE ` + failed
	const same = failed + ` AND flower_fingerprint(error) = g.fingerprint AND task_id = g.task_id AND task_seq = g.task_seq
                   AND coalesce(program, '') = g.program AND coalesce(reason, '') = g.reason AND exec_status = 2`
	return `
-- flower: failure groups
WITH RECURSIVE g AS (
    (SELECT x.*, 1 AS n FROM (` + next + ` ORDER BY ` + key + ` LIMIT 1) x)
    UNION  ALL
    SELECT x.*, g.n + 1 FROM g
    CROSS  JOIN LATERAL (` + next + ` AND (` + key + `) > (g.fingerprint, g.task_id, g.task_seq, g.program, g.reason)
                         ORDER BY ` + key + ` LIMIT 1) x
    WHERE  g.n < ` + strconv.Itoa(maxGroups) + `
)
SELECT g.fingerprint, g.task_id, g.task_seq, g.program, g.reason, g.tasks, g.flows, g.first_ts, g.last_ts, g.spread,
       t.task_flow_id, t.task_exec_seq, coalesce(flower_title(t.description, t.program), '') AS title,
       left(split_part(coalesce(t.error, ''), E'\n', 1), 200) AS error,
       format('UPDATE kr_task_stat SET exec_status = 0 WHERE exec_status = 2 AND suspended_ts IS NOT NULL AND task_id = %L AND task_seq = %s AND program %s AND reason %s AND flower_fingerprint(error) = %L',
              g.task_id, g.task_seq, coalesce('= ' || quote_literal(t.program), 'IS NULL'), coalesce('= ' || quote_literal(t.reason), 'IS NULL'), g.fingerprint) || ` + q.arg(again) + `::text || ';' AS recover
FROM   (
    SELECT g.*, c.*, l.last_ts FROM g
    CROSS  JOIN LATERAL (` + spreadSQL(same+since, key, most) + `) c
    CROSS  JOIN LATERAL (SELECT max(suspended_ts) AS last_ts
                         FROM (SELECT suspended_ts FROM kr_task_stat WHERE ` + same + since + ` ORDER BY suspended_ts DESC LIMIT 1) s) l
    WHERE  ` + where + ` AND c.tasks > 0
    ORDER  BY c.tasks DESC, l.last_ts DESC, g.fingerprint, g.task_id, g.task_seq
    LIMIT  ` + q.arg(f.Limit+1) + `) g
CROSS  JOIN LATERAL (
    SELECT task_flow_id, task_exec_seq, description, program, reason, error FROM kr_task_stat WHERE ` + same + since + `
    ORDER  BY suspended_ts DESC LIMIT 1) t
ORDER  BY g.tasks DESC, g.last_ts DESC, g.fingerprint, g.task_id, g.task_seq`
}

// spreadSQL counts the tasks of a group, up to one more than most, and says how they are
// spread over the time from the first to the last of these, in twelve parts.
func spreadSQL(same, key string, most int) string {
	parts := make([]string, 12)
	for i := range parts {
		parts[i] = fmt.Sprintf("count(*) FILTER (WHERE part = %d)", i)
	}
	return `
        SELECT count(*) AS tasks, count(DISTINCT task_flow_id) AS flows, min(suspended_ts) AS first_ts, ARRAY[` + strings.Join(parts, ", ") + `] AS spread
        FROM   (SELECT *, least(11, floor(12 * extract(epoch FROM suspended_ts - min(suspended_ts) OVER ())
                                          / greatest(extract(epoch FROM max(suspended_ts) OVER () - min(suspended_ts) OVER ()), 0.000001))) AS part
                FROM (SELECT task_flow_id, suspended_ts FROM kr_task_stat WHERE ` + same + `
                      ORDER BY ` + key + `, suspended_ts LIMIT ` + strconv.Itoa(most+1) + `) s) s`
}

type failureGroupRow struct {
	Fingerprint string        `db:"fingerprint"`
	WorkflowID  string        `db:"task_id"`
	TaskSeq     int           `db:"task_seq"`
	Program     string        `db:"program"`
	Reason      string        `db:"reason"`
	Tasks       int           `db:"tasks"`
	Flows       int           `db:"flows"`
	FirstTS     time.Time     `db:"first_ts"`
	LastTS      time.Time     `db:"last_ts"`
	Spread      pq.Int64Array `db:"spread"`
	FlowID      string        `db:"task_flow_id"`
	Seq         int           `db:"task_exec_seq"`
	Title       string        `db:"title"`
	Error       string        `db:"error"`
	Recover     string        `db:"recover"`
}

func (r failureGroupRow) group(most int) flow.FailureGroup {
	var spread []int
	for _, n := range r.Spread {
		if r.Tasks <= most { // of more, the first ones say little
			spread = append(spread, int(n))
		}
	}
	return flow.FailureGroup{
		Tasks: capped(r.Tasks, most), Flows: flow.Count{N: min(r.Flows, most), More: r.Tasks > most},
		WorkflowID: flow.WorkflowID(r.WorkflowID), TaskSeq: r.TaskSeq, Title: r.Title, Program: r.Program, Reason: flow.Reason(r.Reason),
		Error: r.Error, Fingerprint: r.Fingerprint, FirstAt: r.FirstTS, LastAt: r.LastTS, Spread: spread,
		Latest: flow.TaskKey{Flow: flow.ID(r.FlowID), Seq: r.Seq}, Recover: r.Recover,
	}
}

func capped(n, most int) flow.Count { return flow.Count{N: min(n, most), More: n > most} }

// FailureGroups returns what is failed now, in groups of failures that look alike.
func (d *DB) FailureGroups(ctx context.Context, f flow.FailureFilter) (flow.FailureGroups, error) {
	var groups flow.FailureGroups
	var rows []failureGroupRow
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		if err := tx.GetContext(ctx, &groups.AsOf, nowSQL); err != nil {
			return err
		}
		q := &query{}
		return tx.SelectContext(ctx, &rows, failureGroupsSQL(q, f), q.args...)
	})
	groups.More = len(rows) > f.Limit
	for _, r := range rows[:min(len(rows), f.Limit)] {
		groups.Groups = append(groups.Groups, r.group(cmp.Or(f.CountTo, maxGroupSize)))
	}
	return groups, translate("group failures", err)
}
