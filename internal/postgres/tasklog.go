package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// keepLogSQL writes lines of many attempts, and takes out those of long logs that are not
// among the last ones any more. A line whose task was deleted is dropped: it would stay
// for ever. (Of lines that are on their way at the very moment of the deletion some may
// stay: a lock that prevents it would cost every line a write to the task's row.)
const keepLogSQL = `
-- flower: keep log
WITH gone AS (
    DELETE FROM kr_task_log l
    USING  unnest($9::text[], $10::int[], $11::int[], $12::text[]::uuid[], $13::bigint[], $14::bigint[]) AS g(flow, seq, attempt, claim, low, high)
    WHERE  l.task_flow_id = ANY (ARRAY[g.flow]) AND l.task_exec_seq = g.seq AND l.attempt = g.attempt
           AND l.line_no BETWEEN g.low AND g.high AND l.claim_id = g.claim
), kept AS (
    INSERT INTO kr_task_log (task_flow_id, task_exec_seq, attempt, claim_id, line_no, line_ts, stream, text)
    SELECT n.flow, n.seq, n.attempt, n.claim, n.no, statement_timestamp() - n.age * interval '1 us', n.stream, n.text
    FROM   unnest($1::text[], $2::int[], $3::int[], $4::text[]::uuid[], $5::bigint[], $6::bigint[], $7::text[], $8::text[])
           AS n(flow, seq, attempt, claim, no, age, stream, text)
    WHERE  EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = n.flow AND t.task_exec_seq = n.seq OFFSET 0)
    ON CONFLICT (task_flow_id, task_exec_seq, attempt, line_no, claim_id) DO UPDATE
    SET    line_ts = excluded.line_ts, stream = excluded.stream, text = excluded.text
    WHERE  excluded.stream = 'flower'
    RETURNING 1
)
SELECT count(*) FROM kept`

// KeepLog writes parts of the logs of attempts, at most one of each attempt. After an
// error it may be called again with the same parts: what is there is not written twice.
// It has a connection to itself, and nothing of the engine waits for it.
func (d *DB) KeepLog(ctx context.Context, parts []flow.LogPart) error {
	var lines, gone logColumns
	for _, p := range parts {
		for _, l := range p.Lines {
			lines.add(p)
			lines.numbers = append(lines.numbers, l.No)
			lines.ages = append(lines.ages, time.Since(l.At).Microseconds())
			lines.streams = append(lines.streams, string(l.Stream))
			lines.texts = append(lines.texts, l.Text)
		}
		if p.GoneTo > 0 {
			gone.add(p)
			gone.numbers = append(gone.numbers, p.GoneFrom)
			gone.upTo = append(gone.upTo, p.GoneTo)
		}
	}
	var kept []int
	err := d.logs.selectAll(ctx, &kept, keepLogSQL,
		lines.flows, lines.seqs, lines.attempts, lines.claims, lines.numbers, lines.ages, lines.streams, lines.texts,
		gone.flows, gone.seqs, gone.attempts, gone.claims, gone.numbers, gone.upTo)
	return translate(fmt.Sprintf("keep the logs of %d tasks", len(parts)), err)
}

// logColumns are lines, or ranges of lines, as columns for unnest. The database has its
// own clock: it is told how long ago a line came.
type logColumns struct {
	flows, claims, streams, texts []string
	seqs, attempts                []int32
	numbers, upTo, ages           []int64
}

func (c *logColumns) add(p flow.LogPart) {
	c.flows = append(c.flows, string(p.Flow))
	c.seqs = append(c.seqs, int32(p.Seq))
	c.attempts = append(c.attempts, int32(p.Attempt))
	c.claims = append(c.claims, p.ClaimID)
}
