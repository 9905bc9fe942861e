package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// settleSQL records attempts that did not finish their tasks. Whether one is tried again is
// decided on its newest version: an operator may have allowed more attempts meanwhile.
// An attempt that is tried again goes to kr_task_attempt; the last one stays in its row.
// A pause is neither a failure nor an attempt to be kept; one that asks is held.
// Where somebody holds the flow, what would be tried again is held.
// The guard, the trigger kr_task_edited, puts what waits again into the queue.
//
// No ORDER BY: where engineSettings apply, the planner would rather go through the whole
// table in the order of its key than sort the few rows that it finds.
//
//	$1 to $3  flow, seq and claim_id, sorted by flow and seq
//	$6 to $8  pauses, as JSON; until when; or for how many milliseconds
const settleSQL = `
-- flower: settle
WITH given AS MATERIALIZED (
    SELECT *, outcome IN ('handed back', 'not started') AS back, outcome = 'paused' AS paused, (pause::jsonb ? 'ask') IS TRUE AS asks,
           (pause::jsonb ? 'callback') IS TRUE AS calls
    FROM   unnest($1::text[], $2::int[], $3::text[]::uuid[], $4::text[], $5::text[], $6::text[], $7::text[]::timestamptz[], $8::bigint[])
           AS g(flow, seq, claim, outcome, error, pause, until, ms)
), held AS MATERIALIZED (
    SELECT g.*, t.attempt, t.started_ts, t.watcher_id, t.failed_count,
           least(t.retry_delay, interval '100 years') AS retry_delay,  -- doubled 20 times, more would leave PostgreSQL's range
           -- who may call, and whoever was faster than this
           CASE WHEN g.calls THEN jsonb_strip_nulls(jsonb_build_object('callbacks', t.pause->'callbacks', 'answer', t.pause->'answer')) ELSE '{}' END AS called,
           may.again AND NOT t.hold AS again, may.again AND t.hold OR g.asks AS hold
    FROM   given g
    CROSS  JOIN LATERAL (  -- one by one, in the order of keys that given has
        SELECT * FROM kr_task_stat t
        WHERE  t.task_flow_id = g.flow AND t.task_exec_seq = g.seq AND t.exec_status = 1 AND t.claim_id = g.claim AND t.watcher_id IS NOT NULL
        FOR NO KEY UPDATE) t
    CROSS  JOIN LATERAL (
        SELECT CASE WHEN g.paused THEN NOT g.asks
                    WHEN g.back THEN t.on_lost = 'rerun' OR g.outcome = 'not started'
                    ELSE g.outcome IN ('failed', 'timeout') AND t.failed_count < t.max_attempts - 1 END AS again) may
), kept AS (
    INSERT INTO kr_task_attempt (task_flow_id, task_exec_seq, attempt, exec_status, started_ts, ended_ts,
                                 watcher_id, claim_id, reason, error)
    SELECT flow, seq, attempt, CASE WHEN back THEN 1 ELSE 2 END, started_ts, clock_timestamp(),
           watcher_id, claim, CASE WHEN NOT back THEN outcome END, error
    FROM   held WHERE again AND NOT paused
    ON CONFLICT DO NOTHING
), settled AS (
    UPDATE kr_task_stat t
    SET    exec_status  = CASE WHEN h.again THEN 0 ELSE 2 END,
           watcher_id   = NULL,
           gate         = least(t.gate, 1),
           failed_count = least(t.failed_count, 2147483646) + (NOT h.back AND NOT h.paused)::int,
           pause        = CASE WHEN h.paused THEN h.pause::jsonb || h.called ELSE t.pause END,
           run_after    = CASE WHEN h.asks OR h.until <= clock_timestamp() OR h.called ? 'answer' THEN NULL
                               WHEN h.paused THEN coalesce(h.until, clock_timestamp() + nullif(h.ms, 0) * interval '1 ms')
                               WHEN h.again AND NOT h.back AND h.retry_delay > '0 s'
                               -- doubled with each failure, up to an hour, and spread by a tenth
                               THEN clock_timestamp() + (0.95 + random() / 10)
                                    * least(h.retry_delay * power(2, least(h.failed_count, 20)), greatest(h.retry_delay, interval '1 hour')) END,
           began_ts     = CASE WHEN h.paused THEN coalesce(t.began_ts, t.started_ts) WHEN h.again OR h.hold THEN t.began_ts END,
           started_ts   = CASE WHEN h.again THEN NULL WHEN h.paused OR h.hold THEN t.started_ts ELSE coalesce(t.began_ts, t.started_ts) END,
           suspended_ts = CASE WHEN h.again THEN NULL ELSE clock_timestamp() END,
           reason       = CASE WHEN h.again THEN NULL WHEN h.hold THEN 'held' WHEN h.back THEN 'lost' ELSE h.outcome END,
           error        = nullif(h.error, '')
    FROM   held h
    WHERE  t.task_flow_id = h.flow AND t.task_exec_seq = h.seq
    RETURNING t.task_flow_id, t.task_exec_seq, t.exec_status, t.run_after, t.reason
)
SELECT g.flow, g.seq, s.exec_status, s.run_after, s.reason IS NOT DISTINCT FROM 'held' AS held
FROM   given g
LEFT   JOIN settled s ON s.task_flow_id = g.flow AND s.task_exec_seq = g.seq`

