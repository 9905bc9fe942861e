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

// Lists of flows are walked, from the flow registered last to the first, along whichever
// index has the fewest flows that do not match (see sources), and each flow on the way is
// judged by v_flow. A walk goes in strides and ends after maxWalk flows, whatever it has
// found: then the page is short, and says where to go on. So no list reads the table of
// tasks, and none takes long, whatever is asked for. It takes 6 to 20 µs a flow.
const (
	minStride = 100
	maxWalk   = 2000
	maxGlance = 15_000 // where most flows are not judged: 2 µs a flow
)

// flowsHeadSQL and flowsTailSQL judge the flows of a walk w, and have a row for each that
// matches, and for the last one in any case. What is cheap is looked at first. OFFSET 0:
// v_flow is to be asked for one flow at a time.
const flowsHeadSQL = `
SELECT w.registered_ts AS position_ts, w.task_flow_id AS position_id, w.n, m.*
FROM   walk w
LEFT   JOIN LATERAL (
    SELECT v.task_flow_id, v.task_id, v.status, v.failed_task, v.error, v.waiting, v.running, v.suspended, v.finished, v.ignored, v.asks,
           v.registered_ts, v.started_ts, v.ended_ts, (extract(epoch FROM v.took) * 1000000)::bigint AS took_us,
           k.workflow_version, coalesce(k.registered_by, '') AS registered_by, left(coalesce(k.note, ''), 2000) AS note,
           CASE WHEN k.parameters IS NULL THEN '{}' WHEN octet_length(k.parameters::text) <= 1000 THEN k.parameters::text END AS parameters,
           coalesce(x.title, '') AS failed_title, coalesce(x.reason, '') AS failed_reason,
           q.task_exec_seq AS asks_task, q.title AS asks_title, q.text AS asks_text
    FROM   kr_flow k
    CROSS  JOIN LATERAL (SELECT * FROM v_flow o WHERE o.task_flow_id = k.task_flow_id OFFSET 0) v
    LEFT   JOIN LATERAL (SELECT flower_title(t.description, t.program) AS title, t.reason FROM kr_task_stat t
                         WHERE t.task_flow_id = k.task_flow_id AND t.task_exec_seq = v.failed_task OFFSET 0) x ON true
    LEFT   JOIN LATERAL (SELECT t.task_exec_seq, flower_title(t.description, t.program) AS title, left(split_part(t.error, E'\n', 1), 120) AS text
                         FROM kr_task_stat t
                         WHERE t.task_flow_id = k.task_flow_id AND t.exec_status = 2 AND t.reason = 'held' AND t.pause ? 'ask'
                         ORDER BY t.task_exec_seq LIMIT 1) q ON v.asks > 0
    WHERE  k.task_flow_id = w.task_flow_id`

const flowsTailSQL = `
    OFFSET 0) m ON true
WHERE  m IS DISTINCT FROM NULL OR w.n = (SELECT max(n) FROM walk)
ORDER  BY w.n`

type listedRow struct {
	PositionTS   time.Time  `db:"position_ts"`
	PositionID   string     `db:"position_id"`
	N            int        `db:"n"`
	FlowID       *string    `db:"task_flow_id"` // nil: it does not match
	WorkflowID   *string    `db:"task_id"`
	Status       *string    `db:"status"`
	FailedTask   *int       `db:"failed_task"`
	Error        *string    `db:"error"`
	Waiting      *int       `db:"waiting"`
	Running      *int       `db:"running"`
	Suspended    *int       `db:"suspended"`
	Finished     *int       `db:"finished"`
	Ignored      *int       `db:"ignored"`
	Asks         *int       `db:"asks"`
	RegisteredTS *time.Time `db:"registered_ts"`
	StartedTS    *time.Time `db:"started_ts"`
	EndedTS      *time.Time `db:"ended_ts"`
	TookUS       *int64     `db:"took_us"`
	Version      *int       `db:"workflow_version"`
	RegisteredBy *string    `db:"registered_by"`
	Note         *string    `db:"note"`
	Parameters   *string    `db:"parameters"`
	FailedTitle  *string    `db:"failed_title"`
	FailedReason *string    `db:"failed_reason"`
	AsksTask     *int       `db:"asks_task"`
	AsksTitle    *string    `db:"asks_title"`
	AsksText     *string    `db:"asks_text"`
}

func (r listedRow) position() flow.Position {
	return flow.Position{At: r.PositionTS, Flow: flow.ID(r.PositionID)}
}

