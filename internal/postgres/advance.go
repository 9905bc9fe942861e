package postgres

import (
	"context"
	"fmt"

	"github.com/d-tsuji/flower/internal/flow"
)

// order is the documented order of claims: the more urgent task first; among equals the
// one whose flow was registered earlier, so that started flows are finished before new
// ones begin.
const order = `task_priority, registered_ts, task_flow_id, task_exec_seq`

// claimSet turns a waiting task into a claimed one.
const claimSet = `exec_status = 1, attempt = t.attempt + 1, claim_id = $6::uuid, watcher_id = $5::uuid,
           started_ts = clock_timestamp()`

// advanceText is the heart of the engine: one statement, one commit, one round trip for a
// batch. It records finished and skipped tasks, releases what depends on them, and claims
// as many tasks as there are free workers, in the documented order.
//
//	$1 to $4    finished tasks: flow, seq, claim_id, output, sorted by flow and seq
//	$9          why each was skipped, NULL if it was not
//	$5, $6      the watcher, and the claim_id for what is claimed now
//	$7          free workers, those of the finished tasks included
//	$8          the programs that the watcher has
//	$10 to $13  where in the queue to begin, see front
//	$14         whether to try what somebody is deleting, too
//
// Parts: given → done (fenced by claim_id) → released (dependents, counted once per
// dependent, since an UPDATE … FROM changes a row only once) → predicted (which of them
// can probably go, by the statement's snapshot) → head (the queue's first rows that nobody
// holds, task row locked) → bar (what goes first of all that cannot be claimed directly) →
// chosen (predicted ones that come before it are direct) → share (how much of the head is for
// the workers that are left), taken (its rows of the queue) → claimed (the direct ones and the
// tasks of what was taken) → counted (the other dependents, counted down) → queued (those of
// them that can go).
//
// The queue's rows go first, all of them, by a list of places: deleted one by one, each before
// its task, they let other watchers meet many whose tasks are locked, which took a fifth of
// what a watcher's two calls get done. Their tasks follow one by one, in the order of claims:
// so that started_ts has that order, too, which a list would not keep.
//
// Of the queue one row more than needed is looked at: a dependent may be claimed directly
// only if it comes before that row. The row must be one that nobody holds: taken from the
// snapshot alone it would be one that another watcher is just claiming, and dependents
// would be queued in vain, for ever.
//
// Locks: the finished tasks in key order, then rows of the queue without waiting, then the
// direct dependents and then the others, each in key order. A dependent that was inserted
// while this statement waited is invisible to its snapshot and comes back as "missed", to be recounted.
//
// Without its LIMIT the planner takes given for ten rows, and where it plans with a table
// that has few tasks yet, goes through all of the table to find them. It has no idea what a
// LIMIT comes to, and takes it for one row.
//
// What is claimed is found by its place in the table, which saves a second look at the index;
// what is finished or counted down by its key, since others may have changed it: of a row that
// changed since the snapshot the place is another one. All parents that a direct one waited for
// are of this batch, so that no other call counts it down. If a person has changed it all the
// same it is counted down by its key like the others, in this statement: afterwards, unmet would
// not be true for a moment. And what was taken from the queue goes back there.
func advanceText(head string) string {
	return `
-- flower: Advance
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::int[], $3::uuid[], $4::text[], $9::text[]) AS g(flow, seq, claim, output, skipped)
    LIMIT  cardinality($2::int[])  -- all of them, and few: see above
), done AS (
    UPDATE kr_task_stat t
    SET    exec_status = CASE WHEN g.skipped IS NULL THEN 3 ELSE 9 END, watcher_id = NULL,
           output = g.output::jsonb, error = g.skipped, pause = NULL, gate = least(t.gate, 1),
           started_ts = CASE WHEN g.skipped IS NULL THEN coalesce(t.began_ts, t.started_ts) END,  -- skipped: its program was not run
           began_ts = NULL,
           finished_ts = CASE WHEN g.skipped IS NULL THEN clock_timestamp() END
    FROM   given g
    WHERE  t.task_flow_id = g.flow AND t.task_exec_seq = g.seq AND t.exec_status = 1 AND t.claim_id = g.claim
           AND t.watcher_id IS NOT NULL
    RETURNING t.task_flow_id, t.task_exec_seq, t.dependents
), released AS MATERIALIZED (
    SELECT task_flow_id, seq, count(*)::int AS n
    FROM   (SELECT task_flow_id, unnest(dependents) AS seq FROM done) d
    GROUP  BY 1, 2
), me AS MATERIALIZED (
    SELECT CASE WHEN EXISTS (SELECT FROM kr_watcher WHERE watcher_id = $5::uuid AND NOT draining
                             AND lease_until > clock_timestamp()) THEN $7::int ELSE 0 END AS free
), predicted AS MATERIALIZED (
    SELECT r.task_flow_id, r.seq, r.n, t.ctid AS place, t.task_priority, t.registered_ts,
           t.exec_status = 0 AND t.unmet = r.n AND t.run_after IS NULL AND t.gate = 0 AND t.program = ANY ($8::text[]) AS likely
    FROM   released r
    JOIN   kr_task_stat t ON t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.seq
), room AS MATERIALIZED (
    SELECT me.free, p.likely, least(me.free, p.likely) AS direct
    FROM   me, (SELECT count(*) FILTER (WHERE likely) AS likely FROM predicted) p
), head AS MATERIALIZED (  -- in order, and read in order by what follows
` + head + `), bar AS MATERIALIZED (
    (SELECT ` + order + ` FROM head OFFSET (SELECT free - direct FROM room))  -- the one row more, if the queue has it
    UNION ALL
    (SELECT task_priority, registered_ts, task_flow_id, seq FROM predicted  -- there are no workers for more
     WHERE  likely AND (SELECT likely > direct FROM room) ORDER BY 1, 2, 3, 4 OFFSET (SELECT direct FROM room) LIMIT 1)
), chosen AS MATERIALIZED (
    SELECT task_flow_id, seq, n, place,
           likely AND ((task_priority, registered_ts, task_flow_id, seq)
                       < (SELECT * FROM bar ORDER BY 1, 2, 3, 4 LIMIT 1)) IS NOT FALSE AS direct
    FROM   predicted
    ORDER  BY 1, 2
), share AS MATERIALIZED (
    SELECT free - direct AS mine, direct, (SELECT count(*) FROM head) AS head
    FROM   (SELECT free, (SELECT count(*) FROM chosen c WHERE c.direct) AS direct FROM room) r
), taken AS (  -- all of it before the first is claimed: until then others try to lock the task
    DELETE FROM kr_ready r
    WHERE  r.ctid = ANY (ARRAY(SELECT place FROM head LIMIT (SELECT mine FROM share)))
    RETURNING r.ctid AS place
), claimed AS (
    UPDATE kr_task_stat t
    SET    unmet = 0, ` + claimSet + `
    FROM   (SELECT place AS task, n FROM chosen WHERE direct
            UNION ALL
            (SELECT task, 0 FROM head LIMIT (SELECT mine FROM share))) m
    WHERE  (SELECT count(*) FROM taken) >= 0 AND t.ctid = m.task AND t.exec_status = 0 AND t.unmet = m.n AND t.run_after IS NULL
           AND (m.n = 0 OR t.gate = 0 AND t.program = ANY ($8::text[]))
    RETURNING ` + taskColumns + `
), odd AS MATERIALIZED (  -- whether something was to be claimed that has changed meanwhile
    SELECT (SELECT count(*) FROM claimed) <> direct + (SELECT count(*) FROM taken) AS unclaimed FROM share
), others AS MATERIALIZED (  -- apart: where "counted" waits for a lock, it cannot look at "claimed" again
    SELECT p.task_flow_id, p.seq, p.n FROM chosen p
    WHERE  NOT p.direct
           OR (SELECT unclaimed FROM odd) AND NOT EXISTS (SELECT FROM claimed c WHERE c.task_flow_id = p.task_flow_id AND c.task_exec_seq = p.seq)
), counted AS (
    UPDATE kr_task_stat t
    SET    unmet = t.unmet - p.n,
           gate = CASE WHEN t.gate = 1 AND t.exec_status = 0 AND t.unmet = p.n AND t.run_after IS NULL THEN 2 ELSE t.gate END
    FROM   others p
    WHERE  t.task_flow_id = p.task_flow_id AND t.task_exec_seq = p.seq
    RETURNING t.task_flow_id, t.task_exec_seq, t.task_priority, t.registered_ts,
              t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND t.gate = 0 AS ready
), queued AS (
    INSERT INTO kr_ready (` + order + `)
    SELECT ` + order + ` FROM counted WHERE ready
    UNION ALL
    SELECT ` + order + ` FROM head h JOIN taken USING (place)
    WHERE  (SELECT unclaimed FROM odd)  -- or it would compare all with all, for nothing
           AND NOT EXISTS (SELECT FROM claimed c WHERE c.task_flow_id = h.task_flow_id AND c.task_exec_seq = h.task_exec_seq)
    ON CONFLICT DO NOTHING
    RETURNING ` + order + `
)
SELECT 'claimed' AS kind, task_flow_id, task_exec_seq, task_id, program, parameters, attempt, attempt_base, started_us, rare
FROM   claimed
UNION ALL
SELECT 'head', task_flow_id, task_exec_seq, '', '', registered_ts::text, task_priority, 0, (head > mine)::int, NULL
FROM   (SELECT * FROM head OFFSET (SELECT greatest(least(mine, head - 1), 0) FROM share) LIMIT 1) until, share
UNION ALL
SELECT 'queued', task_flow_id, task_exec_seq, '', '', registered_ts::text, task_priority, 0, n, NULL
FROM   (SELECT *, count(*) OVER () AS n FROM queued ORDER BY ` + order + ` LIMIT 1) first
UNION ALL
SELECT 'missed', r.task_flow_id, r.seq, '', '', '', 0, 0, 0, NULL
FROM   released r
WHERE  ((SELECT unclaimed FROM odd) OR (SELECT count(*) FROM released) <> (SELECT direct FROM share) + (SELECT count(*) FROM counted))
       AND NOT EXISTS (SELECT FROM claimed c WHERE c.task_flow_id = r.task_flow_id AND c.task_exec_seq = r.seq)
       AND NOT EXISTS (SELECT FROM counted c WHERE c.task_flow_id = r.task_flow_id AND c.task_exec_seq = r.seq)
UNION ALL
SELECT 'open', g.flow, g.seq, '', '', '', 0, 0, 0, NULL
FROM   given g
WHERE  cardinality($2::int[]) <> (SELECT count(*) FROM done)
       AND NOT EXISTS (SELECT FROM done d WHERE d.task_flow_id = g.flow AND d.task_exec_seq = g.seq)`
}

