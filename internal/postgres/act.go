package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/d-tsuji/flower/internal/flow"
)

// What an action does is decided in the database, by flower_planned, where people at psql
// find the same (see the migration that adds it). Here is who acts, what a preview is
// compared with, and requests that are repeated.
//
// EXPLAIN ANALYZE of flower_planned, with PostgreSQL 15 and 100,000 tasks in the table: each
// flow is one scan of the primary key, each step from a task to what depends on it another
// one, and the rest is hashed and sorted in memory.
//
//	                                             plan      and act
//	rerun of a flow of 10 tasks                  0.5 ms    1.4 ms
//	rerun from the first of 10,000 in a chain    0.2 s     0.8 s, for 5,000 that had finished
//	rerun of what failed in 10,000 flows of 10   1 s       1.5 to 2 s
//
// Planning the statement takes 6 ms, once for each connection. What is left of "act" is the
// guard: a tenth of a millisecond for each task.

// plannedColumns are those of a row of a plan.
const plannedColumns = `task_flow_id, task_exec_seq, coalesce(title, '') AS title, coalesce(attempt, 0) AS attempt,
       coalesce(old_status, 0) AS old_status, coalesce(new_status, 0) AS new_status, effect, can_go, coalesce(code, '') AS code, coalesce(why, '') AS why`

const previewSQL = `
-- flower: preview
SELECT ` + plannedColumns + `
FROM   flower_planned($1, $2, $3::text[], $4::int[], $5)`

const actSQL = `
-- flower: act
SELECT ` + plannedColumns + `
FROM   flower_act($1, $2, $3::text[], $4::int[], $5, $6::jsonb, $7::jsonb)`

// actingSQL says who acts, to the triggers that write it down; for this transaction.
const actingSQL = `
-- flower: acting
SELECT set_config('flower.actor', $1, true) || set_config('flower.way', $2, true)
       || set_config('flower.key', $3, true) || set_config('flower.reason', $4, true)`

type plannedRow struct {
	FlowID  string `db:"task_flow_id"`
	Seq     int    `db:"task_exec_seq"`
	Title   string `db:"title"`
	Attempt int    `db:"attempt"`
	From    int16  `db:"old_status"`
	To      int16  `db:"new_status"`
	Effect  string `db:"effect"`
	CanGo   bool   `db:"can_go"`
	Code    string `db:"code"`
	Why     string `db:"why"`
}

func (r plannedRow) refusal() flow.Refusal {
	return flow.Refusal{Flow: flow.ID(r.FlowID), Seq: r.Seq, Title: r.Title, Code: flow.RefusalCode(r.Code), Detail: r.Why}
}

// orders is an action as the database's functions take it.
type orders struct {
	kind       flow.ActionKind
	scope      flow.Scope
	flows      []string
	seqs       []*int // beside flows; nil is the whole flow
	parameters json.RawMessage
	output     json.RawMessage
	whole      bool // tasks that stay as they are are asked for, too
}

func (o orders) plan(ctx context.Context, q sqlx.QueryerContext, act bool) ([]plannedRow, error) {
	query, args := previewSQL, []any{string(o.kind), nullable(string(o.scope)), o.flows, o.seqs, o.whole}
	if act {
		query, args = actSQL, append(args, jsonText(o.parameters), jsonText(o.output))
	}
	var rows []plannedRow
	err := sqlx.SelectContext(ctx, q, &rows, query, args...)
	return rows, err
}

// nullable makes the empty text NULL.
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func jsonText(raw json.RawMessage) *string { return nullable(string(raw)) }

