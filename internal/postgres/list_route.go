package postgres

import (
	"strconv"
	"strings"

	"github.com/d-tsuji/flower/internal/flow"
)

// flowRoute goes along kr_flow itself.
func flowRoute(q *query, f flow.Filter, after flow.Position, most int) string {
	text := `WITH walk AS MATERIALIZED (
    SELECT registered_ts, task_flow_id, row_number() OVER (ORDER BY registered_ts DESC, task_flow_id DESC) AS n
    FROM   kr_flow WHERE ` + beyond(q, after)
	if f.WorkflowID != "" {
		text += " AND task_id = " + q.arg(string(f.WorkflowID))
	}
	if f.RegisteredBy != "" {
		text += " AND registered_by IS NOT NULL AND left(registered_by, 200) = left(" + q.arg(f.RegisteredBy) + "::text, 200)"
	}
	if !f.Since.IsZero() {
		text += " AND registered_ts >= " + q.moment(f.Since)
	}
	if !f.Until.IsZero() {
		text += " AND registered_ts < " + q.moment(f.Until)
	}
	return text + `
    ORDER  BY registered_ts DESC, task_flow_id DESC
    LIMIT  ` + strconv.Itoa(most) + `)`
}

// lastRoute goes along the last flows of some workflows, so many of each.
func lastRoute(workflows []string) route {
	return func(q *query, _ flow.Filter, _ flow.Position, most int) string {
		return `WITH walk AS MATERIALIZED (
    SELECT e.registered_ts, e.task_flow_id, row_number() OVER (ORDER BY e.registered_ts DESC, e.task_flow_id DESC) AS n
    FROM   unnest(` + q.arg(workflows) + `::text[]) AS w (id)
    CROSS  JOIN LATERAL (SELECT registered_ts, task_flow_id FROM kr_flow WHERE task_id = w.id
                         ORDER BY registered_ts DESC, task_flow_id DESC LIMIT ` + strconv.Itoa(most) + `) e)`
	}
}

// finishedRoute goes along kr_flow and leaves out what is in the queue, which may be long
// and all of it younger than whatever has finished. The last flow that it has looked at is
// there in any case, with its number: the walk goes on from there.
func finishedRoute(q *query, f flow.Filter, after flow.Position, most int) string {
	span := strings.Replace(flowRoute(q, f, after, most), "WITH walk AS", "WITH span AS", 1)
	judged := strconv.Itoa(maxWalk / 2)
	return span + `, edge AS MATERIALIZED (
    SELECT min(registered_ts) AS first, max(registered_ts) AS last, max(n) AS n FROM span
), rest AS MATERIALIZED (
    SELECT *, row_number() OVER (ORDER BY n) AS place FROM span
    WHERE  task_flow_id NOT IN (
           SELECT e.task_flow_id FROM edge, unnest((` + prioritiesSQL + `)) AS p
           CROSS  JOIN LATERAL (SELECT task_flow_id FROM kr_ready
                                WHERE task_priority = p AND registered_ts BETWEEN edge.first AND edge.last) e)
    ORDER  BY n LIMIT ` + judged + `
), walk AS MATERIALIZED (
    SELECT registered_ts, task_flow_id, CASE WHEN place = ` + judged + ` THEN ` + strconv.Itoa(most) + ` ELSE n END AS n FROM rest
    UNION
    SELECT registered_ts, task_flow_id, n FROM span
    WHERE  n = (SELECT n FROM edge) AND NOT EXISTS (SELECT FROM rest WHERE place = ` + judged + `)
)`
}

// beyond is that a flow comes after a position.
func beyond(q *query, after flow.Position) string {
	if after.IsZero() {
		return "true"
	}
	return "(registered_ts, task_flow_id) < (" + q.arg(after.At) + "::timestamptz, " + q.arg(string(after.Flow)) + "::text)"
}

// leap makes a walk that finds each flow by looking for the next one after the flow before
// it: where a flow has ten thousand entries in an index, it is one step. step selects
// registered_ts and task_flow_id of the first flow after the position w.
func leap(q *query, f flow.Filter, after flow.Position, most int, step string) string {
	from := "'infinity'::timestamptz"
	switch {
	case !after.IsZero():
		from = q.arg(after.At) + "::timestamptz"
	case !f.Until.IsZero():
		from = q.moment(f.Until)
	}
	since := ""
	if !f.Since.IsZero() {
		since = " AND s.registered_ts >= " + q.moment(f.Since)
	}
	return `WITH RECURSIVE leap AS (
    SELECT ` + from + ` AS registered_ts, ` + q.arg(string(after.Flow)) + `::text COLLATE "C" AS task_flow_id, 0 AS n
    UNION  ALL
    SELECT s.registered_ts, s.task_flow_id::text, w.n + 1
    FROM   leap w
    CROSS  JOIN LATERAL (` + step + `) s
    WHERE  w.n < ` + strconv.Itoa(most) + since + `
), walk AS MATERIALIZED (
    SELECT * FROM leap WHERE n > 0
)`
}