type settledRow struct {
	FlowID   string     `db:"flow"`
	Seq      int        `db:"seq"`
	Status   *int16     `db:"exec_status"` // nil: the fence did not hold
	RunAfter *time.Time `db:"run_after"`
	Held     bool       `db:"held"`
}

// settle records attempts that did not finish their tasks; results are sorted by key.
func (d *DB) settle(ctx context.Context, results []*flow.Result, adv *flow.Advanced) error {
	if len(results) == 0 {
		return nil
	}
	keys := newKeys(results)
	outcomes := make([]string, len(results))
	texts := make([]string, len(results))
	pauses := newPauses(len(results))
	for i, r := range results {
		outcomes[i], texts[i] = string(r.Outcome), r.Error
		if r.Outcome == flow.OutcomePaused {
			pauses.set(i, r.Pause)
			texts[i] = ""
			if r.Pause.Ask {
				texts[i] = r.Pause.Why // where people look for why it does not go on
			}
		}
	}
	var rows []settledRow
	err := d.engine.selectAll(ctx, &rows, settleSQL, keys.flows, keys.seqs, keys.claims, outcomes, texts,
		pauses.texts, pauses.until, pauses.ms)
	if err != nil && splittable(err) {
		return d.settleEach(ctx, results, err, adv)
	}
	if err != nil {
		return translate(fmt.Sprintf("settle %d attempts", len(results)), err)
	}
	return d.readSettled(ctx, rows, results, adv)
}

// settleEach is the way out when one result of a batch spoils it.
func (d *DB) settleEach(ctx context.Context, results []*flow.Result, cause error, adv *flow.Advanced) error {
	parts, err := d.split(ctx, results, false, cause, adv)
	for i := 0; err == nil && i < len(parts); i++ {
		err = d.settle(ctx, parts[i], adv)
	}
	return err
}

// lockedSQL finds tasks that somebody has locked, or, if $3, of which a dependent is
// locked. It waits for none of them, so that a person who has locked a whole flow costs
// the others of a batch one lock_timeout and not one for each task.
const lockedSQL = `
-- flower: locked
WITH near AS MATERIALIZED (
    SELECT g.flow, g.seq, n.task_exec_seq AS near
    FROM   unnest($1::text[], $2::int[]) AS g(flow, seq)
    JOIN   kr_task_stat t ON t.task_flow_id = g.flow AND t.task_exec_seq = g.seq
    JOIN   kr_task_stat n ON n.task_flow_id = g.flow
           AND n.task_exec_seq = ANY (CASE WHEN $3 THEN t.task_exec_seq || t.dependents ELSE ARRAY[t.task_exec_seq] END)
), free AS MATERIALIZED (
    SELECT t.task_flow_id, t.task_exec_seq FROM kr_task_stat t
    WHERE  (t.task_flow_id, t.task_exec_seq) IN (SELECT flow, near FROM near)
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT DISTINCT n.flow AS task_flow_id, n.seq AS task_exec_seq
FROM   near n
WHERE  NOT EXISTS (SELECT FROM free f WHERE f.task_flow_id = n.flow AND f.task_exec_seq = n.near)`

