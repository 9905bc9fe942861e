package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/d-tsuji/flower/internal/flow"
)

// transact runs a statement and records its task as finished, in one transaction. The
// fence is the hot statement's own: where the claim is no longer ours, everything is
// rolled back. Until that statement nothing of the task is locked, so that a person can
// cancel it.
//
// Whoever gives the same result to Advance afterwards hears that it is recorded.
func (s *Statements) transact(ctx context.Context, ses *session, st Statement) (json.RawMessage, error) {
	if s.own == nil {
		return nil, errors.New("only Flower's own database can record a task")
	}
	if err := ses.begin(ctx); err != nil {
		return nil, explain(err, "", nothingHappened)
	}
	output, err := s.inside(ctx, ses, st)
	if err != nil {
		return nil, err
	}
	if st.Mask != nil {
		output = st.Mask(output)
	}
	done := []*flow.Result{{Task: st.Task, Outcome: flow.OutcomeFinished, Output: output}}
	answer, err := ses.finish(ctx, done)
	if err != nil {
		return nil, err
	}
	if !ses.keep() {
		return nil, context.Cause(ctx)
	}
	if err := s.commit(ctx, ses, done); err != nil {
		return nil, err
	}
	var adv flow.Advanced // the dispatcher will get its own
	if err := s.own.readAdvance(context.WithoutCancel(ctx), answer, done, s.own.front.start(0), &adv); err != nil {
		s.own.log.Error("a task was recorded, and what it has released was not looked after: the sweep will do it", "err", err)
	}
	return output, nil
}

const nothingHappened = "nothing of it took effect"

// inside runs the statement in its transaction. Alone it cannot commit what it did: a
// COMMIT is a statement without effects of its own, and inside a function it is refused.
func (s *Statements) inside(ctx context.Context, ses *session, st Statement) (json.RawMessage, error) {
	if err := ses.setRole(ctx, s.role, true); err != nil {
		return nil, err
	}
	output, tag, err := ses.query(ctx, st)
	if err != nil {
		return nil, explain(err, st.Text, nothingHappened)
	}
	switch tag {
	case "COMMIT", "ROLLBACK", "PREPARE TRANSACTION":
		return nil, &flow.InvalidError{Subject: `parameter "statement"`, Problem: "a transactional one must not end its transaction, and " + tag + " does"}
	}
	return output, nil
}

// errLostClaim means that others own the task now, or nobody.
var errLostClaim = errors.New("the task was changed by hand, or taken over, while its statement ran: it was rolled back")

// asFlowerSQL takes back what a statement may have done to its session: the next one is
// ours.
const asFlowerSQL = `
-- flower: as flower
RESET SESSION AUTHORIZATION; SET LOCAL search_path TO DEFAULT`

// finish records one finished task in the session's transaction, with the hot statement,
// which claims nothing here.
func (s *session) finish(ctx context.Context, done []*flow.Result) (advanceAnswer, error) {
	var answer advanceAnswer
	if _, err := s.conn.ExecContext(ctx, asFlowerSQL); err != nil {
		return answer, fmt.Errorf("record the task: %w", explain(err, "", nothingHappened))
	}
	keys, output := newKeys(done), string(done[0].Output)
	// As behind a pooler: this session has none of the engine's settings.
	rows, err := s.conn.QueryContext(ctx, advancePooledSQL, keys.flows, keys.seqs, keys.claims, []string{output}, nil, nil, 0, []string{}, []string{})
	if err == nil {
		err = scanAll(&answer, rows)
	}
	if err != nil {
		return answer, fmt.Errorf("record the task: %w", explain(err, "", nothingHappened))
	}
	if slices.ContainsFunc(answer.others, func(r advanceRow) bool { return r.kind == "open" }) {
		return answer, errLostClaim
	}
	return answer, nil
}

// commit commits. If its answer is lost, the task's row tells what has become of it.
func (s *Statements) commit(ctx context.Context, ses *session, done []*flow.Result) error {
	err := ses.commit()
	if err == nil || !broken(err) {
		return explain(err, "", nothingHappened)
	}
	late, stop := outlive(ctx, afterCancel)
	defer stop()
	recorded := false
	askErr := s.own.untilAvailable(late, func() (err error) {
		recorded, err = s.own.recorded(late, done)
		return err
	})
	switch {
	case askErr != nil:
		return fmt.Errorf("the answer of its commit was lost: %w", askErr)
	case !recorded:
		return explain(err, "", nothingHappened)
	}
	return nil
}

// overSQL waits for whoever holds a task's row.
const overSQL = `
-- flower: wait for the end of a transaction
SELECT FROM kr_task_stat WHERE task_flow_id = $1 AND task_exec_seq = $2 FOR NO KEY UPDATE`

// recorded reports whether a finished task was recorded by a transaction that may not be
// over yet. It holds the task's row from its last statement on: who gets that row has
// outwaited it.
func (d *DB) recorded(ctx context.Context, done []*flow.Result) (bool, error) {
	keys := newKeys(done)
	var rows []keyRow
	err := d.inTx(ctx, func(tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, overSQL, keys.flows[0], keys.seqs[0]); err != nil {
			return err
		}
		return tx.SelectContext(ctx, &rows, judgeSQL, keys.flows, keys.seqs, keys.claims, []string{string(flow.OutcomeFinished)})
	})
	return len(rows) > 0, translate("ask whether task "+done[0].Task.TaskKey.String()+" was recorded", err)
}

// explain makes the error of a statement one that a person can work with. lost says what
// is known where the connection was lost.
func explain(err error, text, lost string) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*pq.Error](err); ok {
		if e.Code == pqerror.SyntaxError {
			return &flow.InvalidError{Subject: `parameter "statement"`, Problem: serverError(e, text)}
		}
		return errors.New(serverError(e, text))
	}
	switch {
	case overlong(err):
		return errors.New("the server's error is too long to be read (30,000 bytes): it repeats a value that the database does not take")
	case strings.Contains(err.Error(), "unexpected message during extended query execution"):
		return &flow.InvalidError{Subject: `parameter "statement"`, Problem: "COPY from STDIN and to STDOUT is not possible: there is nobody to send to, or to read from"}
	case broken(err):
		return fmt.Errorf("the connection to the database was lost, and %s: %w", lost, err)
	}
	return err
}
