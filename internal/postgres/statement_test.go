package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
)

// statement makes one of a task of its own, with arguments in JSON.
func statement(text string, args ...string) Statement {
	st := Statement{Task: flow.Task{TaskKey: flow.TaskKey{Flow: flow.ID(newID()), Seq: 1}}, Text: text}
	for _, a := range args {
		st.Args = append(st.Args, object(a))
	}
	return st
}

// answer is an output, decoded.
type answer struct {
	RowCount  int64                        `json:"row_count"`
	Rows      []map[string]json.RawMessage `json:"rows"`
	Truncated bool                         `json:"truncated"`
}

func decoded(t *testing.T, output json.RawMessage) answer {
	t.Helper()
	var a answer
	d := json.NewDecoder(bytes.NewReader(output))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(&a), string(output))
	require.NotNil(t, a.Rows, "an array, if an empty one")
	require.LessOrEqual(t, len(output), flow.MaxOutput)
	return a
}

// own prepares statements in Flower's own database.
func own(w *world) *Statements { return w.Statements("", 4) }

// answerOf runs a statement that succeeds.
func answerOf(t *testing.T, s *Statements, text string, args ...string) answer {
	t.Helper()
	output, err := s.Run(t.Context(), statement(text, args...))
	require.NoError(t, err, text)
	return decoded(t, output)
}

// errorOf runs a statement that fails.
func errorOf(t *testing.T, s *Statements, text string, args ...string) error {
	t.Helper()
	output, err := s.Run(t.Context(), statement(text, args...))
	require.Error(t, err, text)
	require.Nil(t, output)
	return err
}

// sessions counts those of tasks.
func sessions(t *testing.T, w *world) int {
	t.Helper()
	return value[int](t, w, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
	                         AND application_name LIKE 'flower %/%'`)
}

// awaitSleep waits until a statement with pg_sleep is well under way.
func awaitSleep(t *testing.T, w *world) {
	t.Helper()
	pgtest.Eventually(t, soon, "a statement sleeps", func() bool {
		return value[bool](t, w, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep')`)
	})
}

func awaitNoSession(t *testing.T, w *world) {
	t.Helper()
	pgtest.Eventually(t, soon, "no session of a task is left", func() bool { return sessions(t, w) == 0 })
}

// Values are what PostgreSQL itself makes of them.
func TestStatements_ValuesAreThoseOfToJSON(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := own(w)
	byHand(t, w, `CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN price AS numeric(12,2)`)
	for _, expression := range []string{
		`NULL::int`, `1`, `-9223372036854775808`, `1::int2`, `true`, `false`, `NULL::bool`,
		`1.10`, `123456789012345678901234567890.123456789`, `1e-20::numeric`, `'NaN'::numeric`, `'Infinity'::numeric`, `12.50::price`,
		`0.1::float4`, `0.1::float8`, `1e300::float8`, `'NaN'::float8`, `'-Infinity'::float8`, `'Infinity'::float4`,
		`'a "text" with \ <&> and ü'::text`, `'v'::varchar`, `'c'::char(3)`, `'n'::name`, `''::text`, `'x'::"char"`,
		`'\x00ff'::bytea`, `''::bytea`, `'6ee7ec66-0000-4000-8000-000000000000'::uuid`,
		`'2026-11-24 19:27:25.123456+02'::timestamptz`, `'2026-11-24 19:27:25'::timestamp`, `'2026-11-24'::date`,
		`'infinity'::timestamptz`, `'-infinity'::date`, `'12026-01-02'::date`,
		`'19:27:25.5'::time`, `'24:00'::time`, `'19:27:25+05:30'::timetz`, `'1 day 02:03:04'::interval`,
		`'{"b": [1, 2.50, null], "a": {"c": "d"}}'::jsonb`, `'[1]'::json`, `'null'::jsonb`, `'"s"'::jsonb`,
		`'{1,2,NULL}'::int[]`, `'{}'::int[]`, `'{"a b",c,NULL,"d\"e"}'::text[]`, `'{1.10,NaN}'::numeric[]`, `'{t,f}'::bool[]`,
		`ARRAY['{"a": 1}'::jsonb]`, `'{0.5}'::float8[]`, `'{2026-11-24}'::date[]`,
		`'sad'::mood`, `'[1,3)'::int4range`, `'10.0.0.0/8'::cidr`, `'101'::bit(3)`, `'(1,2)'::point`, `'<a/>'::xml`, `12::oid`, `'1.23'::money`,
	} {
		a := answerOf(t, s, `SELECT `+expression+` AS v`)
		want := value[string](t, w, `SELECT coalesce(to_json(`+expression+`), 'null')::text`)
		require.JSONEq(t, want, string(a.Rows[0]["v"]), expression)
		if want[0] != '{' && want[0] != '[' && want[0] != '"' {
			require.Equal(t, want, string(a.Rows[0]["v"]), "%s, with every digit", expression)
		}
	}
	// What to_json would take apart is text.
	for expression, want := range map[string]string{
		`'{{1,2},{3,4}}'::int[]`: `"{{1,2},{3,4}}"`,
		`ROW(1, 'a')`:            `"(1,a)"`,
		`'{sad}'::mood[]`:        `"{sad}"`,
		`pg_sleep(0)`:            `""`,
		`'19:27:25+02'::timetz`:  `"19:27:25+02:00"`,
	} {
		require.Equal(t, want, string(answerOf(t, s, `SELECT `+expression+` AS v`).Rows[0]["v"]), expression)
	}
}

