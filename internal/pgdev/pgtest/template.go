package pgtest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/lib/pq"

	"github.com/d-tsuji/flower/migrations"
)

// templateLock is the key of the advisory lock under which templates are made: the letters
// "flowtest". It counts within the database that all packages connect to first.
const templateLock = 0x666c6f7774657374

// makeTemplate returns the name of a database with the current migrations applied, which
// nobody can connect to: a database is copied only while nobody is in it. Packages that
// share a server may all come here at once; the first makes it, the others wait for it.
func (s *server) makeTemplate() (name string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if name, err = templateName(migrations.FS); err != nil {
		return "", err
	}
	conn, err := s.admin.Conn(ctx) // the lock is the session's
	if err != nil {
		return "", fmt.Errorf("make the template: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", templateLock); err != nil {
		return "", fmt.Errorf("wait for the template: %w", err)
	}
	defer func() {
		// A connection on which this fails is broken, and the lock is gone with it.
		_, err2 := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", templateLock)
		err = errors.Join(err, err2)
	}()
	var open bool
	err = conn.QueryRowContext(ctx, "SELECT datallowconn FROM pg_database WHERE datname = $1", name).Scan(&open)
	if err == nil && !open {
		return name, nil
	}
	// None yet, or one whose maker was killed on the way: closing it is the last step.
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", fmt.Errorf("look for the template: %w", err)
	}
	if err := s.fillTemplate(ctx, conn, name); err != nil {
		return "", fmt.Errorf("make the template %s: %w", name, err)
	}
	return name, nil
}

func (s *server) fillTemplate(ctx context.Context, conn *sql.Conn, name string) error {
	if err := s.drop(ctx, name); err != nil {
		return err
	}
	quoted := pq.QuoteIdentifier(name)
	if _, err := conn.ExecContext(ctx, "CREATE DATABASE "+quoted+" TEMPLATE template0"); err != nil {
		return err
	}
	if err := migrate(ctx, s.dsn(name)+" application_name=pgtest timezone=UTC"); err != nil {
		return err
	}
	if err := awaitEmpty(ctx, conn, name); err != nil {
		return err
	}
	_, err := conn.ExecContext(ctx, "ALTER DATABASE "+quoted+" WITH ALLOW_CONNECTIONS false")
	return err
}

func migrate(ctx context.Context, dsn string) error {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return err
	}
	return errors.Join(migrations.Up(ctx, db, slog.New(slog.DiscardHandler)), db.Close())
}

// awaitEmpty waits until the server has noticed that the migrations' connections are
// closed. It takes a moment, in which a copy would be refused.
func awaitEmpty(ctx context.Context, conn *sql.Conn, name string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		var n int
		err := conn.QueryRowContext(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = $1", name).Scan(&n)
		if err != nil || n == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d connections are left: %w", n, ctx.Err())
		case <-tick.C:
		}
	}
}

// templateName has a hash of the migrations' names and texts in it.
func templateName(files fs.FS) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := fs.ReadFile(files, path)
		// Lengths keep "a" + "bc" and "ab" + "c" apart.
		_, _ = fmt.Fprintf(h, "%d %s %d %s", len(path), path, len(text), text)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the migrations: %w", err)
	}
	return fmt.Sprintf("flower_tpl_%x", h.Sum(nil)[:8]), nil
}
