package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/postgres/pqguard"
)

// afterCancel is how long a statement may go on after its context has ended. The server is
// asked at once to cancel it, but a request that comes a moment too early is lost: then
// the connection is cut, which the server notices, too.
const afterCancel = 2 * time.Second

// session is a connection for one statement of a task.
type session struct {
	pool *sqlx.DB // of this one connection
	conn *sqlx.Conn
	tx   driver.Tx
	line *line
	keep func() bool // the line is not cut from now on; false: it may have been
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// openSession connects. ctx counts for the whole session.
func openSession(ctx context.Context, s *Statements, st Statement) (*session, error) {
	cfg := s.cfg
	// Whoever looks at pg_stat_activity sees what it is for.
	cfg.Application = "flower " + st.Task.TaskKey.String()
	c, err := pq.NewConnector(cfg.dsn())
	if err != nil {
		return nil, err
	}
	lines := &lines{dial: s.dial}
	c.Dialer(lines)
	notices := pq.ConnectorWithNoticeHandler(c, func(e *pq.Error) {
		if st.Notices != nil {
			fmt.Fprintf(st.Notices, "%s: %s\n", e.Severity, e.Message)
		}
	})
	ses := &session{pool: sqlx.NewDb(sql.OpenDB(pqguard.Wrap(notices)), "postgres")}
	if ses.conn, err = ses.pool.Connx(ctx); err != nil {
		_ = ses.pool.Close()
		return nil, err
	}
	ses.line = lines.first()
	late, stop := outlive(ctx, afterCancel)
	unwatch := context.AfterFunc(late, func() { _ = ses.line.Close() })
	ses.keep = func() bool {
		kept := unwatch()
		stop()
		return kept && ctx.Err() == nil
	}
	if err := ses.dieWithUs(ctx); err != nil {
		ses.close()
		return nil, err
	}
	return ses, nil
}

// close ends the session, on the server, too: what was not committed is rolled back.
func (s *session) close() {
	s.keep()
	_ = s.conn.Close()
	_ = s.pool.Close()
}

// dieWithUsSQL has the server look every 2 s whether we are still there: without it, it
// notices that a client has died when it has an answer for it, and a statement of hours
// would go on beside its repetition by another watcher. Settings that a server lacks
// (before PostgreSQL 14) are left out.
const dieWithUsSQL = `
-- flower: session
SELECT set_config(name, value, false)
FROM   (VALUES ('client_connection_check_interval', '2000'), ('idle_in_transaction_session_timeout', '10000'),
               ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3')) AS s (name, value)
WHERE  name IN (SELECT name FROM pg_settings)`

func (s *session) dieWithUs(ctx context.Context) error {
	_, err := s.conn.ExecContext(ctx, dieWithUsSQL)
	if _, refused := errors.AsType[*pq.Error](err); refused && ctx.Err() == nil {
		return nil // some servers know a setting that they cannot do
	}
	return err
}

const roleSQL = `
-- flower: role
SELECT set_config('role', $1, $2)`

// setRole makes the session act as a role, or only its transaction.
func (s *session) setRole(ctx context.Context, role string, local bool) error {
	if role == "" {
		return nil
	}
	if _, err := s.conn.ExecContext(ctx, roleSQL, role, local); err != nil {
		return fmt.Errorf("-sql-role (FLOWER_SQL_ROLE) %q: %w", role, err)
	}
	return nil
}

// begin begins a transaction, which does not end with ctx: its statements do, but a COMMIT
// is not cancelled. Not one of database/sql, which waits for ever when a connection is lost
// in Raw while it has a transaction.
func (s *session) begin(ctx context.Context) error {
	options := driver.TxOptions{Isolation: driver.IsolationLevel(sql.LevelReadCommitted)}
	return s.conn.Raw(func(conn any) (err error) {
		s.tx, err = conn.(driver.ConnBeginTx).BeginTx(context.WithoutCancel(ctx), options)
		return err
	})
}

// commit commits, and gives up waiting for the answer when a healthy server would have
// given one.
func (s *session) commit() error {
	s.line.patience.Store(int64(usualLimits.quick))
	return s.conn.Raw(func(any) error { return s.tx.Commit() })
}

// lines dials for a session: first its own connection, and later another one for a request
// to cancel, which is not to be waited for.
type lines struct {
	dial  dialFunc
	own   atomic.Pointer[line]
	later atomic.Bool
}

// first returns the session's own connection, once there is one. (There may have been
// others before, to servers that were not the right ones.)
func (l *lines) first() *line {
	l.later.Store(true)
	return l.own.Load()
}

func (l *lines) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	later := l.later.Load()
	if later {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, afterCancel)
		defer cancel()
	}
	c, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	n := &line{Conn: c}
	if later {
		n.patience.Store(int64(afterCancel))
	} else {
		l.own.Store(n)
	}
	return n, nil
}

func (l *lines) Dial(network, address string) (net.Conn, error) {
	return l.DialContext(context.Background(), network, address)
}

func (l *lines) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return l.DialContext(ctx, network, address)
}

// line is a connection on which a read may take as long as a statement does, until it has
// a patience.
type line struct {
	net.Conn
	patience atomic.Int64 // a time.Duration; 0: without end
}

func (l *line) Read(p []byte) (int, error) {
	if d := time.Duration(l.patience.Load()); d > 0 {
		if err := l.SetReadDeadline(time.Now().Add(d)); err != nil {
			return 0, err
		}
	}
	return l.Conn.Read(p)
}

// outlive returns a context that ends d after ctx. stop frees what it takes.
func outlive(ctx context.Context, d time.Duration) (late context.Context, stop context.CancelFunc) {
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	unwatch := context.AfterFunc(ctx, func() {
		select {
		case <-late.Done():
		case <-time.After(d):
			end()
		}
	})
	return late, func() { unwatch(); end() }
}