func TestStatements_CountAndFirstRows(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := own(w)
	answerOf(t, s, `CREATE TABLE t (id int PRIMARY KEY, name text)`)
	count := func(text string, args ...string) int64 { t.Helper(); return answerOf(t, s, text, args...).RowCount }
	require.EqualValues(t, 3, count(`INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')`))
	require.EqualValues(t, 2, count(`UPDATE t SET name = name || '!' WHERE id < $1`, `3`))
	require.EqualValues(t, 1, count(`DELETE FROM t WHERE id = 3`))
	require.EqualValues(t, 0, count(`DELETE FROM t WHERE id = 3`))
	require.EqualValues(t, 0, count(`-- nothing`))
	require.EqualValues(t, 0, count(`VACUUM t`), "what cannot run in a transaction can run here")
	require.EqualValues(t, 5, count(`CREATE TABLE u AS SELECT * FROM generate_series(1, 5) n`))
	if value[int](t, w, `SELECT current_setting('server_version_num')::int`) >= 150000 { // MERGE is that young
		require.EqualValues(t, 2, count(`MERGE INTO t USING u ON t.id = u.n WHEN MATCHED THEN DO NOTHING WHEN NOT MATCHED AND n < 5 THEN INSERT VALUES (n, 'm')`))
	}
	require.EqualValues(t, 0, count(`DO $$ BEGIN PERFORM 1; END $$`))

	a := answerOf(t, s, `INSERT INTO t VALUES (9, 'x') RETURNING id, name`)
	require.EqualValues(t, 1, a.RowCount)
	require.Equal(t, []map[string]json.RawMessage{{"id": object(`9`), "name": object(`"x"`)}}, a.Rows)
	require.False(t, a.Truncated)
	require.Equal(t, `"on"`, string(answerOf(t, s, `SHOW standard_conforming_strings`).Rows[0]["standard_conforming_strings"]))

	a = answerOf(t, s, `SELECT n FROM generate_series(1, 100) n`)
	require.Len(t, a.Rows, 100)
	require.False(t, a.Truncated)
	a = answerOf(t, s, `SELECT n FROM generate_series(1, 100000) n`)
	require.EqualValues(t, 100_000, a.RowCount)
	require.Len(t, a.Rows, 100)
	require.Equal(t, "100", string(a.Rows[99]["n"]))
	require.True(t, a.Truncated)

	a = answerOf(t, s, `SELECT 1, 2, 3 AS x, 4 AS x`)
	require.Equal(t, []map[string]json.RawMessage{{"?column?": object(`1`), "?column?_2": object(`2`), "x": object(`3`), "x_2": object(`4`)}}, a.Rows)
	require.Equal(t, []map[string]json.RawMessage{{}}, answerOf(t, s, `SELECT`).Rows)
}