// Act carries out an action on one flow, or tells in a dry run what it would do. It is
// safe to repeat: what is done already is not done again, and with a key nothing is.
//
// Errors: *flow.RefusedError, a task is in the way (flow.ErrNotFound: there is none);
// *flow.PlanChangedError; *flow.GuardError; flow.ErrKeyReused; *flow.InvalidError, the
// action makes no sense; flow.ErrTooSlow and flow.ErrLocked, after which nothing has happened;
// flow.ErrUnavailable, after which it is not known whether it was carried out. With the first
// two the effect is returned as well.
func (d *DB) Act(ctx context.Context, a flow.Action) (flow.Effect, error) {
	o := orders{
		kind: a.Kind, scope: a.Scope, flows: []string{string(a.Flow)}, seqs: []*int{nil},
		parameters: a.Parameters, output: a.Output, whole: true,
	}
	if a.Seq != 0 {
		o.seqs[0] = &a.Seq
	}
	if a.Kind == flow.ActionRerun && a.Scope == "" {
		o.scope = flow.ScopeFailed
		if a.Seq != 0 {
			o.scope = flow.ScopeFrom
		}
	}
	var e flow.Effect
	err := d.perform(ctx, a.Terms, a, &e, func(rows []plannedRow) error {
		e = effectOf(o, rows)
		e.DryRun = a.DryRun
		switch {
		case len(e.Refused) > 0:
			return &flow.RefusedError{Refused: e.Refused, Effect: e}
		case a.Plan != "" && a.Plan != e.Plan, a.Expect != nil && *a.Expect != e.Changed():
			return &flow.PlanChangedError{Effect: e}
		}
		return nil
	}, func(ctx context.Context, q sqlx.QueryerContext) ([]plannedRow, error) {
		if a.Parameters != nil {
			if err := d.checkGiven(ctx, q, a, o); err != nil {
				return nil, err
			}
		}
		return o.plan(ctx, q, !a.DryRun)
	})
	if err != nil {
		return e, translate(fmt.Sprintf("%s flow %q", a.Kind, a.Flow), err)
	}
	return e, nil
}

// effectOf reads a plan of one flow.
func effectOf(o orders, rows []plannedRow) flow.Effect {
	e := flow.Effect{Tasks: []flow.TaskChange{}, CanGo: []int{}, Follow: []int{}, Refused: []flow.Refusal{}, Plan: digest(o, rows)}
	for _, r := range rows {
		if r.CanGo {
			e.CanGo = append(e.CanGo, r.Seq)
		}
		switch r.Effect {
		case "change":
			e.Tasks = append(e.Tasks, flow.TaskChange{
				Flow: flow.ID(r.FlowID), Seq: r.Seq, Title: r.Title, From: flow.Status(r.From), To: flow.Status(r.To), Attempt: r.Attempt,
			})
		case "refuse":
			e.Refused = append(e.Refused, r.refusal())
		case "follow":
			e.Follow = append(e.Follow, r.Seq)
			e.Kept++
		default:
			e.Kept++
		}
	}
	return e
}

