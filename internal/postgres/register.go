package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// registerSQL makes a flow with all its tasks and its place in the queue, or finds the
// flow that an earlier request with the same idempotency key has made. Finding it is a
// write, too: a commit of nothing would not wait for a standby, and would acknowledge
// what only this server has.
const registerSQL = `
-- flower: register
WITH flow AS (
    INSERT INTO kr_flow (task_flow_id, task_id, registered_by, note, parameters, idempotency_key, fingerprint)
    VALUES ($1, $2, nullif($3, ''), nullif($4, ''), $5::jsonb, nullif($6, ''), nullif($7, ''))
    ON CONFLICT (idempotency_key) WHERE idempotency_key IS NOT NULL DO UPDATE SET replayed_ts = clock_timestamp()
    RETURNING task_flow_id, task_id, registered_ts, fingerprint
), task AS (
    INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status,
        task_priority, unmet, depends_task_exec_seqs, dependents, program, parameters, max_attempts, retry_delay,
        timeout, on_lost, description)
    SELECT $1, d.exec_seq, d.first, $2, d.seq, 0,
           d.priority, cardinality(d.parents::int[]), CASE WHEN cardinality(d.parents::int[]) > 1 THEN d.parents::int[] END,
           d.dependents::int[], d.program, d.parameters::jsonb || coalesce($5::jsonb, '{}'), d.max_attempts,
           d.retry_delay * interval '1 ms', d.timeout * interval '1 ms', d.on_lost, nullif(d.description, '')
    FROM   unnest($8::int[], $9::int[], $10::int[], $11::int[], $12::text[], $13::text[], $14::text[], $15::text[], $16::int[],
                  $17::bigint[], $18::bigint[], $19::text[], $20::text[])
           AS d(exec_seq, first, seq, priority, parents, dependents, program, parameters, max_attempts,
                retry_delay, timeout, on_lost, description)
    WHERE  EXISTS (SELECT FROM flow WHERE task_flow_id = $1)
    RETURNING task_priority, registered_ts, task_flow_id, task_exec_seq, unmet
), ready AS (
    INSERT INTO kr_ready (task_priority, registered_ts, task_flow_id, task_exec_seq)
    SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM task WHERE unmet = 0
)
SELECT task_flow_id, task_id, registered_ts, coalesce(fingerprint, '') AS fingerprint FROM flow`

type flowRow struct {
	FlowID       string    `db:"task_flow_id"`
	WorkflowID   string    `db:"task_id"`
	RegisteredTS time.Time `db:"registered_ts"`
	Fingerprint  string    `db:"fingerprint"`
}

const flowSQL = `
-- flower: flow
SELECT task_flow_id, task_id, registered_ts, coalesce(fingerprint, '') AS fingerprint
FROM   kr_flow WHERE task_flow_id = $1`

// Register makes a new flow of a workflow, whole or not at all. It is safe to repeat
// with the same r.FlowID, and repeats itself where an answer was lost.
//
// Errors: flow.ErrNotFound, no such workflow; *flow.InvalidError, its graph is broken;
// flow.ErrKeyReused; flow.ErrUnavailable, in which case it is not known whether the flow
// exists, unless the error says so.
func (d *DB) Register(ctx context.Context, r flow.Registration) (flow.Flow, error) {
	doing := fmt.Sprintf("register workflow %q", r.WorkflowID)
	for pause := 20 * time.Millisecond; ; pause *= 2 {
		f, err := d.register(ctx, r)
		if err == nil || !unavailable(err) || pause > time.Second {
			return f, translate(doing, err)
		}
		select {
		case <-ctx.Done():
			return flow.Flow{}, translate(doing, err)
		case <-time.After(pause):
		}
	}
}

func (d *DB) register(ctx context.Context, r flow.Registration) (flow.Flow, error) {
	w, err := d.Workflow(ctx, r.WorkflowID)
	if err != nil {
		return flow.Flow{}, err
	}
	tasks, err := w.Plan()
	if err != nil {
		return flow.Flow{}, err
	}
	var rows []flowRow
	err = d.writer.selectAll(ctx, &rows, registerSQL, registerArgs(r, tasks)...)
	switch {
	case uniqueViolation(err, "kr_flow_pkey"): // by an earlier call, whose answer was lost
		err = d.pool.SelectContext(ctx, &rows, flowSQL, string(r.FlowID))
	case badValue(err) != nil:
		return flow.Flow{}, &flow.InvalidError{Subject: fmt.Sprintf("workflow %q", r.WorkflowID), Problem: badValue(err).Message}
	}
	if err != nil {
		return flow.Flow{}, err
	}
	if len(rows) != 1 {
		return flow.Flow{}, fmt.Errorf("flow %s: %d rows instead of one", r.FlowID, len(rows))
	}
	d.hints.notify()
	return rows[0].flow(r)
}

// flow turns the flow that a registration came to into its answer.
func (row flowRow) flow(r flow.Registration) (flow.Flow, error) {
	f := flow.Flow{
		ID:           flow.ID(row.FlowID),
		WorkflowID:   flow.WorkflowID(row.WorkflowID),
		RegisteredAt: row.RegisteredTS,
		Replayed:     flow.ID(row.FlowID) != r.FlowID,
	}
	if f.Replayed && row.Fingerprint != r.Fingerprint {
		return flow.Flow{}, flow.ErrKeyReused
	}
	return f, nil
}

// registerArgs returns the arguments of registerSQL. Arrays of arrays go as text, as
// PostgreSQL's own must be rectangular.
func registerArgs(r flow.Registration, tasks []flow.PlannedTask) []any {
	n := len(tasks)
	execSeq, first, seq, priority, maxAttempts := make([]int32, n), make([]int32, n), make([]int32, n), make([]int32, n), make([]int32, n)
	parents, dependents, program, parameters := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	onLost, description := make([]string, n), make([]string, n)
	retryDelay, timeout := make([]int64, n), make([]*int64, n)
	for i, t := range tasks {
		execSeq[i], seq[i], priority[i] = int32(t.ExecSeq), int32(t.Seq), int32(t.Priority)
		if r.Priority != nil {
			priority[i] = int32(*r.Priority)
		}
		if len(t.Parents) > 0 {
			first[i] = int32(t.Parents[0])
		}
		parents[i], dependents[i] = arrayText(t.Parents), arrayText(t.Dependents)
		program[i], parameters[i] = t.Program, "{}"
		if t.Parameters != nil {
			parameters[i] = string(t.Parameters)
		}
		maxAttempts[i], retryDelay[i] = int32(max(t.MaxAttempts, 1)), t.RetryDelay.Milliseconds()
		if t.Timeout > 0 {
			ms := t.Timeout.Milliseconds()
			timeout[i] = &ms
		}
		onLost[i], description[i] = string(t.OnLost), t.Description
	}
	var given *string
	if r.Parameters != nil {
		text := string(r.Parameters)
		given = &text
	}
	return []any{
		string(r.FlowID), string(r.WorkflowID), r.RegisteredBy, r.Note, given, r.IdempotencyKey, r.Fingerprint,
		execSeq, first, seq, priority, parents, dependents, program, parameters, maxAttempts, retryDelay,
		pq.Array(timeout), onLost, description,
	}
}

// arrayText writes an array as PostgreSQL does: {1,2}.
func arrayText(seqs []int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, s := range seqs {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(s))
	}
	b.WriteByte('}')
	return b.String()
}
