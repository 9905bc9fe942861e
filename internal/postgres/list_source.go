package postgres

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// source is a way along flows, from the one registered last to the first, that has at
// least all those that match the filter.
type source struct {
	filter flow.Filter
	// route makes the common table expression walk(registered_ts, task_flow_id, n): at
	// most so many flows after a position, numbered from 1.
	route route
	most  int // along how many flows it may go
	// implied: whatever the route has is of the status that is asked for.
	implied bool
	// not is one more condition on a flow k that keeps this source from finding what
	// another one has.
	not string
	// elsewhere tells of a flow k on the route's place w that it is listed at another one,
	// of this source or of another. Whoever counts knows flows by their ids.
	elsewhere func(q *query) string
}

type route func(q *query, f flow.Filter, after flow.Position, most int) string

// along makes a source.
func along(r route, f flow.Filter) source { return source{filter: f, route: r, most: maxWalk} }

// query is a statement with its arguments.
type query struct{ args []any }

// arg returns the place of a value in the statement.
func (q *query) arg(v any) string {
	q.args = append(q.args, v)
	return "$" + strconv.Itoa(len(q.args))
}

// moment returns a point in time, by the database's clock.
func (q *query) moment(m flow.Moment) string {
	if !m.At.IsZero() {
		return q.arg(m.At) + "::timestamptz"
	}
	return "(statement_timestamp() - " + q.arg(m.Before.Microseconds()) + "::bigint * interval '1 us')"
}

func (s source) listSQL(after flow.Position, stride int) (string, []any) {
	q := &query{}
	text := "-- flower: list flows\n" + s.route(q, s.filter, after, stride) + flowsHeadSQL
	if s.elsewhere != nil {
		text += "\n           AND NOT (" + s.elsewhere(q) + ")"
	}
	return text + s.conditions(q) + flowsTailSQL, q.args
}

func (s source) countSQL(after flow.Position, stride int) (string, []any) {
	q := &query{}
	text := "-- flower: count flows\n" + s.route(q, s.filter, after, stride) + `
SELECT w.registered_ts AS position_ts, w.task_flow_id AS position_id, w.n, m.matches IS NOT NULL AS matches
FROM   walk w
LEFT   JOIN LATERAL (
    SELECT true AS matches
    FROM   kr_flow k`
	if s.asksView() {
		text += `
    CROSS  JOIN LATERAL (SELECT * FROM v_flow o WHERE o.task_flow_id = k.task_flow_id OFFSET 0) v`
	}
	return text + `
    WHERE  k.task_flow_id = w.task_flow_id` + s.conditions(q) + flowsTailSQL, q.args
}

// asksView reports whether it takes v_flow to judge a flow.
func (s source) asksView() bool {
	return len(s.filter.Status) > 0 && !s.implied && !onlyFinished(s.filter) || s.filter.MinDuration > 0 || s.not != ""
}

func onlyFinished(f flow.Filter) bool { return len(f.Status) == 1 && f.Status[0] == flow.FlowFinished }

// conditions are what the filter asks of a flow k that is v in v_flow.
func (s source) conditions(q *query) string {
	f := s.filter
	var b strings.Builder
	and := func(condition string) { b.WriteString("\n           AND " + condition) }
	if f.WorkflowID != "" {
		and("k.task_id = " + q.arg(string(f.WorkflowID)))
	}
	if f.RegisteredBy != "" {
		and("k.registered_by = " + q.arg(f.RegisteredBy))
	}
	if !f.Since.IsZero() {
		and("k.registered_ts >= " + q.moment(f.Since))
	}
	if !f.Until.IsZero() {
		and("k.registered_ts < " + q.moment(f.Until))
	}
	if f.Program != "" || f.Reason != "" || f.Fingerprint != "" {
		and(taskCondition(q, f))
	}
	if f.Group != nil {
		and(groupCondition(q, *f.Group))
	}
	if f.Text != "" {
		and("(" + namedCondition(q, f) + `
                OR EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = k.task_flow_id AND t.exec_status = 2
                           AND concat_ws(E'\n', t.description, t.program, t.error) ILIKE ` + q.arg(likeAnywhere(f.Text)) + "))")
	}
	if s.not != "" {
		and(s.not)
	}
	switch {
	case len(f.Status) == 0 || s.implied:
	case onlyFinished(f): // the same as v.status, and sooner known
		and(`EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = k.task_flow_id)
                AND NOT EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = k.task_flow_id AND t.exec_status NOT IN (3, 9))`)
	default:
		status := "v.status = ANY (" + q.arg(f.Status) + "::text[])"
		if slices.Contains(f.Status, flow.FlowFailed) {
			status = "(" + status + " OR v.failed_task IS NOT NULL)"
		}
		and(status)
	}
	if f.MinDuration > 0 {
		and("v.took >= " + q.arg(f.MinDuration.Microseconds()) + "::bigint * interval '1 us'")
	}
	return b.String()
}

// namedCondition is that the text is where ids and names of workflows have it.
func namedCondition(q *query, f flow.Filter) string {
	return "k.task_flow_id LIKE " + q.arg(likePrefix(f.Text)) + " OR k.task_id COLLATE \"default\" ILIKE " + q.arg(likeAnywhere(f.Text))
}

// taskCondition is that one task of the flow k has everything that the filter says of one.
func taskCondition(q *query, f flow.Filter) string {
	text := "EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = k.task_flow_id"
	if f.Program != "" {
		text += " AND t.program = " + q.arg(f.Program)
	}
	if f.Reason != "" {
		text += " AND t.exec_status = 2 AND t.reason = " + q.arg(string(f.Reason))
	}
	if f.Fingerprint != "" {
		text += " AND t.exec_status = 2 AND coalesce(t.reason, 'failed') NOT IN ('held', 'cancelled') AND flower_fingerprint(t.error) = " + q.arg(f.Fingerprint)
	}
	return text + ")"
}