// The queue must be read in the order of its index, and no further than needed. A plain
// join does so where engineSettings apply. Behind a pooler they do not, and it goes from
// all tasks to the queue: there each task is locked in a LATERAL, which fixes the order,
// at half the speed with two calls at a time, and always from the beginning.
var (
	advanceSQL       = advanceText(headJoin)
	advancePooledSQL = advanceText(headLateral)
)

const headJoin = `
    SELECT r.task_priority, r.registered_ts, r.task_flow_id, r.task_exec_seq, r.ctid AS place, t.ctid AS task
    FROM   kr_ready r
    JOIN   kr_task_stat t ON t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq
    WHERE  (r.task_priority, r.registered_ts, r.task_flow_id, r.task_exec_seq) >= ($10::int, $11::timestamptz, $12::text, $13::int)
           AND ($14::boolean OR r.xmax = 0)
           AND t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND t.gate IN (0, 3) AND t.program = ANY ($8::text[])
    ORDER  BY r.task_priority, r.registered_ts, r.task_flow_id, r.task_exec_seq
    LIMIT  (SELECT CASE WHEN direct > 0 THEN free - direct + 1 ELSE free END FROM room)
    FOR NO KEY UPDATE OF t SKIP LOCKED
`

const headLateral = `
    SELECT r.task_priority, r.registered_ts, r.task_flow_id, r.task_exec_seq, r.place, t.task
    FROM   (SELECT ` + order + `, ctid AS place FROM kr_ready ORDER BY ` + order + ` OFFSET 0) r
    CROSS  JOIN LATERAL (
        SELECT t.ctid AS task FROM kr_task_stat t
        WHERE  t.task_flow_id = r.task_flow_id AND t.task_exec_seq = r.task_exec_seq
               AND t.exec_status = 0 AND t.unmet = 0 AND t.run_after IS NULL AND t.gate IN (0, 3)
               AND t.program = ANY ($8::text[])
        FOR NO KEY UPDATE SKIP LOCKED) t
    ORDER  BY ` + order + `
    LIMIT  (SELECT CASE WHEN direct > 0 THEN free - direct + 1 ELSE free END FROM room)
`