// What a statement did is done: its answer's size does not make it a failure.
func TestStatements_OutputHasItsLimit(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := own(w)
	for text, kept := range map[string]int{
		`SELECT repeat('x', 70000) AS v`:                                                0,
		`SELECT repeat('"', 33000) AS v`:                                                0, // escaped it is twice as long
		`SELECT repeat('<', 60000) AS v FROM generate_series(1, 3)`:                     1,
		`SELECT repeat('x', 1000) AS v FROM generate_series(1, 100)`:                    64,
		`SELECT CASE n WHEN 2 THEN repeat('x', 99999) END FROM generate_series(1, 3) n`: 1, // the first ones, not those that fit
	} {
		a := answerOf(t, s, text)
		require.Len(t, a.Rows, kept, text)
		require.True(t, a.Truncated)
		require.Greater(t, a.RowCount, int64(kept))
	}
	require.False(t, answerOf(t, s, `SELECT repeat('x', 65000) AS v`).Truncated)
}

func TestStatements_Arguments(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := own(w)
	for _, c := range []struct{ expression, arg, want string }{
		{`$1::int + 1`, `41`, `42`},
		{`$1::int + 1`, `"41"`, `42`},
		{`$1::numeric`, `123456789012345678901234567890.5`, `123456789012345678901234567890.5`},
		{`$1::float8`, `1e3`, `1000`},
		{`$1::bool`, `true`, `true`},
		{`NOT $1`, `false`, `true`},
		{`$1::text`, `null`, `null`},
		{`$1::text`, `"null"`, `"null"`},
		{`$1::text`, `"ü \" \\ \n"`, `"ü \" \\ \n"`},
		{`$1::text`, `""`, `""`},
		{`$1::text`, `7`, `"7"`},
		{`$1::jsonb`, `{"a": [1, null]}`, `{"a":[1,null]}`},
		{`$1::jsonb -> 0`, `[{"a": 1}]`, `{"a":1}`},
		{`$1::date`, `"2026-11-24"`, `"2026-11-24"`},
		{`2 = ANY (SELECT jsonb_array_elements_text($1::jsonb)::int)`, `[1, 2]`, `true`},
		{`decode($1, 'hex')`, `"00ff"`, `"\\x00ff"`},
	} {
		a := answerOf(t, s, `SELECT `+c.expression+` AS v`, c.arg)
		require.Equal(t, c.want, string(a.Rows[0]["v"]), "%s with %s", c.expression, c.arg)
	}
	require.Equal(t, `"3 b"`, string(answerOf(t, s, `SELECT $2::int || ' ' || $1 AS v`, `"b"`, `3`).Rows[0]["v"]))

	for text, args := range map[string][]string{
		`SELECT 1`:                {`1`},
		`SELECT $1::int`:          nil,
		`SELECT $1::int` + ` `:    {`1`, `2`},
		`SELECT $1::int, $3::int`: {`1`, `2`},
	} {
		err := errorOf(t, s, text, args...)
		if !strings.Contains(text, "$3") { // there the server minds that $2 has no type
			require.ErrorAs(t, err, new(*flow.InvalidError), text)
			require.ErrorContains(t, err, `parameter "args"`)
		}
	}
}