func (r listedRow) summary() flow.Summary {
	s := flow.Summary{
		Flow: flow.Flow{
			ID: flow.ID(deref(r.FlowID)), WorkflowID: flow.WorkflowID(deref(r.WorkflowID)), RegisteredAt: deref(r.RegisteredTS),
			Version: deref(r.Version), Parameters: rawJSON(r.Parameters),
		},
		Status:       deref(r.Status),
		Counts:       flow.Counts{Waiting: deref(r.Waiting), Running: deref(r.Running), Suspended: deref(r.Suspended), Finished: deref(r.Finished), Ignored: deref(r.Ignored)},
		Asks:         deref(r.Asks),
		RegisteredBy: deref(r.RegisteredBy),
		Note:         deref(r.Note),
		StartedAt:    deref(r.StartedTS),
		EndedAt:      deref(r.EndedTS),
		Took:         time.Duration(deref(r.TookUS)) * time.Microsecond,
		Position:     r.position(),
	}
	if r.AsksTask != nil {
		s.Question = &flow.Question{Seq: *r.AsksTask, Title: deref(r.AsksTitle), Text: deref(r.AsksText)}
	}
	if r.FailedTask != nil {
		s.Failure = &flow.Failure{Seq: *r.FailedTask, Title: deref(r.FailedTitle), Reason: flow.Reason(deref(r.FailedReason)), Error: deref(r.Error)}
	}
	return s
}

// Flows returns a page of the flows that match a filter, those that come after a position.
func (d *DB) Flows(ctx context.Context, f flow.Filter, after flow.Position, limit int) (flow.Page, error) {
	var page flow.Page
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		if err := tx.GetContext(ctx, &page.AsOf, nowSQL); err != nil {
			return err
		}
		walks, err := sources(ctx, tx, f)
		if err != nil {
			return err
		}
		found, horizon, err := walkAll(ctx, tx, walks, after, limit+1)
		if err != nil {
			return err
		}
		page.Flows, page.Next = found, horizon
		if len(found) > limit {
			page.Flows = found[:limit]
			page.Next = found[limit-1].Position
		}
		return nil
	})
	return page, translate("list flows", err)
}

// walkAll walks along several sources and puts together what they have found. A source that
// has ended early says nothing about what comes after its horizon: there the list ends.
func walkAll(ctx context.Context, tx *sqlx.Tx, walks []source, after flow.Position, most int) ([]flow.Summary, flow.Position, error) {
	var found []flow.Summary
	var horizon flow.Position
	for _, s := range walks {
		rows, end, err := s.walk(ctx, tx, after, most)
		if err != nil {
			return nil, horizon, err
		}
		found = append(found, rows...)
		if !end.IsZero() && (horizon.IsZero() || compare(end, horizon) < 0) {
			horizon = end
		}
	}
	slices.SortFunc(found, func(a, b flow.Summary) int { return compare(a.Position, b.Position) })
	found = slices.CompactFunc(found, func(a, b flow.Summary) bool { return a.ID == b.ID })
	if !horizon.IsZero() {
		n, _ := slices.BinarySearchFunc(found, horizon, func(s flow.Summary, p flow.Position) int { return compare(s.Position, p) })
		for n < len(found) && compare(found[n].Position, horizon) == 0 {
			n++
		}
		found = found[:n]
	}
	return found, horizon, nil
}

// compare orders positions as the list does: the flow registered last comes first.
func compare(a, b flow.Position) int {
	return cmp.Or(b.At.Compare(a.At), cmp.Compare(b.Flow, a.Flow)) // bytes, as COLLATE "C"
}

// walk returns up to so many flows of a source that match, and where it has stopped
// looking; zero: nowhere, it has seen them all.
func (s source) walk(ctx context.Context, tx *sqlx.Tx, after flow.Position, most int) (found []flow.Summary, end flow.Position, err error) {
	stride, left := min(max(minStride, most+most/4), s.most), s.most
	for ; ; stride = min(8*stride, left) {
		var rows []listedRow
		text, args := s.listSQL(after, stride)
		if err := tx.SelectContext(ctx, &rows, text, args...); err != nil {
			return nil, end, err
		}
		found = append(found, matching(rows)...)
		if len(rows) == 0 || rows[len(rows)-1].N < stride {
			return found, flow.Position{}, nil
		}
		after = rows[len(rows)-1].position()
		if left -= stride; len(found) >= most || left <= 0 {
			return found, after, nil
		}
	}
}

