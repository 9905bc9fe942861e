// Package migrations has the database's schema as goose migrations, embedded, and the
// function that applies them. Files are never edited after a release: a change is a new
// file, and the binaries before and after it both work with it.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"log/slog"
	"time"

	"github.com/pressly/goose/v3"
)

// FS has the migrations, in files named as goose wants it.
//
//go:embed *.sql
var FS embed.FS

// Up brings the schema of db up to date. Several processes may call it at once: one
// works and the others wait. It works through a transaction pooler, too.
func Up(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	return alone(ctx, db, func() error {
		if err := refuseUnfit(ctx, db); err != nil {
			return err
		}
		p, err := provider(db, log)
		if err != nil {
			return err
		}
		done, err := p.Up(ctx)
		if err != nil {
			return fmt.Errorf("migrate the database: %w", err)
		}
		if len(done) > 0 {
			log.Info("the database was migrated", "migrations", len(done), "version", done[len(done)-1].Source.Version)
		}
		return keepRoles(ctx, db, log)
	})
}

// Down takes the whole schema away, data included. For tests of the migrations.
func Down(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	p, err := provider(db, log)
	if err != nil {
		return err
	}
	if _, err := p.DownTo(ctx, 0); err != nil {
		return fmt.Errorf("take the schema away: %w", err)
	}
	return nil
}

// Latest returns the version of the newest migration.
func Latest() (int64, error) {
	files, err := goose.NewProvider(goose.DialectPostgres, &sql.DB{}, FS)
	if err != nil {
		return 0, fmt.Errorf("read the embedded migrations: %w", err)
	}
	sources := files.ListSources()
	return sources[len(sources)-1].Version, nil
}

func provider(db *sql.DB, log *slog.Logger) (*goose.Provider, error) {
	p, err := goose.NewProvider(goose.DialectPostgres, db, FS, goose.WithSlog(log))
	if err != nil {
		return nil, fmt.Errorf("read the embedded migrations: %w", err)
	}
	return p, nil
}

// lockID is that of goose's own lock, which earlier versions of Flower take.
const lockID = 4097083626

// lockSQL takes the lock for a transaction, in which nothing else is done and which no
// limit for idle ones is to end.
const lockSQL = `SELECT pg_try_advisory_xact_lock($1) FROM set_config('idle_in_transaction_session_timeout', '0', true)`

// alone runs f while nobody else migrates. goose would lock for a session, and a pooler
// gives the next statement of a session to whichever server connection is free: its lock
// would stay there for ever. A transaction stays where it is.
func alone(ctx context.Context, db *sql.DB, f func() error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("lock the migrations: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // it has changed nothing
	for {
		var mine bool
		if err := tx.QueryRowContext(ctx, lockSQL, lockID).Scan(&mine); err != nil {
			return fmt.Errorf("lock the migrations: %w", err)
		}
		if mine {
			return f()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for whoever migrates: %w", context.Cause(ctx))
		case <-time.After(time.Second):
		}
	}
}