// Arguments are values, whatever they look like, and a text is one statement.
func TestStatements_NothingIsInjected(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := own(w)
	byHand(t, w, `CREATE TABLE kept (v text)`)
	for _, evil := range []string{
		`'; DROP TABLE kept; --`, `1); DROP TABLE kept; --`, `$$; DROP TABLE kept`, `\'; DROP TABLE kept; --`, "\\", `%s`, `$1`, `:v`, `?`,
		"\u2028'; DROP TABLE kept", strings.Repeat("'", 5000), "\xbf'; DROP TABLE kept; --",
	} {
		arg, err := json.Marshal(evil)
		require.NoError(t, err)
		var want string
		require.NoError(t, json.Unmarshal(arg, &want))
		answerOf(t, s, `INSERT INTO kept VALUES ($1)`, string(arg))
		require.Equal(t, want, value[string](t, w, `DELETE FROM kept RETURNING v`))
		require.ErrorContains(t, errorOf(t, s, `SELECT $1::int`, string(arg)), "22P02")
	}
	for _, several := range []string{`SELECT 1; DROP TABLE kept`, `DROP TABLE kept; DROP TABLE kept`, `INSERT INTO kept VALUES ('x'); COMMIT`} {
		err := errorOf(t, s, several)
		require.ErrorAs(t, err, new(*flow.InvalidError))
		require.ErrorContains(t, err, "multiple commands")
	}
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM kept`))

	// The flow's id goes into the connection's settings.
	for _, evil := range []flow.ID{`a' host='nowhere`, `\' host=nowhere \`, "a\nb host=nowhere", `' options='-c search_path=nowhere`, flow.ID(strings.Repeat("ü", 256))} {
		st := statement(`SELECT current_setting('search_path') AS v`)
		st.Task.Flow = evil
		output, err := s.Run(t.Context(), st)
		require.NoError(t, err, evil)
		require.NotContains(t, string(output), "nowhere")
	}
}

func TestStatements_Errors(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := own(w)
	byHand(t, w, `CREATE TABLE t (id int PRIMARY KEY, CONSTRAINT positive CHECK (id > 0)); INSERT INTO t VALUES (5);
		CREATE FUNCTION fails() RETURNS void LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION 'no such customer' USING ERRCODE = 'no_data_found', DETAIL = 'customer 7', HINT = 'Load them first.'; END $$`)
	for text, want := range map[string]string{
		`SELECT fails()`: "no such customer (SQLSTATE P0002)\nDETAIL: customer 7\nHINT: Load them first.\n" +
			"CONTEXT: PL/pgSQL function fails() line 2 at RAISE",
		`INSERT INTO t VALUES (5)`:                         `duplicate key value violates unique constraint "t_pkey" (SQLSTATE 23505)` + "\nDETAIL: Key (id)=(5) already exists.",
		"SELECT id,\n  nome\nFROM t":                       `column "nome" does not exist (SQLSTATE 42703)` + "\nAT: line 2, column 3:   nome",
		`SELECT id FORM t`:                                 `parameter "statement": syntax error at or near "t" (SQLSTATE 42601)` + "\nAT: line 1, column 16: SELECT id FORM t",
		`SELECT 'ü' + nome`:                                `column "nome" does not exist (SQLSTATE 42703)` + "\nAT: line 1, column 14: SELECT 'ü' + nome",
		`SELECT (1`:                                        `parameter "statement": syntax error at end of input (SQLSTATE 42601)` + "\nAT: line 1, column 10: SELECT (1",
		`SELECT 1/(id-5) FROM t`:                           `division by zero (SQLSTATE 22012)`,
		`SELECT 1 ` + strings.Repeat(" ", 3000) + `+ nome`: `column "nome" does not exist (SQLSTATE 42703)` + "\nAT: line 1, column 3012: …" + strings.Repeat(" ", 37) + `+ nome`,
	} {
		require.Equal(t, want, errorOf(t, s, text).Error())
	}
	for _, text := range []string{`COPY t FROM STDIN`, `COPY t TO STDOUT`, "/* c */ -- x\n copy t from stdin"} {
		err := errorOf(t, s, text)
		require.ErrorAs(t, err, new(*flow.InvalidError))
		require.ErrorContains(t, err, "COPY")
	}
	long := errorOf(t, s, `SELECT $1::uuid`, `"`+strings.Repeat("x", 40_000)+`"`).Error()
	require.Contains(t, long, "too long to be read")
	require.Less(t, len(long), 500)
	long = errorOf(t, s, `SELECT $1::uuid`, `"`+strings.Repeat("x", 20_000)+`"`).Error()
	require.Contains(t, long, "(SQLSTATE 22P02)")
	require.Less(t, len(long), 2000)
	require.EqualValues(t, 1, answerOf(t, s, `SELECT id FROM t`).RowCount)
}

