// Package pqguard keeps lib/pq v1.12.3 connections that cannot be used any more out of
// database/sql's pool.
//
// Since lib/pq v1.11.0 an error of more than 30,000 bytes leaves its connection out of
// step with the server (lib/pq #1324), and since v1.12.0 a connection can stay "busy"
// for ever (#1320, #1450); database/sql is told of neither. Both are fixed on lib/pq's
// main branch: drop this package with the first release that has the fixes. Its tests show
// each bug as it is, and fail when it is gone.
//
// The error that shows a connection to be lost is still returned; what is saved is every
// query after it. A connection that stays busy is noticed only by the next query, which
// fails. So does a statement inside a transaction that is sent while rows of another are
// still read: that is a mistake of the caller's, and costs him the connection.
//
// Nothing is done about statements that run twice when their answer is lost (#939): that
// is what transactions and pinned connections are for.
package pqguard

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"

	"github.com/lib/pq"
)

// Wrap wraps a lib/pq connector. Notice handlers go inside it, tracing outside.
func Wrap(c driver.Connector) driver.Connector { return connector{c} }

type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	cn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	// A panic here means that the driver was changed and this package was not.
	return &conn{pqConn: cn.(pqConn)}, nil
}

// pqConn is what lib/pq's connection implements; hiding one of these from database/sql
// would change how it behaves.
type pqConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.QueryerContext
	driver.SessionResetter
	driver.Validator
}

// conn is used by one goroutine at a time: database/sql sees to that.
type conn struct {
	pqConn
	bad bool
}

// check closes the connection after an error that leaves it unusable. At once, since
// even a ROLLBACK would wait for ever on it. COMMIT and ROLLBACK themselves need no
// check: lib/pq gives the connection up when they fail.
func (c *conn) check(err error) error {
	if err != nil && !c.bad && unusable(err) {
		c.bad = true
		_ = c.pqConn.Close()
	}
	return err
}

// unusable goes by the text, since these errors have no type. Those that have one are the
// server's, and may say whatever a function raises.
func unusable(err error) bool {
	if _, ok := errors.AsType[*pq.Error](err); ok {
		return false
	}
	text := err.Error()
	return strings.HasPrefix(text, "pq: server error: ") || // out of step
		text == "pq: there is already a query being processed on this connection" || // busy
		strings.HasSuffix(text, "but PostgreSQL only supports 65535 parameters") // busy from now on
}

func (c *conn) IsValid() bool { return !c.bad && c.pqConn.IsValid() }

func (c *conn) ResetSession(ctx context.Context) error {
	if c.bad {
		return driver.ErrBadConn
	}
	return c.pqConn.ResetSession(ctx)
}

func (c *conn) Close() error {
	if c.bad {
		return nil
	}
	return c.pqConn.Close()
}

func (c *conn) ExecContext(ctx context.Context, q string, a []driver.NamedValue) (driver.Result, error) {
	r, err := c.pqConn.ExecContext(ctx, q, a)
	return r, c.check(err)
}

func (c *conn) QueryContext(ctx context.Context, q string, a []driver.NamedValue) (driver.Rows, error) {
	return c.rows(c.pqConn.QueryContext(ctx, q, a))
}

func (c *conn) PrepareContext(ctx context.Context, q string) (driver.Stmt, error) {
	s, err := c.pqConn.PrepareContext(ctx, q)
	if err != nil {
		return nil, c.check(err)
	}
	ps, ok := s.(pqStmt)
	if !ok { // COPY
		return s, nil
	}
	return &stmt{ps, c}, nil
}

type pqStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type stmt struct {
	pqStmt
	c *conn
}

func (s *stmt) ExecContext(ctx context.Context, a []driver.NamedValue) (driver.Result, error) {
	r, err := s.pqStmt.ExecContext(ctx, a)
	return r, s.c.check(err)
}

func (s *stmt) QueryContext(ctx context.Context, a []driver.NamedValue) (driver.Rows, error) {
	return s.c.rows(s.pqStmt.QueryContext(ctx, a))
}

func (s *stmt) Close() error {
	if s.c.bad {
		return nil
	}
	return s.pqStmt.Close()
}

type pqRows interface {
	driver.RowsNextResultSet
	driver.RowsColumnTypeScanType
	driver.RowsColumnTypeDatabaseTypeName
	driver.RowsColumnTypeLength
	driver.RowsColumnTypePrecisionScale
	Result() driver.Result // beside its rows
	Tag() string           // of its command
}

type rows struct {
	pqRows
	c *conn
}

// rows wraps the answer to a query: its later rows can bring the error, too.
func (c *conn) rows(r driver.Rows, err error) (driver.Rows, error) {
	if err != nil {
		return nil, c.check(err)
	}
	return &rows{r.(pqRows), c}, nil
}

func (r *rows) Next(dest []driver.Value) error {
	return r.c.check(r.pqRows.Next(dest))
}

// Close does not read the rest from a connection that is out of step: it would take any
// four bytes for a length, and allocate that much. What lib/pq started to watch the
// query's context then ends with that context.
func (r *rows) Close() error {
	if r.c.bad {
		return nil
	}
	return r.c.check(r.pqRows.Close())
}
