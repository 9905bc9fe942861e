package main

import (
	"context"
	"log/slog"

	"github.com/d-tsuji/flower/internal/cli"
	"github.com/d-tsuji/flower/internal/metrics"
	"github.com/d-tsuji/flower/internal/postgres"
)

// measure begins to serve metrics, if that is wanted, until ctx ends; it has the server
// counted. The function that it returns waits for the end.
func measure(ctx context.Context, cfg *config, db *postgres.DB, log *slog.Logger) (wait func() error, err error) {
	if cfg.metricsAddr == "" {
		return func() error { return nil }, nil
	}
	m := metrics.New("register", cli.Version(), log.With("component", "register"))
	m.State(db)
	m.Pools(db.EachPool)
	cfg.web.Meter = m.Web()
	serve, err := m.Serve(ctx, cfg.metricsAddr)
	if err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	return func() error { return <-ended }, nil
}