func FuzzPosition(f *testing.F) {
	f.Add("SELECT 1\nFROM ü", 3)
	f.Add("", -1)
	f.Fuzz(func(t *testing.T, text string, n int) {
		shown := position(text, n)
		require.True(t, strings.HasPrefix(shown, "AT: "))
		require.LessOrEqual(t, len(shown), maxErrorPart+100)
	})
}

func TestStatements_NoticesAreToldAsTheyCome(t *testing.T) {
	t.Parallel()
	w := open(t)
	var said bytes.Buffer
	st := statement(`DO $$ BEGIN RAISE NOTICE 'half'; RAISE WARNING 'almost'; RAISE DEBUG 'no'; END $$`)
	st.Notices = &said
	_, err := own(w).Run(t.Context(), st)
	require.NoError(t, err)
	require.Equal(t, "NOTICE: half\nWARNING: almost\n", said.String())
}

// Whatever a statement does to its session ends with it.
func TestStatements_ASessionIsNobodyElses(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := w.Statements("", 1)
	byHand(t, w, `CREATE ROLE `+roleOf(w)+``)
	t.Cleanup(func() { _, _ = w.psql.Exec(`DROP ROLE ` + roleOf(w)) })
	for _, text := range []string{
		`COMMIT`, `ROLLBACK`, `BEGIN`, `SET ROLE ` + roleOf(w), `DISCARD ALL`, `SET search_path = nowhere`, `SET statement_timeout = 1`,
		`CREATE TEMP TABLE kr_task_stat (x int)`, `PREPARE p AS SELECT 1`, `LISTEN x`, `SELECT pg_advisory_lock(1)`,
		`SELECT set_config('session_replication_role', 'replica', false)`, `DECLARE c CURSOR WITH HOLD FOR SELECT 1`,
	} {
		answerOf(t, s, text)
		awaitNoSession(t, w)
		a := answerOf(t, s, `SELECT current_user = session_user AND current_setting('statement_timeout') = '0' AND current_setting('search_path') LIKE '%public%'
			AND current_setting('session_replication_role') = 'origin' AND NOT EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'p')
			AND pg_try_advisory_xact_lock(1) AND 'kr_task_stat'::regclass = 'public.kr_task_stat'::regclass AS ok`)
		require.Equal(t, "true", string(a.Rows[0]["ok"]), text)
		run(t, w) // the engine's connections are as they were
	}
	awaitNoSession(t, w)
}

func roleOf(w *world) string { return "r_" + w.psql.Name }

func TestStatements_RunAsARole(t *testing.T) {
	t.Parallel()
	w := open(t)
	role := roleOf(w)
	byHand(t, w, `CREATE ROLE `+role)
	t.Cleanup(func() {
		_, err := w.psql.Exec(`DROP OWNED BY ` + role + `; DROP ROLE ` + role)
		require.NoError(t, err)
	})
	byHand(t, w, `CREATE TABLE allowed (v int); GRANT ALL ON allowed TO `+role)
	s := w.Statements(role, 2)
	require.Equal(t, `"`+role+`"`, string(answerOf(t, s, `SELECT current_user`).Rows[0]["current_user"]))
	require.EqualValues(t, 1, answerOf(t, s, `INSERT INTO allowed VALUES (1)`).RowCount)
	require.ErrorContains(t, errorOf(t, s, `SELECT * FROM kr_task_stat`), "42501")

	// What the role may not do, the end of its task's transaction may.
	id := register(t, w, def())
	st := statement(`INSERT INTO allowed VALUES (2)`)
	st.Task, st.Transactional = claimOne(t, w), true
	_, err := s.Run(t.Context(), st)
	require.NoError(t, err)
	require.Equal(t, "3", statuses(t, w, id))
	id = register(t, w, def())
	st = statement(`DELETE FROM kr_task_stat`)
	st.Task, st.Transactional = claimOne(t, w), true
	_, err = s.Run(t.Context(), st)
	require.ErrorContains(t, err, "42501")
	require.Equal(t, "1", statuses(t, w, id))

	require.ErrorContains(t, errorOf(t, w.Statements("nobody_"+role, 1), `SELECT 1`), "-sql-role")
}

