package postgres

import (
	"cmp"
	"context"
	"math"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/d-tsuji/flower/internal/flow"
)

// maxEvents is how many events one call looks at: with filters that few match, the next
// call goes on.
const maxEvents = 20_000

// settledSQL is up to where whoever asks for events after one may read. An event gets its
// id before it is committed: where an id is missing, an event may still come, and who has
// read past it would miss it. An id that has been missing for 10 s is taken for one that was
// rolled back.
const settledSQL = `
-- flower: up to which event
SELECT coalesce(min(event_id) - 1, 9223372036854775807)
FROM   (SELECT event_id, event_ts, lag(event_id, 1, $1::bigint) OVER (ORDER BY event_id) AS before
        FROM (SELECT event_id, event_ts FROM kr_event WHERE event_id > $1 ORDER BY event_id LIMIT $2) x) e
WHERE  before < event_id - 1 AND event_ts > clock_timestamp() - interval '10 s'`

type eventRow struct {
	ID          int64     `db:"event_id"`
	At          time.Time `db:"event_ts"`
	FlowID      string    `db:"task_flow_id"`
	WorkflowID  string    `db:"task_id"`
	Seq         int       `db:"task_exec_seq"`
	Title       string    `db:"title"`
	From        *int16    `db:"old_status"`
	To          *int16    `db:"new_status"`
	Change      *string   `db:"change"`
	Note        string    `db:"note"`
	Actor       string    `db:"actor"`
	Kind        string    `db:"kind"`
	Way         string    `db:"way"`
	Login       string    `db:"login"`
	Application string    `db:"application"`
	Client      string    `db:"client"`
	Key         string    `db:"idempotency_key"`
}

func (r eventRow) event() flow.Event {
	return flow.Event{
		ID: r.ID, At: r.At, Flow: flow.ID(r.FlowID), WorkflowID: flow.WorkflowID(r.WorkflowID), Seq: r.Seq, Title: r.Title, From: status(r.From), To: status(r.To), Change: rawJSON(r.Change),
		Action: flow.ActionKind(r.Kind), Note: r.Note, Actor: r.Actor, Way: flow.Way(r.Way), Login: r.Login,
		Application: r.Application, Client: r.Client, Key: r.Key,
	}
}

func status(s *int16) *flow.Status {
	if s == nil {
		return nil
	}
	status := flow.Status(*s)
	return &status
}

// kindSQL is what flow.Event.Kind says.
const kindSQL = `coalesce(kind, CASE new_status WHEN 0 THEN 'rerun' WHEN 2 THEN 'suspend' WHEN 3 THEN 'finish' WHEN 9 THEN 'skip' ELSE 'edit' END)`

// eventsSQL makes walk, which has what is looked at, and then what matches of it; edge: just
// the last that is looked at, if there may be more beyond it.
func eventsSQL(q *query, f flow.EventFilter, upTo int64, edge bool) string {
	var order, looked, matching string
	if f.After != nil {
		order, looked = "ASC", "event_id > "+q.arg(*f.After)+" AND event_id <= "+q.arg(upTo)
	} else {
		order, looked = "DESC", "event_id < "+q.arg(cmp.Or(f.Before, math.MaxInt64))
	}
	if f.Flow != "" {
		looked += " AND task_flow_id = " + q.arg(string(f.Flow))
	}
	if f.Actor != "" {
		actor := q.arg(f.Actor) + "::text"
		looked += " AND left(actor, 200) = left(" + actor + ", 200) AND actor = " + actor
	}
	walk := `WITH walk AS MATERIALIZED (
    SELECT * FROM kr_event WHERE ` + looked + ` ORDER BY event_id ` + order + ` LIMIT ` + strconv.Itoa(maxEvents) + `
)`
	if edge {
		return "-- flower: events, the edge\n" + walk + " SELECT event_id FROM walk ORDER BY event_id " + order + " OFFSET " + strconv.Itoa(maxEvents-1)
	}
	if f.Seq > 0 {
		matching += " AND task_exec_seq = " + q.arg(f.Seq)
	}
	if f.Kind != "" {
		matching += " AND " + kindSQL + " = " + q.arg(f.Kind)
	}
	return "-- flower: events\n" + walk + `
SELECT e.event_id, e.event_ts, e.task_flow_id, coalesce(e.task_exec_seq, 0) AS task_exec_seq, e.old_status, e.new_status, e.change::text AS change,
       coalesce(e.note, '') AS note, e.actor, coalesce(e.kind, '') AS kind, e.way, coalesce(e.login, '') AS login, e.application,
       coalesce(e.client, '') AS client, coalesce(e.idempotency_key, '') AS idempotency_key,
       coalesce(t.task_id, f.task_id, '') AS task_id, coalesce(flower_title(t.description, t.program), '') AS title
FROM   (SELECT * FROM walk WHERE true` + matching + ` ORDER BY event_id ` + order + `
        LIMIT ` + q.arg(f.Limit+1) + `) e -- one more tells whether there are more
LEFT   JOIN kr_task_stat t ON t.task_flow_id = e.task_flow_id AND t.task_exec_seq = e.task_exec_seq
LEFT   JOIN kr_flow f ON f.task_flow_id = e.task_flow_id
ORDER  BY e.event_id ` + order
}

// Events returns changes that people have made.
func (d *DB) Events(ctx context.Context, f flow.EventFilter) (flow.EventPage, error) {
	var page flow.EventPage
	err := d.reading(ctx, func(tx *sqlx.Tx) error {
		var upTo int64
		if f.After != nil {
			page.Next = *f.After
			if err := tx.GetContext(ctx, &upTo, settledSQL, *f.After, maxEvents); err != nil {
				return err
			}
		}
		var rows []eventRow
		q := &query{}
		if err := tx.SelectContext(ctx, &rows, eventsSQL(q, f, upTo, false), q.args...); err != nil {
			return err
		}
		for _, r := range rows[:min(len(rows), f.Limit)] {
			page.Events = append(page.Events, r.event())
			page.Next = r.ID
		}
		if page.More = len(rows) > f.Limit; page.More || f.Seq == 0 && f.Kind == "" {
			return nil
		}
		var edge []int64
		q = &query{}
		if err := tx.SelectContext(ctx, &edge, eventsSQL(q, f, upTo, true), q.args...); err != nil || len(edge) == 0 {
			return err
		}
		page.Next, page.More = edge[0], true
		return nil
	})
	return page, translate("read events", err)
}
