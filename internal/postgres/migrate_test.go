package postgres

import (
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/migrations"
)

// downTo takes migrations back, the newest first, until the schema has a version.
func downTo(t *testing.T, w *world, version string) {
	t.Helper()
	names, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	for _, name := range slices.Backward(names) {
		if name[:5] <= version {
			return
		}
		text, err := fs.ReadFile(migrations.FS, name)
		require.NoError(t, err)
		_, down, _ := strings.Cut(string(text), "-- +goose Down")
		mustExec(t, w.psql, down)
		mustExec(t, w.psql, `DELETE FROM goose_db_version WHERE version_id = $1::int`, name[:5])
	}
}

// Whoever waits to change a table keeps everybody else from it. A migration that waits for
// a backup, which reads the tables for hours, must not stop all watchers for as long.
func TestMigrate_WaitsForABackupWithoutHoldingUpOthers(t *testing.T) {
	t.Parallel()
	w := open(t)
	downTo(t, w, "00030")
	backup := begin(t, w)
	mustExec(t, backup, `LOCK TABLE kr_task_stat IN ACCESS SHARE MODE`)
	migrated := async(func() error { return w.Migrate(background) })
	awaitBlocked(t, w, 1)

	person := begin(t, w)
	mustExec(t, person, `SET LOCAL lock_timeout = '10s'`)
	mustExec(t, person, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status) VALUES ('f', 1, 'sample', 1, 9)`)
	require.NoError(t, person.Commit())

	require.NoError(t, backup.Commit())
	require.NoError(t, migrated())
	require.NoError(t, w.Ready(t.Context()))
}

// Another program's versions do not make a database without tables ready.
func TestReady_VersionsOfAnotherProgram(t *testing.T) {
	t.Parallel()
	empty := pgtest.Empty(t)
	mustExec(t, empty, `CREATE TABLE goose_db_version AS SELECT 9999::bigint AS version_id, true AS is_applied`)
	d, err := Open(Config{URL: empty.URL}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	require.ErrorIs(t, d.Ready(t.Context()), ErrSchemaOld)
	require.ErrorContains(t, d.Migrate(t.Context()), "another program")
}

// Whoever serves others while it waits for the schema meets no table that is not there, or
// is an older one: for all of them the database is away until then.
func TestAwaitSchema(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		db      *pgtest.DB
		prepare func(*DB) error
	}{
		"of an empty database":    {pgtest.Empty(t), func(d *DB) error { return d.Migrate(background) }},
		"of one that is migrated": {pgtest.New(t), func(d *DB) error { return d.WaitReady(background) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := Open(Config{URL: c.db.URL, AwaitSchema: true}, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			defer func() { require.NoError(t, d.Close()) }()
			register := func() error {
				_, err := d.Register(background, flow.Registration{FlowID: flow.ID(newID()), WorkflowID: "sample"})
				return err
			}
			look := func() error {
				_, err := d.Flows(background, flow.Filter{}, flow.Position{}, 1)
				return err
			}
			require.ErrorIs(t, d.Ready(background), flow.ErrUnavailable)
			require.ErrorIs(t, register(), flow.ErrUnavailable)
			require.ErrorIs(t, look(), flow.ErrUnavailable)
			require.NoError(t, c.prepare(d))
			require.NoError(t, d.Ready(background))
			require.NoError(t, register())
			require.NoError(t, look())
		})
	}
}
