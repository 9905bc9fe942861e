package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/d-tsuji/flower/internal/flow"
)

// Register makes a new flow of a workflow, whole or not at all. It is safe to repeat
// with the same r.FlowID, and repeats itself where an answer was lost. Registrations that
// come at the same time share a statement and its commit (see registrar).
//
// Errors: flow.ErrNotFound, no such workflow; flow.ErrFlowExists, of an id that somebody chose; *flow.InvalidError, its graph is broken, or a
// program cannot run with its parameters (see CheckParameters);
// flow.ErrKeyReused; flow.ErrWaiting (see LimitWaiting); flow.ErrUnavailable, after which it is not known whether the flow
// exists: only the same r.FlowID or the same r.IdempotencyKey makes another try safe.
func (d *DB) Register(ctx context.Context, r flow.Registration) (flow.Flow, error) {
	doing := fmt.Sprintf("register workflow %q", r.WorkflowID)
	for pause := 20 * time.Millisecond; ; pause *= 2 {
		var f flow.Flow
		err := d.mayWait(ctx, r)
		if err == nil {
			f, err = d.flows.register(ctx, r)
		}
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

// registerText makes flows with all their tasks and their places in the queue, or finds
// those that earlier requests with the same idempotency keys have made. Finding one is a
// write, too: a commit of nothing would not wait for a standby, and would acknowledge
// what only this server has.
//
//	$1 to $8   the flows: id, workflow, by whom, note, parameters, key, fingerprint, priority
//	$9 to $22  the tasks of the workflows, once per workflow
//	$23 to $25 of each flow the task that registers it, if one does, by flow and seq, and the version of its workflow
//	$26 to $28 the workflows: id, and the version and digest of the definition that those tasks are
//	$29        if byTasks: of each flow the claim of the task that registers it
//
// A flow whose workflow has another definition by now is not made, and has no row in the
// answer; nor has one whose task was stopped. Whoever stops it later waits for the lock of its
// row, and finds the flow: cancelling the one cancels the other. No two flows may have the same
// key: an INSERT cannot meet its own row. What looks into a set is written as NOT IN or
// IN … IS TRUE, which is hashed whatever the planner thinks of its size: planned as a join,
// 200 flows took 30 ms instead of 7.
func registerText(byTasks bool) string {
	parent, claims, claim, running := "", "", "", ""
	if byTasks {
		parent, claims, claim = parentSQL, ", $29::text[]", ", claim"
		running = " AND (parent_flow = '' OR (parent_flow, parent_seq, claim) IN (SELECT flow, seq, claim FROM parent))"
	}
	return `
-- flower: register
WITH changed AS MATERIALIZED (
    SELECT w.id
    FROM   unnest($26::text[], $27::int[], $28::text[]) AS w(id, version, digest)
    LEFT   JOIN LATERAL (SELECT version, digest FROM ms_workflow_version WHERE task_id = w.id ORDER BY version DESC LIMIT 1) v ON true
    WHERE  coalesce(v.version, 0) <> w.version OR coalesce(v.digest, '') <> w.digest
` + parent + `), given AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[],
                         $23::text[], $24::int[], $25::int[]` + claims + `)
             WITH ORDINALITY AS g(id, workflow, by, note, parameters, key, fingerprint, priority, parent_flow, parent_seq, version` + claim + `, n)
    WHERE  workflow NOT IN (SELECT id FROM changed)` + running + `
), limited AS MATERIALIZED (
    SELECT task_id FROM ms_workflow WHERE task_id = ANY ($2::text[]) AND (max_running_flows IS NOT NULL OR max_running_tasks IS NOT NULL)
), flow AS (
    INSERT INTO kr_flow (task_flow_id, task_id, registered_by, note, parameters, idempotency_key, fingerprint, parent_flow_id, parent_exec_seq,
                         workflow_version)
    SELECT id, workflow, nullif(by, ''), nullif(note, ''), parameters::jsonb, nullif(key, ''), nullif(fingerprint, ''),
           nullif(parent_flow, ''), nullif(parent_seq, 0), nullif(version, 0)
    FROM   given
    ORDER  BY key, n  -- in one order for everybody: two batches may have keys in common
    ON CONFLICT (idempotency_key) WHERE idempotency_key IS NOT NULL DO UPDATE SET replayed_ts = clock_timestamp()
    RETURNING task_flow_id, task_id, registered_ts, fingerprint, idempotency_key, replayed_ts
), task AS (
    INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, exec_status,
        task_priority, unmet, gate, depends_task_exec_seqs, dependents, program, parameters, max_attempts, retry_delay,
        timeout, on_lost, description, run_if)
    SELECT g.id, d.exec_seq, coalesce(d.parents[1], 0), g.workflow, d.seq, 0,
           coalesce(g.priority, d.priority), cardinality(d.parents),
           CASE WHEN g.workflow NOT IN (SELECT task_id FROM limited) THEN 0 WHEN cardinality(d.parents) = 0 THEN 2 ELSE 1 END,
           CASE WHEN cardinality(d.parents) > 1 THEN d.parents END,
           d.dependents, d.program, d.parameters || coalesce(g.parameters::jsonb, '{}'), d.max_attempts,
           d.retry_delay, d.timeout, d.on_lost, nullif(d.description, ''), nullif(d.run_if, '')
    FROM   given g
    JOIN   (SELECT workflow, exec_seq, seq, priority, parents::int[], dependents::int[], program, parameters::jsonb, max_attempts,
                   retry_delay * interval '1 ms' AS retry_delay, timeout * interval '1 ms' AS timeout, on_lost, description, run_if
            FROM unnest($9::text[], $10::int[], $11::int[], $12::int[], $13::text[], $14::text[], $15::text[], $16::text[],
                        $17::int[], $18::bigint[], $19::bigint[], $20::text[], $21::text[], $22::text[])
                 AS t(workflow, exec_seq, seq, priority, parents, dependents, program, parameters, max_attempts,
                      retry_delay, timeout, on_lost, description, run_if)
            OFFSET 0) d ON d.workflow = g.workflow  -- OFFSET: texts are parsed once per task of a workflow, not per flow
    WHERE  (g.id IN (SELECT task_flow_id FROM flow WHERE replayed_ts IS NULL)) IS TRUE
    ORDER  BY g.n, d.exec_seq
    RETURNING task_priority, registered_ts, task_flow_id, task_exec_seq, unmet, gate
), ready AS (
    INSERT INTO kr_ready (task_priority, registered_ts, task_flow_id, task_exec_seq)
    SELECT task_priority, registered_ts, task_flow_id, task_exec_seq FROM task WHERE unmet = 0 AND gate = 0
)
SELECT task_flow_id, task_id, registered_ts, coalesce(fingerprint, '') AS fingerprint, coalesce(idempotency_key, '') AS idempotency_key,
       task_id IN (SELECT task_id FROM limited) AS limited, replayed_ts IS NOT NULL AS replayed
FROM   flow`
}

// By tasks are few: what those need would cost all others a twentieth.
var (
	registerSQL        = registerText(false)
	registerByTasksSQL = registerText(true)
)

// parentSQL has the tasks that ask for flows and still may.
const parentSQL = `), parent AS MATERIALIZED (  -- in the order in which everybody locks
    SELECT k.flow, k.seq, k.claim
    FROM   (SELECT flow COLLATE "C" AS flow, seq, claim FROM unnest($23::text[], $24::int[], $29::text[]) AS g(flow, seq, claim)
            WHERE flow <> '' GROUP BY 1, 2, 3 ORDER BY 1, 2) k
    CROSS  JOIN LATERAL (SELECT FROM kr_task_stat t WHERE t.task_flow_id = k.flow AND t.task_exec_seq = k.seq
                         AND t.exec_status = 1 AND t.claim_id = k.claim::uuid FOR SHARE) t
`

// foundSQL finds the flow that an earlier call made, whose answer was lost; by a write,
// as above.
const foundSQL = `
-- flower: found flow
UPDATE kr_flow SET replayed_ts = clock_timestamp()
WHERE  task_flow_id = $1
RETURNING task_flow_id, task_id, registered_ts, coalesce(fingerprint, '') AS fingerprint, coalesce(idempotency_key, '') AS idempotency_key`

type flowRow struct {
	FlowID       string    `db:"task_flow_id"`
	WorkflowID   string    `db:"task_id"`
	RegisteredTS time.Time `db:"registered_ts"`
	Fingerprint  string    `db:"fingerprint"`
	Key          string    `db:"idempotency_key"`
	Limited      bool      `db:"limited"`  // its workflow has a limit; not told of a found flow
	Replayed     bool      `db:"replayed"` // it was found by its key
}

// flow turns the flow that a registration came to into its answer.
func (row flowRow) flow(r flow.Registration) (flow.Flow, error) {
	f := flow.Flow{
		ID:           flow.ID(row.FlowID),
		WorkflowID:   flow.WorkflowID(row.WorkflowID),
		RegisteredAt: row.RegisteredTS,
		Replayed:     flow.ID(row.FlowID) != r.FlowID || r.OwnID && row.Replayed,
	}
	if r.OwnID && f.ID == r.FlowID && (row.Fingerprint != r.Fingerprint || row.Key != r.IdempotencyKey) {
		if r.IdempotencyKey != "" && row.Key == r.IdempotencyKey {
			return flow.Flow{}, flow.ErrKeyReused
		}
		return flow.Flow{}, flow.ErrFlowExists
	}
	if f.Replayed && row.Fingerprint != r.Fingerprint {
		return flow.Flow{}, flow.ErrKeyReused
	}
	return f, nil
}

// registerAll makes flows in one statement, and answers every registration: each with
// its own error where its workflow is missing or broken, all with the same one where the
// database failed, alone where one of them spoiled the statement. Those whose definition
// was changed since it was read come again.
func (d *DB) registerAll(ctx context.Context, batch []*registration) {
	for range maxTries {
		if batch = d.registerPresent(ctx, batch); len(batch) == 0 {
			return
		}
		for _, r := range batch {
			d.recall.forget(r.request.WorkflowID)
		}
	}
	for _, r := range batch {
		r.answer(flow.Flow{}, fmt.Errorf("the database made no flow in %d tries: "+
			"its definition was changed during each of them, the task that asks for it was stopped or taken over, "+
			"or a trigger that is not ours keeps its row away", maxTries))
	}
}

// maxTries is how often a registration is tried whose definition was changed meanwhile.
const maxTries = 10

// registerPresent registers a batch as definitions are remembered, and returns those that
// need a new look at theirs.
func (d *DB) registerPresent(ctx context.Context, batch []*registration) (stale []*registration) {
	plans, err := d.plansOf(ctx, batch)
	if err != nil {
		d.registerEach(ctx, batch, err)
		return nil
	}
	var whole []*registration
	for _, r := range batch {
		p := plans[r.request.WorkflowID]
		switch err := d.refuse(r.request, p); {
		case err == nil:
			whole = append(whole, r)
		case p.recalled: // what is refused now may be right by the present definition
			stale = append(stale, r)
		default:
			r.answer(flow.Flow{}, err)
		}
	}
	if len(whole) == 0 {
		return stale
	}
	var rows []flowRow
	query, args := registerSQL, registerArgs(whole, plans)
	if claims := parentClaims(whole); claims != nil {
		query, args = registerByTasksSQL, append(args, claims)
	}
	if err := d.writer.selectAll(ctx, &rows, query, args...); err != nil {
		d.registerEach(ctx, whole, err)
		return stale
	}
	d.admitOf(ctx, rows)
	d.entered(firstOf(rows, whole, plans))
	return append(stale, answerEach(whole, rows)...)
}

// refuse says why a workflow cannot become the flow that a request asks for.
func (d *DB) refuse(r flow.Registration, p plan) error {
	switch {
	case p.err != nil:
		return p.err
	case r.Parameters == nil:
		return p.plain
	}
	if err := checkSize(r, len(p.tasks)); err != nil {
		return err
	}
	return d.check(p.workflow, r.Parameters)
}

// registerEach is the way out when one registration may have spoiled a batch: each is
// tried alone.
func (d *DB) registerEach(ctx context.Context, batch []*registration, cause error) {
	switch {
	case !splittable(cause):
		for _, r := range batch {
			r.answer(flow.Flow{}, cause)
		}
	case len(batch) == 1:
		batch[0].answer(d.explain(ctx, batch[0].request, cause))
	default:
		for _, r := range batch {
			d.registerAll(ctx, []*registration{r})
		}
	}
}

// maxCopies limits the bytes of a request's parameters in all tasks of its flow together.
const maxCopies = 64 << 20

func checkSize(r flow.Registration, tasks int) error {
	if len(r.Parameters)*tasks <= maxCopies {
		return nil
	}
	return &flow.InvalidError{
		Subject: fmt.Sprintf("workflow %q", r.WorkflowID),
		Problem: fmt.Sprintf("its %d tasks would each get a copy of %d bytes of parameters: store them elsewhere and pass where",
			tasks, len(r.Parameters)),
	}
}

// explain says what became of a single registration that the database refused.
func (d *DB) explain(ctx context.Context, r flow.Registration, cause error) (flow.Flow, error) {
	if uniqueViolation(cause, "kr_flow_pkey") { // made by an earlier call, whose answer was lost
		var rows []flowRow
		if err := d.writer.selectAll(ctx, &rows, foundSQL, string(r.FlowID)); err != nil || len(rows) == 0 {
			return flow.Flow{}, errors.Join(cause, err)
		}
		return rows[0].flow(r)
	}
	if problem := badValue(cause); problem != "" {
		return flow.Flow{}, &flow.InvalidError{Subject: fmt.Sprintf("workflow %q", r.WorkflowID), Problem: problem}
	}
	return flow.Flow{}, cause
}

// answerEach gives each registration its row, and returns those that have none.
func answerEach(batch []*registration, rows []flowRow) (without []*registration) {
	byID, byKey := make(map[string]flowRow, len(rows)), make(map[string]flowRow)
	for _, row := range rows {
		byID[row.FlowID] = row
		if row.Key != "" {
			byKey[row.Key] = row
		}
	}
	for _, r := range batch {
		row, found := byID[string(r.request.FlowID)]
		if !found {
			row, found = byKey[r.request.IdempotencyKey]
		}
		if !found {
			without = append(without, r)
			continue
		}
		r.answer(row.flow(r.request))
	}
	return without
}