// Advance records results, releases what depends on finished tasks, and claims up to
// c.Free tasks. With no results it only claims; with c.Free 0 it only records.
//
// On an error nothing is known to have happened, and perhaps everything has: the results
// must be given again, which is safe, and what the claim may own is told by Owned. A
// result that the database will not take as it is, or whose task somebody has locked,
// fails alone: see Rejected.
func (d *DB) Advance(ctx context.Context, results []*flow.Result, c flow.Claim) (flow.Advanced, error) {
	var adv flow.Advanced
	err := d.advanceAll(ctx, results, c, &adv)
	d.tally.count(adv.Verdicts)
	d.admitAfter(ctx, &adv)
	return adv, err
}

func (d *DB) advanceAll(ctx context.Context, results []*flow.Result, c flow.Claim, adv *flow.Advanced) error {
	finished, others := partition(results)
	if err := d.settle(ctx, others, adv); err != nil {
		return err
	}
	if len(finished) == 0 && c.Free == 0 {
		return nil
	}
	err := d.advance(ctx, finished, c, adv)
	if err != nil && len(finished) > 0 && splittable(err) {
		return d.advanceEach(ctx, finished, c, err, adv)
	}
	return err
}

// partition tells finished and skipped attempts, which the hot statement takes since they
// release what depends on them, from all others, and sorts both by key, so that everybody locks in one order.
func partition(results []*flow.Result) (finished, others []*flow.Result) {
	finished = make([]*flow.Result, 0, len(results)) // most finish
	for _, r := range sorted(results) {
		if r.Outcome == flow.OutcomeFinished || r.Outcome == flow.OutcomeSkipped {
			finished = append(finished, r)
		} else {
			others = append(others, r)
		}
	}
	return finished, others
}