// groupCondition is that one task of the flow k is in a group of failures.
func groupCondition(q *query, g flow.FailureKey) string {
	return `EXISTS (SELECT FROM kr_task_stat t WHERE t.task_flow_id = k.task_flow_id AND ` + failedTask + `
                AND flower_fingerprint(t.error) = ` + q.arg(g.Fingerprint) + " AND t.task_id = " + q.arg(string(g.WorkflowID)) + `
                AND t.task_seq = ` + q.arg(g.TaskSeq) + " AND coalesce(t.program, '') = " + q.arg(g.Program) + `
                AND coalesce(t.reason, '') = ` + q.arg(string(g.Reason)) + ")"
}

// sources chooses the ways on which to look for the flows of a filter. Where few flows come
// into question by their own columns, those are looked at; else whatever holds only flows
// that are likely to match.
func sources(ctx context.Context, tx *sqlx.Tx, f flow.Filter) ([]source, error) {
	if narrow, err := isNarrow(ctx, tx, f); err != nil || narrow {
		return []source{along(flowRoute, f)}, err
	}
	switch {
	case f.Group != nil:
		return []source{alongAlike(f, f.Group.Fingerprint)}, nil
	case f.Fingerprint != "":
		return []source{alongAlike(f, f.Fingerprint)}, nil
	case f.Reason != "":
		return []source{alongStopped(f, string(f.Reason))}, nil
	case onlyFinished(f):
		s := along(finishedRoute, f)
		s.most = maxGlance
		return []source{s}, nil
	case len(f.Status) > 0 && !slices.Contains(f.Status, flow.FlowFinished):
		long, err := longQueue(ctx, tx, f)
		return statusSources(f, long), err
	case f.Text != "":
		return textSources(f), nil
	}
	return []source{along(flowRoute, f)}, nil
}

// isNarrow reports whether few flows come into question by their own columns. It asks from
// the beginning of the list, on each page: a flow may have another place on another route.
func isNarrow(ctx context.Context, tx *sqlx.Tx, f flow.Filter) (bool, error) {
	if f.WorkflowID == "" && f.RegisteredBy == "" && f.Since.IsZero() {
		return false, nil
	}
	q := &query{}
	var n int
	text := "-- flower: are they few?\n" + flowRoute(q, f, flow.Position{}, maxWalk/3) + "\nSELECT count(*) FROM walk"
	err := tx.GetContext(ctx, &n, text, q.args...)
	return n < maxWalk/3, err
}

const longQueueSQL = `
-- flower: is the queue long?
SELECT count(*) > $1 FROM (SELECT FROM kr_ready LIMIT $1 + 1) x`

// longQueue reports whether the flows of one workflow would be hard to find in the queue.
func longQueue(ctx context.Context, tx *sqlx.Tx, f flow.Filter) (long bool, err error) {
	if f.WorkflowID != "" && slices.Contains(f.Status, flow.FlowQueued) {
		err = tx.GetContext(ctx, &long, longQueueSQL, maxWalk/2)
	}
	return long, err
}

// statusSources are those of words that few flows have. Each finds only its own, so that
// none is found twice.
func statusSources(f flow.Filter, longQueue bool) []source {
	failed := slices.Contains(f.Status, flow.FlowFailed)
	var walks []source
	asked := f.Status
	for _, status := range flow.FlowStatuses {
		if !slices.Contains(asked, status) {
			continue
		}
		f.Status = []string{status}
		var s source
		switch status {
		case flow.FlowRunning:
			s = along(runningRoute, f)
			if failed {
				s.not = "v.failed_task IS NULL"
			}
		case flow.FlowFailed:
			s = alongStopped(f, failureReasons...)
			s.implied = true
		case flow.FlowQueued:
			s = alongOpen(f)
			if longQueue && f.WorkflowID != "" {
				s = along(flowRoute, f)
			}
		default:
			s = alongStopped(f, status)
		}
		walks = append(walks, s)
	}
	return walks
}

// failureReasons are the reasons of tasks that failed; "" is none.
var failureReasons = []string{
	string(flow.ReasonFailed), string(flow.ReasonTimeout), string(flow.ReasonLost), string(flow.ReasonInvalid), "",
}

// textSources are where a text may be found: in ids, in names of workflows, in suspended tasks.
func textSources(f flow.Filter) []source {
	s := alongStopped(f, append([]string{string(flow.ReasonHeld), string(flow.ReasonCancelled)}, failureReasons...)...)
	s.most = maxWalk / 3
	here := s.elsewhere
	s.elsewhere = func(q *query) string { // two at the same place are made one by walkAll
		return here(q) + " OR w.registered_ts <> k.registered_ts AND (" + namedCondition(q, f) + ")"
	}
	return []source{along(idRoute, f), along(nameRoute, f), s}
}

var likeEscapes = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func likePrefix(text string) string   { return likeEscapes.Replace(text) + "%" }
func likeAnywhere(text string) string { return "%" + likeEscapes.Replace(text) + "%" }

// rawJSON is a column of JSON that was read as text.
func rawJSON(text *string) json.RawMessage {
	if text == nil {
		return nil
	}
	return json.RawMessage(*text)
}

// microseconds is a column with a duration.
func microseconds(us *int64) time.Duration { return time.Duration(deref(us)) * time.Microsecond }
