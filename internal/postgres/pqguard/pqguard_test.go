package pqguard

import (
	"database/sql"
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// database/sql asks a driver what it can do by type assertions. The guard must answer as
// lib/pq does, or database/sql takes another way.
func TestWrap_HidesNothing(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Empty(t).DSN
	plain, err := pq.NewConnector(dsn)
	require.NoError(t, err)
	all := map[string][]bool{}
	for _, c := range []driver.Connector{plain, Wrap(plain)} {
		conn, err := c.Connect(t.Context())
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		all["connection"] = append(all["connection"], is[driver.ConnBeginTx](conn), is[driver.ConnPrepareContext](conn),
			is[driver.ExecerContext](conn), is[driver.NamedValueChecker](conn), is[driver.Pinger](conn),
			is[driver.QueryerContext](conn), is[driver.SessionResetter](conn), is[driver.Validator](conn))

		stmt, err := conn.(driver.ConnPrepareContext).PrepareContext(t.Context(), "SELECT 1")
		require.NoError(t, err)
		all["statement"] = append(all["statement"], is[driver.StmtExecContext](stmt), is[driver.StmtQueryContext](stmt),
			is[driver.NamedValueChecker](stmt), is[driver.ColumnConverter](stmt)) //nolint:staticcheck // deprecated, and still asked for
		require.NoError(t, stmt.Close())

		rows, err := conn.(driver.QueryerContext).QueryContext(t.Context(), "SELECT 1", nil)
		require.NoError(t, err)
		all["rows"] = append(all["rows"], is[driver.RowsNextResultSet](rows), is[driver.RowsColumnTypeScanType](rows),
			is[driver.RowsColumnTypeDatabaseTypeName](rows), is[driver.RowsColumnTypeLength](rows),
			is[driver.RowsColumnTypeNullable](rows), is[driver.RowsColumnTypePrecisionScale](rows),
			is[interface{ Result() driver.Result }](rows), is[interface{ Tag() string }](rows))
		require.NoError(t, rows.Close())
	}
	for what, can := range all {
		half := len(can) / 2
		require.Equal(t, can[:half], can[half:], what)
		require.Contains(t, can, true, what)
	}
}

func is[T any](v any) bool {
	_, ok := v.(T)
	return ok
}

func TestWrap_ColumnTypes(t *testing.T) {
	t.Parallel()
	dsn := pgtest.Empty(t).DSN
	type column struct {
		Name, Type, Scan         string
		Length, Precision, Scale int64
	}
	describe := func(wrap wrapper) (all []column) {
		rows, err := open(t, dsn, nil, wrap).QueryContext(t.Context(),
			"SELECT 1::bigint AS a, 'x'::varchar(7) AS b, 1.5::numeric(10, 2) AS c, now() AS d, '{}'::jsonb AS e, '{1}'::int[] AS f")
		require.NoError(t, err)
		defer func() { _ = rows.Close() }()
		types, err := rows.ColumnTypes()
		require.NoError(t, err)
		for _, ct := range types {
			c := column{Name: ct.Name(), Type: ct.DatabaseTypeName(), Scan: ct.ScanType().String()}
			c.Length, _ = ct.Length()
			c.Precision, c.Scale, _ = ct.DecimalSize()
			all = append(all, c)
		}
		require.NoError(t, rows.Err())
		return all
	}
	guarded := describe(Wrap)
	require.Equal(t, describe(raw), guarded)
	require.Equal(t, column{"a", "INT8", "int64", 0, 0, 0}, guarded[0])
	require.Equal(t, column{"b", "VARCHAR", "string", 7, 0, 0}, guarded[1])
	require.Equal(t, column{"c", "NUMERIC", "interface {}", 0, 10, 2}, guarded[2])
}

func TestWrap_TwoResultSets(t *testing.T) {
	t.Parallel()
	db := open(t, pgtest.Empty(t).DSN, nil, Wrap)
	rows, err := db.QueryContext(t.Context(), "SELECT 1; SELECT 'a' UNION ALL SELECT 'b'")
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	var n int
	require.True(t, rows.Next())
	require.NoError(t, rows.Scan(&n))
	require.False(t, rows.Next())

	require.True(t, rows.NextResultSet())
	var texts []string
	for rows.Next() {
		var s string
		require.NoError(t, rows.Scan(&s))
		texts = append(texts, s)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, 1, n)
	require.Equal(t, []string{"a", "b"}, texts)
	require.False(t, rows.NextResultSet())
	requireAnswer(t, db)
}

func TestWrap_Arrays(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{pgtest.Empty(t).DSN, pgtest.Empty(t).DSN + binaryParameters} {
		db := open(t, dsn, nil, Wrap)
		given := []string{"a", `with "quotes", commas and \`, ""}
		for _, arg := range []any{given, pq.Array(given)} { // lib/pq takes slices, too: it has a say about arguments
			var got []string
			require.NoError(t, db.QueryRowContext(t.Context(), "SELECT $1::text[]", arg).Scan(pq.Array(&got)))
			require.Equal(t, given, got)
		}
		stmt, err := db.PrepareContext(t.Context(), "SELECT array_length($1::bigint[], 1)")
		require.NoError(t, err)
		defer func() { _ = stmt.Close() }()
		var n int
		require.NoError(t, stmt.QueryRowContext(t.Context(), []int64{1, 2, 3}).Scan(&n))
		require.Equal(t, 3, n)
	}
}

func TestWrap_Copy(t *testing.T) {
	t.Parallel()
	look := pgtest.Empty(t)
	look.MustExec("CREATE TABLE copied (n int, s text)")
	db := open(t, look.DSN, nil, Wrap)
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	stmt, err := tx.PrepareContext(t.Context(), "COPY copied (n, s) FROM STDIN")
	require.NoError(t, err)
	defer func() { _ = stmt.Close() }()
	for i := range 1000 {
		_, err = stmt.ExecContext(t.Context(), i, strings.Repeat("s", i))
		require.NoError(t, err)
	}
	_, err = stmt.ExecContext(t.Context())
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	var n, length int
	require.NoError(t, look.QueryRow("SELECT count(*), sum(length(s)) FROM copied").Scan(&n, &length))
	require.Equal(t, 1000, n)
	require.Equal(t, 499_500, length)
}

// Errors of an ordinary length are none of the guard's business: the connection stays, in
// a transaction as well.
func TestWrap_LeavesOthersAlone(t *testing.T) {
	t.Parallel()
	db := open(t, pgtest.Empty(t).DSN, nil, Wrap)
	backend := func() (pid int) {
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
		return pid
	}
	before := backend()
	_, err := db.ExecContext(t.Context(), "SELECT $1::uuid", strings.Repeat("x", 20_000))
	require.ErrorContains(t, err, "invalid input syntax for type uuid")
	require.NoError(t, inTx(t.Context(), db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), "SAVEPOINT here")
		require.NoError(t, err)
		_, err = tx.ExecContext(t.Context(), "DO $$ BEGIN RAISE 'server error: so it seems'; END $$")
		require.ErrorContains(t, err, "pq: server error: so it seems")
		_, err = tx.ExecContext(t.Context(), "ROLLBACK TO here")
		require.NoError(t, err)
		return tx.Commit()
	}))
	require.Equal(t, before, backend())
}

// A notice handler goes inside the guard.
func TestWrap_AroundANoticeHandler(t *testing.T) {
	t.Parallel()
	plain, err := pq.NewConnector(pgtest.Empty(t).DSN)
	require.NoError(t, err)
	notices := make(chan string, 1)
	db := sql.OpenDB(Wrap(pq.ConnectorWithNoticeHandler(plain, func(e *pq.Error) { notices <- e.Message })))
	defer db.Close()
	_, err = db.ExecContext(t.Context(), "DO $$ BEGIN RAISE NOTICE 'hear'; END $$")
	require.NoError(t, err)
	require.Equal(t, "hear", <-notices)
}
