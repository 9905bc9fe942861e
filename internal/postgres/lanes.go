package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// lanes is a fixed number of connections, each kept with its prepared statements. A
// statement that is its own transaction takes one round trip on a lane, and database/sql
// cannot run it a second time on another connection, as it does on a pool.
type lanes struct {
	pool    *sqlx.DB
	net     *network
	prepare bool
	doubt   time.Duration // planDoubt but in tests
	free    chan struct{} // one for each that nobody uses

	mu   sync.Mutex
	idle []*lane // these, the one that was used last at the end
}

// lane is used by one caller at a time: whoever took it.
type lane struct {
	conn  *sqlx.Conn // nil: not connected
	stmts map[string]*sqlx.Stmt
	made  time.Time
	until time.Time // to be connected anew after this
	slow  bool      // its last statement took longer than the lanes' doubt
}

// laneLife: a connection does not outlive a failover or a change of settings for long.
const laneLife = 5 * time.Minute

// planDoubt: what takes longer than this may have been planned while its tables were empty,
// and goes through all that has come since. To plan all anew takes some milliseconds.
const planDoubt = 250 * time.Millisecond

func newLanes(pool *sqlx.DB, n int, net *network, prepare bool) *lanes {
	l := &lanes{pool: pool, net: net, prepare: prepare, doubt: planDoubt, free: make(chan struct{}, n)}
	for range n {
		l.give(&lane{})
	}
	return l
}

func (l *lanes) close() error {
	var errs []error
	for range cap(l.free) {
		ln, _ := l.take(context.Background())
		errs = append(errs, ln.disconnect())
	}
	return errors.Join(append(errs, l.pool.Close())...)
}

// take waits for a lane. It is the one that was used last, whose session has its plans and
// has met the tables' pages: if all took turns, each would have to, for work of one.
func (l *lanes) take(ctx context.Context) (*lane, error) {
	select {
	case <-l.free:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.idle) - 1
	ln := l.idle[last]
	l.idle = l.idle[:last]
	return ln, nil
}

func (l *lanes) give(ln *lane) {
	l.mu.Lock()
	l.idle = append(l.idle, ln)
	l.mu.Unlock()
	l.free <- struct{}{}
}

// selectAll runs one statement and reads its rows into dest, a pointer to a slice of
// structs. An error that is broken() leaves the outcome unknown. ctx bounds the wait for
// a lane and for its connection; once sent, a statement is never cancelled, as that would
// make its outcome unknown and cost the connection: its end is the server's
// statement_timeout, or the connection's deadline.
func (l *lanes) selectAll(ctx context.Context, dest any, query string, args ...any) error {
	ln, err := l.take(ctx)
	if err != nil {
		return err
	}
	defer l.give(ln)
	if err := ln.connect(ctx, l); err != nil {
		return err
	}
	began := time.Now()
	err = ln.selectAll(context.WithoutCancel(ctx), l.prepare, dest, query, args...)
	ln.slow = time.Since(began) > l.doubt
	if err != nil && (broken(err) || l.net.leadsAstray(err)) {
		_ = ln.disconnect()
	}
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) { // what the driver says makes no sense to people
		err = fmt.Errorf("the connection was lost: %w", err)
	}
	return err
}

func (ln *lane) connect(ctx context.Context, l *lanes) error {
	now := time.Now()
	if ln.conn != nil && now.Before(ln.until) && l.net.trusts(ln.made, false) {
		return nil
	}
	_ = ln.disconnect()
	conn, err := l.pool.Connx(ctx)
	if err != nil {
		return err
	}
	ln.conn, ln.stmts, ln.made, ln.slow = conn, map[string]*sqlx.Stmt{}, now, false
	ln.until = now.Add(laneLife*4/5 + rand.N(laneLife*2/5)) // not all at once
	return nil
}

// disconnect drops the connection for good, rather than back into the pool.
func (ln *lane) disconnect() error {
	if ln.conn == nil {
		return nil
	}
	conn := ln.conn
	ln.conn, ln.stmts = nil, nil
	return discard(conn)
}

func (ln *lane) selectAll(ctx context.Context, prepare bool, dest any, query string, args ...any) error {
	var q interface { // one statement
		SelectContext(ctx context.Context, dest any, args ...any) error
		QueryContext(ctx context.Context, args ...any) (*sql.Rows, error)
	} = unprepared{ln.conn, query}
	if prepare {
		if ln.slow { // it has plans of its own, and those within functions and triggers
			if _, err := ln.conn.ExecContext(ctx, `DISCARD PLANS`); err != nil {
				return err
			}
		}
		stmt := ln.stmts[query]
		if stmt == nil {
			var err error
			if stmt, err = ln.conn.PreparexContext(ctx, query); err != nil {
				return err
			}
			ln.stmts[query] = stmt
		}
		q = stmt
	}
	s, ok := dest.(scanner)
	if !ok {
		return q.SelectContext(ctx, dest, args...)
	}
	rows, err := q.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return scanAll(s, rows)
}

// unprepared is a statement that is sent with its text each time.
type unprepared struct {
	conn  *sqlx.Conn
	query string
}

func (u unprepared) SelectContext(ctx context.Context, dest any, args ...any) error {
	return u.conn.SelectContext(ctx, dest, u.query, args...)
}

func (u unprepared) QueryContext(ctx context.Context, args ...any) (*sql.Rows, error) {
	return u.conn.QueryContext(ctx, u.query, args...)
}

// scanner takes the rows of an answer one by one, by the order of its columns: finding the
// fields for their names costs half a microsecond a row, which is a part of a hot answer.
type scanner interface {
	scan(rows *sql.Rows) error
}

func scanAll(s scanner, rows *sql.Rows) error {
	defer func() { _ = rows.Close() }() // it has been read to the end, or the error is known
	for rows.Next() {
		if err := s.scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// discard closes a connection instead of giving it back to its pool.
func discard(conn *sqlx.Conn) error {
	err := conn.Raw(func(any) error { return driver.ErrBadConn })
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return nil
	}
	return err
}