// digest tells plans apart: the action, and the tasks that it changes, with their status
// and attempt.
func digest(o orders, rows []plannedRow) string {
	h := sha256.New()
	_, _ = fmt.Fprintln(h, o.kind, o.scope)
	for _, r := range rows {
		if r.Effect == "change" {
			_, _ = fmt.Fprintln(h, strconv.Quote(r.FlowID), r.Seq, r.From, r.To, r.Attempt)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// perform plans or carries out an action, and has look judge what came of it: if that
// returns an error, nothing has happened. answer points to what look has made of it, which
// is what a repeated request gets.
func (d *DB) perform(ctx context.Context, t flow.Terms, request, answer any, look func([]plannedRow) error,
	plan func(context.Context, sqlx.QueryerContext) ([]plannedRow, error),
) error {
	if t.DryRun {
		rows, err := plan(ctx, d.slow)
		if err != nil {
			return guarded(err)
		}
		return look(rows)
	}
	act := func(tx *sqlx.Tx) error {
		var said string
		if err := tx.GetContext(ctx, &said, actingSQL, t.Actor, string(t.Way), t.Key, t.Note); err != nil {
			return err
		}
		replayed, err := remember(ctx, tx, t, request, answer)
		if err != nil || replayed {
			return err
		}
		rows, err := plan(ctx, tx)
		if err != nil {
			return err
		}
		if err := look(rows); err != nil {
			return err
		}
		return keepAnswer(ctx, tx, t, answer)
	}
	for tries := 1; ; tries++ {
		err := d.inSlowTx(ctx, act)
		// Claims have passed over what it had locked. Where it has changed nothing, as when it
		// was refused, no trigger tells that the locks are given up.
		d.entered(beginning)
		if err == nil || !retryable(err) || tries == actTries {
			return guarded(err)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(tries) * 50 * time.Millisecond):
		}
	}
}

// actTries is how often an action is tried that meets locks of others.
const actTries = 3

const rememberSQL = `
-- flower: remember a request
INSERT INTO kr_request (actor, idempotency_key, request) VALUES (coalesce(nullif($1, ''), session_user), $2, $3) ON CONFLICT DO NOTHING
RETURNING true`

// rememberedSQL is a write, as that of a registration which is repeated: a commit of
// nothing would acknowledge what a standby has not got.
const rememberedSQL = `
-- flower: remembered request
UPDATE kr_request SET replayed_ts = clock_timestamp()
WHERE  actor = coalesce(nullif($1, ''), session_user) AND idempotency_key = $2
RETURNING request, answer::text AS answer`

// forgetSQL keeps the table small. It leaves alone what somebody else is deleting, in a
// transaction that may take a minute: no action is to wait for another one for that.
const forgetSQL = `
-- flower: forget requests
DELETE FROM kr_request
WHERE  ctid = ANY (ARRAY(SELECT ctid FROM kr_request WHERE request_ts < now() - interval '7 days' FOR UPDATE SKIP LOCKED))`

// remember notes a request that has a key. If it was there before, the answer is what it
// was then. Of two at once, the second waits for the first.
func remember(ctx context.Context, tx *sqlx.Tx, t flow.Terms, request, answer any) (replayed bool, err error) {
	if t.Key == "" {
		return false, nil
	}
	text, err := json.Marshal(request)
	if err != nil {
		return false, fmt.Errorf("note the request: %w", err)
	}
	if t.Asked != "" {
		text = []byte(t.Asked)
	}
	sum := sha256.Sum256(text)
	hash := hex.EncodeToString(sum[:])
	if _, err := tx.ExecContext(ctx, forgetSQL); err != nil {
		return false, err
	}
	var fresh []bool
	if err := tx.SelectContext(ctx, &fresh, rememberSQL, t.Actor, t.Key, hash); err != nil || len(fresh) > 0 {
		return false, err
	}
	var old struct {
		Request string `db:"request"`
		Answer  string `db:"answer"`
	}
	if err := tx.GetContext(ctx, &old, rememberedSQL, t.Actor, t.Key); err != nil {
		return false, err
	}
	if old.Request != hash {
		return false, flow.ErrKeyReused
	}
	if err := json.Unmarshal([]byte(old.Answer), answer); err != nil {
		return false, fmt.Errorf("read the answer to the first request: %w", err)
	}
	return true, nil
}

const keepAnswerSQL = `
-- flower: record an answer
UPDATE kr_request SET answer = $3::jsonb || '{"replayed": true}'
WHERE  actor = coalesce(nullif($1, ''), session_user) AND idempotency_key = $2`

func keepAnswer(ctx context.Context, tx *sqlx.Tx, t flow.Terms, answer any) error {
	if t.Key == "" {
		return nil
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("note the answer: %w", err)
	}
	_, err = tx.ExecContext(ctx, keepAnswerSQL, t.Actor, t.Key, string(text))
	return err
}

// guarded makes what the database refuses an error for the person who acts.
func guarded(err error) error {
	e, ok := errors.AsType[*pq.Error](err)
	switch {
	case !ok:
		return err
	case e.Code == pqerror.CheckViolation:
		return &flow.GuardError{Message: e.Message, Hint: e.Hint}
	case e.Code == pqerror.ProgramLimitExceeded:
		return flow.ErrTooMany
	case e.Code == pqerror.QueryCanceled:
		return fmt.Errorf("%w: %w", flow.ErrTooSlow, err)
	case inClass(err, pqerror.ClassDataException):
		subject, problem, found := strings.Cut(e.Message, ": ")
		if !found {
			subject, problem = "action", e.Message
		}
		return &flow.InvalidError{Subject: subject, Problem: problem}
	}
	return locked(err)
}
