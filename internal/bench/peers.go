package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/internal/postgres"
)

// peer is another queue, measured by a program of its own (see the folder peers). It is
// called with a workload, a count and a number of clients, finds its empty database in
// PGHOST and the like, and prints tasks or flows a second.
type peer struct {
	name    string
	command []string
}

type peers []peer

func (p *peers) String() string { return "" }

// Set adds a peer: NAME=COMMAND.
func (p *peers) Set(s string) error {
	name, command, found := strings.Cut(s, "=")
	if !found || command == "" {
		return fmt.Errorf("%q: must be NAME=COMMAND", s)
	}
	*p = append(*p, peer{name, strings.Fields(command)})
	return nil
}

// peerThings measures the peers at the present workload.
func (b *bench) peerThings(ctx context.Context, count, clients int) []thing {
	var things []thing
	for _, p := range b.peers {
		things = append(things, thing{p.name, func() (float64, error) { return b.peer(ctx, p, b.now.name, count, clients) }})
	}
	return things
}

// peerRegistrations measures the ways in which the peers register a flow of 3 tasks. Only
// the first two leave, as a registration here does, three rows that can be seen; the last
// leaves the others to the first job, to be inserted while the flow runs.
func (b *bench) peerRegistrations(ctx context.Context, count, clients int) []thing {
	var things []thing
	for _, p := range b.peers {
		for _, way := range []struct{ workload, about string }{
			{"W3", "3 jobs in a transaction"}, {"W3many", "3 jobs at once"}, {"W3first", "the first job of 3"},
		} {
			things = append(things, thing{p.name + ", " + way.about, func() (float64, error) { return b.peer(ctx, p, way.workload, count, clients) }})
		}
	}
	return things
}

func (b *bench) peer(ctx context.Context, p peer, workload string, count, clients int) (rate float64, err error) {
	err = b.database(ctx, func(_ *sql.DB, cfg postgres.Config) error {
		at, configErr := pq.NewConfig(cfg.URL)
		if configErr != nil {
			return configErr
		}
		c := exec.CommandContext(ctx, p.command[0], append(p.command[1:], workload, strconv.Itoa(count), strconv.Itoa(clients))...)
		c.Env = append(os.Environ(), "PGHOST="+at.Host, "PGPORT="+strconv.Itoa(int(at.Port)), "PGUSER="+at.User,
			"PGPASSWORD="+at.Password, "PGDATABASE="+at.Database, "PGSSLMODE=disable")
		c.Stderr = os.Stderr
		out, runErr := c.Output()
		if runErr != nil {
			return fmt.Errorf("%s: %w", p.name, runErr)
		}
		rate, err = strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		return err
	})
	return rate, err
}
