package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// failedTask is what v_failed and v_failure_group show, in the words of the index that
// finds it. A bulk action never takes up what somebody has held or cancelled on purpose,
// unless it is asked for just that.
const (
	failedTask    = `t.exec_status = 2 AND t.suspended_ts IS NOT NULL AND coalesce(t.reason, 'failed') NOT IN ('held', 'cancelled')`
	cancelledTask = `t.exec_status = 2 AND t.suspended_ts IS NOT NULL AND t.reason IS DISTINCT FROM 'held'`
	heldTask      = `t.exec_status = 2 AND t.suspended_ts IS NOT NULL AND t.reason = 'held'`
)

// ofFlow and ofTask are a filter, of a flow (f) and a task (t):
//
//	$1 workflow, $2 by whom, $3 $4 registered since and until, $5 status
//	$6 task_seq, $7 program, $8 reason, $9 fingerprint, $10 $11 failed since and until
//
// What a filter of lists says as well means the same flows here: failed also those that still
// run with a task that failed.
const (
	ofFlow = `($1::text IS NULL OR f.task_id = $1) AND ($2::text IS NULL OR f.registered_by = $2)
       AND ($3::timestamptz IS NULL OR f.registered_ts >= $3) AND ($4::timestamptz IS NULL OR f.registered_ts < $4)
       AND ($5::text[] IS NULL OR EXISTS (SELECT FROM v_flow v WHERE v.task_flow_id = f.task_flow_id
                                          AND (v.status = ANY ($5) OR 'failed' = ANY ($5) AND v.failed_task IS NOT NULL)))`
	ofTask = `($6::int IS NULL OR t.task_seq = $6) AND ($7::text IS NULL OR coalesce(t.program, '') = $7)
       AND ($8::text IS NULL OR coalesce(t.reason, '') = $8)
       AND ($9::text IS NULL OR flower_fingerprint(t.error) = $9)
       AND ($10::timestamptz IS NULL OR t.suspended_ts >= $10) AND ($11::timestamptz IS NULL OR t.suspended_ts < $11)`
)

// tasksSQL finds failed tasks; $12, if it is not NULL, has the flows that they are of. What is
// quick to be told of the task itself comes first, and its flow is found by its key: left to
// itself, the server joins all flows of a workflow with all its failed tasks while it does
// not know how many there are, which took 6 s with 10,000.
func tasksSQL(which string) string {
	return `
-- flower: tasks of a bulk action
SELECT t.task_flow_id, t.task_exec_seq
FROM   kr_task_stat t
CROSS  JOIN LATERAL (SELECT FROM kr_flow f WHERE f.task_flow_id = t.task_flow_id AND ` + ofFlow + ` OFFSET 0) f
WHERE  ` + which + ` AND ($1::text IS NULL OR t.task_id = $1)
       AND ` + ofTask + `
       AND ($12::text[] IS NULL OR t.task_flow_id = ANY ($12))
ORDER  BY 1, 2
LIMIT  $13`
}

// flowsSQL finds flows in which there is something to do.
func flowsSQL(which, doable string) string {
	return `
-- flower: flows of a bulk action
SELECT f.task_flow_id, 0 AS task_exec_seq
FROM   kr_flow f
WHERE  ` + ofFlow + `
       AND EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = f.task_flow_id AND ` + doable + `)
       AND (NOT $12 OR EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = f.task_flow_id AND ` + which + ` AND ` + ofTask + `))
ORDER  BY 1
LIMIT  $13`
}

// doable is what an action on whole flows looks for.
var doable = map[flow.ActionKind]string{
	flow.ActionRerun:  `true`,
	flow.ActionCancel: `(t.exec_status IN (0, 1) OR t.exec_status = 2 AND t.reason = 'held')`,
	flow.ActionHold:   `t.exec_status IN (0, 1) AND NOT t.hold`,
	flow.ActionResume: `(t.exec_status = 2 AND t.reason = 'held' OR t.exec_status = 1 AND t.hold)`,
}

// ActAll carries out an action on many flows, in one transaction. A flow of which a task is
// in the way is reported among Refused, and nothing in it changes; that is no error.
//
// Errors: *flow.PlanChangedError, with which the effect is returned as well;
// flow.ErrTooMany; and those of Act but *flow.RefusedError.
func (d *DB) ActAll(ctx context.Context, b flow.BulkAction) (flow.BulkEffect, error) {
	if err := checkBulk(b); err != nil {
		return flow.BulkEffect{}, err
	}
	o := orders{kind: b.Kind, scope: b.Scope}
	if b.Kind != flow.ActionRerun {
		o.scope = ""
	}
	if b.Kind == flow.ActionRerun && b.Scope == "" || b.Kind == flow.ActionSkip || b.Kind == flow.ActionFinish {
		o.scope = flow.ScopeFailed
	}
	var e flow.BulkEffect
	err := d.perform(ctx, b.Terms, b, &e, func(rows []plannedRow) error {
		e = bulkEffectOf(o, rows)
		e.DryRun = b.DryRun
		switch {
		case e.Changed > flow.MaxBulkTasks:
			return flow.ErrTooMany
		case b.Plan != "" && b.Plan != e.Plan, b.Expect != nil && *b.Expect != e.Changed:
			return &flow.PlanChangedError{Bulk: &e}
		}
		return nil
	}, func(ctx context.Context, q sqlx.QueryerContext) ([]plannedRow, error) {
		if err := o.find(ctx, q, b); err != nil {
			return nil, err
		}
		return o.plan(ctx, q, !b.DryRun)
	})
	return e, translate(string(b.Kind)+" many flows", err)
}