var errStop = errors.New("stop")

// stopped runs a statement, stops it once it is under way, and returns how long it took to
// end then.
func stopped(t *testing.T, w *world, s *Statements, st Statement, underWay func()) time.Duration {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	wait := async(func() error { _, err := s.Run(ctx, st); return err })
	underWay()
	begun := time.Now()
	cancel(errStop)
	require.Equal(t, errStop, wait())
	took := time.Since(begun)
	awaitNoSession(t, w)
	return took
}

func TestStatements_CancelEndsTheStatement(t *testing.T) {
	t.Parallel()
	w := open(t)
	active := func() {
		pgtest.Eventually(t, soon, "a statement runs", func() bool {
			return value[bool](t, w, `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'flower %/%'
			                         AND state = 'active' AND query LIKE ';%')`)
		})
	}
	byHand(t, w, `CREATE TABLE t (v int)`)
	for _, text := range []string{
		`INSERT INTO t SELECT 1 FROM pg_sleep(3600)`,
		`SELECT count(*) FROM generate_series(1, 1000000000000) n`,
		`SELECT n, pg_sleep(0.01) FROM generate_series(1, 1000000000) n`,
	} {
		took := stopped(t, w, own(w), statement(text), active)
		require.Less(t, took, afterCancel, "the server was asked to cancel it")
	}
	// A lock that somebody holds.
	tx := begin(t, w)
	mustExec(t, tx, `LOCK TABLE t`)
	stopped(t, w, own(w), statement(`INSERT INTO t VALUES (1)`), func() { awaitBlocked(t, w, 1) })
	require.NoError(t, tx.Rollback())
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM t`))
}

// A statement may ignore that it is cancelled. Without a connection it ends, too.
func TestStatements_CutsWhatIgnoresACancel(t *testing.T) {
	t.Parallel()
	w := open(t)
	byHand(t, w, `CREATE TABLE t (v int)`)
	stubborn := `DO $$ BEGIN INSERT INTO t VALUES (1); LOOP BEGIN PERFORM pg_sleep(3600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$`
	took := stopped(t, w, own(w), statement(stubborn), func() { awaitSleep(t, w) })
	require.GreaterOrEqual(t, took, afterCancel)
	require.Less(t, took, afterCancel+2*time.Second)
	require.Zero(t, value[int](t, w, `SELECT count(*) FROM t`))
}

// Whenever the cancel comes, before or after or between the messages of the protocol,
// the statement ends.
func TestStatements_CancelAtAnyMoment(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := w.Statements("", 8)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 15 {
				ctx, cancel := context.WithTimeoutCause(context.Background(), time.Duration(rand.IntN(15_000))*time.Microsecond, errStop)
				begun := time.Now()
				_, err := s.Run(ctx, statement(`SELECT pg_sleep($1)`, `3600`))
				cancel()
				if !errors.Is(err, errStop) || time.Since(begun) > afterCancel+2*time.Second {
					t.Errorf("%v after %s", err, time.Since(begun))
				}
			}
		})
	}
	all.Wait()
	awaitNoSession(t, w)
}

// A request to cancel that arrives before the statement does nothing: the server has begun
// nothing yet.
func TestStatements_ACancelThatComesTooEarly(t *testing.T) {
	t.Parallel()
	w := open(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	s, asked := own(w), make(chan struct{})
	s.dial = func(dialing context.Context, network, address string) (net.Conn, error) {
		c, err := netDialer.DialContext(dialing, network, address)
		if ctx.Err() != nil {
			return &onClose{c, sync.OnceFunc(func() { close(asked) })}, err
		}
		return &beforeWrite{c, []byte("3600"), func() {
			cancel(errStop)
			<-asked
		}}, err
	}
	begun := time.Now()
	_, err := s.Run(ctx, statement(`SELECT pg_sleep($1)`, `3600`))
	require.Equal(t, errStop, err)
	require.GreaterOrEqual(t, time.Since(begun), afterCancel)
	awaitNoSession(t, w) // the server has noticed that there is nobody
}

// beforeWrite calls f before it sends what has match in it.
type beforeWrite struct {
	net.Conn
	match []byte
	f     func()
}

func (c *beforeWrite) Write(p []byte) (int, error) {
	if bytes.Contains(p, c.match) {
		c.f()
	}
	return c.Conn.Write(p)
}

type onClose struct {
	net.Conn
	f func()
}

func (c *onClose) Close() error {
	defer c.f()
	return c.Conn.Close()
}

func TestStatements_AKilledSession(t *testing.T) {
	t.Parallel()
	w := open(t)
	wait := async(func() error { _, err := own(w).Run(background, statement(`SELECT pg_sleep(3600)`)); return err })
	awaitSleep(t, w)
	killSessions(t, w)
	require.ErrorContains(t, wait(), "the connection to the database was lost, and it is not known whether it took effect")
	awaitNoSession(t, w)
}

func killSessions(t *testing.T, w *world) {
	t.Helper()
	require.Equal(t, 1, value[int](t, w, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'flower %/%'`))
}

