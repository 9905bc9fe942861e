package postgres

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/d-tsuji/flower/internal/flow"
)

// versions returns a workflow's versions in their order: "1 2 3", a deletion as "3-".
func versions(t *testing.T, w *world, id flow.WorkflowID) string {
	t.Helper()
	return value[string](t, w, `SELECT coalesce(string_agg(version || CASE WHEN definition IS NULL THEN '-' ELSE '' END, ' ' ORDER BY version), '')
	                            FROM ms_workflow_version WHERE task_id = $1`, string(id))
}

// versionOf returns the version that a flow was registered with.
func versionOf(t *testing.T, w *world, id flow.ID) int {
	t.Helper()
	return value[int](t, w, `SELECT coalesce(workflow_version, 0) FROM kr_flow WHERE task_flow_id = $1`, string(id))
}

// numbered asserts that the highest version of every workflow is what the tables say, and
// that no change is left unrecorded.
func numbered(t *testing.T, w *world) {
	t.Helper()
	var wrong []string
	require.NoError(t, w.psql.Select(&wrong, `
		SELECT coalesce(v.task_id, d.task_id)
		FROM   (SELECT DISTINCT ON (task_id) task_id, definition, digest FROM ms_workflow_version ORDER BY task_id, version DESC) v
		FULL   JOIN (SELECT DISTINCT task_id FROM ms_task_definition) d ON d.task_id = v.task_id
		WHERE  v.definition IS DISTINCT FROM flower_definition(coalesce(v.task_id, d.task_id)) OR (v.definition IS NULL) <> (v.digest IS NULL)
		UNION ALL
		SELECT task_id FROM ms_workflow_change`))
	require.Empty(t, wrong)
}

func TestVersion_EveryChangeByHandMakesOne(t *testing.T) {
	t.Parallel()
	w := open(t)
	require.Equal(t, "1", versions(t, w, "sample"), "what was there before")
	for _, step := range []struct{ what, sql, want string }{
		{"insert", `INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('w', 1, 'NoOp'), ('w', 2, 'NoOp')`, "1"},
		{"update", `UPDATE ms_task_definition SET parameters = '{"A": null}' WHERE task_id = 'w' AND task_seq = 1`, "1 2"},
		{"nothing", `UPDATE ms_task_definition SET parameters = parameters, run_if = run_if WHERE task_id = 'w'`, "1 2"},
		{"null is a value", `UPDATE ms_task_definition SET parameters = '{}' WHERE task_id = 'w'`, "1 2 3"},
		{"limit", `INSERT INTO ms_workflow (task_id, max_running_flows) VALUES ('w', 1)`, "1 2 3 4"},
		{"another limit", `UPDATE ms_workflow SET max_running_flows = 2 WHERE task_id = 'w'`, "1 2 3 4 5"},
		{"no limit", `DELETE FROM ms_workflow WHERE task_id = 'w'`, "1 2 3 4 5 6"},
		{"upsert", `INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('w', 2, 'Test1'), ('w', 3, 'Test1')
		            ON CONFLICT (task_id, task_seq) DO UPDATE SET program = excluded.program`, "1 2 3 4 5 6 7"},
		{"another name", `UPDATE ms_task_definition SET task_id = 'x' WHERE task_id = 'w'`, "1 2 3 4 5 6 7 8-"},
		{"back", `UPDATE ms_task_definition SET task_id = 'w' WHERE task_id = 'x'`, "1 2 3 4 5 6 7 8- 9"},
		{"delete", `DELETE FROM ms_task_definition WHERE task_id = 'w'`, "1 2 3 4 5 6 7 8- 9 10-"},
		{"a limit alone", `INSERT INTO ms_workflow (task_id, max_running_flows) VALUES ('w', 1)`, "1 2 3 4 5 6 7 8- 9 10-"},
		{"again", `INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('w', 1, 'NoOp')`, "1 2 3 4 5 6 7 8- 9 10- 11"},
		{"no limits", `TRUNCATE ms_workflow`, "1 2 3 4 5 6 7 8- 9 10- 11 12"},
		{"all gone", `TRUNCATE ms_task_definition`, "1 2 3 4 5 6 7 8- 9 10- 11 12 13-"},
	} {
		byHand(t, w, step.sql)
		require.Equal(t, step.want, versions(t, w, "w"), step.what)
		numbered(t, w)
	}
	require.Equal(t, "1 2-", versions(t, w, "sample"))
	require.Equal(t, "1 2-", versions(t, w, "x"))
	require.True(t, value[bool](t, w, `SELECT a.digest = b.digest FROM ms_workflow_version a, ms_workflow_version b
		WHERE a.task_id = 'w' AND a.version = 1 AND b.task_id = 'w' AND b.version = 3`), "the same content")
}

