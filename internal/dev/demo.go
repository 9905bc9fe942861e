package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
)

// demoDatabase is the one of make demo: what is in it has never happened.
const demoDatabase = "flower_demo"

//go:embed demo.sql
var demoSQL string

// demoWorkflows are registered again and again while the demo runs.
var demoWorkflows = []struct {
	id    string
	every time.Duration
	first int // how many at once, when the demo begins
}{
	{"reports", 150 * time.Second, 1},
	{"nightly", 5 * time.Minute, 1},
	{"imports", 2 * time.Minute, 3},
	{"billing", 7 * time.Minute, 1},
	{"sync-crm", 10 * time.Minute, 1},
}

// fillDemo puts workflows and a history into a database whose schema is there.
func fillDemo(ctx context.Context, url, site string) error {
	db, err := sqlx.ConnectContext(ctx, "postgres", url)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	for part := range strings.SplitSeq(strings.ReplaceAll(demoSQL, "{site}", site), "\n-- then\n") {
		// One query of several statements is one transaction.
		if _, err := db.ExecContext(ctx, part); err != nil {
			return fmt.Errorf("fill the database of the demo: %w", err)
		}
	}
	return nil
}

// keepDemo registers flows until ctx ends, so that something goes on.
func keepDemo(ctx context.Context, site string, out io.Writer) {
	started := time.Now()
	done := make([]time.Duration, len(demoWorkflows)) // until when each has got its flows
	for {
		for i, w := range demoWorkflows {
			n := 1
			switch {
			case done[i] == 0:
				n = w.first
			case time.Since(started) < done[i]:
				continue
			}
			done[i] += w.every
			for range n {
				if _, err := call(ctx, http.MethodPost, site+"/register/"+w.id, `{"registeredBy": "demo"}`); err != nil && ctx.Err() == nil {
					fmt.Fprintf(out, "The demo: %v\n", err)
				}
			}
		}
		if pause(ctx, time.Second) != nil {
			return
		}
	}
}

// errDemoElsewhere: nobody wants two hundred flows that never were among their own.
var errDemoElsewhere = errors.New("the demo fills a database of its own: unset DATABASE_URL")

// showDemo says what there is to see, and keeps something going on until ctx ends.
func showDemo(ctx context.Context, site string, once bool, out io.Writer) error {
	fmt.Fprintf(out, `
Two hundred flows of six workflows, some of them failed, are on %s: look at them
in a browser. More are registered now and then. Ctrl-C stops everything; the next
make demo begins anew.

`, site)
	if once {
		return nil
	}
	keepDemo(ctx, site, out)
	fmt.Fprintln(out, "\nStopping watcher, register and the database …")
	return nil
}