const inOrder = "ORDER BY registered_ts DESC, task_flow_id DESC LIMIT 1"

// listedLater is that a flow k, on the route's place w, has a task t of the route that was
// registered earlier. A flow whose rows somebody has inserted one after the other has several
// places on a route that goes along tasks: it is listed at the last one, which is most often
// where other lists have it. One flow is read for this, as by v_flow, and never the index of
// the route (OFFSET 0).
func listedLater(q *query, f flow.Filter, task string) string {
	since := ""
	if !f.Since.IsZero() { // the walk ends there
		since = " AND t.registered_ts >= " + q.moment(f.Since)
	}
	return `EXISTS (SELECT FROM (SELECT * FROM kr_task_stat WHERE task_flow_id = k.task_flow_id OFFSET 0) t
                            WHERE t.registered_ts < w.registered_ts` + since + " AND " + task + ")"
}

// alongStopped goes along stoppedRoute, with each flow once.
func alongStopped(f flow.Filter, reasons ...string) source {
	s := along(stoppedRoute(reasons...), f)
	s.elsewhere = func(q *query) string {
		task := "t.suspended_ts IS NOT NULL AND coalesce(t.reason, '') = ANY (" + q.arg(reasons) + "::text[])"
		if f.WorkflowID != "" {
			task += " AND t.task_id = " + q.arg(string(f.WorkflowID))
		}
		return listedLater(q, f, task)
	}
	return s
}

// stoppedRoute goes along flows with a task that is suspended for one of these reasons.
func stoppedRoute(reasons ...string) route {
	return func(q *query, f flow.Filter, after flow.Position, most int) string {
		workflow := ""
		if f.WorkflowID != "" {
			workflow = "task_id = " + q.arg(string(f.WorkflowID)) + " AND "
		}
		return leap(q, f, after, most, `
        SELECT e.* FROM unnest(ARRAY(
            SELECT r FROM unnest(`+q.arg(reasons)+`::text[]) AS r
            WHERE  EXISTS (SELECT FROM kr_task_stat WHERE suspended_ts IS NOT NULL AND coalesce(reason, '') = r))) AS r
        CROSS  JOIN LATERAL (
            SELECT registered_ts, task_flow_id FROM kr_task_stat
            WHERE  `+workflow+`suspended_ts IS NOT NULL AND coalesce(reason, '') = r
                   AND (registered_ts, task_flow_id) < (w.registered_ts, w.task_flow_id) `+inOrder+`) e
        `+inOrder)
	}
}

// alongAlike goes along alikeRoute, with each flow once.
func alongAlike(f flow.Filter, fingerprint string) source {
	s := along(alikeRoute(fingerprint), f)
	s.elsewhere = func(q *query) string {
		return listedLater(q, f, "t.suspended_ts IS NOT NULL AND flower_fingerprint(t.error) = "+q.arg(fingerprint))
	}
	return s
}

// alikeRoute goes along flows with a suspended task whose error looks like this.
func alikeRoute(fingerprint string) route {
	return func(q *query, f flow.Filter, after flow.Position, most int) string {
		return leap(q, f, after, most, `
        SELECT registered_ts, task_flow_id FROM kr_task_stat
        WHERE  suspended_ts IS NOT NULL AND flower_fingerprint(error) = `+q.arg(fingerprint)+`
               AND (registered_ts, task_flow_id) < (w.registered_ts, w.task_flow_id) `+inOrder)
	}
}

// alongOpen goes along openRoute, with each flow once.
func alongOpen(f flow.Filter) source {
	s := along(openRoute, f)
	s.elsewhere = func(q *query) string {
		return listedLater(q, f, `(t.gate = 2 OR t.run_after IS NOT NULL OR EXISTS (
                                SELECT FROM kr_ready r WHERE r.task_priority = t.task_priority AND r.registered_ts = t.registered_ts
                                       AND r.task_flow_id = t.task_flow_id AND r.task_exec_seq = t.task_exec_seq))`)
	}
	return s
}

// openRoute goes along flows with a task that could go: in the queue, or waiting for a time
// or a limit. The queue is in the order of claims: each priority has its own order.
func openRoute(q *query, f flow.Filter, after flow.Position, most int) string {
	return leap(q, f, after, most, `
        SELECT * FROM (
            SELECT e.* FROM unnest((`+prioritiesSQL+`)) AS p
            CROSS  JOIN LATERAL (
                SELECT registered_ts, task_flow_id FROM kr_ready
                WHERE  task_priority = p AND (registered_ts, task_flow_id) < (w.registered_ts, w.task_flow_id) `+inOrder+`) e
            UNION ALL
            (SELECT registered_ts, task_flow_id FROM kr_task_stat
             WHERE  (gate = 2 OR run_after IS NOT NULL) AND (registered_ts, task_flow_id) < (w.registered_ts, w.task_flow_id) `+inOrder+`)
        ) u `+inOrder)
}

