package migrations_test

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var silent = slog.New(slog.DiscardHandler)

// catalogueSQL describes everything in the schema, a line each.
const catalogueSQL = `
WITH relation AS (
    SELECT oid, relname, relkind, reloptions FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE 'goose%'
)
SELECT format('relation %s %s %s: %s', relkind, relname, reloptions, obj_description(oid, 'pg_class')) AS line FROM relation
UNION ALL
SELECT format('column %s.%s %s %s %s %s %s %s: %s', relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
              (SELECT collname FROM pg_collation WHERE oid = a.attcollation), pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum))
FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
UNION ALL
SELECT format('constraint %s %s', conname, pg_get_constraintdef(c.oid)) FROM pg_constraint c JOIN relation r ON r.oid = c.conrelid
UNION ALL
SELECT format('index %s', pg_get_indexdef(i.indexrelid)) FROM pg_index i JOIN relation r ON r.oid = i.indrelid
UNION ALL
SELECT format('view %s %s', relname, pg_get_viewdef(oid)) FROM relation WHERE relkind = 'v'
UNION ALL
SELECT format('trigger %s', pg_get_triggerdef(t.oid)) FROM pg_trigger t JOIN relation r ON r.oid = t.tgrelid
UNION ALL
SELECT format('function %s: %s', pg_get_functiondef(oid), obj_description(oid, 'pg_proc')) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT format('type %s', typname) FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typname NOT LIKE '%goose%'
UNION ALL
SELECT format('definition %s', d) FROM (%s) AS definition(d)
ORDER BY 1`

func catalogue(t *testing.T, db *pgtest.DB) []string {
	t.Helper()
	definitions := "SELECT NULL WHERE false"
	var there bool
	require.NoError(t, db.Get(&there, `SELECT to_regclass('ms_task_definition') IS NOT NULL`))
	if there {
		definitions = "SELECT x::text FROM ms_task_definition x"
	}
	var lines []string
	require.NoError(t, db.Select(&lines, strings.Replace(catalogueSQL, "(%s)", "("+definitions+")", 1)))
	return lines
}

// same compares two catalogues, and shows what differs.
func same(t *testing.T, want, got []string, what string) {
	t.Helper()
	require.Empty(t, cmp.Diff(want, got), what)
}