func (d *DB) advance(ctx context.Context, finished []*flow.Result, c flow.Claim, adv *flow.Advanced) error {
	keys := newKeys(finished)
	outputs, skipped := []*string{}, []*string{} // most often: unnest fills up with NULL
	for i, r := range finished {
		if r.Outcome == flow.OutcomeSkipped {
			skipped = append(skipped, make([]*string, i-len(skipped))...)
			skipped = append(skipped, &r.Error)
		}
		if r.Output != nil {
			outputs = append(outputs, make([]*string, i-len(outputs))...)
			outputs = append(outputs, new(string(r.Output)))
		}
	}
	query, from := advanceSQL, d.front.start(c.Free)
	args := []any{keys.flows, keys.seqs, keys.claims, outputs, c.Watcher, c.ID, c.Free, c.Programs, skipped}
	if d.cfg.Pooler {
		query = advancePooledSQL
	} else {
		args = append(args, from.args()...)
	}
	answer := advanceAnswer{claim: c.ID, claimed: make([]flow.Task, 0, c.Free)}
	if err := d.engine.selectAll(ctx, &answer, query, args...); err != nil {
		d.front.failed(from)
		return translate(fmt.Sprintf("finish %d tasks and claim %d", len(finished), c.Free), err)
	}
	return d.readAdvance(ctx, answer, finished, from, adv)
}

func (d *DB) readAdvance(ctx context.Context, a advanceAnswer, finished []*flow.Result, from *start, adv *flow.Advanced) error {
	var missed, open []flow.TaskKey
	until, held, queued := beginning, false, end
	adv.Claimed = append(adv.Claimed, a.claimed...)
	for _, r := range a.others {
		switch r.kind {
		case "head":
			until, held = r.place(), r.StartedUS > 0
		case "queued":
			adv.Queued += int(r.StartedUS)
			queued = r.place()
		case "missed":
			missed = append(missed, r.key())
		case "open":
			open = append(open, r.key())
		}
	}
	d.front.ended(from, until, held)
	if queued != end {
		d.entered(queued) // others may have workers for them
	}
	if err := d.recount(ctx, missed); err != nil {
		d.log.Error("dependents were not counted down: the sweep will do it", "err", err)
	}
	return d.judge(ctx, finished, open, flow.Finished, adv)
}

// advanceEach is the way out when one result of a batch spoils it: what is locked is
// rejected, the others are tried in halves, and what fails alone is rejected. Nothing is
// claimed meanwhile.
func (d *DB) advanceEach(ctx context.Context, finished []*flow.Result, c flow.Claim, cause error, adv *flow.Advanced) error {
	c.Free, adv.Split = 0, true
	parts, err := d.split(ctx, finished, true, cause, adv)
	if err != nil {
		return err
	}
	for _, part := range parts {
		err := d.advance(ctx, part, c, adv)
		if err != nil && splittable(err) {
			err = d.advanceEach(ctx, part, c, err, adv)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