// split divides a batch that failed: it rejects what is locked, else a single result, and
// returns what is to be tried again, apart.
func (d *DB) split(ctx context.Context, results []*flow.Result, dependents bool, cause error, adv *flow.Advanced) ([][]*flow.Result, error) {
	if len(results) == 1 {
		adv.Rejected = append(adv.Rejected, flow.Rejected{Result: results[0], Cause: cause, Busy: retryable(cause)})
		return nil, nil
	}
	if retryable(cause) {
		keys := newKeys(results)
		var rows []keyRow
		if err := d.engine.selectAll(ctx, &rows, lockedSQL, keys.flows, keys.seqs, dependents); err != nil {
			return nil, translate(fmt.Sprintf("look which of %d tasks are locked", len(results)), err)
		}
		locked := make(map[flow.TaskKey]bool, len(rows))
		for _, r := range rows {
			locked[r.key()] = true
		}
		var free []*flow.Result
		for _, r := range results {
			if locked[r.Task.TaskKey] {
				adv.Rejected = append(adv.Rejected, flow.Rejected{Result: r, Cause: cause, Busy: true})
			} else {
				free = append(free, r)
			}
		}
		if len(free) < len(results) {
			if len(free) == 0 {
				return nil, nil
			}
			return [][]*flow.Result{free}, nil
		}
	}
	half := len(results) / 2
	return [][]*flow.Result{results[:half], results[half:]}, nil
}

func (d *DB) readSettled(ctx context.Context, rows []settledRow, results []*flow.Result, adv *flow.Advanced) error {
	settled := make(map[flow.TaskKey]settledRow, len(rows))
	var open []flow.TaskKey
	for _, r := range rows {
		key := flow.TaskKey{Flow: flow.ID(r.FlowID), Seq: r.Seq}
		if r.Status == nil {
			open = append(open, key)
			continue
		}
		settled[key] = r
	}
	var done []*flow.Result
	for _, res := range results {
		r, ok := settled[res.Task.TaskKey]
		if !ok {
			done = append(done, res)
			continue
		}
		j := flow.Judged{Result: res, Verdict: flow.VerdictRecorded, Status: flow.Status(*r.Status), Held: r.Held}
		if r.RunAfter != nil {
			j.RunNext = *r.RunAfter
		} else if j.Status == flow.Waiting {
			d.entered(beginning)
		}
		adv.Verdicts = append(adv.Verdicts, j)
	}
	return d.judge(ctx, done, open, flow.Suspended, adv)
}

// judgeSQL looks at results for which the fence did not hold. Either an earlier call,
// whose answer was lost, recorded them: then their claim and what they came to are in the
// row, or in a superseded attempt. Or the claim was superseded: a rescue leaves it in the
// row, too, but with an end of its own; a person takes it away.
const judgeSQL = `
-- flower: judge
SELECT g.flow AS task_flow_id, g.seq AS task_exec_seq
FROM   unnest($1::text[], $2::int[], $3::text[]::uuid[], $4::text[]) AS g(flow, seq, claim, outcome)
LEFT   JOIN kr_task_stat t ON t.task_flow_id = g.flow AND t.task_exec_seq = g.seq AND t.claim_id = g.claim
LEFT   JOIN kr_task_attempt a ON a.task_flow_id = g.flow AND a.task_exec_seq = g.seq AND a.claim_id = g.claim
WHERE  CASE WHEN g.outcome = 'finished' THEN t.exec_status = 3 OR a.exec_status = 3
            WHEN g.outcome = 'skipped' THEN t.exec_status = 9 OR a.exec_status = 9
            WHEN g.outcome IN ('handed back', 'not started')
                 THEN t.exec_status = 0 AND a.reason IS NULL OR t.exec_status = 2 AND t.reason IN ('lost', 'held')
            WHEN g.outcome = 'paused'
                 THEN t.exec_status = 0 AND a.claim_id IS NULL OR t.exec_status = 2 AND t.reason = 'held'
            ELSE t.exec_status = 2 AND t.reason IN (g.outcome, 'held') OR a.exec_status = 2 AND a.reason = g.outcome END`

