package postgres

import (
	"context"
	"slices"

	"github.com/d-tsuji/flower/internal/flow"
)

// Tasks of workflows with a limit (ms_workflow) do not enter the queue by themselves: they
// wait at their gate until flower_admit opens it. It is called after whatever may have
// made room, by whoever did it, and by every watcher's housekeeping for changes by hand
// and for callers that died.

// admitSQL waits for others who admit the same workflow, since what they do not see of ours
// nobody would let go; but not for a person who is changing its limit, and may be for hours:
// flower_admit passes over a row that is locked.
const admitSQL = `
-- flower: admit
SELECT coalesce(sum(flower_admit(id)), 0)::int
FROM   (SELECT id, pg_advisory_xact_lock(hashtextextended('flower: limit of ' || id, 0)) FROM unnest($1::text[]) AS id OFFSET 0) w`

// admit lets tasks of workflows into the queue as far as their limits allow, and returns
// how many. The workflows are taken in one order by everybody, since each is locked.
func (d *DB) admit(ctx context.Context, workflows []string) (int, error) {
	slices.Sort(workflows)
	var admitted []int
	err := d.writer.selectAll(ctx, &admitted, admitSQL, slices.Compact(workflows))
	if err != nil || len(admitted) == 0 {
		return 0, translate("admit tasks of workflows with a limit", err)
	}
	if admitted[0] > 0 {
		d.entered(beginning)
	}
	return admitted[0], nil
}

// admitAfter looks for room that results have made, and for what they have released.
func (d *DB) admitAfter(ctx context.Context, adv *flow.Advanced) {
	var workflows []string
	for _, j := range adv.Verdicts {
		if j.Result.Task.Limited {
			workflows = append(workflows, string(j.Result.Task.WorkflowID))
		}
	}
	if len(workflows) == 0 {
		return
	}
	admitted, err := d.admit(ctx, workflows)
	if err != nil {
		d.log.Error("tasks that wait for their workflow's limit were not admitted: housekeeping will do it", "err", err)
	}
	adv.Queued += admitted
}

// admitOf admits the first tasks of flows that were just registered.
func (d *DB) admitOf(ctx context.Context, rows []flowRow) {
	var workflows []string
	for _, r := range rows {
		if r.Limited {
			workflows = append(workflows, r.WorkflowID)
		}
	}
	if len(workflows) == 0 {
		return
	}
	if _, err := d.admit(ctx, workflows); err != nil {
		d.log.Error("new flows were not admitted: a watcher will do it", "err", err)
	}
}

// waitingSQL finds workflows of which a task waits for a limit, by an index.
const waitingSQL = `
-- flower: workflows that wait
SELECT task_id FROM ms_workflow w WHERE EXISTS (SELECT FROM kr_task_stat t WHERE t.task_id = w.task_id AND t.gate = 2)`

// admitWaiting admits what waits for a limit, wherever there is room.
func (d *DB) admitWaiting(ctx context.Context) (int, error) {
	var workflows []string
	if err := d.writer.selectAll(ctx, &workflows, waitingSQL); err != nil || len(workflows) == 0 {
		return 0, translate("look for workflows that wait for their limit", err)
	}
	return d.admit(ctx, workflows)
}