// Only so many sessions are open at a time; who waits can be stopped.
func TestStatements_HaveTheirSlots(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := w.Statements("", 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	wait := async(func() error { _, err := s.Run(ctx, statement(`SELECT pg_sleep(3600)`)); return err })
	awaitSleep(t, w)
	second, cancelSecond := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("no slot"))
	defer cancelSecond()
	_, err := s.Run(second, statement(`SELECT 1`))
	require.EqualError(t, err, "no slot")
	require.Equal(t, 1, sessions(t, w))
	cancel(errStop)
	require.Equal(t, errStop, wait())
	answerOf(t, s, `SELECT 1`)
}

// For its own database Flower waits, as everywhere; another one's absence is the task's
// failure. A password is never shown.
func TestStatements_WhenADatabaseIsAway(t *testing.T) {
	t.Parallel()
	w := open(t)
	s := own(w)
	tries := 0
	s.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if tries++; tries < 4 {
			return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
		}
		return netDialer.DialContext(ctx, network, address)
	}
	answerOf(t, s, `SELECT 1`)
	require.Equal(t, 4, tries)

	other, err := OpenStatements(Config{URL: "postgres://somebody:s3cret@127.0.0.1:1/s3cret"}, 1)
	require.NoError(t, err)
	err = errorOf(t, other, `SELECT 1`)
	require.ErrorContains(t, err, "connect: ")
	require.NotContains(t, err.Error(), "s3cret")

	there, err := OpenStatements(Config{URL: w.psql.URL}, 1)
	require.NoError(t, err)
	answerOf(t, there, `SELECT 1`)
	st := statement(`SELECT 1`)
	st.Transactional = true
	_, err = there.Run(t.Context(), st)
	require.ErrorContains(t, err, "only Flower's own database")

	for url, want := range map[string]string{"mysql://u:s3cret@h/d": "postgres://", "postgres://u:s3cret@h:port/d": "postgres://", "s3cret": "pairs"} {
		_, err := OpenStatements(Config{URL: url}, 1)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "s3cret")
	}
}