func TestVersion_ATransactionMakesOne(t *testing.T) {
	t.Parallel()
	w := open(t)
	tx := begin(t, w)
	mustExec(t, tx, `SET LOCAL flower.reason = 'a try'`)
	for seq := range 100 {
		mustExec(t, tx, `INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('w', $1, 'NoOp')`, seq+1)
	}
	mustExec(t, tx, `SAVEPOINT s`)
	mustExec(t, tx, `DELETE FROM ms_task_definition WHERE task_id IN ('w', 'sample')`)
	mustExec(t, tx, `ROLLBACK TO s`)
	mustExec(t, tx, `DELETE FROM ms_task_definition WHERE task_id = 'w' AND task_seq > 2`)
	require.Empty(t, versions(t, w, "w"))
	require.NoError(t, tx.Commit())
	require.Equal(t, "1", versions(t, w, "w"))
	require.Equal(t, "1", versions(t, w, "sample"))
	require.Equal(t, "flower pgtest a try", value[string](t, w,
		`SELECT applied_by || ' ' || application || ' ' || note FROM ms_workflow_version WHERE task_id = 'w'`))

	tx = begin(t, w)
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'w'`)
	mustExec(t, tx, `SET CONSTRAINTS ALL IMMEDIATE`)
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test2' WHERE task_id = 'w'`)
	require.NoError(t, tx.Commit())
	require.Equal(t, "1 2 3", versions(t, w, "w"), "whoever wants them at once gets one for each statement")

	tx = begin(t, w)
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test3' WHERE task_id = 'w'`)
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test2' WHERE task_id = 'w'`)
	require.NoError(t, tx.Commit())
	require.Equal(t, "1 2 3", versions(t, w, "w"), "there and back")
	numbered(t, w)
}

func TestVersion_TwoPeopleAtOnce(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", chain(2)...)
	one, other := begin(t, w), begin(t, w)
	mustExec(t, one, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'w' AND task_seq = 1`)
	mustExec(t, other, `UPDATE ms_task_definition SET program = 'Test2' WHERE task_id = 'w' AND task_seq = 2`)
	// The first one is at its end, but for the commit.
	mustExec(t, one, `SET CONSTRAINTS ALL IMMEDIATE`)
	committed := async(other.Commit)
	awaitBlocked(t, w, 1)
	require.NoError(t, one.Commit())
	require.NoError(t, committed())
	require.Equal(t, "1 2 3", versions(t, w, "w"))
	require.Equal(t, "Test1 NoOp", value[string](t, w, `SELECT string_agg(x ->> 'program', ' ' ORDER BY x -> 'seq')
		FROM ms_workflow_version, jsonb_array_elements(definition -> 'tasks') x WHERE task_id = 'w' AND version = 2`))
	numbered(t, w)
}

func TestVersion_AFlowSaysWhichOneItRuns(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", chain(1)...)
	require.Equal(t, 1, versionOf(t, w, registerOf(t, w, "w")))
	byHand(t, w, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'w'`)
	require.Equal(t, 2, versionOf(t, w, registerOf(t, w, "w")))

	// Whoever is in the middle of an edit keeps nobody from registering what was there.
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test2' WHERE task_id = 'w'`)
	mustExec(t, tx, `SET CONSTRAINTS ALL IMMEDIATE`)
	id := registerOf(t, w, "w")
	require.Equal(t, 2, versionOf(t, w, id))
	require.Equal(t, "Test1", look(t, w, id, 1).Program)

	// By hand, also in the transaction that changes the definition.
	const insert = `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq) VALUES ($1, 1, 0, $2, 1)`
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test3' WHERE task_id = 'w'`)
	mustExec(t, tx, insert, "by hand", "w")
	require.NoError(t, tx.Commit())
	require.Equal(t, 4, versionOf(t, w, "by hand"))
	byHand(t, w, insert, "of nothing", "never heard of")
	require.Zero(t, versionOf(t, w, "of nothing"))
	byHand(t, w, `DELETE FROM ms_task_definition WHERE task_id = 'w'`)
	byHand(t, w, insert, "too late", "w")
	require.Zero(t, versionOf(t, w, "too late"))
	numbered(t, w)
}