// prioritiesSQL are the priorities that the queue has, each found by one look at its index.
const prioritiesSQL = `WITH RECURSIVE p AS (
    SELECT min(task_priority) AS p FROM kr_ready
    UNION ALL
    SELECT (SELECT min(task_priority) FROM kr_ready WHERE task_priority > p.p) FROM p WHERE p.p IS NOT NULL)
    SELECT coalesce(array_agg(p.p), '{}') FROM p WHERE p.p IS NOT NULL`

// aheadLimit is how far the queue is searched for flows under way.
const aheadLimit = 1000

// runningRoute goes along flows that may be under way: those of which a task runs, and those
// that are between two tasks. The latter stand at the head of the queue, of each priority,
// since a flow that was registered earlier goes first. Where they stand further behind, as
// with programs that no watcher has, a long queue hides them.
func runningRoute(q *query, f flow.Filter, after flow.Position, most int) string {
	ahead := strconv.Itoa(aheadLimit)
	return `WITH candidate AS MATERIALIZED (
    SELECT task_flow_id FROM v_running
    UNION
    SELECT e.task_flow_id FROM unnest((` + prioritiesSQL + `)) AS p
    CROSS  JOIN LATERAL (SELECT task_flow_id FROM kr_ready WHERE task_priority = p
                         ORDER BY registered_ts, task_flow_id, task_exec_seq LIMIT ` + ahead + `) e
    UNION
    (SELECT task_flow_id FROM kr_task_stat WHERE gate = 2 OR run_after IS NOT NULL ORDER BY registered_ts, task_flow_id LIMIT ` + ahead + `)
), walk AS MATERIALIZED (
    SELECT k.registered_ts, k.task_flow_id, row_number() OVER (ORDER BY k.registered_ts DESC, k.task_flow_id DESC) AS n
    FROM   candidate c
    CROSS  JOIN LATERAL (SELECT * FROM kr_flow f WHERE f.task_flow_id = c.task_flow_id OFFSET 0) k
    WHERE  EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = c.task_flow_id AND (t.exec_status IN (1, 3, 9) OR t.attempt > t.attempt_base))
           AND ` + strings.NewReplacer("(registered_ts, task_flow_id)", "(k.registered_ts, k.task_flow_id)").Replace(beyond(q, after)) + `
    ORDER  BY k.registered_ts DESC, k.task_flow_id DESC
    LIMIT  ` + strconv.Itoa(most) + `)`
}

// idRoute goes along flows whose id begins with the text.
func idRoute(q *query, f flow.Filter, after flow.Position, most int) string {
	return `WITH walk AS MATERIALIZED (
    SELECT registered_ts, task_flow_id, row_number() OVER (ORDER BY registered_ts DESC, task_flow_id DESC) AS n
    FROM   (SELECT registered_ts, task_flow_id FROM kr_flow WHERE task_flow_id LIKE ` + q.arg(likePrefix(f.Text)) + `
            ORDER BY task_flow_id DESC LIMIT ` + strconv.Itoa(maxWalk) + `) k
    WHERE  ` + beyond(q, after) + `
    ORDER  BY registered_ts DESC, task_flow_id DESC
    LIMIT  ` + strconv.Itoa(most) + `)`
}

// nameRoute goes along flows of workflows in whose name the text is. The names are found
// by leaps from one to the next.
func nameRoute(q *query, f flow.Filter, after flow.Position, most int) string {
	return `WITH RECURSIVE name AS (
    SELECT min(task_id)::text COLLATE "C" AS task_id, 1 AS n FROM kr_flow
    UNION ALL
    SELECT (SELECT min(task_id)::text FROM kr_flow WHERE task_id > name.task_id), name.n + 1
    FROM name WHERE name.task_id IS NOT NULL AND name.n < ` + strconv.Itoa(maxWalk) + `
), walk AS MATERIALIZED (
    SELECT e.registered_ts, e.task_flow_id, row_number() OVER (ORDER BY e.registered_ts DESC, e.task_flow_id DESC) AS n
    FROM   name
    CROSS  JOIN LATERAL (SELECT registered_ts, task_flow_id FROM kr_flow k
                         WHERE k.task_id = name.task_id AND ` + beyond(q, after) + `
                         ORDER BY registered_ts DESC, task_flow_id DESC LIMIT ` + strconv.Itoa(most) + `) e
    WHERE  name.task_id COLLATE "default" ILIKE ` + q.arg(likeAnywhere(f.Text)) + `
    ORDER  BY e.registered_ts DESC, e.task_flow_id DESC
    LIMIT  ` + strconv.Itoa(most) + `)`
}