func checkBulk(b flow.BulkAction) error {
	invalid := func(subject, problem string) error { return &flow.InvalidError{Subject: subject, Problem: problem} }
	f := b.Filter
	empty := f.WorkflowID == "" && len(f.Status) == 0 && f.RegisteredBy == "" && f.Since.IsZero() && f.Until.IsZero() && !f.OfTasks()
	switch {
	case b.Kind == flow.ActionApprove:
		return invalid("action", "what a task asks is answered one by one")
	case len(b.Flows) == 0 && empty:
		return invalid("filter", "it says nothing: name the flows, or say which are meant")
	case len(b.Flows) > 0 && !empty:
		return invalid("filter", "name the flows, or say which are meant, and not both")
	case len(b.Flows) > flow.MaxBulkTasks:
		return flow.ErrTooMany
	case len(b.Flows) > 0 && b.Kind == flow.ActionRerun && (b.Scope == flow.ScopeFrom || b.Scope == flow.ScopeOnly):
		return invalid("scope", "of flows that are named it is failed or all: from and only need a filter that finds tasks")
	case b.Expect == nil && !b.DryRun:
		return invalid("expect", "say how many tasks will change, as a dry run tells")
	}
	return nil
}

// find finds what b is for. Tasks are looked for again when their flows are locked: what
// one looks like that has just been run again must not be judged by what it was before.
func (o *orders) find(ctx context.Context, q sqlx.QueryerContext, b flow.BulkAction) error {
	if len(b.Flows) > 0 {
		o.flows, o.seqs = make([]string, len(b.Flows)), make([]*int, len(b.Flows))
		for i, id := range b.Flows {
			o.flows[i] = string(id)
		}
		return nil
	}
	f := b.Filter
	which := failedTask
	switch {
	case f.Reason == flow.ReasonCancelled, slices.Contains(f.Status, "cancelled"):
		which = cancelledTask
	case f.Reason == flow.ReasonHeld:
		which = heldTask
	}
	args := []any{
		nullable(string(f.WorkflowID)), nullable(f.RegisteredBy), timestamp(f.Since), timestamp(f.Until), f.Status,
		positive(f.TaskSeq), nullable(f.Program), nullable(string(f.Reason)), nullable(f.Fingerprint), timestamp(f.FailedSince), timestamp(f.FailedUntil),
	}
	if g := f.Group; g != nil { // its task has that reason and that program, also where they are none
		args[0], args[5], args[6], args[7], args[8] = string(g.WorkflowID), g.TaskSeq, g.Program, string(g.Reason), g.Fingerprint
	}
	ofFlows := o.kind != flow.ActionSkip && o.kind != flow.ActionFinish && (o.kind != flow.ActionRerun || o.scope == flow.ScopeAll)
	if ofFlows {
		return o.read(ctx, q, flowsSQL(which, doable[o.kind]), append(args, f.OfTasks(), flow.MaxBulkTasks+1)...)
	}
	if err := o.read(ctx, q, tasksSQL(which), append(args, nil, flow.MaxBulkTasks+1)...); err != nil || b.DryRun || len(o.flows) == 0 {
		return err
	}
	if err := sqlx.SelectContext(ctx, q, &[]string{}, lockSQL, o.flows); err != nil {
		return err
	}
	return o.read(ctx, q, tasksSQL(which), append(args, o.flows, flow.MaxBulkTasks+1)...)
}

// lockSQL locks every task of flows, in the order in which everybody locks.
const lockSQL = `
-- flower: lock flows
SELECT flower_lock_tasks($1::text[])::text`

func (o *orders) read(ctx context.Context, q sqlx.QueryerContext, query string, args ...any) error {
	var rows []keyRow
	if err := sqlx.SelectContext(ctx, q, &rows, query, args...); err != nil {
		return err
	}
	if len(rows) > flow.MaxBulkTasks {
		return flow.ErrTooMany
	}
	o.flows, o.seqs = make([]string, len(rows)), make([]*int, len(rows))
	for i, r := range rows {
		o.flows[i] = r.FlowID
		o.seqs[i] = positive(r.Seq)
	}
	return nil
}

// maxRefused is how many refusals of a bulk action are told one by one.
const maxRefused = 100

// bulkEffectOf reads a plan of many flows, in their order.
func bulkEffectOf(o orders, rows []plannedRow) flow.BulkEffect {
	e := flow.BulkEffect{Flows: []flow.FlowChange{}, Refused: []flow.Refusal{}}
	refused := make(map[string]bool)
	for _, r := range rows {
		if r.Effect != "refuse" || refused[r.FlowID] {
			continue
		}
		refused[r.FlowID] = true
		e.RefusedCount++
		if len(e.Refused) < maxRefused {
			e.Refused = append(e.Refused, r.refusal())
		}
	}
	rows = slices.DeleteFunc(rows, func(r plannedRow) bool { return refused[r.FlowID] })
	e.Plan = digest(o, rows)
	for _, r := range rows {
		if r.CanGo {
			e.CanGo++
		}
		if r.Effect != "change" {
			continue
		}
		e.Changed++
		if n := len(e.Flows); n == 0 || e.Flows[n-1].Flow != flow.ID(r.FlowID) {
			e.Flows = append(e.Flows, flow.FlowChange{Flow: flow.ID(r.FlowID)})
		}
		e.Flows[len(e.Flows)-1].Changed++
	}
	return e
}

// timestamp, positive and nullable make what is not given NULL.
func timestamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func positive[T int | int64](n T) *T {
	if n <= 0 {
		return nil
	}
	return &n
}