// A flow that was deleted, and is put back, has the version that it had.
func TestVersion_OfAFlowThatIsPutBack(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", chain(1)...)
	first := registerOf(t, w, "w")
	byHand(t, w, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'w'`)
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq) VALUES ('by hand', 1, 0, 'w', 1)`)
	byHand(t, w, `DELETE FROM ms_task_definition WHERE task_id = 'w'`)
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq) VALUES ('too late', 1, 0, 'w', 1)`)
	define(t, w, "w", chain(2)...)
	mustExec(t, w.psql, `CREATE TABLE copy AS SELECT * FROM kr_task_stat`)
	byHand(t, w, `DELETE FROM kr_task_stat`)
	byHand(t, w, `INSERT INTO kr_task_stat SELECT * FROM copy`)
	require.Equal(t, 1, versionOf(t, w, first))
	require.Equal(t, 2, versionOf(t, w, "by hand"))
	require.Zero(t, versionOf(t, w, "too late"))

	// A time of long ago, given to new rows, makes no copy of them.
	byHand(t, w, `INSERT INTO kr_task_stat (task_flow_id, task_exec_seq, depends_task_exec_seq, task_id, task_seq, registered_ts)
		VALUES ('urgent', 1, 0, 'w', 1, '2020-01-01Z')`)
	require.Equal(t, 4, versionOf(t, w, "urgent"))
}

// At psql, too, a flow is of the version that was read, though there is another one by the
// time that it is written.
func TestVersion_EditedWhileAFlowIsRegistered(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", chain(1)...)
	// Between the two it sorts the tasks: here that waits.
	byHand(t, w, `ALTER FUNCTION flower_topological(integer, integer[], integer[]) RENAME TO flower_sorted`)
	byHand(t, w, `CREATE FUNCTION flower_topological(n integer, parents integer[], children integer[]) RETURNS integer[] LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN flower_sorted(n, parents, children); END $$`)
	gate := begin(t, w)
	mustExec(t, gate, `SELECT pg_advisory_xact_lock(4711)`)
	var id flow.ID
	registered := async(func() (err error) {
		id, err = registerAtPsql(t, w, flow.Registration{WorkflowID: "w"})
		return err
	})
	awaitBlocked(t, w, 1)
	byHand(t, w, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'w'`)
	require.NoError(t, gate.Commit())
	require.NoError(t, registered())
	require.Equal(t, "NoOp", look(t, w, id, 1).Program)
	require.Equal(t, 1, versionOf(t, w, id))

	tx := begin(t, w)
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test2' WHERE task_id = 'w'`)
	require.NoError(t, tx.Get(&id, `SELECT flower_register('w')`))
	require.NoError(t, tx.Commit())
	require.Equal(t, "Test2", look(t, w, id, 1).Program)
	require.Equal(t, 3, versionOf(t, w, id), "of what its own transaction has changed")
	numbered(t, w)
}

