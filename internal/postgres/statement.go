package postgres

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/flow"
)

// Statement is what a task of the program SQL runs.
type Statement struct {
	Task flow.Task
	Text string            // one statement
	Args []json.RawMessage // for $1, $2 …

	// Transactional: the task is recorded as finished in the same transaction, so that
	// both have happened or neither. In Flower's own database only.
	Transactional bool

	// Mask takes secrets out of the output before that is recorded; nil: there are none.
	Mask func(output json.RawMessage) json.RawMessage

	Notices io.Writer // what the server says meanwhile, as RAISE NOTICE does
}

// Statements runs statements of tasks in one database. They are not ours: each gets a
// session of its own, which ends with it, so that whatever a statement does to its session
// concerns nobody else.
type Statements struct {
	cfg   Config
	role  string
	own   *DB           // nil: it is not Flower's own database
	slots chan struct{} // one for each session that may be open
	dial  dialFunc      // a test's network
}

// OpenStatements prepares to run up to n statements at a time in a database of somebody
// else's. It does not connect.
func OpenStatements(cfg Config, n int) (*Statements, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if _, err := pq.NewConnector(cfg.dsn()); err != nil {
		return nil, redact(err, cfg)
	}
	return &Statements{cfg: cfg, slots: make(chan struct{}, n), dial: netDialer.DialContext}, nil
}

// Statements prepares to run up to n statements at a time in Flower's own database, as
// role, or as Flower itself if that is empty. A role keeps a statement from what it was
// not meant to do, not whoever wrote it: he can RESET ROLE. He needs a login of his own,
// by OpenStatements.
func (d *DB) Statements(role string, n int) *Statements {
	return &Statements{cfg: d.cfg, role: role, own: d, slots: make(chan struct{}, n), dial: netDialer.DialContext}
}

// Run runs a statement and returns its output (see outputOf). When ctx ends, the server is
// told to cancel the statement, and the error is the cause of ctx.
func (s *Statements) Run(ctx context.Context, st Statement) (json.RawMessage, error) {
	output, err := s.run(ctx, st)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return output, err
}

func (s *Statements) run(ctx context.Context, st Statement) (json.RawMessage, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	ses, err := s.connect(ctx, st)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", redact(err, s.cfg))
	}
	defer ses.close()
	if st.Transactional {
		return s.transact(ctx, ses, st)
	}
	if err := ses.setRole(ctx, s.role, false); err != nil {
		return nil, err
	}
	output, _, err := ses.query(ctx, st)
	return output, explain(err, st.Text, "it is not known whether it took effect")
}

// connect opens a session. For Flower's own database it waits, like everything of
// Flower's, as long as that is away.
func (s *Statements) connect(ctx context.Context, st Statement) (ses *session, err error) {
	open := func() error {
		ses, err = openSession(ctx, s, st)
		return err
	}
	if s.own != nil {
		return ses, s.own.untilAvailable(ctx, open)
	}
	return ses, open()
}

// prefix keeps lib/pq from taking a text that begins with COPY for one that it has to
// feed: that goes by another protocol, in which a text can have several statements.
const prefix = ";"

// query runs the statement of a task, and returns its output and its command tag. Prepared,
// since a prepared text is one statement, and its arguments can be nothing but values.
func (s *session) query(ctx context.Context, st Statement) (output json.RawMessage, tag string, err error) {
	args := make([]driver.NamedValue, len(st.Args))
	for i, raw := range st.Args {
		args[i] = driver.NamedValue{Ordinal: i + 1, Value: argument(raw)}
	}
	err = s.conn.Raw(func(conn any) error {
		rows, queryErr := queryRows(ctx, conn.(driver.ConnPrepareContext), st.Text, args)
		if queryErr != nil {
			return queryErr
		}
		defer func() { _ = rows.Close() }() // it has been read to the end, or the session is over
		output, tag, queryErr = outputOf(rows)
		return queryErr
	})
	return output, tag, err
}

func queryRows(ctx context.Context, conn driver.ConnPrepareContext, text string, args []driver.NamedValue) (resultRows, error) {
	prepared, err := conn.PrepareContext(ctx, prefix+text)
	if err != nil {
		return nil, err
	}
	if n := prepared.NumInput(); n != len(args) {
		return nil, &flow.InvalidError{
			Subject: `parameter "args"`,
			Problem: fmt.Sprintf("the statement takes %d, and there are %d", n, len(args)),
		}
	}
	rows, err := prepared.(driver.StmtQueryContext).QueryContext(ctx, args)
	if err != nil {
		return nil, err
	}
	return rows.(resultRows), nil
}

// argument is how a value in JSON goes to the server: as text, which it reads as whatever
// type the statement wants there. Arrays and objects go as JSON.
func argument(raw json.RawMessage) driver.Value {
	text := strings.TrimSpace(string(raw))
	switch {
	case text == "null" || text == "":
		return nil
	case text[0] == '"':
		var s string
		_ = json.Unmarshal(raw, &s) // it is valid
		return s
	}
	return text
}