func TestUpDownUp(t *testing.T) {
	t.Parallel()
	db := pgtest.Empty(t)
	require.Empty(t, catalogue(t, db))
	var log strings.Builder
	require.NoError(t, migrations.Up(t.Context(), db.DB.DB, slog.New(slog.NewTextHandler(&log, nil))))
	require.Contains(t, log.String(), fmt.Sprintf("the database was migrated\" migrations=%d version=", len(files(t))), "who upgrades is told")
	first := catalogue(t, db)
	text := strings.Join(first, "\n")
	for _, part := range []string{"relation r kr_task_stat", "view v_flow", "trigger CREATE TRIGGER kr_task_edited", "definition (sample,1,Test1,10", "constraint watcher_id and claim_id are kept by Flower"} {
		require.True(t, strings.Contains(text, part), "the catalogue has no %s", part)
	}
	require.NoError(t, migrations.Up(t.Context(), db.DB.DB, silent), "nothing to do")
	same(t, first, catalogue(t, db), "up again")

	// With rows of every kind.
	for _, sql := range []string{
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq) VALUES ('f', 1, 0, 'sample', 1), ('f', 2, 1, 'sample', 2)`,
		`UPDATE kr_task_stat SET exec_status = 9`,
	} {
		_, err := db.Exec(sql)
		require.NoError(t, err)
	}
	require.NoError(t, migrations.Down(t.Context(), db.DB.DB, silent))
	require.Empty(t, catalogue(t, db), "nothing is left")
	require.NoError(t, migrations.Up(t.Context(), db.DB.DB, silent))
	same(t, first, catalogue(t, db), "up again")
}

// Each migration's Down undoes its Up, and nothing else.
func TestUp_OneByOne(t *testing.T) {
	t.Parallel()
	db := pgtest.Empty(t)
	before := [][]string{catalogue(t, db)}
	for _, m := range files(t) {
		_, err := db.Exec(m.up)
		require.NoError(t, err, m.name)
		before = append(before, catalogue(t, db))
	}
	all := files(t)
	for i, a := range slices.Backward(all) {
		_, err := db.Exec(a.down)
		require.NoError(t, err, a.name)
		same(t, before[i], catalogue(t, db), a.name)
	}
}

type file struct{ name, up, down string }

func files(t *testing.T) []file {
	t.Helper()
	names, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	all := make([]file, len(names))
	for i, name := range names {
		require.Regexp(t, `^\d{5}_[a-z_]+\.sql$`, name)
		require.True(t, i == 0 || name[:5] > names[i-1][:5], "%s: its number is taken", name)
		text, err := fs.ReadFile(migrations.FS, name)
		require.NoError(t, err)
		up, down, found := strings.Cut(string(text), "-- +goose Down")
		require.True(t, found, "%s has no Down", name)
		require.True(t, strings.HasPrefix(up, "-- +goose Up"), name)
		all[i] = file{name, up, down}
	}
	return all
}

func TestLatest(t *testing.T) {
	t.Parallel()
	latest, err := migrations.Latest()
	require.NoError(t, err)
	all := files(t)
	require.Equal(t, all[len(all)-1].name[:5], fmt.Sprintf("%05d", latest))
	db := pgtest.New(t)
	var version int64
	require.NoError(t, db.Get(&version, `SELECT max(version_id) FROM goose_db_version WHERE is_applied`))
	require.Equal(t, latest, version)
}

// Both binaries start together, and both migrate.
func TestUp_TwoAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.Empty(t)
	done := make(chan error)
	const n = 3
	for range n {
		go func() {
			pool, err := sql.Open("postgres", db.DSN)
			if err == nil {
				err = migrations.Up(t.Context(), pool, silent)
				_ = pool.Close()
			}
			done <- err
		}()
	}
	for range n {
		require.NoError(t, <-done)
	}
	var applied []string
	require.NoError(t, db.Select(&applied, `SELECT version_id::text FROM goose_db_version WHERE version_id > 0 ORDER BY id`))
	require.Len(t, applied, len(files(t)), "each of them once")
	same(t, catalogue(t, pgtest.New(t)), catalogue(t, db), "as one alone makes it")
}

// Whoever may log in must not find a place before our tables for one of his own, where a
// function has the owner's rights: temporary ones come first unless they are named last.
func TestUp_FunctionsWithTheOwnersRightsLookAtTemporaryTablesLast(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	var fixed []bool
	require.NoError(t, db.Select(&fixed, `SELECT ('search_path=public, pg_temp' = ANY (proconfig)) IS TRUE FROM pg_proc
		WHERE pronamespace = 'public'::regnamespace AND prosecdef`))
	require.Equal(t, []bool{true, true, true}, fixed)
}

// Whoever has psql alone reads what each column means.
func TestUp_EverythingIsCommented(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	var bare []string
	require.NoError(t, db.Select(&bare, `
		SELECT concat_ws('.', c.relname, a.attname)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname NOT LIKE 'goose%'
		      AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)`))
	require.Empty(t, bare)
}

// Rows that could be written before, and made trouble, do not keep the schema from its next
// version.
func TestUp_MendsWhatCannotBe(t *testing.T) {
	t.Parallel()
	db := pgtest.Empty(t)
	for _, m := range files(t) {
		if strings.Contains(m.name, "by_hand") {
			_, err := db.Exec(`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, depends_task_exec_seqs, task_id, task_seq,
				exec_status, registered_ts, run_after, finished_ts)
				VALUES ('f', 1, 0, NULL, 'sample', 1, 3, '-infinity', NULL, 'infinity'), ('f', 2, 1, '[1:2]={1,3}', 'sample', 2, 0, now(), 'infinity', NULL),
				       ('f', 3, 5, '[0:1]={1,5}', 'sample', 3, 0, now(), '-infinity', NULL);
				UPDATE ms_task_definition SET depends_task_seqs = '[2:2]={1}' WHERE task_id = 'sample' AND task_seq = 2`)
			require.NoError(t, err)
		}
		_, err := db.Exec(m.up)
		require.NoError(t, err, m.name)
	}
	var rows []string
	require.NoError(t, db.Select(&rows, `
		SELECT concat_ws(' ', task_exec_seq, registered_ts > '2020-01-01', extract(year FROM run_after AT TIME ZONE 'UTC'), finished_ts < now() + interval '1 day',
		                 depends_task_exec_seq, depends_task_exec_seqs)
		FROM kr_task_stat ORDER BY 1`))
	require.Equal(t, []string{"1 t t 0", "2 t 9999 1 {1,3}", "3 t 1 {1,5}"}, rows)
	require.NoError(t, db.Select(&rows, `SELECT rule || ': ' || detail FROM v_invariant`))
	require.Empty(t, rows)
}

// Definitions that are there already are not touched.
func TestUp_SamplesDoNotOverwrite(t *testing.T) {
	t.Parallel()
	db := pgtest.Empty(t)
	all := files(t)
	_, err := db.Exec(all[0].up)
	require.NoError(t, err)
	_, err = db.Exec(`INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('sample', 1, 'Mine')`)
	require.NoError(t, err)
	for _, m := range all[1:] {
		_, err := db.Exec(m.up)
		require.NoError(t, err, m.name)
	}
	var program string
	require.NoError(t, db.Get(&program, `SELECT program FROM ms_task_definition WHERE task_id = 'sample' AND task_seq = 1`))
	require.Equal(t, "Mine", program)
}

// The sample of a failure is one that register takes, unless somebody has made it theirs.
func TestUp_TheSampleOfAFailureFailsWhileItRuns(t *testing.T) {
	t.Parallel()
	const get = `SELECT parameters->>'SLEEP_TIME_SECOND' || coalesce(' ' || timeout::text, '') FROM ms_task_definition WHERE task_id = 'sample-fails' AND task_seq = 3`
	for changed, want := range map[string]string{"": "60 00:00:01", `{"SLEEP_TIME_SECOND": 2}`: "2"} {
		db := pgtest.Empty(t)
		for _, m := range files(t) {
			if strings.Contains(m.name, "takes_too_long") && changed != "" {
				_, err := db.Exec(`UPDATE ms_task_definition SET parameters = $1 WHERE task_id = 'sample-fails' AND task_seq = 3`, changed)
				require.NoError(t, err)
			}
			_, err := db.Exec(m.up)
			require.NoError(t, err, m.name)
		}
		var got string
		require.NoError(t, db.Get(&got, get))
		require.Equal(t, want, got)
	}
}

// What somebody else has made under our names is neither taken for ours nor changed: not the
// versions of another program that uses goose, nor the tables of the original.
func TestUp_WhatIsNotOurs(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ made, want string }{
		"another's versions": {
			`CREATE TABLE goose_db_version (id serial PRIMARY KEY, version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp DEFAULT now());
			 INSERT INTO goose_db_version (version_id, is_applied) SELECT v, true FROM generate_series(0, 99) v`,
			`schema "public": goose_db_version counts the migrations of another program`,
		},
		"tables of the original": {
			`CREATE TABLE kr_task_stat (task_flow_id varchar(256), task_exec_seq integer, exec_status integer);
			 INSERT INTO kr_task_stat VALUES ('f', 1, 3)`,
			`schema "public": kr_task_stat is there, and not of this Flower: move it away (CREATE SCHEMA old; ALTER TABLE kr_task_stat SET SCHEMA old)`,
		},
		"one of them": {
			`CREATE TABLE ms_task_definition (task_id varchar(256), task_seq integer, program varchar(256))`,
			`schema "public": ms_task_definition is there`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.Empty(t)
			_, err := db.ExecContext(t.Context(), c.made)
			require.NoError(t, err)
			before := catalogue(t, db)
			require.ErrorContains(t, migrations.Up(t.Context(), db.DB.DB, silent), c.want)
			same(t, before, catalogue(t, db), "nothing is changed")
		})
	}
}

// A server that was made in the locale C, as in a container, has databases that know of no
// characters. The schema got half-way there.
func TestUp_AnotherEncoding(t *testing.T) {
	t.Parallel()
	db := pgtest.Empty(t)
	_, err := db.ExecContext(t.Context(), `CREATE DATABASE `+db.Name+`_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0`)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, dropErr := db.ExecContext(context.WithoutCancel(t.Context()), `DROP DATABASE `+db.Name+`_ascii`)
		require.NoError(t, dropErr)
	})
	ascii, err := sql.Open("postgres", db.DSN+" dbname="+db.Name+"_ascii")
	require.NoError(t, err)
	require.ErrorContains(t, migrations.Up(t.Context(), ascii, silent), "the database's encoding is SQL_ASCII, and Flower needs UTF8")
	require.NoError(t, ascii.Close())
}
