package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/postgres"
	"github.com/d-tsuji/flower/internal/register"
	"github.com/d-tsuji/flower/internal/watcher"
)

// defineSQL makes the workflow of a single task and the one of three.
const defineSQL = `
INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('one', 1, 'NoOp'),
       ('three', 1, 'NoOp'), ('three', 2, 'NoOp'), ('three', 3, 'NoOp')`

// web is the real register, listening.
type web struct{ address string }

// withWeb runs register on a fresh database and gives it to f.
func (b *bench) withWeb(ctx context.Context, f func(*web, *sql.DB, postgres.Config) error) error {
	return b.database(ctx, func(db *sql.DB, cfg postgres.Config) error {
		if _, err := db.ExecContext(ctx, defineSQL); err != nil {
			return err
		}
		store, err := postgres.Open(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer func() { _ = store.Close() }()
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		live, stop := context.WithCancel(ctx)
		var server errgroup.Group
		prepared := func(context.Context) error { return nil }
		server.Go(func() error {
			return register.New(register.Config{Host: "127.0.0.1"}, store, slog.New(slog.DiscardHandler)).Serve(live, l, prepared)
		})
		err = f(&web{l.Addr().String()}, db, cfg)
		stop()
		if err != nil {
			return err
		}
		return server.Wait()
	})
}

// caller is a client of register, with a connection that it keeps. It does little more
// than to write and to read: it shares the processors with what is measured, and a
// net/http.Client takes half as much as the server does, twice what this does.
type caller struct {
	conn net.Conn
	read *bufio.Reader
	host string
}

func (w *web) call(ctx context.Context) (*caller, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", w.address)
	if err != nil {
		return nil, err
	}
	return &caller{conn, bufio.NewReader(conn), w.address}, nil
}

// post registers one flow.
func (c *caller) post(workflow string) error {
	body := `{"taskId": "` + workflow + `"}`
	if _, err := fmt.Fprintf(c.conn, "POST /register HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n%s", c.host, len(body), body); err != nil {
		return err
	}
	answer, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	if err == nil && answer.StatusCode != http.StatusCreated {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return err
}

// runRegister counts flows a second over HTTP. Beside it stands the insertion of such
// flows by the barest SQL, one transaction each, over as many connections; and the ways in
// which peers, by direct insert, get flows.
func runRegister(ctx context.Context, b *bench) error {
	for _, clients := range []int{16, 64} {
		n := b.n(10_000)
		err := b.inTurn("flows/s", "bare inserts",
			thing{fmt.Sprintf("bare inserts, %d connections", clients), func() (float64, error) { return b.bareInserts(ctx, clients, n) }},
			append([]thing{{fmt.Sprintf("POST /register, %d clients", clients), func() (float64, error) { return b.posts(ctx, clients, n) }}},
				b.peerRegistrations(ctx, n, clients)...)...)
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) posts(ctx context.Context, clients, n int) (rate float64, err error) {
	err = b.withWeb(ctx, func(w *web, db *sql.DB, _ postgres.Config) error {
		idle := make(chan *caller, clients)
		for range clients {
			c, callErr := w.call(ctx)
			if callErr != nil {
				return callErr
			}
			defer func() { _ = c.conn.Close() }()
			idle <- c
		}
		rate, err = perSecond(n, func() error {
			return parallel(ctx, clients, n, func() error {
				c := <-idle
				defer func() { idle <- c }()
				return c.post("three")
			})
		})
		if err != nil {
			return err
		}
		var tasks int
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM kr_task_stat`).Scan(&tasks); err != nil {
			return err
		}
		if tasks != 3*n {
			return fmt.Errorf("%d tasks were registered instead of %d", tasks, 3*n)
		}
		return nil
	})
	return rate, err
}

func (b *bench) bareInserts(ctx context.Context, conns, n int) (rate float64, err error) {
	err = b.database(ctx, func(db *sql.DB, _ postgres.Config) error {
		if _, err = db.ExecContext(ctx, `CREATE TABLE bare (flow text, seq int, status smallint, PRIMARY KEY (flow, seq))`); err != nil {
			return err
		}
		db.SetMaxOpenConns(conns)
		db.SetMaxIdleConns(conns)
		insert, prepareErr := db.PrepareContext(ctx, `INSERT INTO bare SELECT $1, s, 0 FROM generate_series(1, 3) s`)
		if prepareErr != nil {
			return prepareErr
		}
		defer func() { _ = insert.Close() }()
		var id atomic.Int64
		rate, err = perSecond(n, func() error {
			return parallel(ctx, conns, n, func() error {
				_, insertErr := insert.ExecContext(ctx, fmt.Sprintf("0199%032d", id.Add(1)))
				return insertErr
			})
		})
		return err
	})
	return rate, err
}

// parallel does something n times, by as many as clients at a time.
func parallel(ctx context.Context, clients, n int, f func() error) error {
	var left atomic.Int64
	left.Store(int64(n))
	group, ctx := errgroup.WithContext(ctx)
	for range clients {
		group.Go(func() error {
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				if err := f(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// runLatency measures how long a task waits in an idle system.
func runLatency(ctx context.Context, b *bench) error {
	var waits []time.Duration
	err := b.withWeb(ctx, func(w *web, _ *sql.DB, cfg postgres.Config) error {
		started := make(chan time.Time, 1)
		programs := noOps{each: func(flow.Task) { started <- time.Now() }}
		live, stop := context.WithCancel(ctx)
		defer stop()
		store, err := postgres.Open(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		defer func() { _ = store.Close() }()
		one, err := watcher.New(watcher.Config{Workers: 5, PollInterval: 5 * time.Second, ShutdownTimeout: time.Second, Host: "bench"},
			store, programs, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		var group errgroup.Group
		group.Go(func() error { return one.Run(live) })
		client, err := w.call(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = client.conn.Close() }()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := range b.n(400) + 20 {
			<-tick.C
			if err := client.post("one"); err != nil {
				return err
			}
			answered := time.Now()
			select {
			case at := <-started:
				if i >= 20 { // the first ones make connections and plans
					waits = append(waits, max(0, at.Sub(answered)))
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		stop()
		return group.Wait()
	})
	if err != nil {
		return err
	}
	slices.Sort(waits)
	for _, p := range []int{50, 95, 99} {
		at := waits[len(waits)*p/100]
		b.report(figure{Name: fmt.Sprintf("p%d", p), Value: float64(at.Microseconds()) / 1000, Unit: "ms"})
	}
	return nil
}