// judge adds a verdict for each of results, all of which are recorded with the given
// status (or as ignored, if skipped) but for those whose key is open.
func (d *DB) judge(ctx context.Context, results []*flow.Result, open []flow.TaskKey, status flow.Status, adv *flow.Advanced) error {
	isOpen := make(map[flow.TaskKey]bool, len(open))
	for _, key := range open {
		isOpen[key] = true
	}
	var doubtful []*flow.Result
	adv.Verdicts = slices.Grow(adv.Verdicts, len(results))
	for _, r := range results {
		if isOpen[r.Task.TaskKey] {
			doubtful = append(doubtful, r)
			continue
		}
		adv.Verdicts = append(adv.Verdicts, recordedAs(r, status))
	}
	if len(doubtful) == 0 {
		return nil
	}
	keys := newKeys(doubtful)
	outcomes := make([]string, len(doubtful))
	for i, r := range doubtful {
		outcomes[i] = string(r.Outcome)
	}
	var rows []keyRow
	if err := d.pool.SelectContext(ctx, &rows, judgeSQL, keys.flows, keys.seqs, keys.claims, outcomes); err != nil {
		return translate(fmt.Sprintf("look at %d results whose claim is over", len(doubtful)), err)
	}
	recorded := make(map[flow.TaskKey]bool, len(rows))
	for _, r := range rows {
		recorded[r.key()] = true
	}
	for _, r := range doubtful {
		j := flow.Judged{Result: r, Verdict: flow.VerdictRefused}
		if recorded[r.Task.TaskKey] {
			j = recordedAs(r, status)
		}
		adv.Verdicts = append(adv.Verdicts, j)
	}
	return nil
}

func recordedAs(r *flow.Result, status flow.Status) flow.Judged {
	if r.Outcome == flow.OutcomeSkipped {
		status = flow.Ignored
	}
	return flow.Judged{Result: r, Verdict: flow.VerdictRecorded, Status: status}
}

// recount repairs what tasks wait for, from the truth.
func (d *DB) recount(ctx context.Context, keys []flow.TaskKey) error {
	if len(keys) == 0 {
		return nil
	}
	defer d.entered(beginning)
	return d.inTx(ctx, func(tx *sqlx.Tx) error {
		for _, key := range keys {
			if _, err := tx.ExecContext(ctx, "SELECT flower_recount($1, $2)", string(key.Flow), key.Seq); err != nil {
				return translate(fmt.Sprintf("recount what task %s waits for", key), err)
			}
		}
		return nil
	})
}

type keyRow struct {
	FlowID string `db:"task_flow_id"`
	Seq    int    `db:"task_exec_seq"`
}

func (r keyRow) key() flow.TaskKey { return flow.TaskKey{Flow: flow.ID(r.FlowID), Seq: r.Seq} }

func taskKeys(rows []keyRow) []flow.TaskKey {
	var keys []flow.TaskKey
	for _, r := range rows {
		keys = append(keys, r.key())
	}
	return keys
}

// keyColumns are tasks as columns, for unnest.
func keyColumns(keys []flow.TaskKey) (flows []string, seqs []int32) {
	flows, seqs = make([]string, len(keys)), make([]int32, len(keys))
	for i, k := range keys {
		flows[i], seqs[i] = string(k.Flow), int32(k.Seq)
	}
	return flows, seqs
}

// keys are tasks and their claims as columns, for unnest.
type keys struct {
	flows  []string
	seqs   []int32
	claims []string
}

func newKeys(results []*flow.Result) keys {
	k := keys{flows: make([]string, len(results)), seqs: make([]int32, len(results)), claims: make([]string, len(results))}
	for i, r := range results {
		k.flows[i], k.seqs[i], k.claims[i] = string(r.Task.Flow), int32(r.Task.Seq), r.Task.ClaimID
	}
	return k
}

// sorted returns results in the order of their keys, in which everybody locks tasks.
func sorted(results []*flow.Result) []*flow.Result {
	s := slices.Clone(results)
	slices.SortFunc(s, func(a, b *flow.Result) int {
		return cmp.Or(cmp.Compare(a.Task.Flow, b.Task.Flow), cmp.Compare(a.Task.Seq, b.Task.Seq))
	})
	return s
}
