package migrations_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/pgdev/pgtest"
	"github.com/d-tsuji/flower/migrations"
)

// withRoles is a database that has the roles, and a flow of each kind.
func withRoles(t *testing.T) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	require.NoError(t, migrations.Roles(t.Context(), db.DB.DB, silent))
	for _, statement := range []string{
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, parameters)
		 VALUES ('f', 1, 'sample', 1, 2, '{"password": "canary"}'), ('f', 2, 'sample', 2, 0, '{}')`,
		`INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq, exec_status, reason, pause)
		 VALUES ('asks', 1, 'sample', 1, 2, 'held', '{"ask": true}')`,
		`UPDATE kr_task_stat SET depends_task_exec_seq = 1 WHERE task_exec_seq = 2`,
	} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	return db
}

// as runs a statement as somebody who has logged in with a role, and takes it back.
func as(t *testing.T, db *pgtest.DB, role, statement string) error {
	t.Helper()
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	tx, err := conn.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback() }()
	_, err = tx.ExecContext(t.Context(), "SET LOCAL SESSION AUTHORIZATION "+role)
	require.NoError(t, err)
	if _, err = tx.ExecContext(t.Context(), statement); err != nil {
		return err
	}
	_, err = tx.ExecContext(t.Context(), "SET CONSTRAINTS ALL IMMEDIATE")
	return err
}

var everybody = []string{"flower_reader", "flower_operator", "flower_admin", "flower_register", "flower_watcher", "flower_nobody"}

// Who may do what; everybody who is not named may not.
var rights = map[string][]string{
	"SELECT * FROM v_flow":                                      everybody[:5],
	"SELECT * FROM v_task":                                      everybody[:5],
	"SELECT * FROM v_failed":                                    everybody[:5],
	"SELECT * FROM v_why_waiting":                               everybody[:5],
	"SELECT * FROM v_failure_group":                             everybody[:5],
	"SELECT * FROM v_invariant":                                 everybody[:5],
	"SELECT task_flow_id, exec_status, error FROM kr_task_stat": everybody[:5],
	"SELECT actor, note FROM kr_event":                          everybody[:5],
	"SELECT * FROM flower_plan('rerun', 'f')":                   everybody[:5],
	"SELECT max(version_id) FROM goose_db_version":              everybody[:5],

	"SELECT parameters FROM kr_task_stat":             everybody[1:5],
	"SELECT * FROM kr_task_stat":                      everybody[1:5],
	"SELECT output FROM kr_task_attempt":              everybody[1:5],
	"SELECT change FROM kr_event":                     everybody[1:5],
	"SELECT parameters FROM ms_task_definition":       everybody[1:5],
	"SELECT parameters FROM kr_flow":                  everybody[1:5],
	"TABLE kr_request":                                everybody[1:5],
	"SELECT pause FROM kr_task_stat":                  everybody[1:5],
	"SELECT depends_task_exec_seqs FROM kr_task_stat": everybody[:5],

	// What an operator does by hand, and with whose rights triggers write what belongs to it.
	"UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = 'f' AND exec_status = 2":             {"flower_operator", "flower_admin", "flower_register", "flower_watcher"},
	"UPDATE kr_task_stat SET exec_status = 9 WHERE task_exec_seq = 1":                                  {"flower_operator", "flower_admin", "flower_register", "flower_watcher"},
	"UPDATE kr_task_stat SET task_priority = 3, parameters = '{}'":                                     {"flower_operator", "flower_admin", "flower_register", "flower_watcher"},
	"UPDATE kr_task_stat SET exec_status = 2, reason = 'cancelled', error = 'x' WHERE exec_status = 0": {"flower_operator", "flower_admin", "flower_register", "flower_watcher"},
	"SELECT flower_rerun('f')":                       {"flower_operator", "flower_admin", "flower_register", "flower_watcher"},
	"SELECT flower_hold('f')":                        {"flower_operator", "flower_admin", "flower_register"},
	"SELECT flower_cancel('f')":                      {"flower_operator", "flower_admin", "flower_register"},
	"SELECT flower_skip('f', 1)":                     {"flower_operator", "flower_admin", "flower_register"},
	"SELECT flower_finish('f', 1)":                   {"flower_operator", "flower_admin", "flower_register"},
	"SELECT flower_requeue('f', 1)":                  {},
	"SELECT flower_approve('asks', 1)":               {"flower_operator", "flower_admin", "flower_register"},
	"SELECT flower_register('sample', '{\"a\": 1}')": {"flower_operator", "flower_admin", "flower_register"},

	"INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('x', 1, 'NoOp')": {"flower_admin", "flower_register"},
	"UPDATE ms_task_definition SET program = 'NoOp'":                                      {"flower_admin", "flower_register"},
	"DELETE FROM ms_task_definition":                                                      {"flower_admin", "flower_register"},
	"INSERT INTO ms_workflow (task_id, max_running_flows) VALUES ('sample', 1)":           {"flower_admin", "flower_register"},
	"DELETE FROM ms_workflow_version WHERE version < 7":                                   {"flower_admin", "flower_register"},
	"UPDATE ms_workflow_version SET applied_by = 'somebody else'":                         {},

	"INSERT INTO kr_flow (task_flow_id, task_id) VALUES ('y', 'x')":                                          {"flower_register", "flower_watcher"},
	"INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq) VALUES ('y', 1, 'sample', 1)": {"flower_register", "flower_watcher"},
	"UPDATE kr_flow SET replayed_ts = now()":                                                                 {"flower_register", "flower_watcher"},
	"UPDATE kr_flow SET registered_by = 'me'":                                                                {},
	"UPDATE kr_task_stat SET program = 'Command'":                                                            {"flower_watcher"},
	"UPDATE kr_task_stat SET attempt = attempt":                                                              {"flower_watcher"},
	"UPDATE kr_task_stat SET pause = NULL, run_after = NULL":                                                 {"flower_register", "flower_watcher"},
	"INSERT INTO kr_ready VALUES (0, now(), 'z', 1)":                                                         {"flower_register", "flower_watcher"},
	"DELETE FROM kr_ready":                                                                                   {"flower_watcher"},
	"DELETE FROM kr_watcher":                                                                                 {"flower_watcher"},
	"DELETE FROM kr_task_log":                                                                                {"flower_watcher"},
	"INSERT INTO kr_request (actor, idempotency_key, request) VALUES ('a', 'k', 'r')":                        {"flower_register"},

	// Nobody's: the record of who did what, and the protection of all this.
	"UPDATE kr_event SET actor = 'somebody else'":                   {},
	"DELETE FROM kr_event":                                          {},
	"TRUNCATE kr_event":                                             {},
	"INSERT INTO kr_event (task_flow_id) VALUES ('f')":              {},
	"DELETE FROM kr_task_stat":                                      {},
	"TRUNCATE kr_task_stat":                                         {},
	"DELETE FROM kr_flow":                                           {},
	"DELETE FROM kr_task_attempt":                                   {},
	"UPDATE goose_db_version SET version_id = 0":                    {},
	"CREATE TABLE mine (x int)":                                     {},
	"CREATE TEMP TABLE kr_event (x int)":                            {},
	"CREATE SCHEMA mine":                                            {},
	"CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'": {},
	"CREATE ROLE mine":                                              {},
	"ALTER TABLE kr_task_stat DISABLE TRIGGER kr_task_edited":       {},
	"SET session_replication_role = replica":                        {},
	"DROP TABLE kr_event":                                           {},
	"ALTER FUNCTION flower_task_edited() OWNER TO flower_operator":  {},
	"COPY (SELECT 1) TO PROGRAM 'true'":                             {},
	"COPY kr_task_stat (task_flow_id) FROM '/etc/passwd'":           {},
	"SELECT pg_read_file('/etc/passwd')":                            {},
	"SET ROLE flower_owner":                                         {},
	"LOCK TABLE kr_task_stat IN ACCESS EXCLUSIVE MODE NOWAIT":       {"flower_watcher"},
}

func TestRoles_SecI1_EachStatementAsEachRole(t *testing.T) {
	t.Parallel()
	db := withRoles(t)
	_, err := db.ExecContext(t.Context(), `DO $$ BEGIN CREATE ROLE flower_nobody; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$`)
	require.NoError(t, err)
	for statement, may := range rights {
		for _, role := range everybody {
			err := as(t, db, role, statement)
			if slices.Contains(may, role) {
				require.NoError(t, err, "%s: %s", role, statement)
				continue
			}
			require.Error(t, err, "%s: %s", role, statement)
			if role != "flower_nobody" { // to whom there is not even a schema
				require.Regexp(t, "permission denied|must be (owner|superuser|member)|must have (CREATEROLE|SUPERUSER|admin option)", err.Error(), "%s: %s", role, statement)
			}
		}
	}
}

// What an operator does has the same effect as if the owner had done it, and says who.
func TestRoles_SecI2_TriggersHaveTheOwnersRights(t *testing.T) {
	t.Parallel()
	db := withRoles(t)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	for _, statement := range []string{
		"SET SESSION AUTHORIZATION flower_operator",
		"UPDATE kr_task_stat SET exec_status = 0 WHERE task_flow_id = 'f' AND exec_status = 2",
		"SELECT flower_hold('f', 'a moment')",
		"RESET SESSION AUTHORIZATION",
	} {
		_, err := conn.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	var events []struct {
		Old, New int
		Actor    string
		Note     *string
	}
	require.NoError(t, db.SelectContext(t.Context(), &events, `SELECT old_status AS old, new_status AS new, actor, note FROM kr_event
		WHERE actor = 'flower_operator' ORDER BY event_id`))
	require.Len(t, events, 3)
	require.Equal(t, 2, events[0].Old)
	require.Equal(t, "a moment", *events[2].Note)
	var broken int
	require.NoError(t, db.GetContext(t.Context(), &broken, "SELECT count(*) FROM v_invariant"))
	require.Zero(t, broken)
}

// Of the functions that have the owner's rights: each looks in one schema and nowhere
// before it, its owner cannot log in, not everybody can call it, and none puts together
// statements from texts.
func TestRoles_SecI2_FunctionsWithTheOwnersRightsAreSafe(t *testing.T) {
	t.Parallel()
	db := withRoles(t)
	var functions []struct {
		Name, Path, Source string
		Login, Public      bool
	}
	require.NoError(t, db.SelectContext(t.Context(), &functions, `
		SELECT p.proname AS name, array_to_string(p.proconfig, ';') AS path, p.prosrc AS source, r.rolcanlogin AS login,
		       EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0) AS public
		FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef`))
	require.Greater(t, len(functions), 15)
	for _, f := range functions {
		require.Contains(t, f.Path, "search_path=public, pg_temp", f.Name)
		require.False(t, f.Login, f.Name)
		require.False(t, f.Public, f.Name)
		require.NotRegexp(t, `(?m)^\s*EXECUTE\b`, f.Source, f.Name)
	}
	var open []string
	require.NoError(t, db.SelectContext(t.Context(), &open, `
		SELECT relname::text FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee = 0 AND c.relnamespace = 'public'::regnamespace
		UNION ALL SELECT proname::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
		          WHERE a.grantee = 0 AND p.pronamespace = 'public'::regnamespace
		UNION ALL SELECT nspname::text FROM pg_namespace n, aclexplode(n.nspacl) a WHERE a.grantee = 0 AND n.nspname = 'public'
		UNION ALL SELECT datname::text FROM pg_database d, aclexplode(d.datacl) a WHERE a.grantee = 0 AND d.datname = current_database()`))
	require.Empty(t, open, "nothing is everybody's")
}

// A function for people is one with a comment: somebody among them can call it.
func TestRoles_PeopleCanCallWhatIsForThem(t *testing.T) {
	t.Parallel()
	db := withRoles(t)
	var out []string
	require.NoError(t, db.SelectContext(t.Context(), &out, `
		SELECT p.oid::regprocedure::text FROM pg_proc p
		WHERE  p.pronamespace = 'public'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NOT NULL
		AND    NOT has_function_privilege('flower_admin', p.oid, 'EXECUTE')`))
	require.Empty(t, out, "name them in roles.sql")
	require.NoError(t, db.SelectContext(t.Context(), &out, `
		SELECT table_name FROM information_schema.tables
		WHERE  table_schema = 'public' AND table_name NOT SIMILAR TO '(kr|ms|v|goose)\_%'`))
	require.Empty(t, out, "names say what a table is, to roles.sql too")
}

// It can be repeated, what a migration brings gets its rights, and without it nothing changes.
func TestRoles_Again(t *testing.T) {
	t.Parallel()
	db := withRoles(t)
	acl := func(db *pgtest.DB) string {
		var text string
		require.NoError(t, db.GetContext(t.Context(), &text, `SELECT string_agg(x, E'\n' ORDER BY x) FROM (
			SELECT concat_ws(' ', relname, relowner::regrole, relacl) AS x FROM pg_class WHERE relnamespace = 'public'::regnamespace
			UNION ALL SELECT concat_ws(' ', oid::regprocedure, proowner::regrole, proacl, prosecdef, proconfig) FROM pg_proc WHERE pronamespace = 'public'::regnamespace) a`))
		return text
	}
	first := acl(db)
	require.NoError(t, migrations.Roles(t.Context(), db.DB.DB, silent))
	require.Equal(t, first, acl(db))

	// As after a migration that replaced a function and made a view.
	latest, err := migrations.Latest()
	require.NoError(t, err)
	for _, statement := range []string{
		`CREATE OR REPLACE FUNCTION flower_lock_flow(flow varchar) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'`,
		`CREATE VIEW v_new AS SELECT 1 AS one`,
		fmt.Sprintf(`DELETE FROM goose_db_version WHERE version_id = %d`, latest),
	} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	require.Error(t, as(t, db, "flower_reader", "SELECT * FROM v_new"))
	require.NoError(t, migrations.Roles(t.Context(), db.DB.DB, silent))
	require.NoError(t, as(t, db, "flower_reader", "SELECT * FROM v_new"))

	plain := pgtest.New(t)
	before := acl(plain)
	require.NoError(t, migrations.Up(t.Context(), plain.DB.DB, silent))
	require.Equal(t, before, acl(plain))
}