// What has stood in a definition can be made to be gone; the present one stays, and numbers
// are never given twice.
func TestVersion_OldOnesCanBeDeleted(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "w", chain(1)...)
	id := registerOf(t, w, "w")
	for _, program := range []string{"Test1", "Test2"} {
		byHand(t, w, `UPDATE ms_task_definition SET program = $1 WHERE task_id = 'w'`, program)
	}
	byHand(t, w, `DELETE FROM ms_workflow_version WHERE task_id = 'w' AND version = 2`)
	require.Equal(t, "1 3", versions(t, w, "w"))
	byHand(t, w, `DELETE FROM ms_workflow_version`)
	require.Equal(t, "3", versions(t, w, "w"))
	require.Equal(t, "1", versions(t, w, "sample"))
	_, err := w.psql.Exec(`TRUNCATE ms_workflow_version`)
	require.ErrorContains(t, err, "stays")
	require.Equal(t, 1, versionOf(t, w, id))
	list, err := w.DefinitionVersions(t.Context(), "w", 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 1)

	byHand(t, w, `DELETE FROM ms_task_definition WHERE task_id = 'w'`)
	byHand(t, w, `DELETE FROM ms_workflow_version`)
	require.Equal(t, "4-", versions(t, w, "w"))
	numbered(t, w)
}

// Whatever people do, in whatever transactions.
func TestVersion_RandomEdits(t *testing.T) {
	t.Parallel()
	w := open(t)
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(items ...string) string { return items[random.IntN(len(items))] }
	edit := func() string {
		table, id := pick("ms_task_definition", "ms_task_definition", "ms_workflow"), pick("a", "b", "sample")
		switch kind := random.IntN(8); {
		case kind < 3 && table == "ms_workflow":
			return fmt.Sprintf(`INSERT INTO ms_workflow (task_id, max_running_tasks) VALUES ('%s', %d)
			                    ON CONFLICT (task_id) DO UPDATE SET max_running_tasks = excluded.max_running_tasks`, id, 1+random.IntN(3))
		case kind < 3:
			return fmt.Sprintf(`INSERT INTO ms_task_definition (task_id, task_seq, program) VALUES ('%s', %d, '%s')
			                    ON CONFLICT (task_id, task_seq) DO UPDATE SET program = excluded.program`, id, 1+random.IntN(3), pick("P", "Q"))
		case kind < 6 && table == "ms_workflow":
			return fmt.Sprintf(`UPDATE ms_workflow SET description = '%s' WHERE task_id = '%s'`, pick("x", "y"), id)
		case kind < 6:
			return fmt.Sprintf(`UPDATE ms_task_definition SET task_priority = %d WHERE task_id = '%s'`, random.IntN(3), id)
		case kind < 7 || random.IntN(4) > 0:
			return fmt.Sprintf(`DELETE FROM %s WHERE task_id = '%s'`, table, id)
		}
		return "TRUNCATE " + table
	}
	for range 60 {
		tx := begin(t, w)
		var done []string
		for range 1 + random.IntN(4) {
			sql := edit()
			if random.IntN(4) == 0 {
				sql = "SAVEPOINT s; " + sql + pick("; ROLLBACK TO s", "; RELEASE s")
			}
			done = append(done, sql)
			mustExec(t, tx, sql)
		}
		require.NoError(t, tx.Commit())
		t.Log(strings.Join(done, "\n"))
		numbered(t, w)
	}
}