// first returns the flows of a source all of which match: it goes one step, of so many.
func (s source) first(ctx context.Context, tx *sqlx.Tx, n int) ([]flow.Summary, error) {
	var rows []listedRow
	text, args := s.listSQL(flow.Position{}, n)
	if err := tx.SelectContext(ctx, &rows, text, args...); err != nil {
		return nil, err
	}
	return matching(rows), nil
}

// matching leaves the last one out that is there in any case.
func matching(rows []listedRow) []flow.Summary {
	var found []flow.Summary
	for _, r := range rows {
		if r.FlowID != nil {
			found = append(found, r.summary())
		}
	}
	return found
}

// FlowCounts counts the flows that match a filter by each word, up to flow.MaxCount of each.
func (d *DB) FlowCounts(ctx context.Context, f flow.Filter) (flow.FlowCounts, error) {
	counts := flow.FlowCounts{ByStatus: map[string]flow.Count{}}
	err := d.reading(ctx, func(tx *sqlx.Tx) (err error) {
		counts, err = countFlows(ctx, tx, f)
		return err
	})
	return counts, translate("count flows", err)
}

func countFlows(ctx context.Context, tx *sqlx.Tx, f flow.Filter) (flow.FlowCounts, error) {
	counts := flow.FlowCounts{ByStatus: map[string]flow.Count{}}
	f.Status = nil
	var err error
	if counts.All, err = count(ctx, tx, f); err != nil {
		return counts, err
	}
	for _, status := range flow.FlowStatuses {
		f.Status = []string{status}
		if counts.ByStatus[status], err = count(ctx, tx, f); err != nil {
			return counts, err
		}
	}
	return counts, nil
}

// Count counts the flows that match a filter, up to flow.MaxCount.
func (d *DB) Count(ctx context.Context, f flow.Filter) (flow.Count, error) {
	var n flow.Count
	err := d.reading(ctx, func(tx *sqlx.Tx) (err error) {
		n, err = count(ctx, tx, f)
		return err
	})
	return n, translate("count flows", err)
}

func count(ctx context.Context, tx *sqlx.Tx, f flow.Filter) (flow.Count, error) {
	walks, err := sources(ctx, tx, f)
	if err != nil {
		return flow.Count{}, err
	}
	ids := map[string]bool{}
	more := false
	for _, s := range walks {
		ended, err := s.count(ctx, tx, ids)
		if err != nil {
			return flow.Count{}, err
		}
		more = more || !ended
	}
	n := flow.Count{N: len(ids), More: more}
	if n.N > flow.MaxCount {
		n = flow.Count{N: flow.MaxCount, More: true}
	}
	return n, nil
}

// count notes the flows of a source that match, and reports whether it has seen them all.
func (s source) count(ctx context.Context, tx *sqlx.Tx, ids map[string]bool) (ended bool, err error) {
	after := flow.Position{}
	before := len(ids)
	stride, left := min(flow.MaxCount+1, s.most), s.most
	for ; ; stride = min(8*stride, left) {
		var rows []struct {
			PositionTS time.Time `db:"position_ts"`
			PositionID string    `db:"position_id"`
			N          int       `db:"n"`
			Matches    bool      `db:"matches"`
		}
		text, args := s.countSQL(after, stride)
		if err := tx.SelectContext(ctx, &rows, text, args...); err != nil {
			return false, err
		}
		for _, r := range rows {
			if r.Matches {
				ids[r.PositionID] = true
			}
		}
		if len(rows) == 0 || rows[len(rows)-1].N < stride {
			return true, nil
		}
		if left -= stride; len(ids)-before > flow.MaxCount || left <= 0 {
			return false, nil
		}
		last := rows[len(rows)-1]
		after = flow.Position{At: last.PositionTS, Flow: flow.ID(last.PositionID)}
	}
}

// prefixSQL looks up the beginning of an id; of the matches the ones registered last. \ is
// LIKE's escape.
const prefixSQL = `
-- flower: flows by id prefix
SELECT task_flow_id FROM (SELECT task_flow_id, registered_ts FROM kr_flow WHERE task_flow_id LIKE $1 LIMIT 1000) k
ORDER  BY registered_ts DESC, task_flow_id DESC
LIMIT  $2`

// FindFlow returns the ids of flows that begin with a text, at most so many: none, the one
// that is meant, or several, of which the caller must choose.
func (d *DB) FindFlow(ctx context.Context, prefix string, most int) ([]flow.ID, error) {
	var ids []flow.ID
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		return tx.SelectContext(ctx, &ids, prefixSQL, likePrefix(prefix), most)
	})
	return ids, translate(fmt.Sprintf("look for flows whose id begins with %q", prefix), err)
}