// A process that was killed after the last migration, and before the roles had their rights
// to what that brought, leaves them to the next one.
func TestRoles_AreKeptByWhoeverMigratesNext(t *testing.T) {
	t.Parallel()
	db := withRoles(t)
	for _, statement := range []string{
		`CREATE VIEW v_new AS SELECT 1 AS one`,
		`COMMENT ON TABLE goose_db_version IS 'The roles have their rights as of version 1.'`,
	} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	require.NoError(t, migrations.Up(t.Context(), db.DB.DB, silent), "nothing to do but that")
	require.NoError(t, as(t, db, "flower_reader", "SELECT * FROM v_new"))

	_, err := db.ExecContext(t.Context(), `CREATE VIEW v_newer AS SELECT 1 AS one`)
	require.NoError(t, err)
	require.NoError(t, migrations.Up(t.Context(), db.DB.DB, silent))
	require.Error(t, as(t, db, "flower_reader", "SELECT * FROM v_newer"), "done once")
}

// An owner that is no superuser goes on as it was, and migrates: it is a member of the new
// one.
func TestRoles_TheOwnerSoFarGoesOn(t *testing.T) {
	t.Parallel()
	empty := pgtest.Empty(t)
	var name string
	require.NoError(t, empty.GetContext(t.Context(), &name, "SELECT current_database()"))
	owner := "owner_of_" + strings.ToLower(name)
	admin := func(statement string) {
		t.Helper()
		_, err := empty.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	admin(fmt.Sprintf("CREATE ROLE %s LOGIN CREATEROLE", owner))
	withRoles(t) // whichever test comes first: made by somebody else
	var since16 bool
	require.NoError(t, empty.GetContext(t.Context(), &since16, "SELECT current_setting('server_version_num')::int >= 160000"))
	if since16 { // as if it had made the role
		admin(fmt.Sprintf("GRANT flower_owner TO %s WITH ADMIN TRUE, INHERIT FALSE, SET FALSE", owner))
	}
	t.Cleanup(func() {
		_, err := empty.ExecContext(context.WithoutCancel(t.Context()), fmt.Sprintf("REASSIGN OWNED BY %[1]s TO CURRENT_USER; DROP OWNED BY %[1]s; DROP ROLE %[1]s", owner))
		require.NoError(t, err)
	})
	admin(fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", name, owner))
	admin(fmt.Sprintf("ALTER SCHEMA public OWNER TO %s", owner))
	db, err := sql.Open("postgres", strings.Replace(empty.DSN, "user=flower", "user="+owner, 1))
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	require.NoError(t, migrations.Up(t.Context(), db, silent))
	require.NoError(t, migrations.Roles(t.Context(), db, silent))
	require.NoError(t, migrations.Roles(t.Context(), db, silent))
	for _, statement := range []string{
		"INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, task_id, task_seq) VALUES ('f', 1, 'sample', 1)",
		"UPDATE kr_task_stat SET exec_status = 2",
		"ALTER TABLE kr_task_stat ADD COLUMN more int",
		"CREATE TABLE kr_more (x int)",
		"CREATE OR REPLACE FUNCTION flower_lock_flow(flow varchar) RETURNS void LANGUAGE plpgsql AS 'BEGIN END'",
		"DELETE FROM goose_db_version WHERE version_id = 0",
	} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err, statement)
	}
	require.NoError(t, migrations.Roles(t.Context(), db, silent))
	var foreign []string
	require.NoError(t, empty.SelectContext(t.Context(), &foreign, `SELECT relname::text FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relowner <> 'flower_owner'::regrole AND relkind IN ('r', 'v')`))
	require.Empty(t, foreign)
}
