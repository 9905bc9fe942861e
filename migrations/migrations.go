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

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// FS has the migrations, in files named as goose wants it.
//
//go:embed *.sql
var FS embed.FS

// Up brings the schema of db up to date. Several processes may call it at once: an
// advisory lock lets one work and the others wait, so db must be a direct connection,
// not one through a transaction pooler.
func Up(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	p, err := provider(db, log)
	if err != nil {
		return err
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
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
	// Every second for five minutes: goose's default looks only every 5 s.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, fmt.Errorf("prepare the migrations' lock: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, FS,
		goose.WithSessionLocker(locker), goose.WithSlog(log))
	if err != nil {
		return nil, fmt.Errorf("read the embedded migrations: %w", err)
	}
	return p, nil
}
