package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/migrations"
)

// Migrate brings the schema up to date. It waits for a database that is away, and for whoever
// uses its tables, with a log line now and then, until ctx ends.
func (d *DB) Migrate(ctx context.Context) error {
	return d.prepare(ctx, func() error { return d.migrate(ctx, migrations.Up) })
}

// MigrateRoles is Migrate, and gives the database's roles their rights (see
// migrations.Roles). It takes a login that may do so.
func (d *DB) MigrateRoles(ctx context.Context) error {
	return d.prepare(ctx, func() error { return d.migrate(ctx, migrations.Up, migrations.Roles) })
}

// prepare repeats f while the database is away. When it has ended well, everybody may
// connect: see Config.AwaitSchema.
func (d *DB) prepare(ctx context.Context, f func() error) error {
	err := d.untilAvailable(ctx, f)
	if err == nil {
		d.net.shut.Store(false)
	}
	return err
}

func (d *DB) migrate(ctx context.Context, steps ...func(context.Context, *sql.DB, *slog.Logger) error) error {
	// A migration may take longer than any statement of ours.
	pool, err := d.open(2, d.net.early(0), migrationSettings...)
	if err != nil {
		return err
	}
	defer func() { _ = pool.Close() }()
	writable := func(*sqlx.Tx) error { return nil }
	if err := d.inTxOf(ctx, pool, writableSQL, writable); err != nil {
		return err
	}
	for _, step := range steps {
		err := step(ctx, pool.DB, d.log)
		if pq.As(err, pqerror.LockNotAvailable) != nil {
			return fmt.Errorf("somebody uses a table that is to be changed, a backup or a transaction that is open: %w", err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// WaitReady waits until the database can be used: it answers, and its schema is not
// older than this program needs.
func (d *DB) WaitReady(ctx context.Context) error {
	return d.prepare(ctx, func() error { return d.ready(ctx) })
}

// untilAvailable repeats f while the database is away, at growing pauses.
func (d *DB) untilAvailable(ctx context.Context, f func() error) error {
	pause := 50 * time.Millisecond
	var said time.Time
	for {
		err := f()
		if file, ok := errors.AsType[*fs.PathError](err); ok {
			return fmt.Errorf("-dbsslrootcert (DB_SSLROOTCERT), or a file that -database-url names: %w", file)
		}
		if err == nil || !unavailable(err) || refusesSettings(err) {
			return d.advise(err)
		}
		if time.Since(said) > 5*time.Second {
			d.log.Warn("waiting for the database", "err", redact(d.advise(err), d.cfg))
			said = time.Now()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the database: %w", err)
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// advise adds to what keeps a program from the database what can be done, where the server's
// own words do not tell.
func (d *DB) advise(err error) error {
	switch {
	case err == nil:
		return nil
	case readOnly(err):
		return fmt.Errorf("%w: this server cannot be written, as a standby: "+
			"name the primary, or all of them, as in -database-url 'host=db1,db2 dbname=flower'", err)
	case pq.As(err, pqerror.InvalidPassword) != nil && !d.cfg.hasPassword():
		return fmt.Errorf("%w: none was given, by DB_PASS_FILE or DB_PASS", err)
	case pq.As(err, pqerror.InsufficientPrivilege) != nil && strings.Contains(err.Error(), "denied for schema"): // since PostgreSQL 15
		return fmt.Errorf("%w: who makes the tables must own the database (ALTER DATABASE … OWNER TO …), "+
			"or be a member of flower_owner where there are roles", err)
	case errors.Is(err, syscall.EMFILE):
		return fmt.Errorf("%w: let this process have more of them (ulimit -n, LimitNOFILE), some 64 and what its tasks need", err)
	}
	return err
}

// errShut is what everybody meets until the database is prepared, if that is awaited.
var errShut = fmt.Errorf("%w: its schema is yet to be looked at, or brought up to date", flow.ErrUnavailable)

// ErrSchemaOld means that the database was not migrated for this program.
var ErrSchemaOld = errors.New("the database's schema is too old for this program")

const readySQL = `
-- flower: ready
SELECT coalesce(max(version_id), 0) AS version, current_setting('transaction_read_only')::boolean AS read_only
FROM   goose_db_version WHERE is_applied AND to_regclass('kr_task_stat') IS NOT NULL  -- else it is another program's`

type readyRow struct {
	Version  int64 `db:"version"`
	ReadOnly bool  `db:"read_only"`
}

// Ready reports why the database cannot be used just now; nil means that it can. It
// returns when ctx ends. All who ask at the same time share a look, which goes on without
// them: with a dead host in the list it may take longer than they wait to find the others.
func (d *DB) Ready(ctx context.Context) error {
	look := d.looks.DoChan("", func() (any, error) { return nil, d.ready(context.WithoutCancel(ctx)) })
	select {
	case l := <-look:
		if d.net.shut.Load() && (l.Err == nil || errors.Is(l.Err, ErrSchemaOld)) {
			return errShut
		}
		return l.Err
	case <-ctx.Done():
		return translate("look whether the database can be used", context.Cause(ctx))
	}
}

// ready looks by way of the heartbeats' connection, whose limits are the shortest.
func (d *DB) ready(ctx context.Context) error {
	need, err := migrations.Latest()
	if err != nil {
		return err
	}
	var rows []readyRow
	err = d.beat.selectAll(ctx, &rows, readySQL)
	switch {
	case undefinedTable(err), err == nil && !rows[0].ReadOnly && rows[0].Version < need:
		var have int64
		if err == nil {
			have = rows[0].Version
		}
		// Whoever starts first migrates, so that waiting can help.
		return fmt.Errorf("%w: it has version %d, and %d is needed: register -migrate only migrates it", ErrSchemaOld, have, need)
	case err == nil && rows[0].ReadOnly:
		err = errReadOnly
		d.net.leadsAstray(err)
	}
	return translate("look whether the database can be used", err)
}