// Columns that the versions lack would change without a new version.
func TestVersion_HasEveryColumn(t *testing.T) {
	t.Parallel()
	w := open(t)
	byHand(t, w, `INSERT INTO ms_workflow (task_id) VALUES ('sample')`)
	var columns []struct {
		Table  string `db:"table_name"`
		Column string `db:"column_name"`
	}
	require.NoError(t, w.psql.Select(&columns, `SELECT table_name, column_name FROM information_schema.columns
		WHERE table_schema = 'public' AND table_name IN ('ms_task_definition', 'ms_workflow') AND column_name NOT IN ('task_id', 'task_seq')`))
	require.Greater(t, len(columns), 10)
	values := map[string]string{
		"parameters": `'{"A": 1}'`, "depends_task_seqs": `'{}'`, "retry_delay": `'1.5 s'`, "timeout": `'1 min'`, "on_lost": `'suspend'`,
		"max_attempts": "7", "task_priority": "7", "max_running_flows": "7", "max_running_tasks": "7",
	}
	for n, c := range columns {
		v, ok := values[c.Column]
		if !ok {
			v = "'x'"
		}
		byHand(t, w, fmt.Sprintf(`UPDATE %s SET %s = %s WHERE task_id = 'sample'`, c.Table, c.Column, v))
		require.Equal(t, n+2, value[int](t, w, `SELECT max(version) FROM ms_workflow_version WHERE task_id = 'sample'`), c.Column)
	}
	// What it says is what is read of it.
	all, err := w.Definitions(t.Context(), []flow.WorkflowID{"sample", "no such"})
	require.NoError(t, err)
	require.Len(t, all, 1)
	whole := all["sample"]
	read, err := w.readPlans(t.Context(), []flow.WorkflowID{"sample"})
	require.NoError(t, err)
	require.True(t, whole.Equal(flow.Definition{
		Workflow: read[0].workflow, Description: "x", MaxRunningFlows: 7, MaxRunningTasks: 7,
	}))
	require.Equal(t, read[0].workflow.Version, whole.Version)
}

func TestDefinitionVersions_LatestFirst(t *testing.T) {
	t.Parallel()
	w := open(t)
	_, err := w.DefinitionVersions(t.Context(), "w", 0, 10)
	require.ErrorIs(t, err, flow.ErrNotFound)
	define(t, w, "w", chain(1)...)
	byHand(t, w, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'w'`)
	byHand(t, w, `DELETE FROM ms_task_definition WHERE task_id = 'w'`)

	got, err := w.DefinitionVersions(t.Context(), "w", 0, 2)
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, []int{3, 2}, []int{got[0].Version, got[1].Version})
	require.Nil(t, got[0].Definition)
	require.Equal(t, "Test1", got[1].Definition.Tasks[0].Program)
	require.Equal(t, "flower", got[1].AppliedBy)
	require.Len(t, got[1].Digest, 64)
	require.False(t, got[1].AppliedAt.IsZero())

	got, err = w.DefinitionVersions(t.Context(), "w", 2, 10)
	require.NoError(t, err)
	require.Len(t, got, 1)
	got, err = w.DefinitionVersions(t.Context(), "w", 1, 10)
	require.NoError(t, err)
	require.Empty(t, got)
}

// Whoever has changed a definition, and registers it before committing, keeps nobody from
// changing others.
func TestVersion_OfOthersMeanwhile(t *testing.T) {
	t.Parallel()
	w := open(t)
	define(t, w, "mine", chain(1)...)
	tx := begin(t, w)
	mustExec(t, tx, `UPDATE ms_task_definition SET program = 'Test1' WHERE task_id = 'mine'`)
	mustExec(t, tx, `SELECT flower_register('mine')`)
	define(t, w, "others", chain(1)...)
	changed := async(func() error {
		_, err := w.psql.Exec(`UPDATE ms_task_definition SET program = 'Test2' WHERE task_id = 'mine' AND task_seq = 1`)
		return err
	})
	awaitBlocked(t, w, 1)
	require.NoError(t, tx.Commit())
	require.NoError(t, changed())
	require.Equal(t, 3, versionOf(t, w, registerOf(t, w, "mine")))
	numbered(t, w)
}
