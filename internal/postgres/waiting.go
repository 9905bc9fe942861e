package postgres

import (
	"context"

	"github.com/d-tsuji/flower/internal/flow"
)

// LimitWaiting has Register refuse more than so many flows of one caller that have not
// begun; 0 is any number. Call it before Register. It is no exact limit: registrations at
// the same time count as one. A caller that registers for somebody is counted for each of them:
// one gateway has many users. So it keeps back whoever errs, not whoever gives many names.
func (d *DB) LimitWaiting(most int) { d.maxWaiting = most }

// othersWaitSQL looks at one flow of a caller: of those that came after it there are as many
// as may wait. Flows begin in the order in which they were registered, or nearly, so that
// all of these wait if it does. A request that is repeated by its key makes no flow. The index
// has the beginning of a name alone.
const othersWaitSQL = `
-- flower: waiting
SELECT EXISTS (
    SELECT FROM (SELECT task_flow_id FROM kr_flow WHERE registered_by IS NOT NULL AND left(registered_by, 200) = left($1::text, 200)
                 ORDER BY registered_ts DESC, task_flow_id DESC OFFSET $2 LIMIT 1) f
    JOIN   v_flow v ON v.task_flow_id = f.task_flow_id
    WHERE  v.status = 'queued')
AND NOT EXISTS (SELECT FROM kr_flow WHERE idempotency_key = nullif($3, ''))`

// mayWait returns flow.ErrWaiting if a registration is one too many.
func (d *DB) mayWait(ctx context.Context, r flow.Registration) error {
	if d.maxWaiting == 0 {
		return nil
	}
	var full bool
	if err := d.pool.GetContext(ctx, &full, othersWaitSQL, r.RegisteredBy, d.maxWaiting-1, r.IdempotencyKey); err != nil {
		return err
	}
	if full {
		return flow.ErrWaiting
	}
	return nil
}
