// Package pgtest gives each test a PostgreSQL database of its own, migrated, so that tests
// run in parallel and nothing of one is seen by another: advisory locks, NOTIFY channels
// and functions that name their search_path included, for which a schema would not do.
//
// A database is a copy of a template that is migrated once per server and set of
// migrations. Making one and dropping it takes some 12 ms where data is kept in memory
// (see pgdev.MemoryDir) and many times that on a busy disk; the template takes half a
// second. On a server that lives on, templates of older migrations stay: drop the
// databases flower_tpl_… when they are in the way.
//
// Connections are what a server runs out of: the tests that run at once times what each
// of them opens must stay below max_connections (StartServer: 300), so use small pools.
package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
)

// DB is a test's database. Its address is for the code under test; the embedded pool is
// for the test itself, to prepare and to look at what is there.
type DB struct {
	DSN  string // "host=… port=… user=… dbname=… …"
	URL  string // "postgres://…"
	Name string // of the database

	*sqlx.DB // plain lib/pq, at most 4 connections, application_name pgtest, time zone UTC
}

// patience is how long one statement on the server may take: far more than ever needed.
const patience = 2 * time.Minute

// New makes a migrated database, which is dropped when the test ends, whoever is still
// connected to it.
func New(t testing.TB) *DB {
	t.Helper()
	s := running(t)
	template, err := s.template()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return s.create(t, template)
}

// Empty makes a database without anything in it, for tests of the migrations and of the
// driver. It is dropped when the test ends.
func Empty(t testing.TB) *DB {
	t.Helper()
	return running(t).create(t, "template0")
}

func (s *server) create(t testing.TB, template string) *DB {
	t.Helper()
	// Not the test's context: the database must be dropped after it has ended, too.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	name := "flower_test_" + strings.ToLower(rand.Text()[:16])
	if _, err := s.admin.ExecContext(ctx, "CREATE DATABASE "+pq.QuoteIdentifier(name)+
		" TEMPLATE "+pq.QuoteIdentifier(template)+s.strategy); err != nil {
		t.Fatalf("pgtest: make database %s: %v", name, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.drop(ctx, name); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	d := &DB{DSN: s.dsn(name), URL: s.url(name), Name: name}
	pool, err := sqlx.Open("postgres", d.DSN+" application_name=pgtest timezone=UTC")
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	pool.SetMaxOpenConns(4)
	t.Cleanup(func() { _ = pool.Close() })
	d.DB = pool
	return d
}

func (s *server) drop(ctx context.Context, name string) error {
	if _, err := s.admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+pq.QuoteIdentifier(name)+" WITH (FORCE)"); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}

// Eventually waits until cond says true, and fails the test if that takes longer than
// within, saying what was waited for: "the task is running". It looks at once and then
// every few milliseconds, always in the test's own goroutine, and a last time when the
// time is over.
func Eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			if !cond() {
				t.Fatalf("not within %s: %s", within, what)
			}
			return
		case <-tick.C:
		}
	}
}
